"""The seam between the ROI heads and the methods of the papers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone
from detectron2.utils.registry import Registry
from torch import Tensor, nn

from ...config import WIDTH, check_keys, files_of, number, one_of, several, whole
from ...formats.config_files import setup_cfg
from ...memory.window import WINDOW_KEYS
from ...structures import ClipFeatures, Losses, MemoryWindow

INTERACTION_REGISTRY = Registry("INTERACTION")
INTERACTION_REGISTRY.__doc__ = """
Modules that relate every person to the others, the objects and the memory: `InteractionModule`s,
built as `cls(cfg, num_channels)` with the width C of the person features.
"""


@dataclass(frozen=True)
class MemoryAttention:
    """Where a module attends to the memory window."""

    name: str  # such as "layer 1"
    # the `AttentionWeights` at work there. Its J others are the M persons of every slot it reaches,
    # slots outermost.
    weights: nn.Module
    stride: int = 1  # it reaches the slots whose distance from the clip's own is a multiple of this

    def places(self, memory: MemoryWindow) -> Tensor:
        """Index (J,) the J persons among the S * M of the window."""
        num_slots, max_persons = memory.valid.shape[-2:]
        reached = (torch.arange(num_slots) - memory.centre) % self.stride == 0
        return reached.repeat_interleave(max_persons).nonzero()[:, 0]


@dataclass(frozen=True)
class AttentionInClip:
    """Where a module attends to persons or objects of the clip itself."""

    name: str  # such as "P-block 1"
    # the `AttentionWeights` at work there, in its first call. Its first others are the clip's, in
    # order; places after them are empty.
    weights: nn.Module
    objects: bool = False  # of objects instead of persons


class InteractionModule(nn.Module, ABC):
    """What the ROI heads and the pool ask of a module of INTERACTION_REGISTRY.

    Every parameter takes part in every call, also without persons, objects or memory: distributed
    training needs a gradient for each.

    Attributes:
        dim_out: width of the result.
        needs_roi_maps: persons come with `roi_maps`.
        needs_scene: clips come with a `scene`.
        needs_memory: it looks at the memory window; without, there is no pool.
        takes_segments: clips may be segments, a row each, which have no RoI maps, no identities and
            perhaps `hands`, and a memory of other features than the rows'.
    """

    dim_out: int
    needs_roi_maps = False
    needs_scene = False
    needs_memory = False
    takes_segments = False

    @abstractmethod
    def forward(self, clips: list[ClipFeatures], memory: MemoryWindow) -> tuple[Tensor, Losses]:
        """Relate the persons of N clips (in training with `gt_classes` and `gt_boxes`) to the rest.

        `memory` has its centre slot filled. Returns (R, dim_out) for all persons of the batch, who
        may be none, and auxiliary losses (`loss_*`), already weighted; none in testing.
        """

    def memory_attention(self) -> list[MemoryAttention]:
        """Say where it attends to the memory, for :func:`inspection.record_attention`."""
        return []

    def clip_attention(self) -> list[AttentionInClip]:
        """Say where it attends to persons and objects of the clip, for the same."""
        return []

    @property
    def map_attention(self) -> nn.Module | None:
        """The part of it, if there is one, that returns the `AttentionMaps` of all R persons."""
        return None


class InteractionSum(InteractionModule):
    """Several modules side by side, each on the same persons and memory: their results, added.

    "DenseSerialInteraction + IGMN" is both papers together. Ours.
    """

    def __init__(self, parts: Sequence[InteractionModule]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.dim_out = parts[0].dim_out  # of all: MODEL.INTERACTION.DIM_OUT, or the persons' width
        for need in ("needs_roi_maps", "needs_scene", "needs_memory"):
            setattr(self, need, any(getattr(x, need) for x in parts))
        self.takes_segments = all(x.takes_segments for x in parts)

    def forward(self, clips: list[ClipFeatures], memory: MemoryWindow) -> tuple[Tensor, Losses]:
        results, losses = zip(*(part(clips, memory) for part in self.parts))
        for others in losses[1:]:
            losses[0].merge(others)
        return sum(results[1:], results[0]), losses[0]

    def memory_attention(self) -> list[MemoryAttention]:
        return [x for part in self.parts for x in part.memory_attention()]  # type: ignore

    def clip_attention(self) -> list[AttentionInClip]:
        return [x for part in self.parts for x in part.clip_attention()]  # type: ignore

    @property
    def map_attention(self) -> nn.Module | None:
        maps = (part.map_attention for part in self.parts)  # type: ignore
        return next((x for x in maps if x is not None), None)  # type: ignore


def common_options(cfg: CfgNode, num_channels: int) -> dict:
    """Read the widths, and what every `InteractionBlock` is made with."""
    node = cfg.MODEL.INTERACTION
    of_blocks = ("layer_norm", "dropout", "init_std", "position_scale")
    return {
        "dim_in": num_channels,
        "dim_inner": node.DIM,
        "dim_out": node.DIM_OUT or num_channels,
        **{name: node[name.upper()] for name in of_blocks},
    }


def build_interaction(cfg: CfgNode, num_channels: int) -> InteractionModule | None:
    """Build the module that `cfg.MODEL.INTERACTION.NAME` names; None for an empty name."""
    name = cfg.MODEL.INTERACTION.NAME
    if not name:
        return None
    check_keys(
        cfg,
        "MODEL.INTERACTION",
        {
            "DIM": WIDTH,
            "DIM_OUT": whole(0, 2**14),
            "DROPOUT": number(0, 1),
            "MAX_PERSONS": whole(1, 10_000),
            "MAX_OBJECTS": whole(1, 10_000),
            "BLOCKS": several(one_of("POM")),
            "INIT_STD": number(0, 100),
            "POSITION_SCALE": number(0, 100),
        },
    )
    check_keys(cfg, "MODEL.MEMORY", WINDOW_KEYS)
    kinds = []
    for part in (x.strip() for x in name.split("+")):
        if part not in INTERACTION_REGISTRY:
            known = ", ".join(sorted(key for key, _ in INTERACTION_REGISTRY))
            raise KeyError(f"MODEL.INTERACTION.NAME {part!r} is not registered; known: {known}")
        kinds.append(INTERACTION_REGISTRY.get(part))
    of_segments = (cfg.MODEL.MEMORY.DETECTOR_CHANNELS > 0, cfg.INPUT.MAX_HANDS > 0)
    if any(of_segments) and not all(getattr(x, "takes_segments", False) for x in kinds):
        raise ValueError(
            f"MODEL.INTERACTION.NAME {name!r} needs persons, their boxes and their memory: hands "
            "(INPUT.MAX_HANDS) and a detector's memory (MODEL.MEMORY.DETECTOR_CHANNELS) are for AIA"
        )
    parts = [kind(cfg, num_channels) for kind in kinds]
    return parts[0] if len(parts) == 1 else InteractionSum(parts)


def memory_channels(cfg: CfgNode, num_channels: int) -> int:
    """Give the width of the remembered features; `num_channels` is that of the persons'."""
    check_keys(cfg, "MODEL.MEMORY", {"DETECTOR_CHANNELS": whole(0, 2**14)})
    if cfg.MODEL.MEMORY.FROZEN_CONFIG:
        with files_of("MODEL.MEMORY.FROZEN_CONFIG"):
            node = setup_cfg(cfg.MODEL.MEMORY.FROZEN_CONFIG, ["MODEL.WEIGHTS", "not needed"])
            with torch.device("meta"):  # shapes are all that is asked for
                return sum(spec.channels for spec in build_backbone(node).output_shape().values())
    return cfg.MODEL.MEMORY.DETECTOR_CHANNELS or num_channels
