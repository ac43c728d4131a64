"""Videos cut into clips of one second that are named by it."""

from __future__ import annotations

import logging
from pathlib import Path

import av
import numpy as np
import pytest

from alphaaction_d2.data.clip_sampling import clip_times, iterate_clips
from alphaaction_d2.data.video import (
    VideoError,
    VideoReader,
    find_videos,
    first_that_opens,
    is_video_folder,
    iterate_frames,
    probe_video,
)
from alphaaction_d2.data.video.clip_folder import ClipFolder
from alphaaction_d2.data.video.file import VideoFile
from tests.data.video.test_reader import (
    FPS,
    HEIGHT,
    WIDTH,
    assert_reads_like_decoding,
    encode,
    index_of,
    picture,
)
from tests.helpers import read


def write_clip(
    path: Path, indices, rate: int = FPS, size=(WIDTH, HEIGHT), sound: float = 0
) -> Path:
    """A clip of the pictures with these indices; `sound` are seconds of silence beside them."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        if sound:
            audio = container.add_stream("aac", rate=8000)
            audio.layout = "mono"
        for number, index in enumerate(indices):
            image = picture(index)[: size[1], : size[0]]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            # The picture starts later than the sound, as in a clip cut out of a film.
            frame.pts, frame.time_base = number + (2 if sound else 0), 1 / stream.codec_context.rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound:
            samples = np.zeros((1, round(8000 * sound)), np.float32)
            silence = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
            silence.sample_rate = 8000
            container.mux(audio.encode(silence))
            container.mux(audio.encode())
    return path


def write_clips(folder: Path, seconds, name="{:04d}.mp4", extra: int = 0, **options) -> Path:
    """One clip a second; picture k of the film is shown k / FPS seconds after the first clip."""
    folder.mkdir(parents=True)
    for second in seconds:
        start = (second - min(seconds)) * FPS
        indices = range(start, start + FPS + extra)
        write_clip(folder / name.format(second), indices, **options)
    return folder


@pytest.mark.parametrize(
    "name",
    ["{}.mp4", "{:04d}.mkv", "{:03d}.MP4", "film_2_second_{}.mp4", "{:05d}_x.mov", "s-{}_.mp4"],
)
def test_the_clips_are_one_video(tmp_path, name, caplog):
    folder = write_clips(tmp_path / "film", range(98, 103), name)
    times, frames = assert_reads_like_decoding(folder, np.random.default_rng(0))
    assert [index_of(frame) for frame in frames] == list(range(75))
    np.testing.assert_allclose(times, 98 + np.arange(75) / FPS, atol=1e-3)
    info = probe_video(folder)
    assert (info.path, info.begin, info.end) == (folder, 98, 103)
    assert (info.width, info.height, info.average_fps) == (WIDTH, HEIGHT, FPS)
    assert caplog.text == ""


def test_in_order_each_frame_is_decoded_once(tmp_path):
    folder = write_clips(tmp_path / "film", range(900, 905))
    with VideoReader(folder) as reader:
        streamed = iterate_clips(iterate_frames(folder), 16, 1, FPS)
        for expected, (timestamp, clip, _) in zip(range(900, 905), streamed, strict=True):
            assert timestamp == expected
            np.testing.assert_array_equal(read(reader, clip_times(timestamp, 16, 1, FPS)), clip)
        read(reader, [1e6])
        assert reader.frames_decoded == 75
    with VideoReader(folder) as reader:
        read(reader, [904.5])
        assert reader.frames_decoded <= 25, "the first clip's first frames and the last clip"


def test_what_reaches_into_the_next_second_is_shown_once(tmp_path):
    folder = write_clips(tmp_path / "film", range(5), extra=2, sound=1.5)
    times, frames = assert_reads_like_decoding(folder, np.random.default_rng(1))
    assert [index_of(frame) for frame in frames] == list(range(77))  # the last clip goes to its end
    np.testing.assert_allclose(times, np.arange(77) / FPS, atol=1e-3)


def test_clips_may_have_different_rates(tmp_path):
    folder = write_clips(tmp_path / "film", range(2))
    write_clip(folder / "0002.mp4", range(30, 40), rate=10)
    times, _ = assert_reads_like_decoding(folder, np.random.default_rng(2))
    np.testing.assert_allclose(times[30:], 2 + np.arange(10) / 10, atol=1e-3)


def test_first_says_what_clips_numbered_otherwise_show(tmp_path, caplog):
    folder = write_clips(tmp_path / "film", range(1, 4), "film_{}.mp4")
    timing = tmp_path / "frames.yaml"
    timing.write_text("start: 900\nfirst: 1")
    assert (probe_video(folder).begin, probe_video(folder).end) == (900, 903)
    times, _ = assert_reads_like_decoding(folder, np.random.default_rng(4))
    np.testing.assert_allclose(times, 900 + np.arange(45) / FPS, atol=1e-3)
    assert caplog.text == ""
    timing.write_text("start: 900")
    assert probe_video(folder).begin == 1
    assert "'start' in" in caplog.text and "not used; with 'first: 1' there" in caplog.text


def test_films_that_differ_in_a_number_are_told_from_clips(tmp_path):
    clips = write_clips(tmp_path / "clips", range(3), "walk_{}.mp4")
    assert is_video_folder(clips)
    write_clip(clips / "walk_2.mp4", range(2 * FPS))
    assert not is_video_folder(clips), "one lasts two seconds"
    single = write_clips(tmp_path / "single", [7], "walk_{}.mp4")
    assert not is_video_folder(single)
    several = write_clips(tmp_path / "several", range(3), "walk_{}.mp4")
    write_clip(several / "run_1.mp4", range(FPS))
    assert not is_video_folder(several)
    with pytest.raises(VideoError, match="or film_0902.mp4, alike but for the number"):
        probe_video(several)
    posters = write_clips(tmp_path / "posters", range(3), "walk_{}.mp4")
    (posters / "walk_1.jpg").write_bytes(b"")
    assert not is_video_folder(posters)
    twice = write_clips(tmp_path / "twice", range(3), "walk_{}.mp4")
    (twice / "walk_01.mp4").write_bytes(b"")
    assert not is_video_folder(twice)


def test_clips_with_other_texts_around_the_second(shared):
    """The layout of HIT's author."""
    folder = shared / "cases" / "16" / "data" / "videos" / "clip_a"
    info = probe_video(folder)
    assert (info.begin, info.end) == (1, 8)
    times = [seconds for seconds, _ in iterate_frames(folder)]
    assert times[0] == 1 and 7.9 < times[-1] < 8


def test_missing_and_broken_seconds_leave_the_frame_before(tmp_path, caplog):
    folder = write_clips(tmp_path / "film", range(5))
    (folder / "0001.mp4").unlink()
    (folder / "0003.mp4").write_bytes((folder / "0003.mp4").read_bytes()[:700])
    with caplog.at_level(logging.WARNING):
        assert_reads_like_decoding(folder, np.random.default_rng(3))
    with VideoReader(folder) as reader:
        shown = [index_of(x) for x in read(reader, [0.5, 1.0, 1.9, 2.0, 3.0, 3.9, 4.0])]
    assert shown == [7, 14, 14, 30, 44, 44, 60]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2, "each said once"
    assert any("1 of 5 seconds have no clip, first 1: the frame before" in x for x in messages)
    assert any("0003.mp4: " in x and "the frame before it is shown" in x for x in messages)
    (folder / "0000.mp4").write_bytes(b"")
    assert probe_video(folder).begin == 2


def test_what_cannot_be_used_is_refused_in_one_line(tmp_path):
    different = write_clips(tmp_path / "different", range(3))
    write_clip(different / "0001.mp4", range(15), size=(32, 48))
    twice = write_clips(tmp_path / "twice", range(2))
    (twice / "1.mkv").write_bytes(b"")
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("1.mp4", "2.mp4"):
        (broken / name).write_bytes(b"")
    long = tmp_path / "long"
    long.mkdir()
    encode(long / "1.mp4")
    both = write_clips(tmp_path / "both", range(2))
    (both / "img_0001.jpg").write_bytes(b"")
    for folder, message in {
        different: "0001.mp4: is 32x48, the clips before it are 64x48",
        twice: "two clips of second 1: 0001.mp4, 1.mkv",
        broken: "none of its 2 clips can be opened",
        long: "1.mp4 lasts 5.0 s, expected clips of one second",
        both: "pictures (img_0001.jpg) and clips (0000.mp4) in one folder",
    }.items():
        with pytest.raises(VideoError) as caught:
            list(iterate_frames(folder))
        text = str(caught.value)
        assert message in text and text.startswith(str(folder)) and "\n" not in text
    with pytest.raises(VideoError, match="32x48"), VideoReader(different) as reader:
        read(reader, [1.5])


@pytest.fixture
def open_files(monkeypatch) -> list[VideoFile]:
    """The video files that are open."""
    found: list[VideoFile] = []
    start, close = VideoFile.__init__, VideoFile.close

    def opened(self, *args):
        start(self, *args)
        found.append(self)

    def closed(self):
        close(self)
        found[:] = [x for x in found if x is not self]

    monkeypatch.setattr(VideoFile, "__init__", opened)
    monkeypatch.setattr(VideoFile, "close", closed)
    return found


def test_what_is_refused_is_closed(tmp_path, monkeypatch, open_files):
    folder = tmp_path / "long"
    folder.mkdir()
    encode(folder / "1.mp4")
    with pytest.raises(VideoError, match="expected clips of one second"):
        VideoReader(folder)
    assert open_files == []
    clips = write_clips(tmp_path / "film", range(2))
    with VideoReader(clips):
        assert len(open_files) == 1

    def fail(self):
        raise VideoError("no frame")

    monkeypatch.setattr(ClipFolder, "next_frame", fail)
    with pytest.raises(VideoError, match="no frame"):
        VideoReader(clips)
    assert open_files == []


def test_a_folder_of_videos_may_have_numbered_pictures(tmp_path):
    encode(tmp_path / "film.mp4")
    (tmp_path / "poster_1.jpg").write_bytes(b"")
    assert not is_video_folder(tmp_path)
    assert list(find_videos(tmp_path)) == ["film", "poster_1"]


def test_the_first_that_opens_is_taken(tmp_path):
    (tmp_path / "film.jpg").write_bytes(b"")
    (tmp_path / "film.txt").write_text("about the film")
    video = encode(tmp_path / "film.mp4")
    info, problems = first_that_opens([tmp_path / "film.jpg", tmp_path / "film.txt", video])
    assert info == probe_video(video)
    assert [x.partition(":")[0] for x in problems] == [
        str(tmp_path / name) for name in ("film.jpg", "film.txt")
    ]
    info, (problem,) = first_that_opens([tmp_path / "film.txt"])
    assert info is None and "film.txt: " in problem
    assert first_that_opens([]) == (None, [])


def test_a_folder_of_videos_is_told_from_a_video(tmp_path):
    clips = write_clips(tmp_path / "all" / "clips", range(3))
    (tmp_path / "all" / "numbered").mkdir()
    encode(tmp_path / "all" / "numbered" / "1.mp4")
    pictures = tmp_path / "all" / "pictures"
    pictures.mkdir()
    for number in (1, 2):
        (pictures / f"{number}.jpg").write_bytes(b"")
    encode(tmp_path / "all" / "clips.mp4")
    (tmp_path / "all" / ".hidden").mkdir()
    (tmp_path / "all" / "frames.yaml").write_text("fps: 15")
    assert is_video_folder(clips) and is_video_folder(pictures)
    for folder in (tmp_path / "all", tmp_path / "all" / "numbered", tmp_path / "nothing"):
        assert not is_video_folder(folder)
    found = find_videos(tmp_path / "all")
    assert list(found) == ["clips", "numbered", "pictures"]
    assert found["clips"] == [tmp_path / "all" / "clips.mp4", clips], "files come first"
