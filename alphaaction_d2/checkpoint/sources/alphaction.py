"""The released AIA models of AlphAction."""

from __future__ import annotations

import re

from .source import (
    CLASSIFIER,
    FOREIGN_LAYER,
    Source,
    any_name,
    backbone_name,
    fusion_name,
)

_PATHWAYS = ("slow", "fast")

_PROJECTIONS = {
    "person_dim_reduce": "person_projection.0",
    "person_key_dim_reduce": "person_key_projection.0",
    "object_dim_reduce": "object_projection.0",
    "mem_dim_reduce": "memory_projection.0",
}


def rename(name: str) -> str | None:
    if match := re.fullmatch(r"roi_heads\.action\.(.+)", name):
        return _rename_in_head(match[1])
    name = name.removeprefix("backbone.")
    if match := re.fullmatch(r"fast\.Tconv([1-4])\.conv\.(\w+)", name):
        return fusion_name(int(match[1]) - 1, f"conv_fast_to_slow.{match[2]}")
    if match := re.fullmatch(r"(slow|fast)\.(conv1|bn1)\.(\w+)", name):
        layer = {"conv1": "conv", "bn1": "norm"}[match[2]]
        return backbone_name(0, _PATHWAYS.index(match[1]), f"{layer}.{match[3]}")
    block = r"(slow|fast)\.res_nl([1-4])\.res_(\d+)\.(btnk\.conv([123])|shortcut)\.(conv|bn)\.(\w+)"
    if match := re.fullmatch(block, name):
        pathway, stage, number, _, index, kind, entry = match.groups()
        kind = kind.replace("bn", "norm")
        layer = f"branch2.{kind}_{'abc'[int(index) - 1]}" if index else f"branch1_{kind}"
        rest = f"res_blocks.{number}.{layer}.{entry}"
        return backbone_name(int(stage), _PATHWAYS.index(pathway), rest)
    return None


def _rename_in_head(name: str) -> str | None:
    """Rename an entry, relative to the released action head."""
    if match := re.fullmatch(r"feature_extractor\.ia_structure\.(.+)", name):
        return f"roi_heads.interaction.{aggregation_name(match[1])}"
    if match := re.fullmatch(r"feature_extractor\.(fc\d\.\w+)", name):
        return f"roi_heads.head.{match[1]}"
    if match := re.fullmatch(r"predictor\.cls_score\.(\w+)", name):
        return f"{CLASSIFIER}.{match[1]}"
    return None


def aggregation_name(name: str) -> str:
    """Give our name of an entry of the released aggregation structure, relative to it."""
    first = name.partition(".")[0]
    if re.fullmatch(r"[POM]_block_\d+", first):
        return f"blocks.{name}"
    return _PROJECTIONS.get(first, first) + name.removeprefix(first)


SOURCE = Source(
    is_of=lambda weights: any_name(
        weights, r"(backbone\.)?(slow|fast)\.(conv1|res_nl\d)\.|roi_heads\.action\."
    ),
    rename=rename,
    left_over={r"(backbone\.)?(slow|fast)\.": FOREIGN_LAYER},
    pixel_mean=(122.7717, 115.9465, 102.9801),
)
