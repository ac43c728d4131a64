"""Builders of backbones from other libraries' video networks."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from pytorchvideo.models import hub
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.video import MViT

from ...checkpoint.checkpointer import load_for_inference
from ...checkpoint.reading import read_checkpoint
from ...config import check_keys, files_of, one_of, refuse_unread
from ...model_zoo.files import warn_of_licence
from ...model_zoo.networks import find_network
from ...model_zoo.table import VIDEOMAE
from .map_backbone import Fit, Grid, MapBackbone


@BACKBONE_REGISTRY.register()
def build_torchvision_video_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> MapBackbone:
    """Build a video network of torchvision from `cfg.MODEL.VIDEO_BACKBONE`."""
    find_network(cfg.MODEL.VIDEO_BACKBONE.NAME, "torchvision_video")
    network = get_model(cfg.MODEL.VIDEO_BACKBONE.NAME, weights=None)
    return _build(cfg, network, fit_mvit if isinstance(network, MViT) else None)


@BACKBONE_REGISTRY.register()
def build_pytorchvideo_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> MapBackbone:
    """Build a network of pytorchvideo's hub from `cfg.MODEL.VIDEO_BACKBONE`."""
    name = cfg.MODEL.VIDEO_BACKBONE.NAME
    find_network(name, "pytorchvideo")
    with torch.device("cpu"):  # MViT computes with numbers that a meta tensor does not have
        network = getattr(hub, name)()
    return _build(cfg, network, fit_pytorchvideo_mvit if name.startswith("mvit") else None)


@BACKBONE_REGISTRY.register()
def build_transformers_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> MapBackbone:
    """Build a video transformer of the library transformers from `cfg.MODEL.VIDEO_BACKBONE`.

    Raises:
        ValueError: transformers is missing or too old, or the weights do not fit.
    """
    node = cfg.MODEL.VIDEO_BACKBONE
    described = find_network(node.NAME, "transformers")
    try:
        transformers: Any = importlib.import_module("transformers")
        kind = getattr(transformers, _TRANSFORMERS[described.type])
    except (ImportError, AttributeError):
        raise ValueError(
            f"MODEL.VIDEO_BACKBONE.NAME {node.NAME!r} needs transformers 5.20 or later: "
            "pip install 'alphaaction_d2[backbones]'"
        ) from None
    if Path(node.NAME).is_dir():
        config = kind.config_class.from_pretrained(node.NAME)
    else:
        config = kind.config_class(**described.config)
    network = _load_transformer(kind, config, "" if cfg.MODEL.WEIGHTS else node.WEIGHTS)
    if node.WEIGHTS and not cfg.MODEL.WEIGHTS and described.type == "videomae":
        warn_of_licence(node.WEIGHTS, VIDEOMAE)
    if described.type == "vjepa2":
        network = network.encoder
        for attention in (layer.attention for layer in network.layer):
            attention.register_forward_pre_hook(_say_places, with_kwargs=True)
    options = {"interpolate_pos_encoding": True} if "prism" in described.type else {}
    return _build(cfg, network, _FITS.get(described.type), frames_first=True, options=options)


_TRANSFORMERS = {
    "videoprism_vision_model": "VideoPrismVisionModel",
    "vjepa2": "VJEPA2Model",
    "videomae": "VideoMAEModel",
}


def _load_transformer(kind: Any, config: Any, weights: str) -> Any:
    """Make a network of random weights, or of those in a file, in a folder or under a name of the
    hub, perhaps with a revision behind "@"."""
    if not weights:
        return kind(config)
    options = {"config": config, "output_loading_info": True}
    name, _, revision = (weights, "", "") if Path(weights).exists() else weights.partition("@")
    try:
        if Path(weights).is_file():
            options["state_dict"] = read_checkpoint(weights)["model"]
        where = None if "state_dict" in options else name
        network, told = kind.from_pretrained(where, revision=revision or "main", **options)
        if missing := sorted(told["missing_keys"]):
            raise ValueError(
                f"{len(missing)} tensors of the network are missing: {', '.join(missing[:3])} ..."
            )
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"MODEL.VIDEO_BACKBONE.WEIGHTS {weights}: {reason}") from error
    return network


def fit_mvit(network: nn.Module, parameters: Mapping[str, Tensor], grid: Grid) -> dict[str, Tensor]:
    """Suit torchvision's MViT to a grid: v1 has tables of positions, v2 resamples its own."""
    encoding: Any = network.pos_encoding
    encoding.temporal_size, encoding.spatial_size = grid[0], grid[1:]
    tables = {"pos_encoding.temporal_pos": grid[:1], "pos_encoding.spatial_pos": grid[1:]}
    return {x: resample(parameters[x], new) for x, new in tables.items() if x in parameters}


def fit_pytorchvideo_mvit(
    network: nn.Module, parameters: Mapping[str, Tensor], grid: Grid
) -> dict[str, Tensor]:
    """Suit pytorchvideo's MViT to a grid."""
    encoding: Any = network.cls_positional_encoding
    encoding._patch_embed_shape = grid
    encoding.num_temporal_patch, encoding.num_spatial_patch = grid[0], grid[1] * grid[2]
    start = "cls_positional_encoding.pos_embed_"
    tables = {f"{start}temporal": grid[:1], f"{start}spatial": grid[1:]}
    return {x: resample(parameters[x], new) for x, new in tables.items()}


def fit_videomae(
    network: nn.Module, parameters: Mapping[str, Tensor], grid: Grid
) -> dict[str, Tensor]:
    """Suit VideoMAE to a grid: its sines, which are no parameters, are resampled."""
    embeddings: Any = network.embeddings
    config = embeddings.config
    if not hasattr(embeddings, "trained_positions"):
        embeddings.trained_positions = embeddings.position_embeddings
    frames = config.num_frames // config.tubelet_size
    table = resample(embeddings.trained_positions.unflatten(1, (frames, -1)), grid[1:])
    table = resample(table.transpose(1, 2), grid[:1]).transpose(1, 2)  # 1 x t x h * w x C
    embeddings.position_embeddings = table.flatten(1, 2)
    embeddings.patch_embeddings.image_size = [n * config.patch_size for n in grid[1:]]
    return {}


def fit_vjepa2(
    network: nn.Module, parameters: Mapping[str, Tensor], grid: Grid
) -> dict[str, Tensor]:
    """Tell V-JEPA 2 where its tokens are: it takes them for those of a square grid."""
    t, h, w = grid
    side = max(h, w)
    y, x = torch.arange(h)[:, None], torch.arange(w)
    places = torch.arange(t)[:, None, None] * side**2 + y * side + x
    for layer in network.layer:  # type: ignore[union-attr]
        layer.attention.grid_size, layer.attention.places = side, places.flatten()
    return {}


def _say_places(attention: Any, inputs: tuple, options: dict) -> tuple[tuple, dict]:
    """Give V-JEPA 2's attention the places of its tokens as if the others were left out."""
    places = attention.places.to(inputs[0].device).expand(len(inputs[0]), -1)
    return inputs, {**options, "position_mask": places}


_FITS: dict[str, Fit] = {"vjepa2": fit_vjepa2, "videomae": fit_videomae}


def resample(table: Tensor, new: Sequence[int]) -> Tensor:
    """Resample positions: bicubic over a square that becomes `new` (h, w), linear along time (t,).

    Args:
        table: (..., L, C), L the cells of the square, or of time.
    """
    cells = table.shape[-2]
    old = (math.isqrt(cells),) * 2 if len(new) == 2 else (cells,)
    if old == tuple(new):
        return table
    values = table.flatten(0, -3) if table.dim() > 2 else table[None]
    values = values.transpose(1, 2).unflatten(2, old)
    values = F.interpolate(values, tuple(new), mode="bicubic" if len(new) == 2 else "linear")
    return values.flatten(2).transpose(1, 2).reshape(*table.shape[:-2], -1, table.shape[-1])


def _build(cfg: CfgNode, network: nn.Module, fit: Fit | None = None, **form: Any) -> MapBackbone:
    refuse_unread(cfg, "backbone", "another network")
    check_keys(cfg, "MODEL.VIDEO_BACKBONE", {"NORM": one_of(["BN", "FrozenBN"])})
    node = cfg.MODEL.VIDEO_BACKBONE
    form |= {"num_frames": cfg.INPUT.NUM_FRAMES, "name": node.NAME, "fit": fit}
    backbone = MapBackbone(network, node.LAYER, norm=node.NORM, frozen=node.FROZEN, **form)
    if node.WEIGHTS and not cfg.MODEL.WEIGHTS and "transformers" not in cfg.MODEL.BACKBONE.NAME:
        with files_of("MODEL.VIDEO_BACKBONE.WEIGHTS"):
            load_for_inference(backbone, node.WEIGHTS)
    return backbone
