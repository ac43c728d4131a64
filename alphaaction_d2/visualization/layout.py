"""Where the label panels go: beside their person, inside the picture, off each other and off faces.

Pure functions. P persons; every person's panel comes in L sizes ("levels"), largest first, so that
a crowd gets small labels instead of a heap of large ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

GAP = 3  # pixels between a box and its panel
MAX_OVERLAP = 0.02  # share of a panel that another one may cover before it counts as overlap
HEAD_SHARE = 0.3  # upper part of a box that is worth keeping free


@dataclass(frozen=True)
class Placement:
    """Where a panel goes: top left corner, level (0 the largest) and slot (side of the box)."""

    x: int
    y: int
    level: int
    slot: int


def slot_corners(box: np.ndarray, width: int, height: int) -> np.ndarray:
    """Top left corners (S, 2) of a panel of that size at all sides of the box, best first."""
    x1, y1, x2, y2 = box
    return np.array(
        [
            (x1, y1 - height - GAP),  # above, flush left
            (x2 - width, y1 - height - GAP),  # above, flush right
            (x2 + GAP, y1),  # right of the head
            (x1 - width - GAP, y1),  # left of the head
            (x1, y2 + GAP),  # below
            (x2 + GAP, y2 - height),  # right of the feet
            (x1 - width - GAP, y2 - height),  # left of the feet
            (x1 + GAP, y2 - height - GAP),  # inside, at the feet
            (x1 + GAP, y1 + GAP),  # inside, at the head
            (x2 - width - GAP, y1 + GAP),  # inside, at the head, flush right
        ]
    )


def _covered(panels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Share of each of (S, 4) panels that each of (Q, 4) boxes covers, as (S, Q)."""
    top_left = np.maximum(panels[:, None, :2], boxes[None, :, :2])
    bottom_right = np.minimum(panels[:, None, 2:], boxes[None, :, 2:])
    overlap = np.prod(np.clip(bottom_right - top_left, 0, None), axis=2)
    return overlap / np.prod(panels[:, 2:] - panels[:, :2], axis=1)[:, None]


def _slot_costs(
    index: int, panels: np.ndarray, boxes: np.ndarray, heads: np.ndarray, moved: np.ndarray
) -> np.ndarray:
    """What a panel hides and how far it was pushed, for (S, 4) panels of one person: (S,)."""
    hidden = 0.4 * _covered(panels, boxes) + _covered(panels, heads)
    order = np.arange(len(panels)) * 0.02
    # Hiding somebody else is worse: the panel then looks as if it were theirs.
    own = hidden[:, index]
    return order + own + 1.5 * (hidden.sum(axis=1) - own) + 0.5 * moved


def place_panels(
    boxes: np.ndarray,
    sizes: np.ndarray,
    frame_size: tuple[int, int],
    *,
    obstacles: np.ndarray | None = None,
    previous: Sequence[Placement | None] | None = None,
) -> list[Placement | None]:
    """Place one panel per person; None where there is nothing to place.

    A panel shrinks to its next level when it would cover another panel or, in a crowd, too much of
    other people. The smallest level is placed even if it has to cover something. Every panel lies
    completely inside the picture; one that is too large for it at every level is left out.

    Args:
        boxes: (P, 4) persons, pixels.
        sizes: (P, L, 2) width and height of the panels; 0 where there is none at that level.
        obstacles: (Q, 4) areas that must stay free.
        previous: the placements of the frame before. They are kept as long as they stay free of
            other panels, so that panels don't jump.
    """
    placements: list[Placement | None] = [None] * len(boxes)
    if not placements:
        return placements
    limits = np.asarray(frame_size)
    heads = boxes.copy()
    heads[:, 3] = boxes[:, 1] + HEAD_SHARE * (boxes[:, 3] - boxes[:, 1])
    crowded = np.prod(sizes[:, 0], axis=1).sum() > 0.2 * np.prod(limits)
    taken = np.zeros((0, 4)) if obstacles is None else np.asarray(obstacles, dtype=np.float64)

    def candidates(index: int, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Panels (S, 4) pushed into the picture and how far, in panel sizes."""
        size = sizes[index, level]
        wished = slot_corners(boxes[index], *size)
        corners = np.clip(np.round(wished), 0, limits - size)
        moved = (np.abs(corners - wished) / size).sum(axis=1)
        return np.concatenate([corners, corners + size], axis=1), moved

    def exists(index: int, level: int) -> bool:
        size = sizes[index, level]
        return bool((size > 0).all() and (size <= limits).all())

    def put(index: int, level: int, slot: int, panel: np.ndarray) -> None:
        nonlocal taken
        placements[index] = Placement(int(panel[0]), int(panel[1]), level, slot)
        taken = np.concatenate([taken, panel[None]])

    # 1. Panels that may stay where they are.
    for index, old in enumerate(previous or ()):
        if old is not None and exists(index, old.level):
            panels, moved = candidates(index, old.level)
            panel = panels[old.slot : old.slot + 1]
            if moved[old.slot] < 1 and _covered(panel, taken).sum() <= MAX_OVERLAP:
                put(index, old.level, old.slot, panel[0])

    # 2. The others, large persons (near the camera) first.
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    for index in np.argsort(-area, kind="stable"):
        if placements[index] is not None:
            continue
        levels = [level for level in range(sizes.shape[1]) if exists(index, level)]
        for level in levels:
            panels, moved = candidates(index, level)
            overlap = _covered(panels, taken).sum(axis=1)
            cost = _slot_costs(index, panels, boxes, heads, moved)
            slot = int(np.argmin(cost + 100 * np.where(overlap > MAX_OVERLAP, overlap, 0)))
            acceptable = cost[slot] <= (0.22 if crowded else 2.5)
            if (overlap[slot] <= MAX_OVERLAP and acceptable) or level == levels[-1]:
                put(index, level, slot, panels[slot])
                break
    return placements
