"""Videos that are seen while they happen: cameras, streams from the network, the screen.

A file may be taken for one, too: it is shown at its own speed. What breaks off is opened again, and
its seconds go on where the clock on the wall is by then.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import av
import cv2
import numpy as np
from PIL import ImageGrab

from .file import VideoFile, _ready_stream, _say
from .reader import iterate_frames, video_name
from .source import VideoError, one_line, warn

SCREEN = "screen"
_SCREEN_FPS = 10.0
_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp", "rtp")
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://.*", re.IGNORECASE | re.DOTALL)
_CAMERA = re.compile(r"(?:/dev/video)?([0-9]{1,3})")
_GENERATED = "lavfi:"  # pictures that FFmpeg draws, for trying things out
_TIMEOUT = 10.0  # seconds without data after which a connection counts as broken
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0  # seconds before a connection is tried again

# (seconds, or None for "now"; (H, W, 3) uint8 RGB)
_Frames = Iterator[tuple[float | None, np.ndarray]]


class _Address(VideoFile):
    """A stream from the network, or one that FFmpeg generates, read like a file from its start."""

    _packets_looked_at = 1  # of a camera with a picture a second, more would take long to come

    def __init__(self, address: str, form: str | None = None) -> None:
        """`form` is FFmpeg's name of the format, where it cannot be found out."""
        self._address, self._form = address, form
        try:
            super().__init__(without_password(address), threads=0)
        except av.FFmpegError as error:
            raise VideoError(f"{self.path}: broke off at once ({error.strerror})") from None

    def _open(self, threads: int) -> tuple[av.container.InputContainer, av.VideoStream]:
        options = {"rtsp_transport": "tcp"} if self._address.lower().startswith("rtsp") else {}
        kind: dict[str, Any] = {"format": self._form, "options": options, "timeout": _TIMEOUT}
        try:
            container = av.open(self._address, metadata_errors="ignore", **kind)
        except (av.FFmpegError, OSError, ValueError) as error:
            what = _say(error)
            if isinstance(error, av.error.ExitError):
                what = f"no answer within {_TIMEOUT:g} s"
            raise VideoError(f"{self.path}: cannot be opened ({what}): check the address") from None
        try:
            stream = _ready_stream(self.path, container, threads)
        except BaseException:
            container.close()
            raise
        # Decoding several frames at a time would hold each of them back for as many.
        stream.thread_type = "SLICE"
        return container, stream

    def _find_clock(self, packets: Sequence[av.Packet]) -> str:
        return "count" if self._is_raw or any(packet.pts is None for packet in packets) else "pts"

    def frames(self) -> _Frames:
        """Yield the frames; where the stream has no times that mean anything, they are of now."""
        has_times = self._clock.kind != "count"
        try:
            while (timed_frame := self.next_frame()) is not None:
                yield timed_frame[0] if has_times else None, self.to_rgb(timed_frame[1])
        finally:
            self.close()


class LiveStream:
    """The frames of something that happens now, as (seconds since the first one, picture)."""

    def __init__(self, source: str) -> None:
        """Connect to what `open_source` opens, so that VideoErrors come at once."""
        self._source = source
        self.name = source_name(source)  # of the video, without passwords
        self.lost_seconds = 0.0  # without pictures, since the connection was lost
        self._stopped = threading.Event()
        self._frames, self._ends = open_source(source)

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yield frames until the source ends or somebody stops it; once."""
        frames: _Frames | None = self._frames
        begin, last, start, size = 0.0, -1.0, time.monotonic(), (0, 0)
        while frames is not None:
            is_first = True
            for seconds, picture in frames:
                now = time.monotonic() - start
                if is_first and last < 0:
                    now, start = 0.0, time.monotonic()
                    begin, size = -(seconds or 0.0), picture.shape[1::-1]
                elif is_first:
                    begin = max(now, last + 1e-3)
                    self.lost_seconds += begin - last
                is_first = False
                seconds = now if seconds is None else begin + seconds
                if self._ends and seconds > now:
                    self._stopped.wait(seconds - now)
                if self._stopped.is_set():
                    return
                if seconds > last:  # else it came within the same tick of the clock
                    last = seconds
                    yield seconds, self._fit(picture, size)
            frames = None if self._ends else self._reconnect()

    def stop(self) -> None:
        """End the stream with the frame that comes next."""
        self._stopped.set()

    def _fit(self, picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """All pictures have the size of the first, whatever a camera was switched to."""
        if picture.shape[1::-1] == size:
            return picture
        warn(self.name, f"pictures are scaled to {size[0]}x{size[1]}, as it began", once=True)
        return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)

    def _reconnect(self) -> _Frames | None:
        """Connect until it works; None when stopped meanwhile."""
        warn(self.name, "the connection is lost, trying again")
        wait = _FIRST_WAIT
        while not self._stopped.wait(wait):
            try:
                return open_source(self._source)[0]
            except VideoError as error:
                wait = min(2 * wait, _LONGEST_WAIT)
                warn(self.name, f"still not there ({error}); next try in {wait:g} s")
        return None


def open_source(source: str) -> tuple[_Frames, bool]:
    """Open anything that gives pictures.

    Args:
        source: a file or a folder that holds a video; else the number of a camera; "screen"; an
            address such as rtsp://..., http://...; "lavfi:testsrc2" and other sources of FFmpeg.

    Returns:
        Its frames; whether it is recorded: then it is to be shown at its own speed, and ends.
    """
    if _is_here(source):
        return iterate_frames(source, threads=0), True  # type: ignore[return-value]
    if camera := _CAMERA.fullmatch(source):
        return _camera_frames(int(camera[1])), False
    if source == SCREEN:
        return _screen_frames(_grab_screen()), False
    if source.startswith(_GENERATED):
        return _Address(source.removeprefix(_GENERATED), "lavfi").frames(), True
    if address := _ADDRESS.fullmatch(source):
        if address[1].lower() not in _SCHEMES:
            raise VideoError(f"{source}: {address[1]}:// is not read: give {', '.join(_SCHEMES)}")
        stream = _Address(source)
        # A recording knows how long it is.
        return stream.frames(), stream.info.duration is not None
    return iterate_frames(source), True  # type: ignore[return-value]  # says what is wrong


def _is_here(source: str) -> bool:
    return os.path.lexists(source) and not source.startswith("/dev/")


def source_name(source: str) -> str:
    """What to call a source: the `video_id` of its results."""
    if _is_here(source):
        return video_name(source)
    if camera := _CAMERA.fullmatch(source):
        return f"camera {camera[1]}"
    return one_line(without_password(source))


def without_password(address: str) -> str:
    """An address as it may be shown: without name and password, and what follows a "?"."""
    return re.sub(r"(?<=://)[^/@]*@", "", address).split("?")[0]


def _camera_frames(number: int) -> _Frames:
    # FFmpeg as it comes with PyAV has no cameras; OpenCV has, on all systems.
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the error says it
    camera = cv2.VideoCapture(number)
    seen, picture = camera.read()
    cv2.utils.logging.setLogLevel(level)
    if not seen:
        camera.release()
        is_linux = sys.platform.startswith("linux")
        hint = "; on Linux /dev/video* shows them, for the group 'video'" if is_linux else ""
        raise VideoError(f"camera {number}: gives no pictures: is it there, and free?{hint}")

    def frames() -> _Frames:
        seen, bgr = True, picture
        try:
            while seen:
                yield None, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
                seen, bgr = camera.read()
        finally:
            camera.release()

    return frames()


def _grab_screen() -> np.ndarray:
    try:
        return np.asarray(ImageGrab.grab().convert("RGB"))
    except OSError as error:
        raise VideoError(f"{SCREEN}: cannot be seen ({error}): is there a display?") from None


def _screen_frames(picture: np.ndarray) -> _Frames:
    while True:
        start = time.monotonic()
        yield None, picture
        time.sleep(max(0.0, start + 1 / _SCREEN_FPS - time.monotonic()))
        picture = _grab_screen()
