"""Which person of a keyframe continues which track: costs, gates and assignment.

Pure functions on numpy arrays. R persons of the keyframe, Q tracks; boxes are XYXY.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..found_boxes import box_iou

# In less time than this nobody's chance to be lost gets any smaller; it also keeps the gate of
# dense frames from opening altogether.
_SHORTEST_GAP = 0.5
# What a second of absence costs: of two tracks that fit alike, the one that was seen later goes on.
_COST_OF_ABSENCE = 0.2


def overlap(boxes: np.ndarray, others: np.ndarray, margins: np.ndarray | float = 0.0) -> np.ndarray:
    """Compute intersection over union after every box has been enlarged.

    At one keyframe a second, a person who walks has often left the own box of a second ago. The
    overlap of enlarged boxes still says how far, where the plain overlap is 0.

    Args:
        margins: (Q,) or one number: what is added on each side, as a share of a box's own larger
            side. The entry of `others` says by how much both boxes of a pair grow.

    Returns:
        (R, Q) in [0, 1]; 0 where a box has no area.
    """
    margins = np.broadcast_to(np.asarray(margins, dtype=np.float64), (len(others),))[None, :, None]
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 1, 4)
    others = np.asarray(others, dtype=np.float64).reshape(1, -1, 4)
    # before they grow: a margin gives no area to a box that has none
    real = (boxes[..., 2:] > boxes[..., :2]) & (others[..., 2:] > others[..., :2])
    iou = box_iou(_enlarged(boxes, margins), _enlarged(others, margins))
    return np.where(real.all(axis=-1), iou, 0.0)


def motion_overlap(
    boxes: np.ndarray, last: np.ndarray, velocities: np.ndarray, gaps: np.ndarray, margin: float
) -> np.ndarray:
    """Compare with where each track was and where it would be by now; the larger overlap counts.

    At one keyframe a second people stop and turn as often as they go on: neither guess alone will
    do.

    Args:
        last, velocities, gaps: (Q, 4), (Q, 2) of the centres, per second, (Q,) seconds: where each
            track was seen last; velocities of zeros: people are taken to stay.
        margin: see :func:`overlap`, for a gap of a second or more; in less time boxes need
            proportionally less.
    """
    gaps = np.asarray(gaps, dtype=np.float64)
    margins = margin * np.minimum(gaps, 1.0)
    going_on = last + np.tile(velocities * gaps[:, None], 2)
    return np.maximum(overlap(boxes, last, margins), overlap(boxes, going_on, margins))


def cosine_similarity(features: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compute cosines (R, Q) of (R, C) and (Q, C); 0 for zeros, NaN for what is not finite."""
    return _unit(features) @ _unit(others).T


def association_cost(
    overlaps: np.ndarray,
    gaps: np.ndarray,
    min_iou: float,
    cosines: np.ndarray | None = None,
    appearance_weight: float = 0.0,
    min_cosine: float = -1.0,
) -> np.ndarray:
    """Compute what it costs to let a person continue a track.

    The gate rises with the gap: somebody who was away for g seconds must overlap by
    min_iou ** (1 / g). In a film, what lies between is most often a cut. The cost itself rises as
    well, if little.

    Args:
        overlaps: (R, Q) in [0, 1], such as from :func:`motion_overlap`.
        gaps: (Q,) seconds since each track was seen.
        min_iou: least overlap after one second.
        cosines: (R, Q) similarity of the appearance, NaN where it is not known.
        appearance_weight: of the appearance, next to 1 for the overlap.
        min_cosine: least similarity of the appearance.

    Returns:
        (R, Q) >= 0, infinite where person and track do not go together.
    """
    gates = min_iou ** (1.0 / np.maximum(np.asarray(gaps, dtype=np.float64), _SHORTEST_GAP))
    # An overlap of nothing never links, however low the gate. NaN fails every comparison.
    allowed = (overlaps >= gates) & (overlaps > 0)
    cost = 1.0 - overlaps + _COST_OF_ABSENCE * np.asarray(gaps)
    if cosines is not None:
        known = np.isfinite(cosines)
        allowed &= ~known | (cosines >= min_cosine)
        cost = cost + appearance_weight * np.where(known, 1.0 - cosines, 1.0)
    return np.where(allowed, np.maximum(cost, 0.0), np.inf)


def assign(cost: np.ndarray) -> list[tuple[int, int]]:
    """Find as many pairs as the gates allow and, of all such choices, the cheapest.

    A pair with an infinite (or NaN) cost, of (R, Q), is forbidden. Pairs are (person, track), by
    person, each index at most once.
    """
    allowed = np.isfinite(cost)
    if not allowed.any():
        return []
    # One forbidden pair costs more than all allowed ones together: none is taken without need.
    forbidden = 1.0 + (np.abs(cost[allowed]).max() + 1.0) * 2 * min(cost.shape)
    persons, tracks = linear_sum_assignment(np.where(allowed, cost, forbidden))
    return [(int(i), int(j)) for i, j in zip(persons, tracks) if allowed[i, j]]


def _enlarged(boxes: np.ndarray, margins: np.ndarray) -> np.ndarray:
    # The larger side, as people are slim but walk sideways: of the width alone, a walker's steps
    # would be several.
    added = margins * (boxes[..., 2:] - boxes[..., :2]).max(axis=-1, keepdims=True)
    return np.concatenate([boxes[..., :2] - added, boxes[..., 2:] + added], axis=-1)


def _unit(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.divide(features, norms, out=np.zeros_like(features), where=norms != 0)
