"""Where the persons and objects of a video are: in files, found by a detector, or everywhere."""

from __future__ import annotations

import functools
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from ..data.box_tables import DenseBoxes, KeyframeTable, split_at_keyframes
from ..data.clip_sampling import Moments
from ..formats.ava import AVARows, rename_videos, select_rows
from ..formats.boxes import BoxFile, is_person, read_boxes
from ..formats.joins import frame_numbers, why_no_persons
from ..formats.names import meant_video
from ..modeling.picture_boxes import PictureBoxes, PictureDetector
from ..structures import UNKNOWN_PERSON, BoxesAt, FoundBoxes, TimedBoxes
from .stopwatch import Stopwatch

Frames = Iterable[tuple[float, np.ndarray]]  # (seconds, (H, W, 3) uint8 RGB), in order of time


class BoxSource(Protocol):
    """Where persons and objects of one video are.

    The frames of the video go through `watch` on their way to the network; a keyframe is asked for
    after the frame that it shows has gone by. A source that inherits from this needs `at` only.
    """

    def watch(self, frames: Frames) -> Iterator[tuple[float, np.ndarray]]:
        """Pass on the frames of a video that begins now."""
        yield from frames

    @abstractmethod
    def at(self, seconds: float) -> BoxesAt:
        """Give what is there at a keyframe that has gone by. Each keyframe is asked for once."""

    def later(self, seconds: float) -> Callable[[], BoxesAt]:
        """Give what `at` gives, in a form that may do the work when it is called, or never."""
        found = self.at(seconds)
        return lambda: found

    @property
    def largest_person_id(self) -> int:
        """The largest id that the source will ever give: new ones start above; -1 for none."""
        return UNKNOWN_PERSON

    def unused(self) -> dict[int, int]:
        """Count boxes by second, of the seconds that nobody has asked for."""
        return {}

    def why_nobody(self, min_person_score: float) -> list[str]:
        """Say why there is nobody with that score, or hardly anybody, as far as that is known."""
        return []


class WholeFrame(BoxSource):
    """One person who fills the picture, and no objects: for videos without any boxes."""

    def at(self, seconds: float) -> BoxesAt:
        return BoxesAt(FoundBoxes.of([0, 0, 1, 1]), FoundBoxes.of(), TimedBoxes.join({}))


class KeyframeBoxes(BoxSource):
    """Boxes of one video from one or more files; a keyframe has none where they say nothing.

    Files with boxes for more moments than keyframes also give the persons of the second before.
    """

    def __init__(self, files: Sequence[BoxFile]) -> None:
        """Take boxes of one video; class "" or "person" is a person, anything else an object. A row
        belongs to the nearest whole second."""
        self._files = [split_at_keyframes(file) for file in files]
        # boxes at keyframes, which of them are persons, and persons between keyframes, once the
        # size of the picture is known
        self._tables: tuple[KeyframeTable, np.ndarray, DenseBoxes] | None = None
        self._asked: set[int] = set()  # keyframes

    @classmethod
    def from_files(cls, paths: Sequence[str | Path], video_id: str) -> KeyframeBoxes:
        """Read a video's rows of files in any form that :func:`read_boxes` knows.

        Raises:
            DataFileError: a file is not what it should be.
            ValueError: a file has boxes of other videos only, or annotations.
        """
        return cls([_boxes_of_video(path, video_id) for path in paths])

    @property
    def largest_person_id(self) -> int:
        """The largest of all moments; -1 when no person has an id."""
        files = [file for pair in self._files for file in pair]
        return max(int(file.rows.person_ids.max(initial=UNKNOWN_PERSON)) for file in files)

    def watch(self, frames: Frames) -> Iterator[tuple[float, np.ndarray]]:
        """Pass on the frames, whose size is needed for files that count in pixels; DataFileError
        for boxes that do not fit into the picture."""
        self._asked.clear()
        first = True
        for seconds, frame in frames:
            if first:
                self._measure(frame.shape[1], frame.shape[0])
                first = False
            yield seconds, frame

    def _measure(self, width: int, height: int) -> None:
        at, between = (
            [_of_one_video(x.as_fractions(lambda _: (width, height)).rows) for x in files]
            for files in zip(*self._files)
        )
        table = KeyframeTable(at)
        self._tables = table, is_person(table.rows), DenseBoxes(between)

    def at(self, seconds: float) -> BoxesAt:
        assert self._tables is not None, "first the frames of the video go through `watch`"
        table, are_persons, dense = self._tables
        key = (_VIDEO, round(seconds))
        self._asked.add(key[1])
        found, persons = table[key], are_persons[table.place(key)]
        between = dense.between(_VIDEO, seconds - 1, seconds)
        return BoxesAt(found.at(persons), found.at(~persons), between)

    def unused(self) -> dict[int, int]:
        """Count rows by second: the video has no such time."""
        counts = self._tables[0].counts() if self._tables else {}
        return {second: n for (_, second), n in counts.items() if second not in self._asked}

    def why_nobody(self, min_person_score: float) -> list[str]:
        """See `why_no_persons`."""
        if self._tables is None:
            return []
        table, are_persons, _ = self._tables
        odd = frame_numbers(table.rows)
        why = why_no_persons(table.rows, are_persons, min_person_score)
        return [*why, *([odd] if odd else [])]


_VIDEO = ""  # there is one video, whatever the files call it


def _of_one_video(rows: AVARows) -> AVARows:
    return replace(rows, videos=[_VIDEO], video_codes=np.zeros_like(rows.video_codes))


@functools.lru_cache(maxsize=8)  # of many videos each one asks for its own
def _read(path: str | Path, changed: int) -> BoxFile:
    return read_boxes(path)


def _boxes_of_video(path: str | Path, video_id: str) -> BoxFile:
    file = _read(path, os.stat(path).st_mtime_ns)
    rows = file.rows
    # A file of annotations has the number of an action where the class of a box stands.
    if rows.class_names and all(name.isdecimal() for name in rows.class_names):
        raise ValueError(
            f"{path}: the class column has numbers ({', '.join(rows.class_names[:3])}), as in a "
            "file of annotations: in one of boxes it is empty for persons, and a word for objects"
        )
    if not rows.videos:
        return file
    meant = [name for name in rows.videos if meant_video(name, {video_id: [path]}) == video_id]
    rows = rename_videos(rows, dict.fromkeys(meant, video_id))
    if video_id in rows.videos:
        whose = rows.video_codes == rows.videos.index(video_id)
        return replace(file, rows=select_rows(rows, whose))
    known = ", ".join(sorted(rows.videos)[:5]) + (" ..." if len(rows.videos) > 5 else "")
    raise ValueError(
        f"{path}: no boxes of video {video_id!r}; it has {known}: the file of the video must have "
        "the name that stands in the first column"
    )


class DetectedBoxes(BoxSource):
    """Boxes that a detector finds in the keyframes as they go by, at full size.

    A keyframe's boxes are found as soon as it is known which frame it shows; only boxes are kept,
    and only until they are asked for. With more looks than keyframes, persons in between are found,
    too.
    """

    def __init__(
        self,
        detect: PictureDetector,
        looks_per_second: int = 1,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        """Find boxes once, at the keyframes, or a multiple of that; the time counts as a stage of
        its own."""
        if looks_per_second < 1:
            raise ValueError(
                f"MODEL.PERSON_DETECTOR.LOOKS_PER_SECOND {looks_per_second}: use at least 1"
            )
        self._detect = detect
        self._looks = looks_per_second
        self._stopwatch = stopwatch or Stopwatch()
        self._best = 0.0  # score of a person at a keyframe
        self._found: dict[int, PictureBoxes] = {}  # by number of the look

    def watch(self, frames: Frames) -> Iterator[tuple[float, np.ndarray]]:
        """Pass on the frames, looking at the keyframes that go by."""
        self._found.clear()
        self._best = 0.0
        moments = Moments(1 / self._looks)
        shown = np.empty(0)  # nothing is looked at before there is a frame
        for seconds, frame in frames:
            for number in moments.before(seconds):
                self._look(number, shown)
            shown = frame
            yield seconds, frame
        for number in moments.at_end():
            self._look(number, shown)

    def _look(self, number: int, picture: np.ndarray) -> None:
        with self._stopwatch.stage("detector"):
            self._found[number] = self._detect([picture])[0]

    def at(self, seconds: float) -> BoxesAt:
        """Give the boxes of a keyframe that has gone by, once."""
        number = round(seconds * self._looks)
        found = self._found.pop(number)
        self._best = max(self._best, float(found.persons.scores.max(initial=0)))
        before = [n for n in range(number - self._looks + 1, number) if n in self._found]
        between = TimedBoxes.join({n / self._looks: self._found.pop(n).persons for n in before})
        return BoxesAt(found.persons, found.objects, between)

    def why_nobody(self, min_person_score: float) -> list[str]:
        """Say that nobody was found, or nobody with that score."""
        if self._best >= min_person_score:
            return []
        best = f"; the best score of a person is {self._best:.2f}" if self._best else ""
        return [
            f"the detector finds nobody with a score of {min_person_score:g} or more{best} "
            "(INPUT.PERSON_SCORE_THRESH_TEST)"
        ]
