"""Who is seen in the frames between keyframes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..formats.results import KeyframeResult, PersonResult


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
