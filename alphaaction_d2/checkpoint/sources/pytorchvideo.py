"""pytorchvideo's hub: our networks are made of its blocks, so names differ in their start only."""

from __future__ import annotations

import re

from .source import CLASSIFIER, FOREIGN_LAYER, WHOLE_CLIP_CLASSIFIER, Source, any_name


def rename(name: str) -> str | None:
    if match := re.fullmatch(r"(?:model\.)?(blocks\.[0-4]\..+)", name):
        # Block 5 of a Slow network is its head, but block 5 of a SlowFast has nothing to load.
        return f"backbone.{match[1]}"
    if match := re.fullmatch(r"detection_head\.proj\.(\w+)", name):
        return f"{CLASSIFIER}.{match[1]}"
    return None


SOURCE = Source(
    is_of=lambda weights: any_name(weights, r"(model\.)?blocks\.\d"),
    rename=rename,
    left_over={r".*\.proj\.": WHOLE_CLIP_CLASSIFIER, r"(model\.)?blocks\.": FOREIGN_LAYER},
)


def rename_pooled(name: str) -> str | None:
    """Rename an entry of a network whose block 2 is a pooling along time, which has no weights."""
    if match := re.fullmatch(r"(?:model\.)?blocks\.([345])\.(res_blocks\..+)", name):
        return f"backbone.blocks.{int(match[1]) - 1}.{match[2]}"
    return rename(name) if re.match(r"(?:model\.)?blocks\.[01]\.", name) else None


# C2D, which pools between res2 and res3; without that it is a network of single frames.
POOLED_SOURCE = Source(
    is_of=lambda weights: any_name(weights, r"(model\.)?blocks\.5\.res_blocks\."),
    rename=rename_pooled,
    left_over=SOURCE.left_over,
)
