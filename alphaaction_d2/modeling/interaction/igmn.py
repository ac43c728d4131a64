"""Identity-aware graph memory network: long-term and short-term context (IGMN, Fig. 2).

Shape letters: R persons of the batch, D inner width of the graph.
"""

from __future__ import annotations

from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ...structures import ClipFeatures, Losses, MemoryWindow
from .build import INTERACTION_REGISTRY, AttentionInClip, InteractionModule, MemoryAttention
from .dam import DualAttentionModule
from .hgnn import HGNN


@INTERACTION_REGISTRY.register()
class IGMN(InteractionModule):
    """f_mem + f_idt (IGMN, Sec. 3.4): the graph's result and that of the dual attention.

    The graph runs once; the mean of its layers tells the attention about the long term.
    """

    needs_roi_maps = True
    needs_memory = True

    @configurable
    def __init__(self, *, hgnn: HGNN, dam: DualAttentionModule) -> None:
        super().__init__()
        self.hgnn = hgnn
        self.dam = dam
        self.dim_out = hgnn.dim_out

    @classmethod
    def from_config(cls, cfg: CfgNode, num_channels: int) -> dict:
        hgnn = HGNN(cfg, num_channels)
        return {
            "hgnn": hgnn,
            "dam": DualAttentionModule(cfg, num_channels, hgnn.dim_inner, hgnn.dim_out),
        }

    def memory_attention(self) -> list[MemoryAttention]:
        return self.hgnn.memory_attention()

    def clip_attention(self) -> list[AttentionInClip]:
        return self.hgnn.clip_attention()

    @property
    def map_attention(self) -> nn.Module:
        return self.dam.attention

    def forward(self, clips: list[ClipFeatures], memory: MemoryWindow) -> tuple[Tensor, Losses]:
        layers = self.hgnn.actor_features(clips, memory)  # R x layers x D
        context, losses = self.dam(clips, layers.mean(dim=1))
        return self.hgnn.output(layers[:, -1]) + context, losses
