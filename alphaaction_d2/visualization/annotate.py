"""Frames of a video with everything drawn on them, one at a time, so that memory stays bounded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..formats.results import KeyframeResult, PersonResult
from .drawing import PersonDrawer
from .palette import IdentityColours
from .text import format_time


def persons_at(
    seconds: float,
    before: KeyframeResult | None,
    after: KeyframeResult | None,
    *,
    period: float = 1.0,
) -> list[PersonResult]:
    """Who is seen at `seconds`, and where.

    Who has the same id in both keyframes moves in a straight line; actions change half way. The
    others, and all who have no id, appear or disappear half way. Where a neighbour is missing or
    further away than one and a half periods, a keyframe holds for half a period.

    Args:
        seconds: time of the frame.
        before: last keyframe at or before `seconds`, None before the first.
        after: first keyframe after `seconds`, None after the last.
        period: usual time between keyframes.
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


class FrameAnnotator:
    """Draws the frames of one video in order of time.

    Keyframes may come in while the video runs: a frame needs the one before and the one after it,
    or only the one before (live, without delay).

    Args:
        width, height: size of the frames in pixels.
        period: usual time between keyframes in seconds.
        min_score: actions with a lower score are not shown.
        font_path: a TrueType font for scripts that the built-in font lacks (Chinese, ...).

    Attributes:
        output_size: width and height of the drawn frames (small videos are enlarged).
    """

    def __init__(
        self,
        width: int,
        height: int,
        *,
        period: float = 1.0,
        min_score: float = 0.3,
        font_path: str | None = None,
    ) -> None:
        self._drawer = PersonDrawer(width, height, min_score=min_score, font_path=font_path)
        self._period = period
        self._colours = IdentityColours()
        self.output_size = self._drawer.output_size

    def annotate(
        self,
        frame: np.ndarray,
        seconds: float,
        before: KeyframeResult | None,
        after: KeyframeResult | None = None,
    ) -> np.ndarray:
        """Draw one frame, with its time in the top left corner.

        Args:
            frame: (H, W, 3) uint8 RGB.
            seconds: its time from the video's first frame.
            before: last keyframe at or before it, None if there is none.
            after: next keyframe, None if there is none or it is not known yet.

        Returns:
            (H, W, 3) uint8 RGB of `output_size`.
        """
        # Whole keyframes, though not all of their persons may be drawn: colours are the same in
        # the charts, which see all of them.
        for keyframe in (before, after):
            self._colours.of([p.person_id for p in keyframe.persons] if keyframe else [])
        persons = persons_at(seconds, before, after, period=self._period)
        colours = self._colours.of([person.person_id for person in persons])
        return self._drawer.draw(frame, persons, colours, format_time(seconds))
