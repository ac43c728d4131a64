"""mmaction2's model zoo: its detectors for AVA, and the recognisers they were trained from."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .source import (
    CLASSIFIER,
    FOREIGN_LAYER,
    WHOLE_CLIP_CLASSIFIER,
    Source,
    any_name,
    backbone_name,
    fusion_name,
)

_PATHWAYS = {"": 0, "slow_path.": 0, "fast_path.": 1}
_BLOCK = r"layer([1-4])\.(\d+)\.(?:conv([123])|downsample)"


def is_of(weights: Mapping[str, Tensor]) -> bool:
    if any_name(weights, r"backbone\.(slow|fast)_path\."):
        return True
    # its networks of pictures have the same names
    first = weights.get("backbone.layer1.0.conv1.conv.weight")
    return first is not None and first.dim() == 5


def rename(name: str) -> str | None:
    if match := re.fullmatch(r"roi_head\.bbox_head\.fc_cls\.(\w+)", name):
        return f"{CLASSIFIER}.{match[1]}"
    parts = re.fullmatch(r"backbone\.(slow_path\.|fast_path\.|)(.+)\.(conv|bn)\.(\w+)", name)
    if parts is None:
        return None
    where, layer, kind, entry = parts.groups()
    pathway, kind = _PATHWAYS[where], kind.replace("bn", "norm")
    if layer == "conv1":
        return backbone_name(0, pathway, f"{kind}.{entry}")
    if match := re.fullmatch(r"conv1_lateral|layer([123])_lateral", layer):
        kind = kind.replace("conv", "conv_fast_to_slow")
        return fusion_name(int(match[1] or 0), f"{kind}.{entry}")
    if match := re.fullmatch(_BLOCK, layer):
        stage, number, index = match.groups()
        inside = f"branch2.{kind}_{'abc'[int(index) - 1]}" if index else f"branch1_{kind}"
        return backbone_name(int(stage), pathway, f"res_blocks.{number}.{inside}.{entry}")
    return None


SOURCE = Source(
    is_of=is_of,
    rename=rename,
    left_over={
        r"cls_head\.": WHOLE_CLIP_CLASSIFIER,
        r"data_preprocessor\.": "mean and deviation of grey levels, which the configuration has",
        r"backbone\.|roi_head\.": FOREIGN_LAYER,
    },
    pixel_mean=(123.675, 116.28, 103.53),
    pixel_std=(58.395, 57.12, 57.375),
    first_class=1,  # row 0 is the background, which is never scored
)
