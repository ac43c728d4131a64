"""Which of a person's scores people are shown, and in which words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..formats.ava_classes import AVA_CLASSES, AVA_GROUPS, SHORT_NAMES
from ..formats.results import KeyframeResult, PersonResult, VideoResult

MIN_SCORE = 0.3  # where nothing better is known
# A class that a network confuses has its best F1 at nearly any score: noise would be shown.
_SENSIBLE = (0.1, 0.9)


@dataclass(frozen=True, eq=False)
class ShownClasses:
    """Which of K classes are shown of whom: what the files hold is another matter."""

    class_names: Sequence[str]  # K names, "" for a gap in the label map
    names: Sequence[str]  # the K short ones
    min_scores: np.ndarray  # (K,) a class with a lower score is not shown
    one_of: np.ndarray  # (K,) bool, classes of which only the best is shown: nobody sits and stands

    @classmethod
    def of(
        cls, names: Sequence[str], min_scores: float | Sequence[float] = MIN_SCORE
    ) -> ShownClasses:
        """Show classes by their names from a score on, that of each class or of all. AVA's names
        are shortened, and of its poses one is shown."""
        is_ava = tuple(names) == AVA_CLASSES
        short = [SHORT_NAMES.get(name, name) if is_ava else name for name in names]
        groups = AVA_GROUPS if is_ava else [""] * len(names)
        poses = np.array([group == "pose" for group in groups], dtype=bool)
        return cls(
            names, short, np.broadcast_to(np.asarray(min_scores, np.float32), len(names)), poses
        )

    @cached_property
    def _short(self) -> dict[str, str]:
        return dict(zip(self.class_names, self.names))

    @property
    def lowest(self) -> float:
        """The least score that is ever shown."""
        return float(np.min(self.min_scores, initial=1.0))

    def result(self, result: VideoResult) -> VideoResult:
        """The same result in these words, whose persons do what is shown and nothing else."""
        return replace(
            result, class_names=self.names, keyframes=[self.keyframe(x) for x in result.keyframes]
        )

    def keyframe(self, keyframe: KeyframeResult) -> KeyframeResult:
        """The same keyframe in these words."""
        persons = [self._person(x) for x in keyframe.persons]
        missed = [self._truth(x) or () for x in keyframe.missed]
        return replace(keyframe, persons=persons, missed=missed)

    def _person(self, person: PersonResult) -> PersonResult:
        scores = person.scores
        shown = scores >= self.min_scores
        if self.one_of.any():
            poses = np.where(self.one_of, scores, -1)
            shown &= ~self.one_of | (np.arange(len(scores)) == poses.argmax())
        actions = [
            (self.names[k], float(scores[k]))
            for k in np.argsort(-scores, kind="stable")
            if shown[k] and self.names[k]
        ]
        return replace(person, actions=actions, truth=self._truth(person.truth))

    def _truth(self, actions: Sequence[str] | None) -> Sequence[str] | None:
        return None if actions is None else tuple(self._short.get(x, x) for x in actions)


def display_thresholds(class_names: Sequence[str], best: Mapping[str, float]) -> list[float]:
    """Give the lowest score of each class that is shown: what an evaluation found best (see
    `read_best_scores`), else 0.3."""
    low, high = _SENSIBLE
    return [min(max(best[x], low), high) if x in best else MIN_SCORE for x in class_names]
