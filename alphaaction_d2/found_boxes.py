"""Boxes that somebody has found in a video: arrays alone, for those who have neither torch nor
detectron2. Everybody else finds them in `structures.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

UNKNOWN_PERSON = -1  # person id of somebody whose identity is not known


@dataclass(frozen=True, eq=False)
class FoundBoxes:
    """Persons, or objects, that somebody has found in one picture: a file, a detector, annotators.

    Attributes:
        boxes: (n, 4) float64 XYXY as fractions of the picture's width and height. In float32 the
            pixels of a detector would not come back as they were.
        scores: (n,) float32.
        ids: (n,) int64 identities of persons, -1 where nobody knows.
    """

    boxes: np.ndarray
    scores: np.ndarray
    ids: np.ndarray

    @classmethod
    def of(
        cls,
        boxes: ArrayLike = (),
        scores: ArrayLike = 1.0,
        ids: ArrayLike = UNKNOWN_PERSON,
        size: tuple[int, int] = (1, 1),
    ) -> FoundBoxes:
        """Make these of anything like arrays; one score or id counts for all.

        Args:
            size: width and height of the picture, for boxes in pixels.
        """
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4) / (*size, *size)
        n = len(boxes)
        return cls(boxes, np.full(n, scores, np.float32), np.full(n, ids, np.int64))

    def __len__(self) -> int:
        return len(self.boxes)

    def at(self, rows: np.ndarray | slice) -> FoundBoxes:
        """Take some of them: what a mask, an index or a slice names."""
        return FoundBoxes(self.boxes[rows], self.scores[rows], self.ids[rows])

    def above(self, score: float) -> FoundBoxes:
        """Take those whose score is at least this one."""
        return self.at(self.scores >= score)

    def best(self, number: int) -> FoundBoxes:
        """Take at most this many, those of the highest scores, in ascending order of score."""
        order = np.argsort(self.scores, kind="stable")
        return self.at(order[max(len(order) - number, 0) :])

    def near(self, seconds: float) -> FoundBoxes:
        """Give those nearest to a moment: of one picture, all; see :meth:`TimedBoxes.near`."""
        return self

    def in_pixels(self, width: int, height: int) -> np.ndarray:
        """Give the boxes (n, 4) in pixels of a picture, float32."""
        return (self.boxes * (width, height, width, height)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class TimedBoxes:
    """Persons of several moments: (n,) float64 seconds, in ascending order, and the n persons."""

    timestamps: np.ndarray
    found: FoundBoxes

    @classmethod
    def join(cls, moments: Mapping[float, FoundBoxes]) -> TimedBoxes:
        """Put the persons of moments, in order of time, one after the other."""
        parts = [FoundBoxes.of(), *moments.values()]
        columns = [[getattr(x, f.name) for x in parts] for f in fields(FoundBoxes)]
        times = [time for time, found in moments.items() for _ in range(len(found))]
        return cls(np.array(times, np.float64), FoundBoxes(*map(np.concatenate, columns)))

    def near(self, seconds: float) -> FoundBoxes:
        """Give those of the moment nearest to this one; of two as near the earlier."""
        if not len(self.found):
            return self.found
        distances = np.abs(self.timestamps - seconds)
        return self.found.at(self.timestamps == self.timestamps[distances.argmin()])

    def moments(self) -> Iterator[tuple[float, FoundBoxes]]:
        """Yield each moment, and who is there."""
        times, starts = np.unique(self.timestamps, return_index=True)
        for time, start, stop in zip(times.tolist(), starts, [*starts[1:], len(self.found)]):
            yield time, self.found.at(slice(start, stop))


@dataclass(frozen=True, eq=False)
class BoxesAt:
    """What a source knows of a keyframe.

    Attributes:
        persons, objects: those at the keyframe.
        between: persons since the keyframe before: they are linked, but not classified.
    """

    persons: FoundBoxes
    objects: FoundBoxes
    between: TimedBoxes

    @classmethod
    def of(cls, persons: ArrayLike = (), objects: ArrayLike = ()) -> BoxesAt:
        """Make it of boxes (n, 4), as fractions of the picture, that are sure."""
        return cls(FoundBoxes.of(persons), FoundBoxes.of(objects), TimedBoxes.join({}))


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compute IoU of XYXY boxes (..., 4), broadcast against others; 0 where one has no area."""
    top_left = np.maximum(boxes[..., :2], others[..., :2])
    bottom_right = np.minimum(boxes[..., 2:], others[..., 2:])
    common = np.prod(np.clip(bottom_right - top_left, 0, None), axis=-1)
    with np.errstate(invalid="ignore"):  # a box that is not finite overlaps nothing
        union = _areas(boxes) + _areas(others) - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.clip(boxes[..., 2:] - boxes[..., :2], 0, None), axis=-1)
