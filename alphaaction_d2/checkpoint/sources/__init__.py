"""Weights that others published, under our names; pure functions.

Each source holds the same layers under other names (and 1x1x1 convolutions where ours are linear
layers). All of them are turned into the names of `ActionRCNN`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from . import alphaction, pyslowfast, pytorchvideo
from .source import CLASSIFIER, WHOLE_CLIP_CLASSIFIER, any_name, as_linear

SOURCES = {
    "alphaction": alphaction.SOURCE,
    "pytorchvideo": pytorchvideo.SOURCE,
    "pyslowfast": pyslowfast.SOURCE,
}

OURS = r"backbone\.blocks\.|roi_heads\.(interaction|head|predictor)\."


@dataclass(frozen=True)
class Converted:
    """Weights under our names.

    Attributes:
        weights: name -> tensor.
        left_over: name in the file -> why it has no place here.
    """

    weights: dict[str, Tensor]
    left_over: dict[str, str]


def recognise(weights: Mapping[str, Tensor]) -> str | None:
    """The source of weights by their names; None for our own and for strangers."""
    if any_name(weights, OURS):
        return None
    return next((name for name, source in SOURCES.items() if source.is_of(weights)), None)


def convert(weights: Mapping[str, Tensor], name: str) -> Converted:
    """Turn the weights of a source into ours.

    Args:
        weights: name -> tensor, without the prefix "module." of a parallel model.
        name: one of SOURCES.
    """
    source = SOURCES[name]
    renamed: dict[str, Tensor] = {}
    left_over: dict[str, str] = {}
    both = any_name(weights, source.fast)
    for theirs, value in weights.items():
        ours = source.rename(theirs, both)
        if ours is None:
            left_over[theirs] = source.why_left_over(theirs)
        elif ours.startswith(CLASSIFIER) and value.shape[0] in source.clip_classes:
            left_over[theirs] = WHOLE_CLIP_CLASSIFIER
        else:
            renamed[ours] = as_linear(value) if ours.startswith("roi_heads.") else value
    return Converted(renamed, left_over)
