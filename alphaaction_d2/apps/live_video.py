"""The annotated picture of something that happens now: pieces of video, a window."""

from __future__ import annotations

import math
import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..data.clip_sampling import MAX_STILL_SECONDS
from ..data.video import VideoWriter
from ..formats.results import KeyframeResult
from ..visualization.drawing import PersonDrawer
from ..visualization.palette import IdentityColours
from ..visualization.text import format_time
from ..visualization.timeline import persons_at

FPS = 10  # of what is shown: the pictures wait for their results, so few and small ones are kept
LONG_SIDE = 960
_WAITING_SECONDS = 20  # for which pictures are kept at most, should results take that long


class AnnotatedStream:
    """Draws persons and actions onto the pictures of a stream, once they are known.

    Pictures go by in the thread that decodes and wait here; results come from the other one.
    """

    def __init__(self, alarm: str = "") -> None:
        """Begin with nothing seen; `alarm` is a line in red in every picture."""
        self._alarm = alarm
        self._waiting: deque[tuple[int, np.ndarray]] = deque(maxlen=FPS * _WAITING_SECONDS)
        self._lock = threading.Lock()
        self._scale = 1.0
        self._before: KeyframeResult | None = None
        self.restart_colours()

    def watch(self, frames: Iterable[tuple[float, np.ndarray]]) -> Iterator[tuple[float, Any]]:
        """Pass on (seconds, frame), and keep some of them, smaller."""
        last = -1
        for seconds, frame in frames:
            number = int(seconds * FPS + 1e-6)
            if number > last:
                last = number
                self._scale = min(1.0, LONG_SIDE / max(frame.shape[:2]))
                width, height = (max(1, round(x * self._scale)) for x in frame.shape[1::-1])
                small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
                with self._lock:
                    self._waiting.append((number, small))
            yield seconds, frame

    def restart_colours(self) -> None:
        """Forget which colour everybody has: in a street, ids never end."""
        self._colours = IdentityColours()
        self._drawer: PersonDrawer | None = None

    def drawn_until(self, keyframe: KeyframeResult | None) -> Iterator[tuple[int, np.ndarray]]:
        """Draw the pictures that have waited for a keyframe, whose boxes are in pixels of the
        stream; all that are left where none comes any more.

        Yields:
            Number of the picture, of which there are `FPS` a second at most; (H, W, 3) uint8 RGB.
        """
        before, self._before = self._before, keyframe
        end = math.inf if keyframe is None else keyframe.timestamp * FPS
        while True:
            with self._lock:
                if not self._waiting or self._waiting[0][0] > end:
                    return
                number, picture = self._waiting.popleft()
            persons = [
                replace(person, box=person.box * self._scale)
                for person in persons_at(number / FPS, before, keyframe)
            ]
            if self._drawer is None:
                size = picture.shape[1::-1]
                self._drawer = PersonDrawer(*size, min_score=0, alarm=self._alarm)
            colours = self._colours.of([person.person_id for person in persons])
            yield number, self._drawer.draw(picture, persons, colours, format_time(number / FPS))


class VideoPieces:
    """Writes pictures into mp4 files of some length, called by the time at which they begin.

    A file appears when it is finished.
    """

    def __init__(self, folder: Path, piece_seconds: float, begin: datetime) -> None:
        """Begin without a piece; `begin` is the time of day of the picture with number 0."""
        self.folder, self.piece_seconds, self.begin = folder, piece_seconds, begin
        self._writer: VideoWriter | None = None
        self._first = self._next = 0  # numbers of pictures: of this file's first, and what is due

    def write(self, number: int, picture: np.ndarray) -> bool:
        """Append the picture with that number; repeat it for those that are missing. Tells whether
        a new file was begun."""
        is_late = number - self._next > MAX_STILL_SECONDS * FPS  # nothing was seen for a while
        if self._writer and (is_late or number - self._first >= self.piece_seconds * FPS):
            self.close()
        begins = self._writer is None
        if self._writer is None:
            moment = self.begin + timedelta(seconds=number / FPS)
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{moment:%Y%m%d-%H%M%S}.mp4"
            height, width = picture.shape[:2]
            self._writer = VideoWriter(path, FPS, width, height, preset="veryfast", gop=FPS)
            self._first = self._next = number
        for _ in range(self._next, number + 1):
            self._writer.write(picture)
        self._next = number + 1
        return begins

    def close(self) -> None:
        """Finish the file that is being written, if there is one."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


class Window:
    """Shows pictures on the screen."""

    def __init__(self, title: str) -> None:
        """Raise ValueError, in one line, where there is no screen or OpenCV has no windows."""
        hint = "leave --window out and use --video DIR or --json FILE"
        if sys.platform.startswith("linux") and not (
            os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        ):
            raise ValueError(f"--window: there is no display here: {hint}")
        self._title = title
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL)
        except cv2.error:
            raise ValueError(
                "--window: this OpenCV has no windows (opencv-python-headless): install "
                f"opencv-python in its place, or {hint}"
            ) from None

    def show(self, picture: np.ndarray) -> bool:
        """Show an RGB picture; whether to go on: "q", Escape and closing the window end it."""
        cv2.imshow(self._title, picture[..., ::-1])
        key = cv2.waitKey(1) & 0xFF
        return key not in (27, ord("q")) and cv2.getWindowProperty(self._title, 0) >= 0
