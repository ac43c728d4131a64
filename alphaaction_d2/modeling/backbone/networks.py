"""Builders of backbones from other libraries' video networks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.video import MViT

from ...config import check_keys, one_of, refuse_unread
from ...model_zoo.networks import find_network
from .map_backbone import Fit, Grid, MapBackbone, resample_positions


@BACKBONE_REGISTRY.register()
def build_torchvision_video_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> MapBackbone:
    """Build a video network of torchvision from `cfg.MODEL.VIDEO_BACKBONE`."""
    find_network(cfg.MODEL.VIDEO_BACKBONE.NAME, "torchvision")
    network = get_model(cfg.MODEL.VIDEO_BACKBONE.NAME, weights=None)
    return _build(cfg, network, fit_mvit if isinstance(network, MViT) else None)


def fit_mvit(network: nn.Module, parameters: Mapping[str, Tensor], grid: Grid) -> dict[str, Tensor]:
    """Suit torchvision's MViT to a grid: v1 has tables of positions, v2 resamples its own."""
    encoding: Any = network.pos_encoding
    encoding.temporal_size, encoding.spatial_size = grid[0], grid[1:]
    return _resampled(parameters, "pos_encoding.spatial_pos", "pos_encoding.temporal_pos", grid)


def _resampled(
    parameters: Mapping[str, Tensor], space: str, time: str, grid: Grid
) -> dict[str, Tensor]:
    """Resample a table of (square) space and one of time, where there are such."""
    if space not in parameters:
        return {}
    tables = {}
    for name, new in ((space, grid[1:]), (time, grid[:1])):
        table = parameters[name]
        cells = table.shape[-2]
        old = (math.isqrt(cells),) * 2 if name == space else (cells,)
        tables[name] = resample_positions(table.flatten(0, -2), old, new).reshape(
            *table.shape[:-2], -1, table.shape[-1]
        )
    return tables


def _build(
    cfg: CfgNode, network: nn.Module, fit: Fit | None = None, frames_first: bool = False
) -> MapBackbone:
    refuse_unread(cfg, "backbone")
    check_keys(cfg, "MODEL.VIDEO_BACKBONE", {"NORM": one_of(["BN", "FrozenBN"])})
    node = cfg.MODEL.VIDEO_BACKBONE
    return MapBackbone(
        network,
        node.LAYER,
        num_frames=cfg.INPUT.NUM_FRAMES,
        name=node.NAME,
        frames_first=frames_first,
        fit=fit,
        norm=node.NORM,
        frozen=node.FROZEN,
    )
