"""What the model does with the memory window it is given, before the interaction module sees it.

Shape letters: N clips, S slots, M persons a slot, C channels, Ri persons of clip i.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from detectron2.structures import Instances
from torch import Tensor

from ..config import several, whole
from ..structures import UNKNOWN_PERSON, MemoryWindow, fractions

# The shape of a window, for whoever reads it.
WINDOW_KEYS = {
    "WINDOW": several(whole(0, 10_000), [2]),
    "STRIDE": whole(1, 10_000),
    "MAX_PERSONS": whole(1, 10_000),
}


def empty_window(
    num_clips: int,
    before_after: tuple[int, int],
    max_persons: int,
    num_channels: int,
    device: torch.device,
    stride: int = 1,
    fresh_centre: bool = True,
) -> MemoryWindow:
    """Make N windows with nothing in them, for inputs without a pool (a still image)."""
    before, after = before_after
    shape = (num_clips, before + after + 1, max_persons)
    return MemoryWindow(
        features=torch.zeros(*shape, num_channels, device=device),
        valid=torch.zeros(shape, dtype=torch.bool, device=device),
        person_ids=torch.full(shape, UNKNOWN_PERSON, device=device),
        boxes=torch.zeros(*shape, 4, device=device),
        weights=torch.ones(shape[:2], device=device),
        # no torch.full of a bool: tracing, and so counting of operations, does not know it
        fresh_centre=torch.tensor([fresh_centre] * num_clips, device=device),
        offsets=stride * torch.arange(-before, after + 1, device=device),
    )


def weighted(window: MemoryWindow, dtype: torch.dtype) -> MemoryWindow:
    """Apply the read weights, in `dtype`; a slot of weight 0 counts as empty (AIA, Eq. 2)."""
    return replace(
        window,
        features=window.features.to(dtype) * window.weights[..., None, None],
        valid=window.valid & (window.weights > 0)[..., None],
    )


def insert_clips(
    window: MemoryWindow, persons: list[Instances], random_subset: bool
) -> MemoryWindow:
    """Put clips' own persons, detached, into their centre slots (AIA, Algorithm 1, line 13), of
    more than M a random subset (training) or the best.

    After :func:`weighted`, because the loss of an earlier step says nothing about features of this
    one. A window that comes with the pool's own centre stays as it is. Persons have `roi_features`
    (Ri, C), `person_ids`, `proposal_boxes` and `objectness_logits`.
    """
    max_persons = window.valid.shape[2]
    centre = window.centre
    features, valid = window.features.clone(), window.valid.clone()
    person_ids, boxes = window.person_ids.clone(), window.boxes.clone()
    for i in window.fresh_centre.nonzero()[:, 0].tolist():
        clip = persons[i]
        rows = select_persons(clip.objectness_logits, max_persons, random_subset)
        n = len(rows)
        features[i, centre, :n] = clip.roi_features.detach()[rows].to(features.dtype)
        valid[i, centre, :n] = True
        person_ids[i, centre, :n] = clip.person_ids[rows]
        boxes[i, centre, :n] = fractions(clip.proposal_boxes.tensor, clip.image_size)[rows]
    return replace(window, features=features, valid=valid, person_ids=person_ids, boxes=boxes)


def select_persons(scores: Tensor, max_persons: int, random_subset: bool) -> Tensor:
    """Choose who enters a slot: all, or `max_persons` at random or by score; rows in order."""
    if len(scores) <= max_persons:
        return torch.arange(len(scores), device=scores.device)
    if random_subset:
        chosen = torch.randperm(len(scores))[:max_persons].to(scores.device)
    else:
        chosen = scores.argsort(descending=True, stable=True)[:max_persons]
    return chosen.sort().values
