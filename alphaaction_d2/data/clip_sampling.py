"""Which moments a clip shows, and which frame is on screen at a moment; pure functions, no decoder.

Everything is told in seconds from the video's first frame and never in frame indices, so that a
variable frame rate, dropped frames and a wrong header count need no special case. A frame is shown
from its own time until the next frame's time.

Shape legend: T frames of a clip, F frames of a video, H W height and width.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

# Containers round times (Matroska to 1 ms) and k / fps is rarely a binary fraction: a frame that
# starts this many seconds after the wanted moment still counts as shown at that moment.
TIME_TOLERANCE = 1e-3


def clip_times(timestamp: float, num_frames: int, sampling_rate: float, fps: float) -> np.ndarray:
    """Give the moments of a clip around a keyframe.

    The keyframe is element ``num_frames // 2``. For the paper's raw clip of 64 frames (AIA,
    section 4.1) it is element 32, which is where the authors' temporal crop puts it.

    Args:
        timestamp: seconds of the keyframe.
        num_frames: T, at least 1.
        sampling_rate: distance of two sampled frames, in frames of a video with `fps`.
        fps: frames per second in which `sampling_rate` is counted. For a clip of the same length
            in seconds from every video give the data set's rate, not the file's.

    Returns:
        (T,) float64 seconds, increasing. They may lie before the first or after the last frame:
        the nearest frame is repeated there.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}: a clip needs at least one frame")
    for name, value in (("sampling_rate", sampling_rate), ("fps", fps)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}: give a number above 0")
    steps = np.arange(num_frames, dtype=np.float64) - num_frames // 2
    return timestamp + steps * (sampling_rate / fps)


def first_keyframe(first_frame_time: float, period: float = 1.0) -> int:
    """Give the first keyframe of a video, as a number of periods."""
    return math.ceil((first_frame_time - TIME_TOLERANCE) / period)


def last_keyframe(last_frame_time: float, period: float = 1.0) -> int:
    """Give the last keyframe of a video, as a number of periods.

    A keyframe after the moment at which the last frame starts would show a picture that is already
    covered, so a video of 0.4 s has exactly keyframe 0.
    """
    return math.floor((last_frame_time + TIME_TOLERANCE) / period)


def frames_shown_at(
    frame_times: Sequence[float] | np.ndarray, times: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Give the frame that is on screen at each moment; the one picking rule of the library.

    It is the last frame that starts at or before the moment (`TIME_TOLERANCE` allowed), the first
    frame for earlier moments, and the last frame for all later ones.

    Args:
        frame_times: (F,) seconds at which the frames start, increasing, F >= 1.
        times: (T,) seconds, in any order.

    Returns:
        (T,) int64 indices into `frame_times`.
    """
    frame_times = np.asarray(frame_times, dtype=np.float64)
    if frame_times.size == 0:
        raise ValueError("there are no frames to pick from")
    shown = np.searchsorted(frame_times, np.asarray(times, dtype=np.float64) + TIME_TOLERANCE)
    # side="left" counts the frames strictly before time + tolerance, as `is_shown_by` does.
    return np.maximum(shown - 1, 0)


def is_shown_by(frame_time: float, time: float) -> bool:
    """Say whether a frame that starts at `frame_time` has started at the moment `time`."""
    return frame_time < time + TIME_TOLERANCE


def iterate_clips(
    frames: Iterable[tuple[float, np.ndarray]],
    num_frames: int,
    sampling_rate: float,
    fps: float,
    timestamps: Sequence[float] | np.ndarray | None = None,
    period: float = 1.0,
) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """Cut the clips of all keyframes out of a stream of frames, each frame taken once.

    A clip comes out when the frame after its last moment arrives (only then is it known which
    frame was shown at that moment), or when the stream ends. At both ends of the stream the
    nearest frame is repeated. The clips equal ``VideoReader.read(clip_times(...))`` of the same
    frames. At any time only the frames of one clip's span are held.

    Args:
        frames: (seconds, (H, W, 3) picture) with increasing seconds: `iterate_frames`, the same
            through a function that scales each picture, or a camera.
        num_frames, sampling_rate, fps: the clip, see `clip_times`.
        timestamps: increasing seconds of the keyframes. All of them come out, also those after
            the end. By default every multiple of `period` from the first to the last frame.
        period: seconds between keyframes when `timestamps` is None.

    Yields:
        (timestamp, clip (T, H, W, 3), keyframe picture (H, W, 3)). The keyframe picture is a view
        of ``clip[num_frames // 2]``. Nothing comes out of a stream without frames.
    """
    # One call checks the arguments before the first frame is asked for.
    offsets = clip_times(0.0, num_frames, sampling_rate, fps)
    _check_period(period)
    if timestamps is not None:
        timestamps = np.asarray(timestamps, dtype=np.float64).reshape(-1)
        if not np.isfinite(timestamps).all() or (np.diff(timestamps) <= 0).any():
            raise ValueError("timestamps: the keyframes must be finite and increasing")
    return _iterate_clips(frames, offsets, timestamps, period)


def _iterate_clips(
    frames: Iterable[tuple[float, np.ndarray]],
    offsets: np.ndarray,
    timestamps: np.ndarray | None,
    period: float,
) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """Do the work of `iterate_clips`; `offsets` (T,) are the clip's moments for timestamp 0."""
    held: deque[tuple[float, np.ndarray]] = deque()
    keyframes: Iterator[float] = iter(() if timestamps is None else timestamps.tolist())
    following = next(keyframes, None)  # the keyframe to come out
    for time, frame in frames:
        held.append((time, frame))
        if timestamps is None and following is None:  # the first frame says where to begin
            first = first_keyframe(time, period)
            keyframes = (number * period for number in itertools.count(first))
            following = next(keyframes)
        while following is not None and not is_shown_by(time, following + offsets[-1]):
            yield _cut_clip(held, following, offsets)
            following = next(keyframes, None)
        if following is None:
            return
        # A frame is needed no more once its successor has started at the next clip's first moment.
        while len(held) > 1 and is_shown_by(held[1][0], following + offsets[0]):
            held.popleft()
    if not held:
        return
    last = last_keyframe(held[-1][0], period)
    while following is not None and (timestamps is not None or round(following / period) <= last):
        yield _cut_clip(held, following, offsets)
        following = next(keyframes, None)


def _cut_clip(
    held: deque[tuple[float, np.ndarray]], timestamp: float, offsets: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    picked = frames_shown_at([time for time, _ in held], timestamp + offsets)
    clip = np.stack([held[index][1] for index in picked])
    return timestamp, clip, clip[len(offsets) // 2]


def _check_period(period: float) -> None:
    if not (math.isfinite(period) and period > 0):
        raise ValueError(f"period is {period}: give the seconds between two keyframes, above 0")
