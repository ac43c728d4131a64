"""How far a video is, and how long it will take."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from ..data.video import VideoInfo, one_line, video_name
from ..visualization.text import format_time

logger = logging.getLogger(__name__)

EVERY_SECONDS = 30.0  # in a file; a terminal shows one line that changes every half second
# Takes a video, the seconds that it is at, and what a terminal would be told.
Listener = Callable[[VideoInfo, float, str], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def hearing_progress(listener: Listener) -> Iterator[None]:
    """Hand the progress that is made here to a listener instead of the terminal."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


class Progress:
    """Takes the seconds of the frames that go by, and says every now and then where that is."""

    def __init__(self, info: VideoInfo, what: str) -> None:
        """
        Args:
            info: of the video.
            what: is being done.
        """
        self._info, self._what = info, f"{one_line(video_name(info.path))}: {what}"
        self._listener = _listener.get()
        self._terminal = sys.stderr.isatty() and self._listener is None
        self._period = 0.5 if self._terminal or self._listener else EVERY_SECONDS
        self._start = self._told = time.monotonic()

    def __call__(self, seconds: float) -> None:
        """Take the next frame's time."""
        now = time.monotonic()
        if now < self._told + self._period:
            return
        self._told = now
        text = f"{self._what} {progress_text(self._info, seconds, now - self._start)}"
        if self._listener is not None:
            self._listener(self._info, seconds, text)
        elif self._terminal:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
        else:
            logger.info("%s", text)

    def end(self) -> None:
        """Leave an empty line for what comes next."""
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def share_done(info: VideoInfo, seconds: float) -> float:
    """How much of a video is done, above 0 up to 1, at the frame of these seconds; 0: its end is
    unknown."""
    if info.duration is None:
        return 0.0
    return min(max((seconds - info.begin) / max(info.duration, 1e-6), 1e-6), 1.0)


def progress_text(info: VideoInfo, seconds: float, spent: float) -> str:
    """Say how far a video is: "35 % (0:48.7 of 2:19.0), 1.2 minutes left".

    Args:
        info: its end may be unknown.
        seconds: of the frame that is shown.
        spent: seconds since its beginning was worked on.
    """
    if info.duration is None:
        return f"at {format_time(seconds)}"
    share = share_done(info, seconds)
    left = spent * (1 / share - 1) / 60
    there = f"{format_time(seconds)} of {format_time(info.begin + info.duration)}"
    return f"{100 * share:.0f} % ({there}), {left:.1f} minutes left"


def videos_text(done: int, total: int, seconds: float, spent: float) -> str:
    """Say how far many videos are: "10 of 40 videos, 5.0 a minute, 3.0 times as fast as they play,
    0.1 hours left"; `seconds` of video were done in `spent` seconds."""
    rate = max(done, 1e-6) / spent
    return (
        f"{done} of {total} videos, {60 * rate:.1f} a minute, {seconds / spent:.1f} times as fast "
        f"as they play, {(total - done) / rate / 3600:.1f} hours left"
    )
