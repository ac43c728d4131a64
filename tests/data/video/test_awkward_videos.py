"""More kinds of awkward files than the collection has, each generated here."""

from __future__ import annotations

import logging
import os
import struct
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from alphaaction_d2.data.clip_sampling import clip_times
from alphaaction_d2.data.video import VideoError, VideoReader, iterate_frames, probe_video
from tests.data.video.test_clip_folder import write_clip
from tests.data.video.test_reader import (
    FPS,
    HEIGHT,
    WIDTH,
    assert_reads_like_decoding,
    encode,
    index_of,
    picture,
    read_all,
)
from tests.helpers import read

CONTAINERS = {
    ".mp4": ("libx264", {}),
    ".mkv": ("libx264", {}),
    ".ts": ("libx264", {}),
    ".avi": ("mpeg4", {}),
    ".webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    """75 frames in every container; "plain" has them in the order in which they are shown."""
    folder = tmp_path_factory.mktemp("sources")
    found = {
        suffix: encode(folder / f"whole{suffix}", codec, 20, options)
        for suffix, (codec, options) in CONTAINERS.items()
    }
    found["plain"] = encode(folder / "plain.mp4", "libx264", 20, {"bf": "0"})
    return found


def remux(source: Path, target: Path, change) -> Path:
    """Copy packets; `change` may set the times of the n-th, in ticks of the source."""
    options = {"avoid_negative_ts": "disabled"}
    with av.open(str(source)) as read, av.open(str(target), "w", options=options) as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(read.demux(video=0)):
            if packet.size:
                change(number, packet)
                packet.stream = stream
                write.mux(packet)
    return target


def shift(packet: av.Packet, seconds: float) -> None:
    ticks = round(seconds / packet.time_base)
    packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks


# ---- damage ----


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_damaged_bytes_are_read_as_far_as_they_go(sources, suffix, tmp_path, caplog):
    rng = np.random.default_rng(0)
    whole = sources[suffix].read_bytes()
    for trial in range(12):
        data = bytearray(whole)
        start, length = rng.integers(len(data)), (1, 20, 200, 2000)[trial % 4]
        data[start : start + length] = rng.bytes(len(data[start : start + length]))
        path = tmp_path / f"damaged_{trial}{suffix}"
        path.write_bytes(data if trial < 8 else data[: rng.integers(len(data))])
        try:
            times, frames = read_all(path)
        except VideoError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            continue
        assert (np.diff(times) > 0).all() and frames.shape[1:] == (HEIGHT, WIDTH, 3)
        with VideoReader(path) as reader:  # a damaged picture may look different when sought
            for _ in range(3):
                clip = read(reader, clip_times(rng.uniform(-1, times[-1] + 1), 8, 2, FPS))
                assert clip.shape == (8, HEIGHT, WIDTH, 3)
    assert all("\n" not in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_a_header_that_ends_too_early_is_called_damaged(sources, suffix, tmp_path):
    path = tmp_path / f"short{suffix}"
    path.write_bytes(sources[suffix].read_bytes()[:200])
    with pytest.raises(VideoError, match="not a readable video .damaged"):
        probe_video(path)


# ---- times ----


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_clock_that_starts_late(sources, suffix, tmp_path, caplog):
    path = remux(sources[".mp4"], tmp_path / f"late{suffix}", lambda n, p: shift(p, 50_000))
    times, frames = assert_reads_like_decoding(path, np.random.default_rng(1))
    assert [index_of(frame) for frame in frames] == list(range(75))
    np.testing.assert_allclose(times, np.arange(75) / FPS, atol=1e-3)
    assert probe_video(path).duration == pytest.approx(5, abs=0.1)
    assert caplog.text == ""


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_clock_that_starts_before_zero(sources, suffix, tmp_path):
    path = remux(sources[".mp4"], tmp_path / f"early{suffix}", lambda n, p: shift(p, -10 / FPS))
    times, frames = assert_reads_like_decoding(path, np.random.default_rng(2))
    # MP4 hides what lies before zero, the others show it.
    assert [index_of(frame) for frame in frames] == list(range(10 if suffix == ".mp4" else 0, 75))
    np.testing.assert_allclose(times, np.arange(len(times)) / FPS, atol=2e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_jump_of_the_clock_is_a_still_picture(sources, suffix, tmp_path):
    path = remux(
        sources["plain"],
        tmp_path / f"jump{suffix}",
        lambda n, p: shift(p, 36_000 if n >= 40 else 0),
    )
    times, frames = assert_reads_like_decoding(path, np.random.default_rng(3), num_reads=4)
    assert times[39] == pytest.approx(39 / FPS, abs=2e-3)
    assert times[40] == pytest.approx(36_000 + 40 / FPS, abs=2e-3)
    with VideoReader(path) as reader:
        shown = [index_of(frame) for frame in read(reader, [10, 20_000, 36_000 + 41 / FPS])]
    assert shown == [39, 39, 41]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_of_one_time_count_once(sources, suffix, tmp_path):
    def double(number, packet):
        if number % 5 == 3:  # shown together with the next one
            packet.pts += round(1 / FPS / packet.time_base)

    path = remux(sources["plain"], tmp_path / f"double{suffix}", double)
    times, frames = assert_reads_like_decoding(path, np.random.default_rng(4))
    assert (np.diff(times) > 0).all()
    assert [index_of(frame) for frame in frames] == [n for n in range(75) if n % 5 != 3]


@pytest.mark.parametrize("rate", [120, 240])
def test_high_frame_rates(tmp_path, rate):
    path = encode(tmp_path / "fast.mp4", num_frames=120, rate=rate)
    times, frames = assert_reads_like_decoding(path, np.random.default_rng(5))
    np.testing.assert_allclose(times, np.arange(120) / rate, atol=1e-6)
    with VideoReader(path) as reader:  # a clip of 25 frames a second takes every rate / 25-th
        picked = [index_of(x) for x in read(reader, clip_times(0.24, 8, 1, 25))]
    expected = (np.floor((0.24 + (np.arange(8) - 4) / 25 + 1e-3) * rate)).astype(int)
    assert picked == [index_of(frames[i]) for i in expected]


# ---- pictures ----


def test_interlaced_frames_are_read_as_they_are(tmp_path):
    options = {"x264-params": "tff=1:interlaced=1"}
    path = encode(tmp_path / "interlaced.mp4", "libx264", 20, options)
    _, frames = assert_reads_like_decoding(path, np.random.default_rng(6))
    assert [index_of(frame) for frame in frames] == list(range(75))


def test_odd_sizes_in_mp4(tmp_path):
    path = tmp_path / "odd.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 63, 47, "yuv444p"
        for index in range(30):
            image = np.ascontiguousarray(picture(index)[:47, :63])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    _, frames = assert_reads_like_decoding(path, np.random.default_rng(7))
    assert frames.shape == (30, 47, 63, 3)
    assert [index_of(frame) for frame in frames] == list(range(30))


# a, b, c, d of the display matrix (x' = a x + c y, y' = b x + d y) and what it does to a picture
DISPLAY = {
    "upright": ((1, 0, 0, 1), lambda x: x),
    "left turn": ((0, -1, 1, 0), lambda x: np.rot90(x, 1)),
    "half turn": ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
    "right turn": ((0, 1, -1, 0), lambda x: np.rot90(x, 3)),
    "mirrored": ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
    "upside down in a mirror": ((1, 0, 0, -1), lambda x: x[::-1]),
    "transposed": ((0, 1, 1, 0), lambda x: x.transpose(1, 0, 2)),
    "transposed the other way": ((0, -1, -1, 0), lambda x: x[::-1, ::-1].transpose(1, 0, 2)),
}


@pytest.mark.parametrize("how", DISPLAY)
def test_display_matrices_with_and_without_a_mirror(sources, how, tmp_path):
    (a, b, c, d), upright = DISPLAY[how]
    data = sources[".mp4"].read_bytes()
    # The matrix is nine numbers, 40 bytes into the box that tells about the track.
    place = data.index(b"tkhd") + 4 + 40
    matrix = struct.pack(">9i", *(n << 16 for n in (a, b, 0, c, d, 0, 0, 0)), 1 << 30)
    path = tmp_path / "turned.mp4"
    path.write_bytes(data[:place] + matrix + data[place + 36 :])
    _, frames = assert_reads_like_decoding(path, np.random.default_rng(8), num_reads=3)
    expected = upright(read_all(sources[".mp4"])[1][37])
    np.testing.assert_array_equal(frames[37], expected)
    info = probe_video(path)
    assert (info.height, info.width) == expected.shape[:2]


# ---- streams ----


def test_sound_that_begins_first_does_not_move_the_pictures(tmp_path):
    path = write_clip(tmp_path / "sound.mp4", range(45), sound=4)
    times, frames = assert_reads_like_decoding(path, np.random.default_rng(9))
    assert [index_of(frame) for frame in frames] == list(range(45))
    np.testing.assert_allclose(times, np.arange(45) / FPS, atol=1e-3)
    assert probe_video(path).duration == pytest.approx(3, abs=0.2)


# ---- names and things that are no files ----


def refused(path: Path) -> str:
    """The one line with which a path is refused, by all that read; none of them may wait."""
    messages = []

    def read():
        for reader in (probe_video, iterate_frames, VideoReader):
            with pytest.raises(VideoError) as caught:
                reader(path)
            messages.append(str(caught.value))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(20)
    assert len(messages) == 3, "it waits, or something else was raised"
    assert len(set(messages)) == 1 and "\n" not in messages[0]
    return messages[0]


def test_a_folder_named_like_a_video(tmp_path):
    (tmp_path / "x.mp4").mkdir()
    assert "a directory without numbered pictures or one-second clips" in refused(
        tmp_path / "x.mp4"
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "a device or a pipe, not a file" in refused(tmp_path / "pipe.mp4")
    (tmp_path / "endless.mp4").symlink_to("/dev/zero")
    assert "a device or a pipe, not a file" in refused(tmp_path / "endless.mp4")


def test_links(sources, tmp_path):
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    assert refused(tmp_path / "loop.mp4").startswith(f"{tmp_path / 'loop.mp4'}: ")
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nothing")
    assert "no such file" in refused(tmp_path / "dangling.mp4")
    (tmp_path / "good.mp4").symlink_to(sources[".mp4"])
    assert len(list(iterate_frames(tmp_path / "good.mp4"))) == 75


@pytest.mark.parametrize("name", ["x" * 3000 + ".mp4", "a\0b.mp4"])
def test_names_that_no_file_can_have(tmp_path, name):
    message = refused(tmp_path / name)
    assert "cannot be read" in message or "no such file" in message


@pytest.mark.parametrize(
    "name", ["two\nlines.mp4", "http:x.mp4", "%d.mp4", "'a b'\t.mp4", "\udcff.mp4"]
)
def test_strange_names(sources, tmp_path, name, caplog):
    path = tmp_path / name
    path.write_bytes(sources[".mkv"].read_bytes())
    assert len(list(iterate_frames(path))) == 75
    path.write_bytes(sources[".mkv"].read_bytes()[: -len(sources[".mkv"].read_bytes()) // 3])
    with caplog.at_level(logging.WARNING):
        assert 0 < len(list(iterate_frames(path))) < 75
    (record,) = caplog.records
    assert "stopped at" in record.getMessage() and "\n" not in record.getMessage()
    path.write_bytes(b"")
    assert "empty file" in refused(path)
