"""Reading and writing videos: generated files of known content, and awkward files if present."""

import logging
import pickle
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from alphaaction_d2.data.clip_sampling import (
    clip_times,
    frames_shown_at,
    iterate_clips,
    last_keyframe,
)
from alphaaction_d2.data.video import (
    VideoError,
    VideoReader,
    VideoWriter,
    iterate_frames,
    probe_video,
)
from tests.helpers import read

HEIGHT, WIDTH, FPS = 48, 64, 15

# name: encoder, frames between key frames, options of the encoder
FILES = {
    "few_keys.mp4": ("libx264", 20, {}),
    "open_gop.mkv": ("libx264", 12, {"x264-params": "open-gop=1:scenecut=0"}),
    "intra_refresh.mp4": ("libx264", 12, {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}),
    "single_gop.mp4": ("libx264", 1000, {}),
    "fragmented.mp4": ("libx264", 20, {}),
    "b_frames.avi": ("libx264", 20, {}),
    "mpeg4.avi": ("mpeg4", 12, {}),
    "program.mpg": ("mpeg2video", 12, {}),
    "transport.ts": ("libx264", 20, {}),
    "flash.flv": ("libx264", 20, {}),
    "raw.h264": ("libx264", 20, {}),
    "vp9.webm": ("libvpx-vp9", 20, {"deadline": "realtime", "cpu-used": "8"}),
}


def picture(index):
    """A picture that says its index: seven flat bands, black for 0 and white for 1 of a bit."""
    image = np.full((HEIGHT, WIDTH, 3), 128, dtype=np.uint8)
    for bit in range(7):
        image[:, 8 * bit : 8 * bit + 8] = 230 if index >> bit & 1 else 20
    return image


def index_of(image):
    bands = image[8:40, :56].mean(axis=(0, 2)).reshape(7, 8).mean(axis=1)
    return sum(1 << bit for bit, level in enumerate(bands) if level > 128)


def encode(path, codec="libx264", gop=20, options=None, num_frames=75, ticks=None, rate=FPS):
    """Write `num_frames` pictures; `ticks` are their times in 1 / rate seconds."""
    fragments = {"movflags": "frag_keyframe+empty_moov"} if "fragmented" in path.name else {}
    format = "mpeg" if path.suffix == ".mpg" else None
    with av.open(str(path), "w", format=format, options=fragments) as container:
        stream = container.add_stream(codec, rate=25 if codec == "mpeg2video" else rate)
        stream.options = dict(options or {})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = WIDTH, HEIGHT, "yuv420p", gop
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            frame.pts = index if ticks is None else ticks[index]
            frame.time_base = 1 / stream.codec_context.rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, (codec, gop, options) in FILES.items():
        encode(folder / name, codec, gop, options)
    return folder


def codec_of(path):
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context.codec.canonical_name


def read_all(path, **options):
    timed_frames = list(iterate_frames(path, **options))
    times = np.array([seconds for seconds, _ in timed_frames])
    return times, np.stack([frame for _, frame in timed_frames])


def assert_reads_like_decoding(path, rng, num_reads=12):
    """Reads of random clips, in one reader, equal picking from all frames."""
    times, frames = read_all(path)
    with VideoReader(path) as reader:
        for trial in range(num_reads):
            center = rng.uniform(-1, times[-1] + 1)
            wanted = clip_times(center, int(rng.integers(1, 16)), int(rng.integers(1, 4)), FPS)
            if trial % 4 == 0:
                wanted = rng.uniform(-1, times[-1] + 1, size=4)
            expected = frames[frames_shown_at(times, wanted)]
            np.testing.assert_array_equal(read(reader, wanted), expected, err_msg=f"{wanted}")
    return times, frames


# ---- reading ----


@pytest.mark.parametrize("name", FILES)
def test_all_frames_come_in_order_with_increasing_times(videos, name):
    times, frames = read_all(videos / name)
    assert [index_of(frame) for frame in frames] == list(range(75))
    assert times[0] == 0
    assert (np.diff(times) > 0).all()
    rate = 25 if name == "program.mpg" else FPS
    np.testing.assert_allclose(times, np.arange(75) / rate, atol=1e-3)


@pytest.mark.parametrize("name", FILES)
def test_random_access_gives_what_decoding_gives(videos, name):
    assert_reads_like_decoding(videos / name, np.random.default_rng(0))


@pytest.mark.parametrize("name", ["b_frames.avi", "mpeg4.avi", "few_keys.mp4", "late.mp4"])
def test_frames_that_are_counted(videos, tmp_path, name):
    """Frame k of a data set that counts frames is the k-th one decoded, whatever its time."""
    path = videos / name
    if name == "late.mp4":  # of a variable rate, with holes of a second
        path = encode(tmp_path / name, ticks=[k + 15 * (k // 30) for k in range(75)])
    times, frames = read_all(path, frame_rate=25.0)
    np.testing.assert_allclose(times, np.arange(75) / 25, atol=1e-9)
    assert [index_of(frame) for frame in frames] == list(range(75))
    info = probe_video(path, frame_rate=25.0)
    assert info.average_fps == 25 and info.duration == pytest.approx(3, abs=0.05)
    with VideoReader(path, frame_rate=25.0) as reader:
        for k in (0, 40, 3, 74, 73):
            assert index_of(reader.pictures([k / 25])[0]) == k


@pytest.mark.parametrize("name", FILES)
def test_going_forward_decodes_each_frame_once(videos, name):
    times, frames = read_all(videos / name)
    with VideoReader(videos / name) as reader:
        for timestamp in range(last_keyframe(times[-1]) + 1):
            wanted = clip_times(timestamp, 16, 2, FPS)
            expected = frames[frames_shown_at(times, wanted)]
            np.testing.assert_array_equal(read(reader, wanted), expected)
        assert reader.frames_decoded == len(frames)
        read(reader, [1e6])
        assert reader.frames_decoded == len(frames)


@pytest.mark.parametrize("name", ["few_keys.mp4", "b_frames.avi", "vp9.webm", "single_gop.mp4"])
def test_a_stream_of_clips_equals_the_readers_clips(videos, name):
    frames = iterate_frames(videos / name)
    timestamps = []
    with VideoReader(videos / name) as reader:
        for timestamp, clip, keyframe in iterate_clips(frames, 9, 3, FPS, period=0.7):
            timestamps.append(timestamp)
            wanted = clip_times(timestamp, 9, 3, FPS)
            np.testing.assert_array_equal(clip, read(reader, wanted))
            np.testing.assert_array_equal(keyframe, read(reader, [timestamp])[0])
    assert timestamps == [n * 0.7 for n in range(last_keyframe(74 / FPS, 0.7) + 1)]


def test_far_jumps_seek_instead_of_decoding(tmp_path):
    path = encode(tmp_path / "long.mp4", gop=10, num_frames=120)
    with VideoReader(path) as reader:
        read(reader, [7.5])
        assert reader.frames_decoded < 25
        read(reader, [0.5])
        assert reader.frames_decoded < 50


def halved(image):
    """A smaller picture in another order of axes, as a loader might want it."""
    return image[::2, ::2].transpose(2, 0, 1)


@pytest.mark.parametrize("name", ["open_gop.mkv", "single_gop.mp4", "mpeg4.avi"])
def test_preparing_once_equals_preparing_afterwards(videos, name):
    rng = np.random.default_rng(5)
    with VideoReader(videos / name) as plain, VideoReader(videos / name, prepare=halved) as reader:
        for center in rng.uniform(-1, 6, size=12):
            times = clip_times(center, 16, 1, FPS)
            expected = np.stack([halved(image) for image in plain.pictures(times)])
            np.testing.assert_array_equal(read(reader, times), expected)


def test_in_overlapping_windows_each_frame_is_prepared_once(videos):
    prepared = []

    def prepare(image):
        prepared.append(index_of(image))
        return halved(image)

    with VideoReader(videos / "few_keys.mp4", prepare=prepare) as reader:
        for timestamp in range(5):
            read(reader, clip_times(timestamp, 32, 1, FPS))
    assert prepared == list(range(75)), "75 frames, each once, in windows that overlap"


def test_a_frame_that_is_not_picked_is_not_prepared(videos):
    prepared = []
    with VideoReader(
        videos / "few_keys.mp4", prepare=lambda image: (prepared.append(1), image)[1]
    ) as reader:
        read(reader, clip_times(2, 8, 4, FPS))
    assert len(prepared) == 8


def test_a_failed_preparation_can_be_repeated(videos):
    fails = [True]

    def prepare(image):
        if fails.pop():
            raise MemoryError
        return image

    with VideoReader(videos / "few_keys.mp4", prepare=prepare) as reader:
        with pytest.raises(MemoryError):
            read(reader, [1.0])
        fails.append(False)
        assert index_of(read(reader, [1.0])[0]) == 15


def test_kept_pictures_cannot_be_changed(videos):
    with VideoReader(videos / "few_keys.mp4") as reader:
        first, again, other = reader.pictures([1.0, 1.0, 2.0])
        assert first is again and first is not other
        with pytest.raises(ValueError, match="read-only"):
            first[:] = 0
        clip = read(reader, [1.0, 1.0])
        clip[0] = 0  # the caller's own
        assert index_of(clip[1]) == index_of(read(reader, [1.0])[0]) == 15


def test_memory_is_bounded_by_the_window(videos):
    with VideoReader(videos / "single_gop.mp4") as reader:
        read(reader, [0.0, 4.8])  # far apart: what lies between is not kept
        assert len(reader._held) <= 3
        read(reader, clip_times(2.5, 8, 1, FPS))
        assert len(reader._held) <= 10


def test_moments_in_any_order_and_outside_the_video(videos):
    with VideoReader(videos / "few_keys.mp4") as reader:
        clip = read(reader, [3.0, -7.0, 99.0, 1.0, 3.0, 1e300])
        assert [index_of(frame) for frame in clip] == [45, 0, 74, 15, 45, 74]
        assert clip.shape == (6, HEIGHT, WIDTH, 3) and clip.dtype == np.uint8
        clip[:] = 0  # the caller's own copy
        assert index_of(read(reader, [3.0])[0]) == 45
        with pytest.raises(ValueError, match="finite"):
            read(reader, [0.0, np.nan])
    with pytest.raises(ValueError, match="closed"):
        read(reader, [0.0])


def test_threads_do_not_change_the_frames(videos):
    for name in ("few_keys.mp4", "b_frames.avi"):
        times, frames = read_all(videos / name)
        times_threaded, frames_threaded = read_all(videos / name, threads=0)
        np.testing.assert_array_equal(times_threaded, times)
        np.testing.assert_array_equal(frames_threaded, frames)


def test_variable_frame_rate_follows_the_times(tmp_path):
    ticks = np.cumsum(np.random.default_rng(3).integers(1, 8, size=60))
    path = encode(tmp_path / "variable.mp4", ticks=ticks - ticks[0], num_frames=60)
    times, _ = assert_reads_like_decoding(path, np.random.default_rng(4))
    np.testing.assert_allclose(times, (ticks - ticks[0]) / FPS, atol=1e-6)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_permuted_times_are_put_right(videos, tmp_path, suffix):
    """Decoding times written as presentation times, as careless programs do with B-frames."""
    path = tmp_path / f"permuted{suffix}"
    with av.open(str(videos / "few_keys.mp4")) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        shift = -packets[0].dts
        for packet in packets:
            packet.stream = stream
            packet.dts = packet.pts = packet.dts + shift
            target.mux(packet)
    with av.open(str(path)) as container:
        stored = [frame.pts for frame in container.decode(video=0)]
    assert stored != sorted(stored)  # the case is the intended one
    times, frames = assert_reads_like_decoding(path, np.random.default_rng(5))
    assert [index_of(frame) for frame in frames] == list(range(75))
    np.testing.assert_allclose(times, np.arange(75) / FPS, atol=2e-3)


def test_a_start_inside_a_group_of_pictures(videos, tmp_path):
    """A cut without re-encoding: the file holds ten more pictures than it shows."""
    path = tmp_path / "cut.mp4"
    with (
        av.open(str(videos / "single_gop.mp4")) as source,
        av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                ticks = round(10 / FPS / packet.time_base)
                packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
                target.mux(packet)
    times, frames = assert_reads_like_decoding(path, np.random.default_rng(6))
    assert [index_of(frame) for frame in frames] == list(range(10, 75))
    assert times[0] == 0


# ---- files that are damaged or are no videos ----


def test_a_truncated_file_gives_what_decodes(videos, tmp_path, caplog):
    whole = (videos / "open_gop.mkv").read_bytes()
    path = tmp_path / "truncated.mkv"
    path.write_bytes(whole[: len(whole) * 6 // 10])
    with caplog.at_level(logging.WARNING):
        times, _ = assert_reads_like_decoding(path, np.random.default_rng(7))
    assert 1 < times[-1] < 4.5
    end = times[-1] + 1 / FPS
    expected = f"{path}: stopped at {end:.2f} of 5.00 s"
    # Once for `iterate_frames`, once for the reader.
    assert [record.getMessage().split(",")[0] for record in caplog.records] == [expected] * 2


def test_holes_are_survived_and_reported(videos, tmp_path, caplog):
    with av.open(str(videos / "few_keys.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        hole = [(packet.pos, packet.size) for packet in packets[19:24]]
    data = bytearray((videos / "few_keys.mp4").read_bytes())
    for position, size in hole:
        data[position : position + size] = bytes(size)
    path = tmp_path / "hole.mp4"
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        times, frames = assert_reads_like_decoding(path, np.random.default_rng(8))
    assert 60 <= len(frames) < 75
    assert index_of(frames[-1]) == 74 and times[-1] == pytest.approx(74 / FPS)
    assert "damaged packets" in caplog.text


def test_a_whole_file_gives_no_warning(videos, caplog):
    with caplog.at_level(logging.WARNING):
        for name in FILES:
            read_all(videos / name)
    assert caplog.text == ""


def _unreadable_files(folder, videos):
    whole = (videos / "few_keys.mp4").read_bytes()
    moov = whole.index(b"moov")
    contents = {
        "empty file": b"",
        "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
        "text file": "id,größe\n1,2\n".encode() * 200,
        "not a readable video": whole[:32],
        "no index": whole[: moov - 4],
    }
    for reason, content in contents.items():
        path = folder / f"{reason.replace(' ', '_')}.mp4"
        path.write_bytes(content)
        yield reason, path
    yield "no such file", folder / "missing.mp4"
    yield "a directory", folder
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        stream.layout = "mono"
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    yield "no video stream", folder / "sound.mp4"


def test_unreadable_files_are_refused_in_one_line(videos, tmp_path):
    for reason, path in _unreadable_files(tmp_path, videos):
        messages = set()
        for open_it in (probe_video, iterate_frames, VideoReader):
            with pytest.raises(VideoError, match=reason) as caught:
                open_it(path)
            messages.add(str(caught.value))
        (message,) = messages
        assert message.startswith(f"{path}: ") and "\n" not in message
        assert isinstance(caught.value, ValueError)
        assert str(pickle.loads(pickle.dumps(caught.value))) == message  # from a loader's worker


def test_a_file_without_a_whole_frame_is_refused(videos, tmp_path):
    path = tmp_path / "no_frame.mp4"
    with av.open(str(videos / "few_keys.mp4")) as container:
        first = next(packet for packet in container.demux(video=0))
    data = bytearray((videos / "few_keys.mp4").read_bytes())
    end = data.index(b"moov") - 4
    data[first.pos : end] = bytes(end - first.pos)
    path.write_bytes(data)
    with pytest.raises(VideoError, match="no frame can be decoded"):
        probe_video(path)


@pytest.mark.parametrize("name", ["-dash.mp4", "a:b.mp4", "naïve 100% %03d #2.mp4", "wrong.txt"])
def test_names_are_only_names(videos, tmp_path, monkeypatch, name):
    shutil.copy(videos / "few_keys.mp4", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with VideoReader(Path(name)) as reader:
        assert index_of(read(reader, [2.0])[0]) == 30


# ---- writing ----


def test_written_frames_come_back(tmp_path):
    path = tmp_path / "out.mp4"
    with VideoWriter(path, 29.97, WIDTH, HEIGHT, gop=10) as writer:
        for index in range(40):
            writer.write(picture(index))
        assert not path.exists()  # only a finished file has the name
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]
    info = probe_video(path)
    assert (info.width, info.height, codec_of(path)) == (WIDTH, HEIGHT, "h264")
    assert (info.rotation, info.start_time) == (0, 0)
    assert info.average_fps == pytest.approx(29.97)
    assert info.duration == pytest.approx(40 / 29.97, abs=1e-3)
    times, frames = read_all(path)
    assert [index_of(frame) for frame in frames] == list(range(40))
    np.testing.assert_allclose(times, np.arange(40) / 29.97, atol=1e-6)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.pix_fmt == "yuv420p"
        keys = [index for index, frame in enumerate(container.decode(stream)) if frame.key_frame]
    assert max(np.diff([*keys, 40])) <= 10


@pytest.mark.parametrize("color", [(200, 30, 60), (10, 250, 90), (0, 0, 0), (255, 255, 255)])
def test_written_colors_come_back(tmp_path, color):
    path = tmp_path / "color.mkv"
    with VideoWriter(path, 10, 32, 32, crf=10) as writer:
        writer.write(np.full((32, 32, 3), color, dtype=np.uint8))
    ((_, frame),) = iterate_frames(path)
    assert np.abs(frame.astype(int) - color).max() <= 4


def test_odd_sizes_are_padded_not_scaled(tmp_path):
    frame = np.tile(np.arange(33, dtype=np.uint8)[None, :, None] * 7, (19, 1, 3))
    with VideoWriter(tmp_path / "odd.mp4", 5, 33, 19, crf=1) as writer:
        writer.write(frame)
    ((_, read),) = iterate_frames(tmp_path / "odd.mp4")
    assert read.shape == (20, 34, 3)
    assert np.abs(read[:19, :33].astype(int) - frame).max() <= 6
    assert np.abs(read[:19, 33].astype(int) - frame[:, 32]).max() <= 6


def test_presets_are_the_encoders(tmp_path):
    frame = picture(5)
    for preset in ("ultrafast", "fast"):
        with VideoWriter(tmp_path / "out.mp4", FPS, WIDTH, HEIGHT, preset=preset) as writer:
            writer.write(frame)
        assert index_of(read_all(tmp_path / "out.mp4")[1][0]) == 5
    with pytest.raises(VideoError, match="out.mp4: cannot be written"):
        VideoWriter(tmp_path / "out.mp4", FPS, WIDTH, HEIGHT, preset="no such")


def test_without_h264_mpeg4_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    with VideoWriter(tmp_path / "old.mp4", 25, WIDTH, HEIGHT) as writer:
        for index in range(12):
            writer.write(picture(index))
    assert codec_of(tmp_path / "old.mp4") == "mpeg4"
    assert [index_of(frame) for frame in read_all(tmp_path / "old.mp4")[1]] == list(range(12))


def test_a_failure_leaves_no_file_and_keeps_the_old_one(tmp_path):
    path = tmp_path / "kept.mp4"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), VideoWriter(path, 25, WIDTH, HEIGHT) as writer:
        writer.write(picture(0))
        raise ZeroDivisionError
    with pytest.raises(ValueError, match="expected uint8"):
        with VideoWriter(path, 25, WIDTH, HEIGHT) as writer:
            writer.write(picture(0)[:-1])
    with pytest.raises(VideoError, match="no frame"), VideoWriter(path, 25, WIDTH, HEIGHT):
        pass
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["missing/out.mp4", "out.webm", "out.unknown", "out"])
def test_an_impossible_output_is_refused(tmp_path, name):
    with pytest.raises(VideoError, match="cannot be written") as caught:
        VideoWriter(tmp_path / name, 25, WIDTH, HEIGHT)
    assert str(caught.value).startswith(str(tmp_path / name)) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# ---- picture formats ----


@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le", "bgr0", "yuv444p", "yuv420p10le"])
def test_lossless_formats_become_rgb(tmp_path, pix_fmt):
    path = tmp_path / "lossless.mkv"
    image = picture(37)[:47, :63]  # odd size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.width, stream.height, stream.pix_fmt = 63, 47, pix_fmt
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    ((_, frame),) = iterate_frames(path)
    assert frame.shape == image.shape and frame.flags.c_contiguous
    assert np.abs(frame.astype(int) - image).max() <= 3


@pytest.mark.parametrize("color_range, white", [(1, 235), (2, 255)])
def test_the_range_of_the_levels_is_respected(tmp_path, color_range, white):
    path = tmp_path / "range.mkv"
    planes = np.concatenate([np.full((16, 16), white), np.full((8, 16), 128)]).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        stream.codec_context.color_range = color_range
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.color_range = color_range
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    ((_, frame),) = iterate_frames(path)
    assert frame.min() >= 254


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_pictures_stand_upright(videos, tmp_path, rotation):
    path = tmp_path / "rotated.mp4"
    with av.open(str(videos / "few_keys.mp4")) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(rotation)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0))
    assert stored.rotation % 360 == rotation % 360  # the case is the intended one
    info = probe_video(path)
    _, frames = read_all(path)
    expected = np.rot90(read_all(videos / "few_keys.mp4")[1], k=rotation // 90, axes=(1, 2))
    np.testing.assert_array_equal(frames, expected)
    assert frames.shape[1:3] == (info.height, info.width)


# ---- the collection of awkward files ----

UNREADABLE = {
    "zero_length.mp4": "empty file",
    "header_only.mp4": "not a readable video",
    "truncated_no_moov.mp4": r"truncated or incomplete file \(no index\)",
    "git_lfs_pointer.mp4": "Git LFS pointer",
    "audio_only.mp4": "no video stream",
    "audio_with_cover_art.mp3": "no video stream",
}
# name: width, height, frames, seconds of the last frame
READABLE = {
    "truncated_faststart.mp4": (480, 270, 30, 29 / 15),
    "truncated.avi": (480, 270, 31, 2.0),
    "vfr_people.mp4": (480, 270, 43, 4.4),
    "vfr_testsrc_yuv444.mp4": (128, 128, 300, 14.9333),
    "fragmented_no_frame_count.mp4": (480, 270, 67, 4.4),
    "mpeg_ps_start_0p54.mpg": (640, 480, 250, 9.96),
    "unordered_pts.mov": (50, 50, 4, 0.09375),
    "low_fps_1.mp4": (480, 270, 5, 4.0),
    "two_frames.mp4": (480, 270, 2, 1 / 15),
    "short_0p4s.mp4": (480, 270, 6, 1 / 3),
    "single_gop_open.mp4": (480, 270, 67, 4.4),
    "audio_longer_than_video.mp4": (480, 270, 15, 14 / 15),
    "rotated_people_90.mp4": (152, 270, 67, 4.4),
    "rotated_phone_90.mov": (320, 568, 3, 1 / 15),
    "rotated_phone_180.mov": (568, 320, 3, 1 / 15),
    "odd_321x181.webm": (321, 181, 30, 1.933),
    "tiny_32x18.mp4": (32, 18, 45, 44 / 15),
    "portrait_90x480.mp4": (90, 480, 30, 29 / 15),
    "gray_h264.mp4": (480, 270, 67, 4.4),
    "gray10_ffv1.mkv": (480, 270, 10, 0.6),
    "h264_10bit.mp4": (200, 200, 30, 29 / 30),
    "h264_full_range_720p.mp4": (1280, 720, 30, 29 / 30),
    "rgb_ffv1.mkv": (480, 270, 10, 0.6),
    "av1.mkv": (640, 360, 125, 4.96),
    "alpha_vp9.webm": (200, 200, 150, 4.967),
    "animated.gif": (480, 270, 67, 4.4),
    "multi_stream_nasa.mp4": (480, 270, 390, 12.97963),
    "-leading-dash-.mp4": (1, 1, 5, 4.0),
    "naïve café (1) 100% #2.mp4": (480, 270, 6, 1 / 3),
    "webm_named.mp4": (321, 181, 30, 1.933),
    "black_3s.mp4": (480, 270, 45, 44 / 15),
}
STOPS = {"truncated_faststart.mp4": "2.00 of 4.47 s", "truncated.avi": "2.07 of 4.47 s"}


@pytest.mark.parametrize("name", UNREADABLE)
def test_awkward_file_is_refused(shared, name):
    with pytest.raises(VideoError, match=UNREADABLE[name]) as caught:
        probe_video(shared / "videos" / "awkward" / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", READABLE)
def test_awkward_file_is_read(shared, name, caplog):
    path = shared / "videos" / "awkward" / name
    width, height, num_frames, last = READABLE[name]
    with caplog.at_level(logging.WARNING):
        times, frames = assert_reads_like_decoding(path, np.random.default_rng(9), num_reads=4)
    assert frames.shape == (num_frames, height, width, 3)
    assert times[0] == 0 and (np.diff(times) > 0).all()
    assert times[-1] == pytest.approx(last, abs=1e-3)
    info = probe_video(path)
    assert (info.width, info.height) == (width, height)
    messages = [record.getMessage() for record in caplog.records]
    if name in STOPS:
        assert messages and all(f"{name}: stopped at {STOPS[name]}" in line for line in messages)
    else:
        assert messages == []


def test_awkward_collection_is_covered(shared):
    names = {path.name for path in (shared / "videos" / "awkward").iterdir()}
    assert names == set(UNREADABLE) | set(READABLE)


def test_awkward_durations_are_the_videos(shared):
    assert (
        probe_video(shared / "videos" / "awkward" / "audio_longer_than_video.mp4").duration == 1.0
    )
    info = probe_video(shared / "videos" / "awkward" / "mpeg_ps_start_0p54.mpg")
    assert info.start_time == pytest.approx(0.54)


def test_awkward_streams_are_told(shared, caplog):
    with caplog.at_level(logging.INFO):
        info = probe_video(shared / "videos" / "awkward" / "multi_stream_nasa.mp4")
    assert (info.width, info.height) == (480, 270)
    assert "has video streams 0 (320x180), 3 (480x270), takes 3" in caplog.text


def test_awkward_file_truncated_shows_the_right_pictures(shared):
    """The pictures that the decoder held back at the break are the whole file's."""
    _, whole = read_all(shared / "videos" / "clips" / "store_aisle.mp4")
    _, rest = read_all(shared / "videos" / "awkward" / "truncated_faststart.mp4")
    differences = np.abs(rest.astype(int) - whole[: len(rest)]).mean(axis=(1, 2, 3))
    assert differences.max() < 4
    # A picture with missing parts would stand out against the ones before.
    assert np.abs(np.diff(differences[-4:])).max() < 0.3


@pytest.mark.parametrize(
    "name, frames",
    {"store_aisle.mp4": 67, "asl_walk.mkv": 89, "carphone_176x144.mp4": 120}.items(),
)
def test_real_clips_in_order_decode_each_frame_once(shared, name, frames):
    path = shared / "videos" / "clips" / name
    fps = probe_video(path).average_fps
    streamed = iterate_clips(iterate_frames(path), 32, 2, fps)
    with VideoReader(path) as reader:
        for timestamp, clip, _ in streamed:
            np.testing.assert_array_equal(clip, read(reader, clip_times(timestamp, 32, 2, fps)))
        assert reader.frames_decoded == frames
