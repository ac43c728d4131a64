"""The video transformer of VideoMAE (Tong et al., NeurIPS 2022) and UMT (Li et al., ICCV 2023).

A plain ViT whose tokens are tubes of pixels and attend to all others. Layers have the names that
both projects give them, so that their weights load as they are.

Shape letters: N clips, T frames, H W picture, C channels, L tokens of a clip, A heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from ...config import Rule, check_keys, number, refuse_unread, whole
from .map_backbone import MapBackbone

PATCH = 16  # pixels of a tube's side
TRAINED_SIDE = 14  # tubes of a side of the pictures that all of them were trained on before AVA
HEAD_CHANNELS = 64  # in all sizes
_EPS = 1e-6  # of normalisation

_KEYS = {
    "CHANNELS": Rule("a multiple of 64", lambda x: type(x) is int and x in range(64, 4097, 64)),
    "DEPTH": whole(1, 100),
    "TUBELET": whole(1, 64),
    "DROP_PATH": number(0, 0.99),
}


class Attention(nn.Module):
    """Self-attention of all tokens; its keys have no bias, which softmax would take out again."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(channels))
        self.v_bias = nn.Parameter(torch.zeros(channels))
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, C) -> (N, L, C)"""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        x = F.linear(x, self.qkv.weight, bias)
        q, k, v = x.unflatten(-1, (3, -1, HEAD_CHANNELS)).permute(2, 0, 3, 1, 4)  # N x A x L x 64
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and two layers, each behind a normalisation and beside a shortcut."""

    def __init__(self, channels: int, drop_path: float = 0.0) -> None:
        """
        Args:
            drop_path: how often training leaves out what is beside a shortcut, clip by clip.
        """
        super().__init__()
        self.drop = StochasticDepth(drop_path, "row")
        self.norm1 = nn.LayerNorm(channels, eps=_EPS)
        self.attn = Attention(channels)
        self.norm2 = nn.LayerNorm(channels, eps=_EPS)
        self.mlp = nn.Sequential()
        self.mlp.add_module("fc1", nn.Linear(channels, 4 * channels))
        self.mlp.add_module("act", nn.GELU())
        self.mlp.add_module("fc2", nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.attn(self.norm1(x)))
        return x + self.drop(self.mlp(self.norm2(x)))


class VideoTransformer(nn.Module):
    """Clips to maps, at any size of the pictures."""

    positions: Tensor

    def __init__(
        self, num_frames: int, tubelet: int, channels: int, depth: int, drop_path: float = 0.0
    ) -> None:
        """
        Args:
            num_frames: T of a clip, a multiple of `tubelet`.
            tubelet: frames of a tube.
            channels: C, a multiple of 64.
            depth: blocks.
            drop_path: of the last block; of the first none.
        """
        super().__init__()
        kernel = (tubelet, PATCH, PATCH)
        self.patch_embed = nn.Sequential()
        self.patch_embed.add_module("proj", nn.Conv3d(3, channels, kernel, kernel))
        positions = sines(num_frames // tubelet * TRAINED_SIDE**2, channels)
        positions = positions.unflatten(0, (-1, TRAINED_SIDE, TRAINED_SIDE)).permute(0, 3, 1, 2)
        # not a weight: files of UMT do not have it, those of mmaction2 have this very table
        self.register_buffer("positions", positions.contiguous(), persistent=False)
        rates = (drop_path * i / max(depth - 1, 1) for i in range(depth))
        self.blocks = nn.Sequential(*(Block(channels, rate) for rate in rates))
        self.norm = nn.LayerNorm(channels, eps=_EPS)

    def forward(self, clips: Tensor) -> Tensor:
        """(N, 3, T, H, W) -> (N, C, T / tubelet, H / 16, W / 16)"""
        x = self.patch_embed(clips)
        size = x.shape[2:]
        positions = F.interpolate(self.positions, size[1:], mode="bicubic")
        x = x + positions.transpose(0, 1)
        x = self.norm(self.blocks(x.flatten(2).transpose(1, 2)))
        return x.transpose(1, 2).unflatten(2, size)


def sines(number: int, channels: int) -> Tensor:
    """Positions of a sequence (number, channels): sine and cosine in turn ("Attention is all you
    need", Sec. 3.5); of a clip, its tubes are numbered row by row, picture by picture."""
    even = torch.arange(channels, dtype=torch.float64).div(2, rounding_mode="floor") * 2
    angles = torch.arange(number, dtype=torch.float64)[:, None] / 10000 ** (even / channels)
    table = torch.stack([angles[:, ::2].sin(), angles[:, ::2].cos()], dim=-1)
    return table.flatten(1).to(torch.float32)


class TransformerBackbone(MapBackbone):
    """A video transformer as a backbone; what is left beside the last tubes is cut off, as in the
    networks that were published."""

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        height, width = (size - size % PATCH for size in clips.shape[-2:])
        return super().forward(clips[..., :height, :width])


@BACKBONE_REGISTRY.register()
def build_video_transformer_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TransformerBackbone:
    """Build the transformer of VideoMAE and UMT from `cfg.MODEL.VIDEO_BACKBONE.VIT`."""
    refuse_unread(cfg, "backbone", "another network")
    check_keys(cfg, "MODEL.VIDEO_BACKBONE.VIT", _KEYS)
    frames, node = cfg.INPUT.NUM_FRAMES, cfg.MODEL.VIDEO_BACKBONE
    for key in ("NAME", "LAYER", "WEIGHTS"):
        if node[key]:
            raise ValueError(
                f"MODEL.VIDEO_BACKBONE.{key} {node[key]!r}: the transformer of "
                "MODEL.VIDEO_BACKBONE.VIT does not read this key; its weights are MODEL.WEIGHTS"
            )
    vit = node.VIT
    network = VideoTransformer(frames, vit.TUBELET, vit.CHANNELS, vit.DEPTH, vit.DROP_PATH)
    return TransformerBackbone(network, "", num_frames=frames, frozen=node.FROZEN)
