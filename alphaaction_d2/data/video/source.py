"""What every source of a video's frames offers, whether it is a file or a folder.

`reader.py` reads from a source without knowing which it is: a video file (`file.py`), numbered
pictures (`frame_folder.py`) or one-second clips (`clip_folder.py`).
"""

from __future__ import annotations

import contextlib
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..clip_sampling import TIME_TOLERANCE, StillLimit, checked_frames

logger = logging.getLogger(__name__)


# 8K of cinemas has 35.4 million. A small file can claim any size, and pictures are made in memory.
MAX_PIXELS = 36_000_000

_told: set[str] = set()  # warnings that are given once


def one_line(text: object) -> str:
    """A text as one printable line: the name of a file may hold anything, a line break too."""
    return "".join(x if x.isprintable() else repr(x)[1:-1] for x in str(text))


_Listener = Callable[[str, str], None]
_listener: ContextVar[_Listener | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def hearing_warnings(listener: _Listener) -> Iterator[None]:
    """Hand what is unusual about videos that are read here to a listener instead of the log."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def warn(where: object, what: str, *, once: bool = False) -> None:
    """Log a line about a file or folder, or hand it to whoever is `hearing_warnings`.

    With `once` only once in a process: training opens a video again and again.
    """
    listener = _listener.get()
    if listener is not None:
        listener(one_line(where), one_line(what))
    elif once:
        message = one_line(f"{where}: {what}")
        if message not in _told:
            _told.add(message)
            logger.warning("%s", message)
    else:
        logger.warning("%s", one_line(f"{where}: {what}"))


def warn_of_hole(video: object, begin: float, end: float) -> None:
    """Warn that a video has no frames between two seconds, see :class:`StillLimit`."""
    what = f"no frames up to {end:.1f} s from {begin:.1f} s on, where recordings were joined or "
    warn(video, f"{what}stopped: that time has no keyframes", once=True)


def checked_stream(frames: Iterable[tuple[float, Any]], name: str) -> Iterator[tuple[float, Any]]:
    """Pass on the (seconds, frame) of anybody's stream, and warn of its first hole."""
    stills, warned = StillLimit(), False
    for seconds, frame in checked_frames(frames):
        until = stills.shown_until(seconds)
        if until < seconds and not warned:
            warned = True
            warn_of_hole(name, until, seconds)
        yield seconds, frame


class VideoError(ValueError):
    """A video that cannot be used; the message is one line: file, reason, what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


@dataclass(frozen=True)
class VideoInfo:
    """What the header and the first frame say."""

    path: Path  # the file or folder
    width: int  # pixels of the upright picture, as `iterate_frames` gives it
    height: int
    average_fps: float  # a guess where the header has none
    # Seconds of the video stream as promised by the header, None if it is silent. A truncated file
    # ends earlier.
    duration: float | None
    # Degrees by which stored pictures are turned counter-clockwise to stand upright, a multiple of
    # 90; mirrored ones have left and right exchanged before that.
    rotation: int
    start_time: float  # seconds on the container's clock of the first frame
    # Seconds of the first frame on the axis on which all times elsewhere are told: 0, but for a
    # folder that holds a part of a film and keeps the film's seconds.
    begin: float = 0.0

    @property
    def end(self) -> float | None:
        """Seconds at which the video ends, as promised; None if that is not known."""
        return None if self.duration is None else self.begin + self.duration

    def spans(self, second: float) -> bool:
        """Whether a moment lies between beginning and end, as far as they are known."""
        begun = self.begin - TIME_TOLERANCE <= second
        return begun and (self.end is None or second <= self.end)

    def span_text(self) -> str:
        """Say from when to when it goes, such as "seconds 0.0 to 9.6"."""
        return f"seconds {self.begin:.1f} to {math.inf if self.end is None else self.end:.1f}"


class FrameSource(ABC):
    """An open video and a position in it.

    A frame is handed out in a form of the source's own, which `to_rgb` makes a picture of: most
    frames that go by are never looked at.
    """

    info: VideoInfo
    frames_decoded: int

    @abstractmethod
    def next_frame(self) -> tuple[float, Any] | None:
        """Give the next frame and its seconds, None at the end. Seconds strictly increase."""

    @abstractmethod
    def to_rgb(self, frame: Any) -> np.ndarray:
        """Convert to (H, W, 3) uint8 RGB: upright, contiguous, in the size that `info` tells."""

    @abstractmethod
    def can_skip_ahead(self, position: float, target: float) -> bool:
        """Whether seeking to `target` decodes less than going on from `position`, seconds."""

    @abstractmethod
    def seek(self, seconds: float) -> tuple[float, Any]:
        """Go to a frame that has started at a moment (else the first), and give it.

        It is as near to the moment as is cheap.
        """

    def gaps(self) -> Iterable[str]:
        """Say what is missing, as far as that is known before frames are asked for."""
        return ()

    @abstractmethod
    def warn_if_incomplete(self) -> None:
        """Log, once, what was missing or damaged; called at the end of the video."""

    @abstractmethod
    def close(self) -> None:
        """Close all files. Frames that were handed out can still be converted."""
