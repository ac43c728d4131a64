"""The seam between the ROI heads and the methods of the papers."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.utils.registry import Registry
from torch import nn

INTERACTION_REGISTRY = Registry("INTERACTION")
INTERACTION_REGISTRY.__doc__ = """
Modules that relate every person to the others, the objects and the memory.

A registered class is built as `cls(cfg, num_channels)`, with the width C of the person features,
and called as `module(clips, memory)`:

* clips: list of the N clips' `ClipFeatures`; persons have `roi_maps` (Ri, C, K, K) if the class
  attribute `needs_roi_maps` is True, clips have a `scene` (C, K, K) if `needs_scene` is; in
  training persons have `gt_classes` (Ri, K) multi-hot and `gt_boxes`, not jittered or enlarged;
* memory: `MemoryWindow` of the N clips, its centre slot filled with the clips' own persons.

It returns `(features, losses)`: (R, dim_out) for all persons of the batch, and a dict of auxiliary
losses (`loss_*`, already weighted, empty when testing). Its attribute `dim_out` is the width of the
result, `needs_memory` says whether it looks at the memory at all. Every parameter takes part in
every call, also without persons, objects or memory: distributed training needs a gradient for each.

Two members are optional; by them `inspection.AttentionRecorder` sees what a module looks at: a
method `memory_attention()`, the list of its `MemoryAttention`s, and an attribute `map_attention`, a
module that returns `AttentionMaps` of all R persons.
"""


def build_interaction(cfg: CfgNode, num_channels: int) -> nn.Module | None:
    """The module that `cfg.MODEL.INTERACTION.NAME` names, or None for an empty name."""
    name = cfg.MODEL.INTERACTION.NAME
    if not name:
        return None
    if name not in INTERACTION_REGISTRY:
        known = ", ".join(sorted(key for key, _ in INTERACTION_REGISTRY))
        raise KeyError(f"MODEL.INTERACTION.NAME {name!r} is not registered; known: {known}")
    return INTERACTION_REGISTRY.get(name)(cfg, num_channels)
