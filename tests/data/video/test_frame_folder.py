"""Videos as folders of numbered pictures: the layouts people have, and what is wrong with some."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from alphaaction_d2.data.clip_sampling import clip_times, iterate_clips
from alphaaction_d2.data.video import (
    VideoError,
    VideoReader,
    iterate_frames,
    probe_video,
    video_name,
)
from alphaaction_d2.data.video.frame_folder import (
    PictureSeries,
    picture_series,
    read_picture,
)
from tests.data.video.test_reader import (
    FPS,
    HEIGHT,
    WIDTH,
    assert_reads_like_decoding,
    index_of,
    picture,
    read_all,
)
from tests.helpers import read


def write_pictures(folder: Path, names, timing: str | None = f"fps: {FPS}") -> Path:
    """Write picture number i under the i-th name, and how they are counted."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(picture(index)).save(folder / name, quality=95)
    if timing is not None:
        (folder / "frames.yaml").write_text(timing + "\n")
    return folder


LAYOUTS = {
    "pyslowfast": "vid_{:06d}.jpg",
    "mmaction2": "img_{:05d}.jpg",
    "ucf101-24": "{:05d}.jpg",
    "epic": "frame_{:010d}.jpg",
    "without zeros": "{}.png",
    "more digits later": "f{:01d}.JPG",
    "a number in the name": "cam2.take3-{:03d}.bmp",
}


@pytest.mark.parametrize("first", [0, 1, 27001])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout, first, caplog):
    numbers = range(first, first + 40)
    folder = write_pictures(tmp_path / "film.v2", [LAYOUTS[layout].format(n) for n in numbers])
    (folder / "note.txt").write_text("neither a picture nor a clip")
    times, frames = assert_reads_like_decoding(folder, np.random.default_rng(0))
    assert [index_of(frame) for frame in frames] == list(range(40))
    np.testing.assert_allclose(times, np.arange(40) / FPS, atol=1e-9)
    info = probe_video(folder)
    assert (info.width, info.height, info.average_fps, info.begin) == (WIDTH, HEIGHT, FPS, 0)
    (folder / "frames.yaml").unlink()  # where frames are counted, nothing has to be said
    times, frames = read_all(folder, frame_rate=25.0)
    assert [index_of(frame) for frame in frames] == list(range(40))
    np.testing.assert_allclose(times, np.arange(40) / 25, atol=1e-9)
    with pytest.raises(VideoError, match="fps"):
        probe_video(folder)
    assert info.duration == pytest.approx(40 / FPS)
    assert video_name(folder) == "film.v2"
    # A high first number may be a cut, or somebody's counting: it is told what is assumed.
    assert ("begins with" in caplog.text) == (first > 1)


def test_start_and_first_place_the_pictures_on_the_axis(tmp_path):
    names = [f"img_{n:05d}.jpg" for n in range(16, 60)]
    folder = write_pictures(tmp_path / "film", names, "fps: 15\nstart: 900\nfirst: 1")
    info = probe_video(folder)
    assert info.begin == 901 and info.end == pytest.approx(901 + 44 / 15)
    times, frames = assert_reads_like_decoding(folder, np.random.default_rng(1))
    assert times[0] == 901 and times[15] == pytest.approx(902)
    with VideoReader(folder) as reader:
        assert [index_of(x) for x in read(reader, [902, 901, 0, 1e9])] == [15, 0, 0, 43]
    clips = list(iterate_clips(iterate_frames(folder), 8, 2, 15))
    assert [timestamp for timestamp, _, _ in clips] == [901, 902, 903]
    for timestamp, clip, _ in clips:
        with VideoReader(folder) as reader:
            np.testing.assert_array_equal(clip, read(reader, clip_times(timestamp, 8, 2, 15)))


def test_a_clip_reads_only_its_pictures_and_going_forward_reads_each_once(tmp_path):
    folder = write_pictures(tmp_path / "film", [f"{n:04d}.png" for n in range(1, 76)])
    with VideoReader(folder) as reader:
        read(reader, clip_times(3, 8, 4, FPS))
        assert reader.frames_decoded <= 9, "the eight of the clip, and the first one"
    with VideoReader(folder) as reader:
        for timestamp in range(5):
            read(reader, clip_times(timestamp, 16, 1, FPS))
        assert reader.frames_decoded <= 75
        assert len(reader._held) <= 17


def test_a_gap_leaves_the_picture_before_it(tmp_path, caplog):
    kept = [n for n in range(1, 41) if n not in (11, 12, 30)]
    folder = write_pictures(tmp_path / "film", [f"{n:04d}.png" for n in kept])
    with caplog.at_level(logging.WARNING):
        times, _ = assert_reads_like_decoding(folder, np.random.default_rng(2))
    np.testing.assert_allclose(times, (np.array(kept) - 1) / FPS)
    with VideoReader(folder) as reader:
        shown = [index_of(x) for x in read(reader, np.array([10, 11, 12, 13, 30]) / FPS - 1 / FPS)]
    assert shown == [9, 9, 9, 10, 26]
    (record,) = caplog.records  # once, however often the folder is opened
    expected = "3 of 40 pictures are missing, first after 0010.png"
    assert f"{folder}: {expected}" in record.getMessage()


def test_every_third_picture_is_no_gap(tmp_path, caplog):
    folder = write_pictures(tmp_path / "film", [f"{n:04d}.png" for n in range(0, 90, 3)])
    times = [seconds for seconds, _ in iterate_frames(folder)]
    np.testing.assert_allclose(times, np.arange(30) * 3 / FPS)
    assert caplog.text == ""


def test_damaged_pictures_leave_the_one_before(tmp_path, caplog):
    folder = write_pictures(tmp_path / "film", [f"{n:04d}.jpg" for n in range(1, 41)])
    whole = (folder / "0020.jpg").read_bytes()
    (folder / "0020.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "0021.jpg").write_bytes(b"")
    (folder / "0001.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with caplog.at_level(logging.WARNING):
        times, frames = assert_reads_like_decoding(folder, np.random.default_rng(3))
    expected = list(range(40))
    expected[0], expected[19], expected[20] = 1, 18, 18
    assert [index_of(frame) for frame in frames] == expected
    assert len(times) == 40
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0].startswith(f"{folder / '0001.jpg'}: cannot be read (")
    assert f"{folder}: 3 pictures could not be read" in messages
    assert all("\n" not in message for message in messages)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "ppm", "tif"])
def test_corrupted_bytes_give_a_picture_or_the_one_before(tmp_path, suffix):
    rng = np.random.default_rng(4)
    folder = write_pictures(tmp_path / "film", [f"{n}.{suffix}" for n in range(1, 31)])
    for number in range(2, 31):
        data = bytearray((folder / f"{number}.{suffix}").read_bytes())
        for position in rng.integers(0, len(data), 1 + number // 4):
            data[position] = rng.integers(256)
        (folder / f"{number}.{suffix}").write_bytes(data[: rng.integers(1, 2 * len(data))])
    try:
        frames = list(iterate_frames(folder))
    except VideoError as error:  # the size in a header was hit
        assert f"{folder}: " in str(error) and "leave the pictures of one video" in str(error)
    else:
        assert len(frames) == 30


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"quality": 30}])
def test_webp_is_read_as_pil_reads_it(tmp_path, mode, options):
    path = tmp_path / "1.webp"
    Image.fromarray(picture(37)).convert(mode).save(path, **options)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_picture(path), image.convert("RGB"))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.fromarray(picture(37)).save(path, exif=exif, **options)
    assert read_picture(path).shape[:2] == picture(37).shape[1::-1]
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(OSError):
        read_picture(path)


def test_pictures_of_any_mode_become_rgb(tmp_path):
    rgb = picture(37)
    gray = rgb[..., 0]
    modes = {
        "rgb.png": Image.fromarray(rgb),
        "gray.png": Image.fromarray(gray),
        "gray16.png": Image.fromarray(gray.astype(np.uint16) * 257),
        "palette.png": Image.fromarray(rgb).quantize(8),
        "alpha.png": Image.fromarray(rgb).convert("RGBA"),
        "cmyk.tif": Image.fromarray(rgb).convert("CMYK"),
    }
    for name, image in modes.items():
        image.save(tmp_path / name)
        read = read_picture(tmp_path / name)
        assert read.shape == rgb.shape and read.dtype == np.uint8
        assert np.abs(read.astype(int) - rgb).max() <= 1, name
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.fromarray(np.rot90(rgb)).save(tmp_path / "phone.png", exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "phone.png"), rgb)


def test_optical_flow_beside_the_pictures_is_left_alone(tmp_path):
    folder = write_pictures(tmp_path / "film", [f"img_{n:05d}.jpg" for n in range(1, 11)])
    for kind in ("flow_x", "flow_y"):
        write_pictures(folder, [f"{kind}_{n:05d}.jpg" for n in range(1, 10)], timing=None)
    assert len(list(iterate_frames(folder))) == 10


LAUGHS = (
    "a: &a ["
    + "x," * 99
    + "x]\n"
    + "".join(f"{b}: &{b} [" + f"*{a}," * 99 + f"*{a}]\n" for a, b in zip("abcd", "bcde"))
)


def _refused(folder: Path) -> dict[str, Path]:
    """Folders that can't be used, by what is said about them."""
    names = [f"{n:03d}.png" for n in range(1, 9)]
    cases = {
        "without numbered pictures": write_pictures(folder / "empty", []),
        "without numbered pictures or": write_pictures(folder / "holiday", ["me.jpg", "you.jpg"]),
        "frame rate is not known": write_pictures(folder / "norate", names, timing=None),
        "expected 'fps: NUMBER'": write_pictures(folder / "list", names, timing="25"),
        "write lines like": write_pictures(folder / "yaml", names, timing="fps: [25"),
        "fps is 0, expected": write_pictures(folder / "zero", names, timing="fps: 0"),
        "fps is 'many'": write_pictures(folder / "text", names, timing="fps: many"),
        "fps is None": write_pictures(folder / "nothing", names, timing="fps:"),
        "first is 1.5": write_pictures(folder / "half", names, timing="fps: 5\nfirst: 1.5"),
        "start is nan": write_pictures(folder / "nan", names, timing="fps: 5\nstart: .nan"),
        "fps is '1e400000000', expected a number up to 1000": write_pictures(
            folder / "huge", names, timing="fps: 1e400000000"
        ),
        "fps is a number of thousands of digits": write_pictures(
            folder / "hex", names, timing="fps: 0x" + "f" * 100_000
        ),
        "fps is [25, 30]": write_pictures(folder / "two", names, timing="fps: [25, 30]"),
        "fps is -25": write_pictures(folder / "minus", names, timing="fps: -25"),
        "fps is inf": write_pictures(folder / "inf", names, timing="fps: .inf"),
        "start is 1000000000000": write_pictures(
            folder / "late", names, timing="fps: 25\nstart: 1000000000000"
        ),
        "more than 100,000 values": write_pictures(folder / "aliases", names, timing=LAUGHS),
        "write 'fps: 25', or what is right, into": write_pictures(
            folder / "started", names, timing="start: 900"
        ),
        "'rate'": write_pictures(folder / "keys", names, timing="fps: 5\nrate: 5"),
        "'first' in frames.yaml is 2": write_pictures(
            folder / "first", names, timing="fps: 5\nfirst: 2"
        ),
        "of several kinds, a_*.png (1), b_*.png (1)": write_pictures(
            folder / "kinds", ["a_1.png", "b_1.png"]
        ),
        "different lengths": write_pictures(folder / "zeros", ["01.png", "1.png", "2.png"]),
        "none of its 8 pictures can be read": write_pictures(folder / "broken", names),
        "005.png is 10x20, 001.png is 64x48": write_pictures(folder / "sizes", names),
        "pictures (001.png) and clips (0001.mp4)": write_pictures(folder / "both", [*names]),
        "pictures (001.png) and videos (a.mp4) in one": write_pictures(folder / "stray", [*names]),
    }
    for path in (folder / "broken").glob("*.png"):
        path.write_bytes(b"nothing")
    Image.new("RGB", (10, 20)).save(folder / "sizes" / "005.png")
    (folder / "both" / "0001.mp4").write_bytes(b"")
    for name in ("preview.mp4", "a.mp4"):
        (folder / "stray" / name).write_bytes(b"")
    return cases


def test_what_cannot_be_used_is_refused_in_one_line(tmp_path):
    for message, folder in _refused(tmp_path).items():
        for open_it in (probe_video, iterate_frames, VideoReader):
            with pytest.raises(VideoError) as caught:
                open_it(folder)
            text = str(caught.value)
            assert message in text and "\n" not in text and folder.name in text


def test_a_size_that_changes_in_the_middle_is_refused(tmp_path):
    folder = write_pictures(tmp_path / "film", [f"{n:03d}.png" for n in range(1, 41)])
    Image.new("RGB", (10, 20)).save(folder / "007.png")
    with VideoReader(folder) as reader:
        read(reader, [2.0])
        with pytest.raises(VideoError, match="007.png is 10x20, 001.png is 64x48: leave the"):
            read(reader, [6 / FPS])


def test_pictures_that_claim_to_be_huge_are_not_made(tmp_path):
    folder = write_pictures(tmp_path / "film", ["1.png"])
    Image.new("1", (9000, 9000)).save(folder / "1.png")
    start = time.monotonic()
    with pytest.raises(VideoError, match="can be read, 1.png: 9000x9000, at most 36,000,000"):
        probe_video(folder)
    Image.new("RGB", (8192, 4320)).save(folder / "1.png")
    assert probe_video(folder).width == 8192, "8K is read"
    assert time.monotonic() - start < 10


def test_other_kinds_of_files_are_no_pictures(tmp_path):
    """PIL would start Ghostscript for one of them."""
    folder = write_pictures(tmp_path / "film", ["1.png"])
    Image.new("RGB", (9, 9)).save(folder / "1.png", format="EPS")
    with pytest.raises(VideoError, match="none of its 1 pictures can be read, 1.png: no picture"):
        probe_video(folder)


def test_many_strange_names_and_many_damaged_pictures_cost_nothing(tmp_path):
    start = time.monotonic()
    strange = [f"{n:x}_{n % 7}.jpg" for n in range(50_000)]
    with pytest.raises(VideoError, match="pictures of several kinds, 0_"):
        picture_series(Path("film"), strange)
    assert picture_series(Path("film"), [f"{n:x}_.jpg" for n in range(50_000)]) is None
    names = [f"{n}.png" for n in range(1, 1500)]
    folder = write_pictures(tmp_path / "film", names[:1])
    for name in names[1:]:
        (folder / name).touch()
    assert [index_of(frame) for _, frame in iterate_frames(folder)] == [0] * 1499
    (folder / "1.png").write_bytes(b"")
    with pytest.raises(VideoError, match="none of the first 1000 of its 1499 pictures can be read"):
        probe_video(folder)
    assert time.monotonic() - start < 10


def test_numbers_far_apart_cost_nothing(tmp_path, caplog):
    names = ["1.png", "2.png", "999999999.png", "999999999999999.png"]
    folder = write_pictures(tmp_path / "film", names, timing="fps: 1")
    start = time.monotonic()
    assert len(list(iterate_frames(folder))) == 4
    clips = iterate_clips(iterate_frames(folder), 2, 1, 1)
    timestamps = [timestamp for timestamp, _, _ in clips]
    assert timestamps[:2] == [0, 1] and len(timestamps) < 100
    assert time.monotonic() - start < 2
    assert "999999999999995 of 999999999999999 pictures are missing" in caplog.text


def test_the_nearest_timing_counts(tmp_path):
    folder = write_pictures(tmp_path / "a" / "b" / "film", ["1.png", "2.png"], timing=None)
    (tmp_path / "frames.yaml").write_text("fps: 1")
    with pytest.raises(VideoError, match="not known: write 'fps: 25', or"):
        probe_video(folder)  # three folders up is too far
    for place, rate in (("a", "30000/1001"), ("a/b", "29.97"), ("a/b/film", "25")):
        (tmp_path / place / "frames.yaml").write_text(f"fps: {rate}")
        assert probe_video(folder).average_fps == pytest.approx(float(eval(rate)))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_named_like_a_picture_is_not_waited_for(tmp_path):
    folder = write_pictures(tmp_path / "film", ["1.png", "2.png", "3.png"])
    (folder / "2.png").unlink()
    os.mkfifo(folder / "2.png")
    assert [index_of(frame) for _, frame in iterate_frames(folder)] == [0, 0, 2]


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [([7], 0), ([1, 2, 3], 0), ([1, 2, 5, 6, 8], 3), ([0, 4, 8, 12], 0), ([0, 4, 8, 13], 10)],
)
def test_series_knows_what_it_lacks(numbers, missing):
    assert picture_series(Path("film"), [f"{n}.jpg" for n in numbers]).missing[0] == missing


@pytest.mark.parametrize(
    ("numbers", "step"),
    [([7], 1), ([1, 2, 5], 1), ([0, 4, 8, 13], 4), ([0, 30, 60, 61, 90], 30), ([5, 9], 4)],
)
def test_series_knows_its_step(numbers, step):
    assert picture_series(Path("film"), [f"{n}.jpg" for n in numbers]).step == step


def test_what_a_folder_lacks_is_counted_once(tmp_path, monkeypatch):
    folder = write_pictures(tmp_path / "film", [f"{n}.png" for n in (1, 2, 5)])
    counted = []
    count = PictureSeries.missing.func
    monkeypatch.setattr(PictureSeries.missing, "func", lambda x: counted.append(x) or count(x))
    for _ in range(3):
        VideoReader(folder).close()
    assert len(counted) == 1


@given(
    st.sets(st.integers(0, 3000), min_size=1, max_size=60),
    st.integers(0, 6),
    st.sampled_from(["", "v_", "a1-", "5."]),
    st.integers(-5, 3005),
)
def test_series_knows_its_names(numbers, width, prefix, wanted):
    numbers = sorted(numbers)
    names = [f"{prefix}{n:0{width}d}.jpg" for n in numbers]
    series = picture_series(Path("film"), [*names[::-1], "frames.yaml", "cover.jpg"])
    assert [series.name(i) for i in range(len(series))] == names
    assert [series.numbers[i] for i in range(len(series))] == numbers
    at = max((i for i, n in enumerate(numbers) if n <= wanted), default=0)
    assert series.index_at(wanted) == at


@given(st.lists(st.text("ab01_.xyjpgn", max_size=8), max_size=12))
def test_any_names_give_a_series_or_one_line(names):
    names = [*names, *(f"{name}.jpg" for name in names)]
    try:
        series = picture_series(Path("film"), set(names))
    except VideoError as error:
        assert str(error).startswith("film: ") and "\n" not in str(error)
    else:
        if series is not None:
            found = [series.name(i) for i in range(len(series))]
            assert set(found) <= set(names) and len(set(found)) == len(found)
