"""The pure part of clip sampling: moments, the picking rule, clips cut out of a stream."""

import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphaaction_d2.data.clip_sampling import (
    Moments,
    clip_times,
    first_keyframe,
    frames_shown_at,
    is_shown_by,
    iterate_clips,
    last_keyframe,
)


def make_frames(times):
    """(seconds, (1, 2, 3) picture that holds the frame's index) for each time."""
    return [(time, np.full((1, 2, 3), index, dtype=np.uint8)) for index, time in enumerate(times)]


def indices(clip):
    return clip[:, 0, 0, 0].tolist()


def test_clip_times_put_the_keyframe_where_the_authors_crop_does():
    # 100 raw frames around a keyframe at index 50: the released crop takes 18..81.
    times = clip_times(2.0, num_frames=64, sampling_rate=1, fps=25)
    frame_indices = np.rint(times * 25).astype(int)
    assert frame_indices.tolist() == list(range(18, 82))
    assert times[32] == 2.0
    assert times.dtype == np.float64


@pytest.mark.parametrize("num_frames", [1, 2, 3, 8, 31, 32])
def test_clip_times_hold_the_timestamp_itself(num_frames):
    times = clip_times(7.3, num_frames, 2, 30000 / 1001)
    assert times.shape == (num_frames,)
    assert times[num_frames // 2] == 7.3
    np.testing.assert_allclose(np.diff(times), 2 * 1001 / 30000)


@pytest.mark.parametrize(
    "arguments, named",
    [((0, 2, 25), "num_frames"), ((8, 0, 25), "sampling_rate"), ((8, 2, float("nan")), "fps")],
)
def test_clip_times_refuse_an_impossible_clip(arguments, named):
    with pytest.raises(ValueError, match=named):
        clip_times(1.0, *arguments)


@pytest.mark.parametrize(
    "last_frame_time, expected", [(0.0, 0), (0.4, 0), (0.9995, 1), (2.0, 2), (2.93, 2)]
)
def test_keyframes_go_up_to_the_last_frame(last_frame_time, expected):
    assert last_keyframe(last_frame_time) == expected


def test_keyframes_go_on_from_the_first_frame():
    assert [first_keyframe(t) for t in (0.0, 0.0005, 0.1, 900.4)] == [0, 0, 1, 901]
    assert (first_keyframe(0.3, 0.25), last_keyframe(1.0, 0.25)) == (2, 4)
    with pytest.raises(ValueError, match="period"):
        iterate_clips([], 8, 2, fps=25, period=0)


def test_the_frame_shown_is_the_last_that_has_started():
    frame_times = [0.0, 0.1, 0.5]
    times = [-3, 0, 0.0985, 0.0995, 0.1, 0.49, 0.5, 9, 0]
    assert frames_shown_at(frame_times, times).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 0]
    with pytest.raises(ValueError, match="no frames"):
        frames_shown_at([], [0.0])


@given(
    gaps=st.lists(st.floats(1e-4, 3.0), min_size=1, max_size=30),
    time=st.floats(-1.0, 20.0),
)
def test_picking_agrees_with_its_definition(gaps, time):
    frame_times = np.cumsum(gaps)
    started = [index for index, start in enumerate(frame_times) if is_shown_by(start, time)]
    assert frames_shown_at(frame_times, [time])[0] == (started[-1] if started else 0)


def test_clips_of_a_short_stream_repeat_its_ends():
    clips = list(iterate_clips(make_frames([0.0, 0.2, 0.4]), 4, 1, fps=5))
    assert [timestamp for timestamp, _, _ in clips] == [0.0]
    _, clip, keyframe = clips[0]
    assert indices(clip) == [0, 0, 0, 1]
    np.testing.assert_array_equal(keyframe, clip[2])


def test_clips_come_as_soon_as_they_can():
    taken = []

    def camera():
        for frame in make_frames(np.arange(100) / 10):
            taken.append(frame[0])
            yield frame

    clips = iterate_clips(camera(), 8, 1, fps=10)
    # Keyframe 0: -0.4 .. 0.3 s, certain when the frame at 0.4 s is there.
    assert next(clips)[0] == 0 and taken[-1] == pytest.approx(0.4)
    timestamp, clip, _ = next(clips)
    assert (timestamp, taken[-1]) == (1, pytest.approx(1.4))
    assert indices(clip) == [6, 7, 8, 9, 10, 11, 12, 13]


def test_clips_hold_only_one_span_of_frames():
    pictures = []

    def frames():
        for index in range(300):
            picture = np.zeros((1, 1, 3), dtype=np.uint8)
            pictures.append(weakref.ref(picture))
            yield index / 30, picture

    held = [
        sum(picture() is not None for picture in pictures)
        for _ in iterate_clips(frames(), 16, 1, fps=30)
    ]
    assert len(held) == 10
    assert 16 <= max(held) <= 16 + 3


def test_clips_at_given_timestamps():
    frames = make_frames([0.0, 1.0, 2.0])
    clips = list(iterate_clips(iter(frames), 2, 1, fps=1, timestamps=[-5.0, 0.5, 2.0, 70.0]))
    assert [timestamp for timestamp, _, _ in clips] == [-5.0, 0.5, 2.0, 70.0]
    assert [indices(clip) for _, clip, _ in clips] == [[0, 0], [0, 0], [1, 2], [2, 2]]
    assert list(iterate_clips(iter(frames), 2, 1, fps=1, timestamps=[])) == []
    with pytest.raises(ValueError, match="increasing"):
        iterate_clips(iter(frames), 2, 1, fps=1, timestamps=[1.0, 1.0])


def test_no_frames_no_clips():
    assert list(iterate_clips(iter([]), 8, 2, fps=25)) == []
    assert list(iterate_clips(iter([]), 8, 2, fps=25, timestamps=[0.0])) == []


def keyframes(times, period=1.0):
    return [time for time, _, _ in iterate_clips(make_frames(times), 4, 1, fps=5, period=period)]


def test_no_keyframes_in_holes():
    joined = np.concatenate([np.arange(50) / 25, 5000 + np.arange(50) / 25])
    assert keyframes(joined) == [0, 1, 2, 3, 5000, 5001]
    assert keyframes([*joined, 1e9]) == [0, 1, 2, 3, 5000, 5001, 5002, 5003, 1e9]
    clips = list(iterate_clips(make_frames(joined), 4, 1, fps=1))
    assert [indices(clip) for _, clip, _ in clips][3:5] == [[25, 49, 49, 49], [49, 49, 50, 75]]


def test_rare_frames_are_shown_for_long():
    slides = np.arange(6) * 10.0
    assert keyframes(slides) == list(range(51))
    assert keyframes([*slides, 400.0]) == [*range(81), 400], "three of their distances"
    assert keyframes([0.0, 600.0]) == [*range(61), 600], "but a minute at most"


@given(
    gaps=st.lists(st.floats(0.01, 9.0), max_size=30),
    looks=st.integers(1, 7),
)
def test_keyframes_are_among_the_moments_that_are_looked_at(gaps, looks):
    times = np.concatenate([[0.3], 0.3 + np.cumsum(gaps)])

    def moments(period):
        found, moments = [], Moments(period)
        for time in times:
            found += moments.before(time)
            assert all(number * period < moments.earliest for number in found)
        return found + moments.at_end()

    assert {number * looks for number in moments(1.0)} <= set(moments(1 / looks))


@pytest.mark.parametrize(
    "times, message",
    [
        ([0.0, float("nan")], "frame 1: its time is nan, expected finite seconds"),
        ([float("inf")], "frame 0: its time is inf"),
        ([0.0, 0.5, 0.4], "frame 2: its time is 0.4 s, before the 0.5 s of the frame before"),
        ([0.0, None], r"frame 1: expected \(seconds, frame\), got tuple"),
    ],
)
def test_times_that_are_none_are_named(times, message):
    frames = [(time, np.zeros((1, 2, 3), np.uint8)) for time in times]
    with pytest.raises(ValueError, match=message):
        list(iterate_clips(frames, 4, 1, fps=5))


def test_frames_without_times_are_named():
    with pytest.raises(ValueError, match=r"frame 0: expected \(seconds, frame\), got ndarray"):
        list(iterate_clips(np.zeros((5, 4, 4, 3), np.uint8), 4, 1, fps=5))


@settings(max_examples=60, deadline=None)
@given(
    gaps=st.lists(st.floats(0.002, 2.0), min_size=0, max_size=40),
    num_frames=st.integers(1, 12),
    sampling_rate=st.integers(1, 4),
    fps=st.sampled_from([1.0, 5.0, 30000 / 1001]),
    period=st.sampled_from([0.25, 1.0, 3.0]),
)
def test_clips_of_a_stream_equal_picking_from_the_whole(
    gaps, num_frames, sampling_rate, fps, period
):
    frame_times = np.concatenate([[0.0], np.cumsum(gaps)])
    frames = make_frames(frame_times)
    clips = list(iterate_clips(iter(frames), num_frames, sampling_rate, fps, period=period))
    timestamps = [timestamp for timestamp, _, _ in clips]
    assert timestamps == [n * period for n in range(last_keyframe(frame_times[-1], period) + 1)]
    for timestamp, clip, keyframe in clips:
        times = clip_times(timestamp, num_frames, sampling_rate, fps)
        assert indices(clip) == frames_shown_at(frame_times, times).tolist()
        assert keyframe[0, 0, 0] == frames_shown_at(frame_times, [timestamp])[0]
