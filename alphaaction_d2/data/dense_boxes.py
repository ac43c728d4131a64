"""Persons between the keyframes: not classified, but they tell who of two keyframes is who."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..formats.ava import AVARows, concatenate_rows, select_rows
from ..formats.boxes import BoxFile, between_keyframes, is_person


def persons_between(file: BoxFile) -> BoxFile:
    """The persons of a file at times that are no keyframes (see :func:`at_keyframes`)."""
    rows = between_keyframes(file.rows)
    return BoxFile(select_rows(rows, is_person(rows)), file.short_side)


def dense_persons(
    timestamps: ArrayLike, boxes: ArrayLike, scores: ArrayLike, person_ids: ArrayLike
) -> dict[str, np.ndarray]:
    """`persons_between` of a dataset dict: n persons in order of time.

    Args:
        timestamps: (n,) seconds.
        boxes: (n, 4) XYXY in pixels.
        scores: (n,).
        person_ids: (n,), -1 where nobody knows.

    Returns:
        The same by these names: float64, float32, float32 and int64.
    """
    return {
        "timestamps": np.array(timestamps, np.float64),
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "scores": np.array(scores, np.float32),
        "person_ids": np.array(person_ids, np.int64),
    }


class DensePersons:
    """Persons of any number of videos, looked up by video and time.

    What comes out goes into a dataset dict as `persons_between`, see :func:`dense_persons`.
    """

    def __init__(self, tables: Sequence[AVARows]) -> None:
        """
        Args:
            tables: persons at any times, boxes as fractions of the picture.
        """
        self._rows = concatenate_rows(list(tables)) if tables else None
        self._places: dict[str, slice] = {}
        if self._rows is None or not len(self._rows):
            return
        rows = self._rows
        order = np.lexsort((rows.timestamps, rows.video_codes))
        self._rows = rows = select_rows(rows, order)
        starts = np.flatnonzero(np.diff(rows.video_codes, prepend=-1)).tolist()
        for start, stop in zip(starts, [*starts[1:], len(rows)]):
            self._places[rows.videos[rows.video_codes[start]]] = slice(start, stop)

    def __len__(self) -> int:
        return sum(x.stop - x.start for x in self._places.values())

    def between(
        self, video: str, start: float, stop: float, size: tuple[int, int]
    ) -> dict[str, np.ndarray]:
        """The persons of a video after `start` and before `stop`, in seconds.

        Args:
            size: width and height of the picture.
        """
        place = self._places.get(video, slice(0, 0))
        if self._rows is None:
            return dense_persons([], [], [], [])
        times = self._rows.timestamps[place]
        first = place.start + int(np.searchsorted(times, start, side="right"))
        last = place.start + int(np.searchsorted(times, stop, side="left"))
        rows = slice(first, max(first, last))
        found = self._rows
        return dense_persons(
            found.timestamps[rows],
            found.boxes[rows] * (size * 2),
            found.scores[rows],
            found.person_ids[rows],
        )
