"""From keyframes to every frame: which persons belong together and where they are in between.

Pure functions on numpy arrays. P and Q are numbers of persons.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .palette import IdentityColours
from .results import KeyframeResult, PersonResult, VideoResult

# Somebody who walks past a static camera may overlap little with the box of a second ago.
MIN_LINK_IOU = 0.2


@dataclass(frozen=True, eq=False)
class ShownPerson:
    """A person between two keyframes.

    Attributes:
        box: (4,) interpolated XYXY pixels.
        side: 0 when the actions of the earlier keyframe hold, 1 for the later one.
        index: position in that keyframe's `persons`.
    """

    box: np.ndarray
    side: int
    index: int


def pairwise_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of (P, 4) and (Q, 4) boxes as (P, Q); 0 where a box has no area."""
    top_left = np.maximum(boxes[:, None, :2], others[None, :, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    overlap = np.prod(np.clip(bottom_right - top_left, 0, None), axis=2)
    area = np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1)
    other_area = np.prod(np.clip(others[:, 2:] - others[:, :2], 0, None), axis=1)
    union = area[:, None] + other_area[None, :] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def link_persons(
    before: Sequence[PersonResult],
    after: Sequence[PersonResult],
    min_iou: float = MIN_LINK_IOU,
) -> list[tuple[int, int]]:
    """Pairs (index in `before`, index in `after`) of the same person, each index at most once.

    Equal known ids always belong together and different known ids never do. Where an id is unknown,
    the largest overlap decides, best pair first, down to `min_iou`.
    """
    links: list[tuple[int, int]] = []
    index_after = {}
    for j, person in enumerate(after):
        if person.person_id >= 0:
            index_after.setdefault(person.person_id, j)
    for i, person in enumerate(before):
        if person.person_id >= 0 and person.person_id in index_after:
            links.append((i, index_after.pop(person.person_id)))

    used_before = {i for i, _ in links}
    used_after = {j for _, j in links}
    if len(used_before) < len(before) and len(used_after) < len(after):
        iou = pairwise_iou(
            np.stack([person.box for person in before]), np.stack([person.box for person in after])
        )
        rows, columns = np.nonzero(iou >= max(min_iou, 1e-9))
        for n in np.argsort(-iou[rows, columns], kind="stable"):
            i, j = int(rows[n]), int(columns[n])
            both_known = before[i].person_id >= 0 and after[j].person_id >= 0
            if i in used_before or j in used_after or both_known:
                continue
            links.append((i, j))
            used_before.add(i)
            used_after.add(j)
    return sorted(links)


def shown_persons(
    seconds: float,
    before: KeyframeResult | None,
    after: KeyframeResult | None,
    *,
    period: float = 1.0,
    links: Sequence[tuple[int, int]] | None = None,
) -> list[ShownPerson]:
    """Who is seen at `seconds`, and where.

    Linked persons move in a straight line; their actions change half way. The others appear or
    disappear half way. Where a neighbour is missing or further away than one and a half periods, a
    keyframe holds for half a period.

    Args:
        seconds: time of the frame.
        before: last keyframe at or before `seconds`, None before the first.
        after: first keyframe after `seconds`, None after the last.
        period: usual time between keyframes.
        links: result of `link_persons` for the two keyframes, to save its work.
    """
    gap = after.timestamp - before.timestamp if before and after else np.inf
    if gap > 1.5 * period or gap <= 0:
        shown = []
        for side, keyframe in enumerate((before, after)):
            if keyframe and abs(seconds - keyframe.timestamp) <= period / 2 + 1e-6:
                shown += [ShownPerson(p.box, side, i) for i, p in enumerate(keyframe.persons)]
        return shown

    weight = float(np.clip((seconds - before.timestamp) / gap, 0, 1))
    side = int(weight >= 0.5)
    if links is None:
        links = link_persons(before.persons, after.persons)
    partner = {pair[side]: pair[1 - side] for pair in links}
    here, there = (after, before) if side else (before, after)
    weight_there = 1 - weight if side else weight
    shown = []
    for index, person in enumerate(here.persons):
        box = person.box
        if index in partner:
            box = (1 - weight_there) * box + weight_there * there.persons[partner[index]].box
        shown.append(ShownPerson(box, side, index))
    return shown


def interpolate_persons(
    seconds: float,
    before: KeyframeResult | None,
    after: KeyframeResult | None,
    *,
    period: float = 1.0,
) -> list[PersonResult]:
    """The persons of `shown_persons` as `PersonResult`s with interpolated boxes."""
    keyframes = (before, after)
    return [
        replace(keyframes[shown.side].persons[shown.index], box=shown.box)
        for shown in shown_persons(seconds, before, after, period=period)
    ]


def continue_keys(
    keys_before: Sequence[int],
    after: Sequence[PersonResult],
    links: Sequence[tuple[int, int]],
    fresh: Iterator[int],
) -> list[int]:
    """One key per person of `after`: the id where known, else the key of the linked person.

    Args:
        keys_before: keys of the persons of the keyframe before.
        after: persons of this keyframe.
        links: result of `link_persons` for the two.
        fresh: numbers below -1 that were not used yet, for unknown persons who just came in.
    """
    known = {person.person_id for person in after if person.person_id >= 0}
    inherited = {j: keys_before[i] for i, j in links if keys_before[i] not in known}
    keys = []
    for j, person in enumerate(after):
        if person.person_id >= 0:
            keys.append(person.person_id)
        else:
            keys.append(inherited[j] if j in inherited else next(fresh))
    return keys


class IdentityBook:
    """Follows keyframes in order of time and says who is who, also where no ids are known.

    Every person gets a key (the id, or a number below -1 that lasts as long as the boxes of
    neighbouring keyframes overlap) and an index into the identity colours.
    """

    def __init__(self, period: float = 1.0) -> None:
        self._max_gap = 1.5 * period
        self._fresh = iter(range(-2, -(2**62), -1))
        self._colours = IdentityColours()
        self._last: KeyframeResult | None = None
        self._last_keys: list[int] = []
        self.last_links: list[tuple[int, int]] = []

    def add(self, keyframe: KeyframeResult) -> tuple[list[int], list[int]]:
        """Keys and colour indices of the persons of the next keyframe."""
        before: Sequence[PersonResult] = ()
        if self._last and 0 < keyframe.timestamp - self._last.timestamp <= self._max_gap:
            before = self._last.persons
        self.last_links = link_persons(before, keyframe.persons)
        keys = continue_keys(self._last_keys, keyframe.persons, self.last_links, self._fresh)
        self._last, self._last_keys = keyframe, keys
        return keys, self._colours.assign(keys)


def identify(result: VideoResult) -> list[tuple[list[int], list[int]]]:
    """Keys and colour indices of all persons, one pair of lists per keyframe."""
    book = IdentityBook(result.period)
    return [book.add(keyframe) for keyframe in result.keyframes]
