"""Times of files that have none of their own, or a clock that jumps; `start` of files."""

from __future__ import annotations

import logging
import os
import shutil
import struct
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from alphaaction_d2.data.clip_sampling import iterate_clips
from alphaaction_d2.data.video import (
    VIDEO_SUFFIXES,
    VideoError,
    VideoReader,
    VideoWriter,
    iterate_frames,
    probe_video,
)
from alphaaction_d2.data.video.file import _FrameClock
from alphaaction_d2.data.video.source import checked_stream
from tests.data.video.test_awkward_videos import remux, shift
from tests.data.video.test_reader import FPS, assert_reads_like_decoding, encode, index_of, read_all
from tests.helpers import read

# ---- raw streams ----

RAW = {
    "b-frames.h264": ("libx264", {}),
    "plain.264": ("libx264", {"bf": "0"}),
    "fields.h264": ("libx264", {"x264-params": "tff=1:interlaced=1"}),
    "plain.m4v": ("mpeg4", {}),
    "b-frames.m4v": ("mpeg4", {"bf": "2"}),
}
UNTIMED = {"plain.mjpeg": ("mjpeg", {"strict": "-1"})}


def encode_raw(
    path: Path, codec: str, options: dict, rate: Fraction | int, count: int = 45
) -> Path:
    kind = {".264": "h264"}.get(path.suffix, path.suffix[1:])
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(45):
            image = np.full((48, 64, 3), 5 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("rate", [30, 12, Fraction(30000, 1001)])
@pytest.mark.parametrize("name", RAW)
def test_raw_streams_have_the_rate_that_they_tell(tmp_path, caplog, name, rate):
    path = encode_raw(tmp_path / name, *RAW[name], rate)
    times, _ = assert_reads_like_decoding(path, np.random.default_rng(0), num_reads=3)
    np.testing.assert_allclose(times, np.arange(45) / float(rate), atol=1e-9)
    info = probe_video(path)
    assert info.average_fps == pytest.approx(float(rate)) and info.duration is None
    assert path.suffix in VIDEO_SUFFIXES and caplog.text == ""


def test_a_rate_that_nothing_tells_is_assumed_and_can_be_given(tmp_path, caplog):
    path = encode_raw(tmp_path / "plain.mjpeg", *UNTIMED["plain.mjpeg"], 30)
    for _ in range(3):
        times, _ = read_all(path)
    np.testing.assert_allclose(times, np.arange(45) / 25)
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith(f"{path}: no times in the file, 25 frames a second assumed")
    assert "'fps: NUMBER' in a file frames.yaml beside it" in message
    caplog.clear()
    (tmp_path / "frames.yaml").write_text("fps: 30000/1001\nstart: 10")
    times, _ = assert_reads_like_decoding(path, np.random.default_rng(0), num_reads=3)
    np.testing.assert_allclose(times, 10 + np.arange(45) * 1001 / 30000)
    assert probe_video(path).average_fps == pytest.approx(30000 / 1001) and caplog.text == ""


def test_a_given_rate_is_stronger_than_a_told_one_but_not_than_times(tmp_path):
    raw = encode_raw(tmp_path / "raw.h264", "libx264", {}, 30)
    film = encode(tmp_path / "film.mp4")
    (tmp_path / "frames.yaml").write_text("fps: 10")
    assert read_all(raw)[0][-1] == pytest.approx(4.4)
    assert read_all(film)[0][-1] == pytest.approx(74 / FPS)


def test_pictures_that_are_shown_longer_count_longer():
    """Film shown as television: of its pictures every second one is shown for three fields."""

    class Frame:
        def __init__(self, duration):
            self.duration = duration

    clock = _FrameClock("count", Fraction(1, 1_200_000), 1 / 30, 0.0, usual_ticks=40_000)
    times = [clock.tick(Frame(duration)) for duration in (40_000, 60_000, 40_000, 60_000, None)]
    np.testing.assert_allclose(times, np.array([0, 2, 5, 7, 10]) / 60)


def test_packed_raw_streams_whose_times_are_all_alike(tmp_path):
    path = encode(tmp_path / "film.mp4", options={"bf": "0"})
    data = bytearray(path.read_bytes())
    place = data.index(b"stts") + 4  # version, count of entries, then (frames, ticks a frame)
    assert struct.unpack(">3I", data[place : place + 12])[1:] == (1, 75)
    data[place + 12 : place + 16] = bytes(4)
    path.write_bytes(data)
    times, frames = read_all(path)
    assert [index_of(frame) for frame in frames] == list(range(75))
    assert (np.diff(times) > 0).all()


def test_real_raw_streams(shared, tmp_path, caplog):
    # Copies: a file is warned of once, and another test may have seen it.
    folder = shutil.copytree(shared / "cases" / "13", tmp_path / "streams")
    times, _ = read_all(folder / "vui30.h264")
    np.testing.assert_allclose(times, np.arange(180) / 30)
    assert probe_video(folder / "vui30.h264").average_fps == 30 and caplog.text == ""
    times, _ = read_all(folder / "pi40.h264")
    np.testing.assert_allclose(times, np.arange(240) / 25)
    assert "pi40.h264: no times in the file, 25 frames a second assumed" in caplog.text


# ---- where files begin ----


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
def test_files_begin_where_frames_yaml_says(tmp_path, suffix, caplog):
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    folder = tmp_path / "videos"
    folder.mkdir()
    path = encode(folder / f"film{suffix}", codec)
    plain, frames = read_all(path)
    (tmp_path / "frames.yaml").write_text("start: 100")
    assert probe_video(path).begin == 0, "only what lies beside them counts for files"
    (folder / "frames.yaml").write_text("start: 900")
    info = probe_video(path)
    assert info.begin == 900 and info.end == pytest.approx(905, abs=0.3)
    assert info.spans(904) and not info.spans(4)
    times, shown = assert_reads_like_decoding(path, np.random.default_rng(0), num_reads=4)
    np.testing.assert_allclose(times, 900 + plain)
    np.testing.assert_array_equal(shown, frames)
    with VideoReader(path) as reader:
        assert [index_of(x) for x in read(reader, [903.5, 901.2, 0, 1e6])] == [52, 18, 0, 74]
    clips = iterate_clips(iterate_frames(path), 4, 1, FPS)
    assert [timestamp for timestamp, _, _ in clips] == [900, 901, 902, 903, 904]
    assert caplog.text == ""


def test_a_truncated_file_that_begins_late_says_how_far_it_goes(tmp_path, caplog):
    path = encode(tmp_path / "film.mkv", gop=5)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (tmp_path / "frames.yaml").write_text("start: 900")
    list(iterate_frames(path))
    (record,) = caplog.records
    stopped = float(record.getMessage().partition("stopped at ")[2].split()[0])
    assert 0.5 < stopped < 4.5


def test_a_wrong_frames_yaml_is_named(tmp_path):
    path = encode(tmp_path / "film.mp4")
    timing = tmp_path / "frames.yaml"
    for content, message in {
        "fps: 1e400000000": "fps is '1e400000000', expected a number up to 1000",
        "start: late": "start is 'late', expected a second",
        "begin: 900": "expected 'fps: NUMBER', and if wanted 'start: SECOND'",
        "start: [": "write lines like 'fps: 25'",
        "start: 900\nstart: 901": "'start' comes twice",
    }.items():
        timing.write_text(content)
        start = time.monotonic()
        with pytest.raises(VideoError) as caught:
            probe_video(path)
        assert str(caught.value).startswith(str(timing)) and message in str(caught.value)
        assert time.monotonic() - start < 1
    timing.unlink()
    timing.mkdir()
    assert probe_video(path).begin == 0


def test_shared_bombs_are_refused_at_once(shared, tmp_path):
    path = encode(tmp_path / "film.mp4")
    for name in ("yaml_fps_1e400000000", "yaml_laughs"):
        source = shared / "cases" / "hostile" / "dos" / name / "frames.yaml"
        (tmp_path / "frames.yaml").write_bytes(source.read_bytes())
        start = time.monotonic()
        with pytest.raises(VideoError, match="frames.yaml"):
            probe_video(path)
        assert time.monotonic() - start < 2


# ---- clocks that jump ----


@pytest.fixture(scope="module")
def part(tmp_path_factory) -> Path:
    return encode(tmp_path_factory.mktemp("part") / "part.mp4", options={"bf": "0"}, num_frames=30)


def transport_stream(part: Path, target: Path, *starts: float) -> Path:
    """The same two seconds several times, each with a clock that begins at another second."""
    pieces = [
        remux(part, target.with_suffix(f".{n}.ts"), lambda _, p, start=start: shift(p, start))
        for n, start in enumerate(starts)
    ]
    target.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    return target


def test_joined_recordings_have_no_keyframes_between_them(part, tmp_path, caplog):
    path = transport_stream(part, tmp_path / "joined.ts", 10, 5010, 5020)
    times, frames = read_all(path)
    assert [index_of(frame) for frame in frames] == [*range(30)] * 3
    assert times[30] == pytest.approx(5000, abs=0.01) and times[60] == pytest.approx(5010, abs=0.01)
    (record,) = caplog.records
    assert f"{path}: no frames up to 5000.0 s from 3.9 s on" in record.getMessage()
    clips = iterate_clips(iterate_frames(path), 4, 1, FPS)
    timestamps = [timestamp for timestamp, _, _ in clips]
    assert timestamps == [0, 1, 2, 3, 5000, 5001, 5002, 5003, 5010, 5011]


@pytest.mark.parametrize("starts", [(5000, 0), (90_000, 5, 60_000), (100, 99)])
def test_a_clock_that_goes_back_goes_on(part, tmp_path, caplog, starts):
    path = transport_stream(part, tmp_path / "back.ts", *starts)
    times, frames = read_all(path)
    forward = sum(max(b - a, 0) for a, b in zip(starts, starts[1:]))
    assert [index_of(frame) for frame in frames] == [*range(30)] * len(starts)
    assert (np.diff(times) > 0).all()
    assert times[-1] < forward + 2.2 * len(starts)
    assert "stopped at" not in caplog.text


def test_the_end_of_a_transport_streams_clock_is_no_jump(part, tmp_path, caplog):
    end = 2**33 / 90_000
    path = remux(part, tmp_path / "film.ts", lambda _, p: shift(p, end - 2.4))  # FFmpeg adds 1.4
    times, _ = read_all(path)
    np.testing.assert_allclose(times, np.arange(30) / FPS, atol=1e-3)
    assert probe_video(path).duration == pytest.approx(2, abs=0.1) and caplog.text == ""


def test_holes_in_anybodys_stream_are_named_once(caplog):
    frames = [(t, np.zeros((2, 2, 3), np.uint8)) for t in (0, 0.5, 1, 500, 500.5, 900)]
    assert [t for t, _ in checked_stream(frames, "camera")] == [0, 0.5, 1, 500, 500.5, 900]
    (record,) = caplog.records
    assert record.getMessage().startswith("camera: no frames up to 500.0 s from 3.0 s on")
    assert record.levelno == logging.WARNING


# ---- sizes ----


def test_pictures_of_a_size_that_nobody_films_are_refused(tmp_path):
    gif = b"GIF89a" + struct.pack("<HH", 16000, 16000) + bytes([0x80, 0, 0]) + bytes(6)
    gif += b"\x2c" + struct.pack("<4H", 0, 0, 16000, 16000) + b"\0\2\2\x4c\1\0\x3b"
    cases = {
        "huge.gif": (gif, "no frame can be decoded, or all have more than 36,000,000 pixels"),
        "huge.y4m": (
            b"YUV4MPEG2 W16000 H16000 F25:1 Ip A1:1 C420jpeg\nFRAME\n" + bytes(1000),
            "its pictures are 16000x16000, more than 36,000,000 pixels are not read",
        ),
        "absurd.y4m": (b"YUV4MPEG2 W99999999 H99999999 F25:1\nFRAME\n" + bytes(2000), ""),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        start = time.monotonic()
        with pytest.raises(VideoError) as caught:
            probe_video(tmp_path / name)
        assert message in str(caught.value) and time.monotonic() - start < 2


@pytest.mark.parametrize("rate", ["2000000000:1", "1:2000000000"])
def test_absurd_rates_cost_nothing(tmp_path, rate):
    path = tmp_path / "film.y4m"
    header = f"YUV4MPEG2 W16 H16 F{rate} Ip A1:1 C420jpeg\n".encode()
    path.write_bytes(header + (b"FRAME\n" + bytes(384)) * 100)
    start = time.monotonic()
    assert sum(1 for _ in iterate_clips(iterate_frames(path), 4, 1, 25)) < 100 * 62
    assert time.monotonic() - start < 5


# ---- names and addresses ----


@pytest.mark.parametrize(
    "address", ["rtsp://127.0.0.1:9/stream", "http://127.0.0.1:9/a.mp4", "udp://@:1234", "0", "1"]
)
def test_addresses_and_cameras_are_named_as_they_were_given(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in (address, Path(address)):
        with pytest.raises(VideoError) as caught:
            probe_video(given)
        line = "addresses and cameras are not read: record to a file first"
        assert str(caught.value) == f"{address}: {line}"


def test_files_called_like_cameras_are_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("0").write_bytes(encode(Path("film.mp4")).read_bytes())
    assert probe_video("0").width


@pytest.mark.parametrize("name", [b"caf\xe9.mp4", "\u00fc".encode() * 125 + b".mp4"])
def test_films_are_written_under_any_name(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    with VideoWriter(path, 5, 64, 48) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
    assert len(list(iterate_frames(path))) == 1
