"""The non-local baseline that AIA is compared with (AIA, Sec. 4.2 and Table 1f, "+NL").

Shape letters: N clips, R persons of the batch, P persons of a clip after padding, C width of RoI
features, K RoI grid side, D inner width.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ...structures import ClipFeatures, Losses, MemoryWindow
from .attention import InteractionBlock, count_rows, init_projection, pad_sets, unpad
from .build import INTERACTION_REGISTRY, InteractionModule, common_options


@INTERACTION_REGISTRY.register()
class NonLocalInteraction(InteractionModule):
    """Persons attend to the picture instead of to persons, objects and memory.

    All that the paper says is: "we augment the backbone with a non-local branch, where attention is
    computed between the person instance features and global pooled features". Our reading: the
    global features are the K x K cells of the whole picture, averaged over time and pooled like a
    box; persons query them in one interaction block, with input projections like those of AIA, so
    that the two differ in what is attended to and in nothing else.
    """

    needs_scene = True

    @configurable
    def __init__(
        self,
        *,
        dim_in: int,
        dim_inner: int,
        dim_out: int,
        dropout: float = 0.0,
        init_std: float = 0.01,
        **of_block: Any,
    ) -> None:
        """Args:
        dim_in, dim_inner, dim_out: C, D and the width of the result.
        of_block: further options of :class:`InteractionBlock`.
        """
        super().__init__()
        self.dim_out = dim_out
        self.person_projection = nn.Linear(dim_in, dim_inner)
        self.scene_projection = nn.Linear(dim_in, dim_inner)
        for projection in (self.person_projection, self.scene_projection):
            init_projection(projection, init_std)
        self.dropout = nn.Dropout(dropout)
        self.block = InteractionBlock(
            dim_query=dim_inner,
            dim_other=dim_inner,
            dim_inner=dim_inner,
            dim_out=dim_out,
            dropout=dropout,
            init_std=init_std,
            **of_block,
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, num_channels: int) -> dict:
        return common_options(cfg, num_channels)

    def forward(self, clips: list[ClipFeatures], memory: MemoryWindow) -> tuple[Tensor, Losses]:
        """See :class:`InteractionModule`; `memory` is not looked at."""
        features = torch.cat([clip.persons.roi_features for clip in clips])
        counts = count_rows(clip.persons.roi_features for clip in clips)
        query, _ = pad_sets(self.dropout(self.person_projection(features)), counts)  # N x P x D
        scenes = torch.stack([clip.scene for clip in clips])  # type: ignore[misc]  # needs_scene
        cells = scenes.flatten(2).transpose(1, 2)  # N x C x K x K -> N x KK x C
        others = self.dropout(self.scene_projection(cells))
        return unpad(self.block(query, others), counts), Losses()
