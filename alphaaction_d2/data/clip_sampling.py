"""Which moments a clip shows, and which frame is on screen at a moment; pure functions, no decoder.

Everything is told in seconds from the video's first frame and never in frame indices, so that a
variable frame rate, dropped frames and a wrong header count need no special case. A frame is shown
from its own time until the next frame's time.

Shape legend: T frames of a clip, F frames of a video, H W height and width.
"""

from __future__ import annotations

import math
import reprlib
import statistics
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

# Containers round times (Matroska to 1 ms) and k / fps is rarely a binary fraction: a frame that
# starts this many seconds after the wanted moment still counts as shown at that moment.
TIME_TOLERANCE = 1e-3
# How long a frame stands for what happens, see `StillLimit`.
MAX_STILL_SECONDS = 2.0
_STILL_FRAMES = 3
_MAX_STILL_OF_RARE_FRAMES = 60.0


def clip_times(timestamp: float, num_frames: int, sampling_rate: float, fps: float) -> np.ndarray:
    """Give the moments of a clip around a keyframe.

    The keyframe is element ``num_frames // 2``. For the paper's raw clip of 64 frames (AIA,
    section 4.1) it is element 32, which is where the authors' temporal crop puts it.

    Args:
        sampling_rate: distance of two of the T frames, in frames of a video with `fps`. For a clip
            of the same length in seconds from every video give the data set's rate, not the file's.

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

    A later one would show a picture that is already covered: 0.4 s have exactly keyframe 0.
    """
    return math.floor((last_frame_time + TIME_TOLERANCE) / period)


def frames_shown_at(
    frame_times: Sequence[float] | np.ndarray, times: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Give, (T,) int64, the frame that is shown at each moment; the library's one picking rule.

    It is the last frame that starts at or before the moment (`TIME_TOLERANCE` allowed), the first
    frame for earlier moments, and the last frame for all later ones.

    Args:
        frame_times: (F,) seconds at which the frames start, increasing, F >= 1.
        times: (T,) seconds, in any order.
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


class StillLimit:
    """Tells until when each frame of a stream is shown, and so where the stream has holes.

    A frame is on screen until the next one. Where that is long in coming (recordings that were
    joined, a camera that was off) it soon is no picture of the moment any more: after 2 s, or three
    times the usual distance of two frames if they are rarer than that, but after a minute at most.
    The usual distance is the median of the last 32; the first one counts as usual itself.
    """

    def __init__(self) -> None:
        self._last: float | None = None
        self._distances: deque[float] = deque(maxlen=32)

    def shown_until(self, seconds: float) -> float:
        """Take the time of the next frame; give that until which the one before it is shown."""
        last, self._last = self._last, seconds
        if last is None:
            return seconds
        distance = seconds - last
        limit = MAX_STILL_SECONDS
        if distance > limit:
            usual = statistics.median(self._distances or [distance])
            limit = min(max(limit, _STILL_FRAMES * usual), _MAX_STILL_OF_RARE_FRAMES)
        self._distances.append(distance)
        return min(seconds, last + limit)


class Moments:
    """Finds which multiples of a period are moments of a stream of frames.

    These are the multiples from its first to its last frame, without those in holes, see
    :class:`StillLimit`. A moment is told by its number: number * period is its second.
    """

    def __init__(self, period: float) -> None:
        _check_period(period)
        self._period = period
        self._stills = StillLimit()
        self._last: float | None = None
        self._next = 0  # number of the next moment that may be one

    @property
    def earliest(self) -> float:
        """Seconds before which no moment will come any more."""
        return self._next * self._period

    def before(self, seconds: float) -> list[int]:
        """Take the time of the next frame; give the moments at which the one before it is shown."""
        until = self._stills.shown_until(seconds) + TIME_TOLERANCE
        found: list[int] = []
        if self._last is None:
            self._next = first_keyframe(seconds, self._period)
        while self._last is not None and not is_shown_by(seconds, self._next * self._period):
            if self._next * self._period > until:  # the rest of them lies in a hole
                self._next = max(self._next + 1, first_keyframe(seconds, self._period))
                continue
            found.append(self._next)
            self._next += 1
        self._last = seconds
        return found

    def at_end(self) -> list[int]:
        """Give the moments that only the last frame shows."""
        if self._last is None:
            return []
        return list(range(self._next, last_keyframe(self._last, self._period) + 1))


def checked_frames(frames: Iterable[tuple[float, Any]]) -> Iterator[tuple[float, Any]]:
    """Pass on (seconds, frame); ValueError for a time that is none or before the last one."""
    last = -math.inf
    for number, item in enumerate(frames):
        try:
            seconds, frame = item
            seconds = float(seconds)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(
                f"frame {number}: expected (seconds, frame), got {type(item).__name__} "
                f"{reprlib.repr(item)}"
            ) from None
        if not math.isfinite(seconds):
            raise ValueError(f"frame {number}: its time is {seconds}, expected finite seconds")
        if seconds < last:
            raise ValueError(
                f"frame {number}: its time is {seconds} s, before the {last} s of the frame before "
                "it: give frames in order of time"
            )
        last = seconds
        yield seconds, frame


def iterate_clips(
    frames: Iterable[tuple[float, Any]],
    num_frames: int,
    sampling_rate: float,
    fps: float,
    timestamps: Sequence[float] | np.ndarray | None = None,
    period: float = 1.0,
) -> Iterator[tuple[float, Any, Any]]:
    """Cut the clips of all keyframes out of a stream of frames, each frame taken once.

    A clip comes out when the frame after its last moment arrives (only then is it known which
    frame was shown at that moment), or when the stream ends. At both ends of the stream the
    nearest frame is repeated. The clips equal ``VideoReader.pictures(clip_times(...))`` of the same
    frames. At any time only the frames of one clip's span are held.

    Args:
        frames: (seconds, (H, W, 3) picture) with increasing seconds: `iterate_frames`, the same
            through a function that scales each picture, or a camera. In place of a picture there
            may be a tuple of them, several views of one; a clip is then a tuple of clips.
        num_frames, sampling_rate, fps: the clip, see `clip_times`.
        timestamps: increasing seconds of the keyframes. All of them come out, also those after
            the end and in holes. By default every multiple of `period` from the first to the last
            frame, without those in holes between frames, see :class:`StillLimit`.
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
    return _iterate_clips(checked_frames(frames), offsets, timestamps, period)


def _iterate_clips(
    frames: Iterable[tuple[float, Any]],
    offsets: np.ndarray,
    timestamps: np.ndarray | None,
    period: float,
) -> Iterator[tuple[float, Any, Any]]:
    """Do the work of `iterate_clips`; `offsets` (T,) are the clip's moments for timestamp 0."""
    held: deque[tuple[float, Any]] = deque()
    moments = Moments(period) if timestamps is None else None
    # Keyframes that are known to exist and whose clips may still lack frames.
    due: deque[float] = deque([] if timestamps is None else timestamps.tolist())
    for time, frame in frames:
        held.append((time, frame))
        if moments is not None:
            due.extend(number * period for number in moments.before(time))
        while due and not is_shown_by(time, due[0] + offsets[-1]):
            yield _cut_clip(held, due.popleft(), offsets)
        if due:
            following = due[0]
        elif moments is not None:
            following = moments.earliest
        else:
            return
        # A frame is needed no more once its successor has started at the next clip's first moment.
        while len(held) > 1 and is_shown_by(held[1][0], following + offsets[0]):
            held.popleft()
    if moments is not None:
        due.extend(number * period for number in moments.at_end())
    while held and due:
        yield _cut_clip(held, due.popleft(), offsets)


def _cut_clip(
    held: deque[tuple[float, Any]], timestamp: float, offsets: np.ndarray
) -> tuple[float, Any, Any]:
    picked = frames_shown_at([time for time, _ in held], timestamp + offsets)
    frames = [held[index][1] for index in picked]
    if isinstance(frames[0], tuple):
        return timestamp, tuple(map(np.stack, zip(*frames))), frames[len(offsets) // 2]
    clip = np.stack(frames)
    return timestamp, clip, clip[len(offsets) // 2]


def _check_period(period: float) -> None:
    if not (math.isfinite(period) and period > 0):
        raise ValueError(f"period is {period}: give the seconds between two keyframes, above 0")
