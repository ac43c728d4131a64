"""Persons between the keyframes: not classified, but they tell who of two keyframes is who."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ava_files import AVARows, concatenate_rows, select_rows
from .box_files import BoxFile, between_keyframes, is_person


def persons_between(file: BoxFile) -> BoxFile:
    """The persons of a file at times that are no keyframes (see :func:`at_keyframes`)."""
    rows = between_keyframes(file.rows)
    return BoxFile(select_rows(rows, is_person(rows)), file.short_side)


class DensePersons:
    """Persons of any number of videos, looked up by video and time.

    What comes out goes into a dataset dict as `persons_between`: `timestamps`, `boxes`, `scores`
    and `person_ids` of n persons, in order of time.
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
            return _arrays(np.zeros(0), np.zeros((0, 4)), np.zeros(0), np.zeros(0), size)
        times = self._rows.timestamps[place]
        first = place.start + int(np.searchsorted(times, start, side="right"))
        last = place.start + int(np.searchsorted(times, stop, side="left"))
        rows = slice(first, max(first, last))
        columns = ("timestamps", "boxes", "scores", "person_ids")
        return _arrays(*(getattr(self._rows, name)[rows] for name in columns), size)


def _arrays(
    times: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    person_ids: np.ndarray,
    size: tuple[int, int],
) -> dict[str, np.ndarray]:
    return {
        "timestamps": times,
        "boxes": (boxes * (size * 2)).astype(np.float32),
        "scores": scores.astype(np.float32),
        "person_ids": person_ids.astype(np.int64),
    }
