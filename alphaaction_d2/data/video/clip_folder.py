"""A video as a folder of clips of one second, each named by its second: `0902.mp4`, `0903.mp4` ...

This is how AlphAction prepares AVA; others put a text around the number, the same for all clips
(`film_second_902.mp4`). The names are the time axis: a frame of a clip is shown at the clip's
second plus its own time in the clip. Where clips are numbered otherwise, `first` in `frames.yaml`
is the number of the clip at second `start`. A second without a clip, or with one that cannot be
opened, leaves the frame before it on screen.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..clip_sampling import TIME_TOLERANCE
from .source import FrameSource, VideoError, warn
from .timing import NOT_SAID, Timing

# What counts as a video where many files lie; a file that is named is always tried.
VIDEO_SUFFIXES = frozenset(
    ".264 .265 .3g2 .3gp .asf .avi .divx .f4v .flv .gif .h264 .h265 .hevc .ivf .m1v .m2ts .m2v "
    ".m4v .mjpeg .mjpg .mkv .mov .mp4 .mpeg .mpg .mts .mxf .obu .ogv .ts .vob .webm .wmv "
    ".y4m".split()
)
MAX_CLIP_SECONDS = 2.0  # a longer one is no clip of one second
ABOUT_A_SECOND = (0.75, 1.25)
_NUMBERED = re.compile(r"(.*?)([0-9]{1,8})([^0-9]*)", re.DOTALL)


def video_files(names: Iterable[str]) -> list[str]:
    """The names that end as a video's does, without hidden ones."""
    endings = tuple(VIDEO_SUFFIXES)
    return [x for x in names if x.lower().endswith(endings) and not x.startswith(".")]


def numbered_clips(folder: Path, names: Iterable[str]) -> dict[int, str] | None:
    """Find the clips of a folder by their number, in order; None if its videos are no such clips.

    Raises:
        VideoError: a number that is a clip's whole name comes twice.
    """
    clips: dict[int, str] = {}
    around: set[tuple[str, ...]] = set()  # texts around the number
    twice: tuple[int, str, str] | None = None
    for name in sorted(video_files(names)):
        match = _NUMBERED.fullmatch(os.path.splitext(name)[0])
        if match is None:
            return None
        around.add(match.group(1, 3))
        other = clips.setdefault(int(match[2]), name)
        if other != name:
            twice = int(match[2]), other, name
    if len(around) != 1:
        return None
    if twice is not None and around != {("", "")}:
        return None  # films of any kind, in two forms
    if twice is not None:
        raise VideoError(f"{folder}: two clips of second {twice[0]}: {twice[1]}, {twice[2]}")
    return dict(sorted(clips.items()))


def has_plain_names(clips: dict[int, str]) -> bool:
    """Whether the clips are called by their numbers and nothing else."""
    return all(os.path.splitext(name)[0].isdecimal() for name in clips.values())


class ClipFolder(FrameSource):
    """A folder of one-second clips as a source of frames, one clip open at a time."""

    def __init__(
        self,
        path: Path,
        clips: dict[int, str],
        open_file: Callable[[Path], FrameSource],
        timing: Timing = NOT_SAID,
    ) -> None:
        """Open the first clip; a `first` in `timing` says when they are shown, else their numbers.

        Raises:
            VideoError: no clip can be opened, or one is longer than a second.
        """
        self.path = path
        self._open_file = open_file
        since = 0.0 if timing.first is None else timing.start - timing.first
        self._seconds, self._names = [number + since for number in clips], list(clips.values())
        self._ends = [*self._seconds[1:], np.inf]
        if timing.first is None and min(clips) < timing.start:
            what = f"the numbers of its clips are their seconds, 'start' in {timing.path} is not "
            with_first = f"with 'first: {min(clips)}' there it is the second of {self._names[0]}"
            warn(path, f"{what}used; {with_first}", once=True)
        self._unusable: set[int] = set()  # places of clips that cannot be opened
        self._decoded_before = 0  # by clips that are closed
        self._file: FrameSource | None = None
        self._place = -1  # of the open clip
        first = self._open_next()
        if first is None:
            raise VideoError(f"{path}: none of its {len(clips)} clips can be opened")
        begin = float(self._seconds[self._place])
        clip = first.info
        if clip.duration is not None and clip.duration > MAX_CLIP_SECONDS:
            self._close_file()
            raise VideoError(
                f"{path}: {self._names[self._place]} lasts {clip.duration:.1f} s, expected clips "
                "of one second named by their second: give the videos one by one"
            )
        self.info = replace(
            clip,
            path=path,
            begin=begin,
            start_time=begin,
            duration=float(self._seconds[-1] - begin + 1),
        )

    @property
    def frames_decoded(self) -> int:  # type: ignore[override]  # nobody sets it
        return self._decoded_before + (0 if self._file is None else self._file.frames_decoded)

    def _close_file(self) -> None:
        if self._file is not None:
            self._decoded_before += self._file.frames_decoded
            self._file.close()
            self._file = None

    def _open(self, place: int) -> FrameSource | None:
        """Open a clip and stand before its first frame; None, with a warning, if it is unusable."""
        self._close_file()
        self._place = place
        if place in self._unusable:
            return None
        try:
            path = self.path / self._names[place]
            self._file = self._open_file(path)
        except VideoError as error:
            self._unusable.add(place)
            reason = str(error).removeprefix(f"{path}: ")
            warn(path, f"{reason}; the frame before it is shown longer", once=True)
            return None
        return self._file

    def _open_next(self) -> FrameSource | None:
        """Open the next usable clip; None at the end."""
        while self._place + 1 < len(self._seconds):
            if (file := self._open(self._place + 1)) is not None:
                return self._check_size(file)
        self._close_file()
        return None

    def _check_size(self, file: FrameSource) -> FrameSource:
        info = getattr(self, "info", file.info)
        if (file.info.width, file.info.height) != (info.width, info.height):
            raise VideoError(
                f"{file.info.path}: is {file.info.width}x{file.info.height}, the clips before it "
                f"are {info.width}x{info.height}: leave the clips of one video in the folder"
            )
        return file

    def next_frame(self) -> tuple[float, Any] | None:
        while self._file is not None:
            timed_frame = self._file.next_frame()
            if timed_frame is None:
                self._file.warn_if_incomplete()
                self._open_next()
                continue
            seconds = self._seconds[self._place] + timed_frame[0]
            # What reaches into the next clip's second is shown again there.
            if seconds < self._ends[self._place] - TIME_TOLERANCE:
                return seconds, (self._file, timed_frame[1])
        return None

    def _place_at(self, seconds: float) -> int:
        return max(bisect_right(self._seconds, seconds + TIME_TOLERANCE / 2) - 1, 0)

    def can_skip_ahead(self, position: float, target: float) -> bool:
        return self._place_at(target) > self._place_at(position)

    def seek(self, seconds: float) -> tuple[float, Any]:
        place = self._place_at(seconds)
        while place > 0:
            if (file := self._open(place)) is not None:
                self._check_size(file)
                break
            place -= 1
        else:
            self._place = -1
            self._open_next()
        first = self.next_frame()
        if first is None:
            raise VideoError(f"{self.path}: has changed while it was read: start again")
        return first

    def to_rgb(self, frame: tuple[FrameSource, Any]) -> np.ndarray:
        file, inner = frame
        return file.to_rgb(inner)

    def gaps(self) -> Iterator[str]:
        wanted = round(self._seconds[-1] - self._seconds[0]) + 1
        if lost := wanted - len(self._seconds):
            steps = np.diff(self._seconds)
            first = self._seconds[int(np.argmax(steps > 1))] + 1
            what = f"{lost} of {wanted} seconds have no clip, first {first:g}"
            yield f"{what}: the frame before is shown there"

    def warn_if_incomplete(self) -> None:
        """Each clip says so at its end."""

    def close(self) -> None:
        self._close_file()
        self._place = len(self._seconds)
