"""Who does what over time, told by persons and actions: what timelines are drawn from.

With annotations beside: which of the shown actions are right, and what was not seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..formats.results import KeyframeResult, PersonResult, VideoResult
from ..structures import box_iou

MIN_IOU = 0.5  # with an annotated box, for a detected person to be the annotated one, as in AVA
# second -> boxes (n, 4) in pixels, and what each of the n persons does
Truth = Mapping[float, tuple[np.ndarray, Sequence[Sequence[str]]]]


def with_truth(keyframe: KeyframeResult, truth: Truth) -> KeyframeResult:
    """Say what each detected person really does, and who was not detected.

    Pairs of persons and annotations are formed in descending order of their overlap. A detected
    person who is none of the annotated ones does nothing of the list. Keyframes that nobody has
    annotated stay as they are.
    """
    if keyframe.timestamp not in truth:
        return keyframe
    boxes, actions = truth[keyframe.timestamp]
    found = np.array([person.box for person in keyframe.persons]).reshape(-1, 4)
    overlaps = box_iou(found[:, None], np.asarray(boxes, np.float64).reshape(-1, 4)[None])
    real: dict[int, int] = {}  # detected person -> annotated person
    while overlaps.size and overlaps.max() >= MIN_IOU:
        i, j = np.unravel_index(overlaps.argmax(), overlaps.shape)
        real[int(i)] = int(j)
        overlaps[i], overlaps[:, j] = 0, 0
    persons = [
        replace(person, truth=tuple(actions[real[i]]) if i in real else ())
        for i, person in enumerate(keyframe.persons)
    ]
    missed = [tuple(x) for j, x in enumerate(actions) if j not in real.values()]
    return replace(keyframe, persons=persons, missed=missed)


def persons_at(
    seconds: float,
    before: KeyframeResult | None,
    after: KeyframeResult | None,
    *,
    period: float = 1.0,
) -> list[PersonResult]:
    """Who is seen at a time in seconds, and where, between the keyframes before (at it at the
    latest) and after it.

    Who has the same id in both keyframes moves in a straight line; actions change half way. The
    others, and all who have no id, appear or disappear half way. Where a neighbour is missing
    (None) or further away than one and a half periods, the usual time between keyframes, a keyframe
    holds for half a period.
    """
    if not (before and after and 0 < after.timestamp - before.timestamp <= 1.5 * period):
        near = [
            keyframe
            for keyframe in (before, after)
            if keyframe and abs(seconds - keyframe.timestamp) <= period / 2 + 1e-6
        ]
        return [person for keyframe in near for person in keyframe.persons]
    gap = after.timestamp - before.timestamp
    weight = float(np.clip((seconds - before.timestamp) / gap, 0, 1))
    here, there = (before, after) if weight < 0.5 else (after, before)
    weight_there = min(weight, 1 - weight)
    boxes = {person.person_id: person.box for person in there.persons if person.person_id >= 0}
    return [
        replace(
            person,
            box=(1 - weight_there) * person.box
            + weight_there * boxes.get(person.person_id, person.box),
        )
        for person in here.persons
    ]


@dataclass
class Tally:
    """How many actions that are shown are right, by persons and keyframes that are annotated."""

    right: int = 0
    wrong: int = 0
    missed: int = 0  # true ones that are not shown
    persons: int = 0  # annotated, or detected without being annotated
    persons_missed: int = 0

    @classmethod
    def of(cls, result: VideoResult, min_score: float) -> Tally | None:
        """Count; None where nothing is annotated."""
        tally = cls()
        for keyframe in result.keyframes:
            for person in keyframe.persons:
                if person.truth is not None:
                    shown = {name for name, _ in shown_actions(person, min_score)}
                    tally.right += len(shown & set(person.truth))
                    tally.wrong += len(shown - set(person.truth))
                    tally.missed += len(set(person.truth) - shown)
                    tally.persons += 1
            tally.persons += len(keyframe.missed)
            tally.persons_missed += len(keyframe.missed)
            tally.missed += sum(map(len, keyframe.missed))
        return tally if tally.persons else None


def shown_actions(person: PersonResult, min_score: float) -> list[tuple[str, float]]:
    """All actions that reach a score, best first."""
    return person.best_actions(len(person.actions), min_score)


def overlooked(person: PersonResult, min_score: float) -> list[str]:
    """The true actions that are not shown."""
    shown = {name for name, _ in shown_actions(person, min_score)}
    return [name for name in person.truth or () if name not in shown]


@dataclass
class Strip:
    """One action of one person over time."""

    action: str  # its name
    scores: dict[float, float] = field(default_factory=dict)  # second -> score, where it is shown
    truth: set[float] = field(default_factory=set)  # seconds at which it is true

    @property
    def best(self) -> float:
        """The highest score; 0 for an action that is only true."""
        return max(self.scores.values(), default=0.0)

    def runs(self, period: float, min_score: float) -> Iterator[tuple[float, float, float]]:
        """Yield (begin, end, strength in (0, 1]) of neighbouring moments that look the same."""
        run: tuple[float, float, float] | None = None
        for time, score in sorted(self.scores.items()):
            # In steps: more shades cannot be told apart.
            strength = 0.25 + 0.75 * (score - min_score) / max(1 - min_score, 1e-6)
            strength = round(20 * min(max(strength, 0.1), 1.0)) / 20
            begin, end = time - period / 2, time + period / 2
            if run is not None and run[2] == strength and begin - run[1] < period / 2:
                run = (run[0], end, strength)
                continue
            if run is not None:
                yield run
            run = (begin, end, strength)
        if run is not None:
            yield run

    def true_runs(self, period: float) -> Iterator[tuple[float, float]]:
        """Yield (begin, end) of the times at which it is true."""
        alike = Strip(self.action, dict.fromkeys(self.truth, 1.0))
        for begin, end, _ in alike.runs(period, 0.0):
            yield begin, end


@dataclass
class PersonOverTime:
    """One person, or all who have no id (-1): when they are seen, and what they do."""

    person_id: int
    times: set[float] = field(default_factory=set)
    strips: list[Strip] = field(default_factory=list)


def persons_over_time(result: VideoResult, min_score: float) -> list[PersonOverTime]:
    """Collect every action of every person that is shown or true at some moment.

    Persons who are seen longest come first, and of each the actions with the highest score: what
    happens once counts as much as what goes on all the time.
    """
    persons: dict[int, PersonOverTime] = {}
    strips: dict[tuple[int, str], Strip] = {}
    for keyframe in result.keyframes:
        for person in keyframe.persons:
            number, time = person.person_id, keyframe.timestamp
            persons.setdefault(number, PersonOverTime(number)).times.add(time)
            for name, score in shown_actions(person, min_score):
                scores = strips.setdefault((number, name), Strip(name)).scores
                scores[time] = max(score, scores.get(time, 0.0))
            for name in person.truth or ():
                strips.setdefault((number, name), Strip(name)).truth.add(time)
    for (number, _), strip in strips.items():
        persons[number].strips.append(strip)
    for row in persons.values():
        row.strips.sort(key=lambda strip: -strip.best)
    return sorted(persons.values(), key=lambda person: -len(person.times))
