"""Reading videos: what is on screen at which moment, whatever form a video has.

A video is a file (`file.py`, which knows the decoder), a folder of numbered pictures
(`frame_folder.py`) or a folder of one-second clips (`clip_folder.py`); readers do not see the
difference.

Everything leaves here as upright RGB uint8 (H, W, 3) pictures with seconds from the first frame (in
a folder that holds a part of a film: the film's seconds, see `VideoInfo.begin`).
`iterate_frames` goes through a video once, `VideoReader` answers "what is on screen at these
moments" for a data loader, and both agree for every video. (A picture that is damaged may look
different when it was sought.)
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ..clip_sampling import frames_shown_at, is_shown_by
from .clip_folder import (
    ABOUT_A_SECOND,
    MAX_CLIP_SECONDS,
    ClipFolder,
    has_plain_names,
    numbered_clips,
    video_files,
)
from .file import VideoFile
from .frame_folder import FrameFolder, PictureSeries, picture_series
from .source import FrameSource, VideoError, VideoInfo, warn
from .timing import NOT_SAID, TIMING_FILE, timing_of_file, timing_of_folder

# One `pictures` holds everything between its first and last moment, except gaps this long.
_MAX_GAP_SECONDS = 2.0
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.IGNORECASE | re.DOTALL)


def probe_video(path: str | os.PathLike, frame_rate: float | None = None) -> VideoInfo:
    """Read a video's header and decode its first frame, see `VideoReader`."""
    source = _open_source(path, 1, frame_rate)
    source.close()
    return source.info


def iterate_frames(
    path: str | os.PathLike, threads: int = 1, frame_rate: float | None = None
) -> Iterator[tuple[float, np.ndarray]]:
    """Decode a video from its first to its last frame, in bounded memory.

    A truncated or damaged file gives the frames that can be decoded, then one warning in the log.

    Args:
        path, frame_rate: see `VideoReader`.
        threads: of the decoder; 0 takes all cores. The frames are the same, but where a file is
            damaged.

    Returns:
        Iterator of (seconds since the first frame, RGB uint8 (H, W, 3)); seconds start at 0 (at
        `VideoInfo.begin`) and are strictly increasing. All pictures have the size of the first.

    Raises:
        VideoError: at once, when the file cannot be opened or has no frame that can be decoded.
    """
    return _iterate_rgb(_open_to_read(path, threads, frame_rate))


def _iterate_rgb(source: FrameSource) -> Iterator[tuple[float, np.ndarray]]:
    try:
        while (timed_frame := source.next_frame()) is not None:
            seconds, frame = timed_frame
            yield seconds, source.to_rgb(frame)
        source.warn_if_incomplete()
    finally:
        source.close()


class VideoReader:
    """Tells what is on screen at any moments of a video.

    The answer is the one that picking from a whole `iterate_frames` list would give, whatever was
    read before. Going forward in overlapping windows decodes each frame once; going elsewhere
    seeks to a key frame, or starts again where a file cannot be sought in.

    Args:
        path: a video file, or a folder that holds a video.
        prepare: applied to a picture when it is first wanted, once however many reads want it.
            All reads then give its results, an array or a tuple of several views.
        frame_rate: for data sets that count frames instead of seconds: frame k, as decoded, is at
            k / `frame_rate` seconds, whatever the file says of times and rate. Such a file is not
            sought in, as only decoding counts. Of a folder of pictures the smallest number (or
            `first` of its frames.yaml) is frame 0.

    Raises:
        VideoError: the file cannot be opened or has no frame that can be decoded.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        prepare: Callable[[np.ndarray], Any] | None = None,
        frame_rate: float | None = None,
    ) -> None:
        self._source = _open_to_read(path, 1, frame_rate)  # other cores have other workers
        self._prepare = prepare
        self.info = self._source.info
        # Consecutive decoded frames. The last one is the decoder's position.
        self._held: deque[_HeldFrame] = deque()
        self._at_end = False
        try:
            self._append(self._source.next_frame())
        except BaseException:
            self._source.close()
            raise

    @property
    def frames_decoded(self) -> int:
        return self._source.frames_decoded

    def pictures(self, times: Sequence[float] | np.ndarray) -> list[np.ndarray]:
        """Give the picture shown at each moment, see `clip_sampling.frames_shown_at`.

        Args:
            times: (T,) seconds as `iterate_frames` counts them, in any order. Moments before the
                first frame get the first, moments after the last get the last that can be decoded.

        Returns:
            T read-only arrays (H, W, 3) uint8 RGB, or what `prepare` makes, which the reader keeps
            for later reads; moments that show the same frame share one.
        """
        if not self._held:
            raise ValueError(f"{self.info.path}: the reader is closed, open a new one")
        times = np.asarray(times, dtype=np.float64).reshape(-1)
        if not np.isfinite(times).all():
            raise ValueError(f"{self.info.path}: the moments to read must be finite, got {times}")
        pictures: dict[int, np.ndarray] = {}
        order = np.argsort(times, kind="stable")
        gaps = np.flatnonzero(np.diff(times[order]) > _MAX_GAP_SECONDS) + 1
        for run in np.split(order, gaps) if len(order) else ():
            self._hold(times[run[0]], times[run[-1]])
            shown = frames_shown_at([held.seconds for held in self._held], times[run])
            for position, index in zip(run, shown, strict=True):
                pictures[position] = self._picture(self._held[index])
        return [pictures[position] for position in range(len(times))]

    def _picture(self, held: _HeldFrame) -> Any:
        if held.picture is None:
            rgb = self._source.to_rgb(held.frame)
            prepared = rgb if self._prepare is None else self._prepare(rgb)
            several = isinstance(prepared, tuple)
            held.picture = tuple(map(_read_only, prepared)) if several else _read_only(prepared)
            held.frame = None
        return held.picture

    def _hold(self, first: float, last: float) -> None:
        """Decode until the held frames show every moment from `first` to `last`, seconds."""
        if not self._continues_to(first):
            self._held.clear()
            self._at_end = False
            self._append(self._source.seek(first))
        self._drop_before(first)
        while not self._at_end and is_shown_by(self._held[-1].seconds, last):
            self._append(self._source.next_frame())
            self._drop_before(first)

    def _continues_to(self, first: float) -> bool:
        """Whether decoding on from the current position is the way to the moment `first`."""
        if not is_shown_by(self._held[0].seconds, first):
            # The frame before is gone; the first of the file, though, has none before it.
            return self._held[0].seconds == self.info.begin
        position = self._held[-1].seconds
        if self._at_end or not is_shown_by(position, first):
            return True
        return not self._source.can_skip_ahead(position, first)

    def _append(self, timed_frame: tuple[float, Any] | None) -> None:
        if timed_frame is None:
            self._at_end = True
            self._source.warn_if_incomplete()
        else:
            self._held.append(_HeldFrame(*timed_frame))

    def _drop_before(self, first: float) -> None:
        while len(self._held) > 1 and is_shown_by(self._held[1].seconds, first):
            self._held.popleft()

    def close(self) -> None:
        """Close the file; the reader cannot be used afterwards."""
        self._held.clear()
        self._source.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@dataclass(slots=True)
class _HeldFrame:
    """A decoded frame that becomes a picture when it is first picked, and only then."""

    seconds: float
    frame: Any  # as its source gives it, which is smaller than the picture
    picture: Any = None


def _read_only(picture: np.ndarray) -> np.ndarray:
    # A view of its own: what `prepare` gave may be somebody's array, and stays writable.
    picture = picture.view()
    picture.flags.writeable = False
    return picture


# ------------------------------------------------------------------------------ files and folders


def _open_to_read(path: str | os.PathLike, threads: int, frame_rate: float | None) -> FrameSource:
    source = _open_source(path, threads, frame_rate)
    for what in source.gaps():
        warn(path, what, once=True)
    return source


def _open_source(path: str | os.PathLike, threads: int, frame_rate: float | None) -> FrameSource:
    """Open a video, whatever it is, and stand before its first frame."""
    if threads < 0:
        raise ValueError(f"threads is {threads}: give 0 for all cores, or a number above 0")
    _refuse_address(path)
    path = Path(path)
    if (series := _series_beside_others(path)) is not None:
        return FrameFolder(path, series, frame_rate, path.parent)
    if not os.path.isdir(path):
        timing = NOT_SAID if frame_rate else timing_of_file(path)
        return VideoFile(path, threads, timing, frame_rate)
    content = _look_into(path)
    if content is None:
        _refuse_folder(path)
    if isinstance(content, PictureSeries):
        return FrameFolder(path, content, frame_rate)
    if frame_rate is not None:
        what = "clips of a second each: what counts frames needs the whole video"
        raise VideoError(f"{path}: {what}")
    timing = timing_of_folder(path)
    return ClipFolder(path, content, lambda file: VideoFile(file, threads), timing)


def _refuse_address(path: str | os.PathLike) -> None:
    """Refuse what is no name of a file, but of a stream or a camera."""
    text = os.fsdecode(path)
    match = _ADDRESS.fullmatch(text)
    if not os.path.lexists(text) and (match or text.isdecimal()):
        text = f"{match[1]}://{match[2]}" if match else text  # a `Path` makes one slash of two
        raise VideoError(f"{text}: addresses and cameras are not read: record to a file first")


def _refuse_folder(folder: Path) -> NoReturn:
    """Say why a folder is no video; one with videos and pictures may be full of either."""
    names = os.listdir(folder)
    videos, pictures = video_files(names), picture_series(folder, names)
    if videos and pictures:
        both = f"pictures ({pictures.name(0)}) and videos ({min(videos)}) in one folder"
        raise VideoError(f"{folder}: {both}: leave one kind there, or give a video file")
    hint = "give a video file"
    if videos:  # meant as clips, perhaps
        hint += ", or clips called 0902.mp4 or film_0902.mp4, alike but for the number, the second"
    raise VideoError(f"{folder}: a directory without numbered pictures or one-second clips: {hint}")


def _look_into(folder: Path) -> PictureSeries | dict[int, str] | None:
    """What a folder holds: pictures of a video, clips of one, or neither."""
    try:
        return _content_of(folder, folder.stat().st_mtime_ns)
    except OSError as error:
        reason = f"cannot be read ({error.strerror}): check the folder"
        raise VideoError(f"{folder}: {reason}") from error


def _series_beside_others(path: Path) -> PictureSeries | None:
    """The pictures of a video that is no folder: in the one above, they begin with its name."""
    with contextlib.suppress(OSError, ValueError):
        if not os.path.lexists(path) and path.parent.is_dir():
            return _series_called(path, path.parent.stat().st_mtime_ns)
    return None


@functools.lru_cache(maxsize=4096)
def _series_called(path: Path, changed: int) -> PictureSeries | None:
    names = [name for name in os.listdir(path.parent) if name.startswith(f"{path.name}_")]
    return picture_series(path.parent, names)


@functools.lru_cache(maxsize=4096)
def _content_of(folder: Path, changed: int) -> PictureSeries | dict[int, str] | None:
    """List a folder once: random clips of many films would list 27,000 names for each."""
    names = os.listdir(folder)
    videos = video_files(names)
    clips, pictures = numbered_clips(folder, videos), picture_series(folder, names)
    if clips and pictures:
        if not has_plain_names(clips):
            return None  # films with a poster each, perhaps
        both = f"pictures ({pictures.name(0)}) and clips ({next(iter(clips.values()))})"
        raise VideoError(f"{folder}: {both} in one folder: leave one kind there")
    return clips or (None if videos else pictures)


def video_name(path: str | os.PathLike) -> str:
    """The `video_id` of a video: the file's name without extension, or the folder's name."""
    path = Path(path)
    return Path(os.path.abspath(path)).name if os.path.isdir(path) else path.stem


def is_video_folder(path: str | os.PathLike) -> bool:
    """Whether a folder is one video, not a place where videos lie.

    Videos whose names are all numbers are clips of one video if the first lasts about a second;
    videos that differ in a number of their names must be several that do.

    Raises:
        VideoError: the folder cannot be read, or holds a mixture.
    """
    content = _look_into(Path(path)) if os.path.isdir(path) else None
    if not isinstance(content, dict):
        return content is not None
    files = [Path(path) / name for name in content.values()]
    if not has_plain_names(content):
        some = [first_that_opens([x])[0] for x in {files[0], files[len(files) // 2], files[-1]}]
        least, most = ABOUT_A_SECOND
        return len(files) > 1 and all(x and least <= (x.duration or 0) <= most for x in some)
    first, _ = first_that_opens(files)
    return first is not None and (first.duration or 0) <= MAX_CLIP_SECONDS


def find_videos(folder: str | os.PathLike) -> dict[str, list[Path]]:
    """Everything in a folder that may be a video, by `video_name`, in alphabetical order.

    Of one name files come before folders: they know their times themselves.
    """
    found: dict[str, list[Path]] = {}
    names = [x for x in os.listdir(folder) if not x.startswith(".") and x != TIMING_FILE]
    paths = [Path(folder, name) for name in sorted(names)]
    # Links that lead nowhere and pipes are there, too: opening them says what is wrong.
    for path, is_folder in sorted(((x, os.path.isdir(x)) for x in paths), key=lambda x: x[1]):
        found.setdefault(path.name if is_folder else path.stem, []).append(path)
    return dict(sorted(found.items()))


def first_that_opens(
    paths: Iterable[Path], frame_rate: float | None = None
) -> tuple[VideoInfo | None, list[str]]:
    """The first of some files that is a video: a picture of the same name may lie beside it.

    Returns:
        Its `VideoInfo`, None if none can be opened; and what is wrong with each one before it.
    """
    problems: list[str] = []
    for path in paths:
        try:
            return probe_video(path, frame_rate=frame_rate), problems
        except VideoError as error:
            problems.append(str(error))
    return None, problems
