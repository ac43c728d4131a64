"""A video as a folder of numbered pictures: frame dumps of AVA, UCF101-24, EPIC-Kitchens, anyone's.

Pictures of several videos may share a folder (P01/P01_01_000001.jpg, as LFB has EPIC-Kitchens):
a video is then what its pictures' names begin with, P01/P01_01, which is no folder itself.

The last number in a picture's name says when it is shown; `frames.yaml` beside the pictures, or in
one of the two folders above them, says how the numbers are counted (`timing.py`).

A number that is missing, or a picture that cannot be read, leaves the picture before it on screen.
Only pictures that are looked at are opened.
"""

from __future__ import annotations

import functools
import re
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..clip_sampling import TIME_TOLERANCE
from .source import MAX_PIXELS, FrameSource, VideoError, VideoInfo, warn
from .timing import TIMING_FILE, timing_of_folder

PICTURE_SUFFIXES = frozenset(".bmp .jpeg .jpg .png .ppm .tif .tiff .webp".split())
_NUMBERED = re.compile(r"(.*?)([0-9]{1,15})(\.[^.]*)", re.DOTALL)
# Optical flow that lies beside the pictures (TSN's and mmaction2's raw frames).
_FLOW = re.compile(r"flow.*|[xyuv]_?", re.IGNORECASE)
_MAX_UNREADABLE = 1000  # at the beginning of a film; nothing is a picture there
_EXIF_ORIENTATION = 0x0112
# What is read whatever a file is called: PIL knows 40 kinds more, and starts programs for some.
_FORMATS = ("BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
# What PIL raises for a damaged picture.
UNREADABLE = (
    *(OSError, ValueError, SyntaxError, LookupError, TypeError, ArithmeticError, RuntimeError),
    *(EOFError, MemoryError, struct.error, zlib.error),
    Image.DecompressionBombError,
)


@dataclass(frozen=True, eq=False)
class PictureSeries:
    """Numbered pictures in order, without a list of their names: an hour has 200,000."""

    prefix: str  # what stands before the number
    suffix: str
    width: int  # digits of a number, filled up with zeros; more where it needs more
    numbers: np.ndarray  # (n,) int64, increasing

    def __len__(self) -> int:
        return len(self.numbers)

    @functools.cached_property
    def step(self) -> int:
        """The usual distance of two numbers: 1, but for every n-th picture of a video."""
        distances, counts = np.unique(np.diff(self.numbers), return_counts=True)
        return int(distances[np.argmax(counts)]) if len(counts) else 1

    @functools.cached_property
    def missing(self) -> tuple[int, int]:
        """How many numbers are left out, and the place of the picture before the first of them.

        Every n-th picture of a video, with its numbers kept, is no hole but a lower rate: none is.
        """
        steps = np.diff(self.numbers)
        if (steps == self.step).all():
            return 0, 0
        return int((steps - 1).sum()), int(np.argmax(steps > 1))

    def name(self, index: int) -> str:
        return f"{self.prefix}{self.numbers[index]:0{self.width}d}{self.suffix}"

    def index_at(self, number: float) -> int:
        """The last picture whose number is not larger; the first one if all are."""
        return max(int(np.searchsorted(self.numbers, number, side="right")) - 1, 0)


def picture_series(folder: Path, names: Iterable[str]) -> PictureSeries | None:
    """Find the one series of numbered pictures in a folder; None if it has no numbered pictures.

    Raises:
        VideoError: there are several series, or a number comes twice.
    """
    series: dict[tuple[str, str], list[str]] = {}
    endings = tuple(PICTURE_SUFFIXES)
    for name in names:
        match = _NUMBERED.fullmatch(name) if name.lower().endswith(endings) else None
        if match and not name.startswith("."):
            series.setdefault((match[1], match[3]), []).append(match[2])
    if not series:
        return None
    if len(series) > 1:
        series = {x: y for x, y in series.items() if not _FLOW.fullmatch(x[0])} or series
    if len(series) > 1:
        counts = sorted((p, s, len(digits)) for (p, s), digits in series.items())
        found = ", ".join(f"{p}*{s} ({count})" for p, s, count in counts[:3])
        raise VideoError(f"{folder}: pictures of several kinds, {found}: leave those of one video")
    ((prefix, suffix), digits) = series.popitem()
    width = min(map(len, digits))
    # Names are made of numbers again later, so every number must have one name.
    if {len(d) for d in digits} != {width} and any(f"{int(d):0{width}d}" != d for d in digits):
        raise VideoError(f"{folder}: numbers are filled up with zeros to different lengths: rename")
    numbers = np.sort(np.array(list(map(int, digits)), dtype=np.int64))
    return PictureSeries(prefix, suffix, width, numbers)


class FrameFolder(FrameSource):
    """A folder of pictures as a source of frames; a frame is a picture's place in the order."""

    def __init__(
        self,
        path: Path,
        series: PictureSeries,
        frame_rate: float | None = None,
        folder: Path | None = None,
    ) -> None:
        """Open the first picture; `folder` is where they lie, if not in the folder `path`.

        Raises:
            VideoError: no frame rate is known, or no picture can be read.
        """
        self.path = path
        self.frames_decoded = 0
        self._series = series
        self._folder = folder or path
        timing = timing_of_folder(self._folder)
        if frame_rate is not None:
            rate = Fraction(frame_rate).limit_denominator(1001)
            timing = replace(timing, fps=rate, start=0.0)
        if timing.fps is None:
            file = timing.path or f"a file {TIMING_FILE} there, or one folder up for all folders"
            raise VideoError(
                f"{path}: pictures whose frame rate is not known: write 'fps: 25', or what is "
                f"right, into {file}{' in that' if timing.path is None else ''}"
            )
        smallest = int(series.numbers[0])
        self._first = smallest if timing.first is None else timing.first
        self._fps, self._start = timing.fps, timing.start
        if smallest < self._first:
            raise VideoError(
                f"{path}: has the picture {series.name(0)}, but 'first' in {TIMING_FILE} is "
                f"{self._first}: give the number of the picture that is shown at 'start'"
            )
        self._is_first_guessed = timing.first is None and smallest > 1
        self._next = 0
        self._damaged: dict[int, int] = {}  # picture -> one before it that may be shown for it
        self._reason = ""  # why the first of them cannot be read
        self._first_index, picture = self._first_readable()
        # Kept until it is asked for, which is mostly next.
        self._opening: tuple[int, np.ndarray] | None = (self._first_index, picture)
        height, width = picture.shape[:2]
        self.info = VideoInfo(
            path=path,
            width=width,
            height=height,
            average_fps=float(timing.fps) / series.step,
            duration=float((int(series.numbers[-1]) - smallest + 1) / timing.fps),
            rotation=0,
            start_time=self._seconds(0),
            begin=self._seconds(0),
        )
        # A mixture of videos should not first be noticed in the middle of a training.
        for index in {len(series) // 2, len(series) - 1}:
            self._check_size(index)

    def _seconds(self, index: int) -> float:
        return self._start + float((int(self._series.numbers[index]) - self._first) / self._fps)

    def _index_at(self, seconds: float) -> int:
        # Half the tolerance, as a number's own second may be rounded.
        since = min(seconds, 1e8) - self._start + TIME_TOLERANCE / 2
        return self._series.index_at(self._first + since * float(self._fps))

    def next_frame(self) -> tuple[float, int] | None:
        if self._next >= len(self._series):
            return None
        index = self._next
        self._next += 1
        return self._seconds(index), index

    def can_skip_ahead(self, position: float, target: float) -> bool:
        return self._index_at(target) > self._index_at(position)

    def seek(self, seconds: float) -> tuple[float, int]:
        index = self._index_at(seconds)
        self._next = index + 1
        return self._seconds(index), index

    def to_rgb(self, frame: int) -> np.ndarray:
        index = max(frame, self._first_index)
        if self._opening is not None and index == self._opening[0]:
            (_, opening), self._opening = self._opening, None
            return opening
        wanted = index
        while (picture := self._read(index)) is None:
            if index == self._first_index:
                raise VideoError(f"{self.path}: has changed while it was read: start again")
            index = self._damaged[index]
        if index != wanted:
            self._damaged[wanted] = index
        if picture.shape[:2] != (self.info.height, self.info.width):
            self._refuse_size(index, *picture.shape[1::-1])
        return picture

    def _first_readable(self) -> tuple[int, np.ndarray]:
        for index in range(min(len(self._series), _MAX_UNREADABLE)):
            if (picture := self._read(index)) is not None:
                return index, picture
        some = len(self._damaged) < len(self._series)
        which = f"the first {_MAX_UNREADABLE} of " if some else ""
        raise VideoError(
            f"{self.path}: none of {which}its {len(self._series)} pictures can be read, "
            f"{self._series.name(0)}: {self._reason}"
        )

    def _read(self, index: int) -> np.ndarray | None:
        """Read a picture; None, with a warning, for one that cannot be read."""
        if index in self._damaged:
            return None
        path = self._folder / self._series.name(index)
        try:
            picture = read_picture(path)
        except UNREADABLE as error:
            self._damaged[index] = index - 1
            if len(self._damaged) == 1:
                is_none = isinstance(error, UnidentifiedImageError)
                self._reason = "no picture" if is_none else str(error)
                what = f"cannot be read ({self._reason}): the picture before it is shown longer"
                warn(path, what, once=True)
            return None
        self.frames_decoded += 1
        return picture

    def _check_size(self, index: int) -> None:
        try:
            with _open_picture(self._folder / self._series.name(index)) as image:
                width, height = image.size
                if image.getexif().get(_EXIF_ORIENTATION, 1) > 4:
                    width, height = height, width
        except UNREADABLE:
            return  # told when it is looked at
        if (width, height) != (self.info.width, self.info.height):
            self._refuse_size(index, width, height)

    def _refuse_size(self, index: int, width: int, height: int) -> None:
        raise VideoError(
            f"{self.path}: {self._series.name(index)} is {width}x{height}, "
            f"{self._series.name(self._first_index)} is {self.info.width}x{self.info.height}: "
            "leave the pictures of one video in it"
        )

    def gaps(self) -> Iterator[str]:
        if self._is_first_guessed:
            what = f"begins with {self._series.name(0)}, which is taken for second {self._start:g}"
            yield f"{what}: 'first: 1' in {TIMING_FILE} counts from 1"
        lost, last = self._series.missing
        if lost:
            what = f"{lost} of {lost + len(self._series)} pictures are missing, first after"
            yield f"{what} {self._series.name(last)}: the picture before a gap is shown longer"

    def warn_if_incomplete(self) -> None:
        if len(self._damaged) > 1:
            warn(self.path, f"{len(self._damaged)} pictures could not be read", once=True)

    def close(self) -> None:
        self._next = len(self._series)


def _open_picture(path: Path) -> Image.Image:
    if not path.is_file():  # opening a pipe would wait for its writer
        raise OSError("no file")
    with warnings.catch_warnings():  # of sizes that are still allowed
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(path, formats=_FORMATS)
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise OSError(f"{width}x{height}, at most {MAX_PIXELS:,} pixels are read")
    return image


def read_picture(path: Path) -> np.ndarray:
    """Read a picture as (H, W, 3) uint8 RGB, upright; raise one of `UNREADABLE` if that fails."""
    with _open_picture(path) as image:
        if image.format == "WEBP" and image.getexif().get(_EXIF_ORIENTATION, 1) == 1:
            # PIL takes any for an animation, of which it keeps four more copies
            picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
            if picture is None:
                raise OSError("a damaged WebP picture")
            return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=picture)
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16"):  # 16 bits of gray, which PIL would clip
            gray = (np.asarray(image) >> 8).astype(np.uint8)
            return np.repeat(gray[..., None], 3, axis=2)
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
