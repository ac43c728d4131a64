"""What a detector of any kind finds in a picture: boxes of persons and objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..structures import FoundBoxes

PERSON = "person"  # the class that is a person; all others are objects


@dataclass(frozen=True, eq=False)
class PictureBoxes:
    """What a detector finds in one picture."""

    found: FoundBoxes  # n persons and objects
    names: Sequence[str]  # n names of classes, "" for a person
    # (n, C) of the detector's box head, where it was asked for them
    features: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        boxes: np.ndarray,
        scores: np.ndarray,
        classes: np.ndarray,
        names: Sequence[str | None],
        size: tuple[int, int],
        min_score: float,
        features: np.ndarray | None = None,
    ) -> PictureBoxes:
        """Make these of a network's answer, without what is no box or has a lower score.

        Args:
            boxes: (n, 4) XYXY pixels of a picture of `size`, its width and height.
            classes: (n,) indices into `names`, see :func:`name_classes`; ValueError outside of
                these.
            features: (n, C), if there are any.
        """
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        if len(classes) and classes.max() >= len(names):
            raise ValueError(
                f"the detector finds class {classes.max()}, of {len(names)} that have a name"
            )
        called = [names[c] for c in classes]
        found = FoundBoxes.of(boxes, scores, size=size)
        keep = (found.scores >= min_score) & np.isfinite(boxes).all(axis=1)
        keep &= (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        keep &= np.array([name is not None for name in called], dtype=bool)
        return cls(
            found.at(keep),
            [name for name, k in zip(called, keep) if k and name is not None],
            None if features is None else features[keep],
        )

    @property
    def persons(self) -> FoundBoxes:
        """The persons; nobody's identity is known."""
        return self.found.at(self._is_person)

    @property
    def objects(self) -> FoundBoxes:
        """All that are not persons."""
        return self.found.at(~self._is_person)

    def best_features(self, number: int) -> np.ndarray:
        """Give (at most number, C) features of the objects, that of the highest score first."""
        assert self.features is not None, "the detector was not asked for features"
        order = np.argsort(-self.found.scores, kind="stable")
        return self.features[order[~self._is_person[order]][:number]]

    @property
    def _is_person(self) -> np.ndarray:
        return np.array([name == "" for name in self.names], dtype=bool)


# (H, W, 3) uint8 RGB pictures of one size -> one result each
PictureDetector = Callable[[Sequence[np.ndarray]], list[PictureBoxes]]


def name_classes(names: Sequence[str]) -> list[str | None]:
    """Our names of a detector's classes: "" for a person, None for one that stands for nothing.

    What our files and memory mean by a person is an empty class. Networks for COCO have 91 places
    for its 80 classes; the others are called "N/A" or "__background__".
    """
    empty = {"n/a", "__background__", "background", ""}
    return [
        "" if name.lower() == PERSON else None if name.lower() in empty else name for name in names
    ]
