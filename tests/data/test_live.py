"""Streams that happen now: their clock, broken connections, and what is no stream."""

from __future__ import annotations

import io
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import numpy as np
import pytest

from alphaaction_d2.data.video import VideoError, VideoWriter, hearing_warnings, live
from alphaaction_d2.data.video.live import LiveStream, source_name, without_password

FPS = 20


def transport_stream(seconds: float, size: tuple[int, int] = (64, 48)) -> bytes:
    """MPEG-TS as a camera sends it, each frame as bright as its number."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as container:
        options = {"preset": "ultrafast", "tune": "zerolatency"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(round(seconds * FPS)):
            picture = np.full((size[1], size[0], 3), number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.fixture
def serve():
    """Serves contents, one a connection and then 404, on the loopback; gives the address."""
    servers = []

    def start(*contents: bytes) -> str:
        waiting = list(contents)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                if not waiting:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "video/mp2t")
                self.end_headers()  # without a length, as streams are
                self.wfile.write(waiting.pop(0))

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/camera"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_generated_pictures_come_at_their_own_speed():
    begin = time.monotonic()
    frames = list(LiveStream("lavfi:testsrc2=size=64x48:rate=20:duration=1"))
    assert 0.9 < time.monotonic() - begin < 3
    assert [round(seconds * 20) for seconds, _ in frames] == list(range(20))
    assert {frame.shape for _, frame in frames} == {(48, 64, 3)}


def test_a_file_begins_at_0_and_ends(tmp_path):
    with VideoWriter(tmp_path / "film.mp4", 10, 32, 32) as writer:
        for _ in range(5):
            writer.write(np.zeros((32, 32, 3), np.uint8))
    (tmp_path / "frames.yaml").write_text("start: 900\n")
    stream = LiveStream(str(tmp_path / "film.mp4"))
    assert stream.name == "film"
    np.testing.assert_allclose([seconds for seconds, _ in stream], np.arange(5) / 10, atol=1e-6)


def test_a_lost_connection_is_tried_again_and_time_goes_on(serve, monkeypatch):
    monkeypatch.setattr(live, "_FIRST_WAIT", 0.3)
    address = serve(transport_stream(1), transport_stream(1, size=(32, 24)))
    stream, told = LiveStream(address), []
    with hearing_warnings(lambda where, what: told.append(what)):
        frames = []
        for seconds, frame in stream:
            frames.append((seconds, frame))
            if len(frames) == 2 * FPS:
                stream.stop()
    times = np.array([seconds for seconds, _ in frames])
    assert len(frames) == 2 * FPS and (np.diff(times) > 0).all()
    gap = times[FPS] - times[FPS - 1]
    assert stream.lost_seconds == pytest.approx(gap)
    np.testing.assert_allclose(np.delete(np.diff(times), FPS - 1), 1 / FPS, atol=1e-3)
    assert {frame.shape for _, frame in frames} == {(48, 64, 3)}  # whatever the camera does
    assert any("lost" in what for what in told)


def test_waiting_gets_longer_until_somebody_stops_it(serve, monkeypatch):
    monkeypatch.setattr(live, "_FIRST_WAIT", 0.05)
    monkeypatch.setattr(live, "_LONGEST_WAIT", 0.2)
    stream, told = LiveStream(serve(transport_stream(0.5))), []

    def listen(where: str, what: str) -> None:
        told.append(what)
        if len(told) == 5:
            stream.stop()

    with hearing_warnings(listen):
        assert len(list(stream)) == FPS // 2
    waits = [what.split("next try in ")[1] for what in told[1:]]
    assert waits == ["0.1 s", "0.2 s", "0.2 s", "0.2 s"]
    assert "404" in told[1] or "Not Found" in told[1]


@pytest.mark.parametrize(
    "source, message",
    [
        ("http://127.0.0.1:9/x", "http://127.0.0.1:9/x: cannot be opened"),
        ("rtsp://me:secret@127.0.0.1:9/x?token=1", r"rtsp://127.0.0.1:9/x: cannot be opened"),
        ("ftp://host/film.mp4", "ftp:// is not read: give rtsp"),
        ("nowhere.mp4", "nowhere.mp4: no such file"),
        ("97", "camera 97: gives no pictures"),
        ("lavfi:nonsense", "nonsense: cannot be opened"),
    ],
)
def test_what_is_no_source_is_told_at_once(source, message, capfd):
    with pytest.raises(VideoError, match=message) as caught:
        LiveStream(source)
    assert capfd.readouterr().err == ""  # libraries say nothing besides
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_screen_is_grabbed_again_and_again(monkeypatch):
    grabbed = iter(range(100))
    monkeypatch.setattr(live, "_grab_screen", lambda: np.full((4, 6, 3), next(grabbed), np.uint8))
    stream = LiveStream("screen")
    frames = [frame for (_, frame), _ in zip(stream, range(3))]
    assert [int(frame[0, 0, 0]) for frame in frames] == [0, 1, 2]


def test_a_screen_that_is_not_there(monkeypatch):
    def grab():
        raise OSError("X connection failed")

    monkeypatch.setattr(live.ImageGrab, "grab", grab)
    with pytest.raises(VideoError, match="is there a display"):
        LiveStream("screen")


def test_names():
    assert source_name("0") == "camera 0"
    assert source_name("/dev/video2") == "camera 2"
    assert source_name("rtsp://a:b@host/one") == "rtsp://host/one"
    assert without_password("http://host/x?key=1") == "http://host/x"
