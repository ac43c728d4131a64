"""Results as plain data: who does what, where and when in one video; how good a class is.

Shape letters: K action classes. Boxes are absolute XYXY pixels of the upright picture. The class
with index k (0-based) has action id k + 1, as in the label map. A class whose name is empty is a
gap in the label map: it is never drawn, listed or written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def rank_actions(
    scores: np.ndarray, class_names: Sequence[str], min_score: float = 0.0
) -> list[tuple[str, float]]:
    """Names and scores of the actions that reach `min_score`, best first.

    Args:
        scores: (K,) scores in [0, 1].
        class_names: K names; an empty name is a gap in the label map and is left out.
        min_score: lowest score to keep.

    Raises:
        ValueError: when the lengths differ.
    """
    if len(scores) != len(class_names):
        raise ValueError(
            f"{len(scores)} scores for {len(class_names)} class names: one score per class expected"
        )
    order = np.argsort(-np.asarray(scores), kind="stable")
    return [
        (class_names[k], float(scores[k]))
        for k in order
        if class_names[k] and scores[k] >= min_score
    ]


@dataclass(frozen=True, eq=False)
class PersonResult:
    """One person at one moment.

    Attributes:
        box: (4,) float, XYXY pixels.
        person_id: identity in the video, -1 when unknown.
        actions: (name, score) pairs, best first.
        scores: (K,) scores of all classes.
    """

    box: np.ndarray
    person_id: int
    actions: Sequence[tuple[str, float]]
    scores: np.ndarray

    def __post_init__(self) -> None:
        box = np.asarray(self.box, dtype=np.float64)
        if box.shape != (4,) or not np.isfinite(box).all():
            raise ValueError(f"a person's box must be 4 finite numbers x1 y1 x2 y2, got {self.box}")
        object.__setattr__(self, "box", box)
        object.__setattr__(self, "scores", np.asarray(self.scores, dtype=np.float32))

    @classmethod
    def from_scores(
        cls,
        box: np.ndarray,
        scores: np.ndarray,
        class_names: Sequence[str],
        person_id: int = -1,
        min_score: float = 0.0,
    ) -> PersonResult:
        """Build a person from the (K,) scores; `actions` are those that reach `min_score`."""
        return cls(box, int(person_id), rank_actions(scores, class_names, min_score), scores)


@dataclass(frozen=True, eq=False)
class KeyframeResult:
    """All persons at one keyframe; `timestamp` in seconds from the video's first frame."""

    timestamp: float
    persons: Sequence[PersonResult]


@dataclass(frozen=True, eq=False)
class VideoResult:
    """Everything found in one video.

    Attributes:
        video_id: the video's name without its extension.
        width, height: size of the upright picture in pixels.
        class_names: K names, "" for a gap in the label map.
        keyframes: in order of time. A keyframe without persons belongs in the list, too: it says
            that nobody was there, while a missing keyframe says that nobody looked.
    """

    video_id: str
    width: int
    height: int
    class_names: Sequence[str]
    keyframes: Sequence[KeyframeResult]

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(
                f"{self.video_id}: a picture of {self.width}x{self.height} pixels has no area"
            )
        times = [keyframe.timestamp for keyframe in self.keyframes]
        for earlier, later in zip(times, times[1:]):
            if not earlier < later:
                raise ValueError(
                    f"{self.video_id}: keyframes must be in order of time, once each; "
                    f"{later} s follows {earlier} s"
                )
        for keyframe in self.keyframes:
            for person in keyframe.persons:
                if person.scores.shape != (len(self.class_names),):
                    raise ValueError(
                        f"{self.video_id} at {keyframe.timestamp} s: scores of shape "
                        f"{person.scores.shape} for {len(self.class_names)} classes"
                    )

    @property
    def period(self) -> float:
        """Usual time between two keyframes in seconds; 1 when there are fewer than two."""
        times = [keyframe.timestamp for keyframe in self.keyframes]
        if len(times) < 2:
            return 1.0
        return float(np.median(np.diff(times)))


@dataclass(frozen=True)
class ClassAP:
    """Average precision of one class.

    Attributes:
        name: the class.
        ap: in percent; NaN when the class has no ground truth.
        group: kind of class ("label_type" of the label map), "" when there are no groups.
        num_boxes: ground-truth boxes of the class.
    """

    name: str
    ap: float
    group: str = ""
    num_boxes: int = 0


def group_classes(classes: Sequence[ClassAP]) -> dict[str, list[ClassAP]]:
    """Classes by group, groups in order of appearance, best class first, unmeasured ones last."""
    groups: dict[str, list[ClassAP]] = {}
    for entry in classes:
        groups.setdefault(entry.group, []).append(entry)
    for members in groups.values():
        members.sort(key=lambda entry: (math.isnan(entry.ap), -entry.ap if entry.ap >= 0 else 0))
    return groups


def mean_ap(classes: Sequence[ClassAP]) -> float:
    """Mean of the average precisions that exist, in percent; NaN when none does."""
    values = [entry.ap for entry in classes if not math.isnan(entry.ap)]
    return sum(values) / len(values) if values else math.nan
