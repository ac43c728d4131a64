"""What a published source of weights is, and the names that all of them are turned into."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

CLASSIFIER = "roi_heads.predictor.cls_score"
WHOLE_CLIP_CLASSIFIER = "the classifier of whole clips (Kinetics)"
FOREIGN_LAYER = "layers that the networks of this project do not have"


@dataclass(frozen=True)
class Source:
    """One source of weights."""

    # whether weights are of this source, by their names
    is_of: Callable[[Mapping[str, Tensor]], bool]
    # name there -> our name in a network of two pathways; None: no place here
    rename: Callable[[str], str | None]
    # pattern of the start of a name that has no place here -> why; the first counts
    left_over: Mapping[str, str]
    # pixel_mean, pixel_std: of the grey levels, 0-255, that the networks were trained on
    pixel_mean: tuple[float, float, float] = (114.75,) * 3
    pixel_std: tuple[float, float, float] = (57.375,) * 3
    # sizes of classifiers of whole clips that have the name of one of persons
    clip_classes: tuple[int, ...] = ()
    licence: str = ""  # of all its weights, where that forbids some uses
    first_class: int = 0  # row of the classifier with the first action; those before are none

    def why_left_over(self, name: str) -> str:
        reasons = (why for start, why in self.left_over.items() if re.match(start, name))
        return next(reasons, "unknown to this project")


def any_name(weights: Mapping[str, Tensor], start: str) -> bool:
    """Tell whether any name starts as the pattern says."""
    return any(re.match(start, name) for name in weights)


def backbone_name(block: int, pathway: int, rest: str) -> str:
    """Give our name of an entry of a pathway."""
    return f"backbone.blocks.{block}.multipathway_blocks.{pathway}.{rest}"


def fusion_name(block: int, rest: str) -> str:
    """Give our name of an entry of a lateral connection."""
    return f"backbone.blocks.{block}.multipathway_fusion.{rest}"


def as_linear(value: Tensor) -> Tensor:
    """Drop the axes of length 1 that a 1x1x1 convolution has and a linear layer has not."""
    return value.flatten(1) if value.dim() > 2 else value
