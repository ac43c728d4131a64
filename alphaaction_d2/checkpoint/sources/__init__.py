"""Weights that others published, under our names; pure functions.

Each source holds the same layers under other names (and 1x1x1 convolutions where ours are linear
layers). All of them are turned into the names of `ActionRCNN`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from . import alphaction, mmaction2, pyslowfast, pytorchvideo, video_transformer
from .source import CLASSIFIER, WHOLE_CLIP_CLASSIFIER, any_name, as_linear

SOURCES = {
    "alphaction": alphaction.SOURCE,
    # these two before those that they look like
    "umt": video_transformer.UMT,
    "pytorchvideo_c2d": pytorchvideo.POOLED_SOURCE,
    "pytorchvideo": pytorchvideo.SOURCE,
    "pyslowfast": pyslowfast.SOURCE,
    "mmaction2": mmaction2.SOURCE,
    "mmaction2_videomae": video_transformer.MMACTION2,
}

_BLOCKS = r"blocks\.\d\.(multipathway_\w+|res_blocks|conv|norm)\."  # of SlowFast
OURS = rf"backbone\.({_BLOCKS}|network\.)|roi_heads\.(interaction|head|predictor)\."


class Converted(NamedTuple):
    """Weights under our names, and the names in the file that have no place here, with why."""

    weights: dict[str, Tensor]
    left_over: dict[str, str]


def recognise(weights: Mapping[str, Tensor]) -> str | None:
    """Find the source of weights by their names; None for our own and for strangers."""
    if any_name(weights, OURS):
        return None
    return next((name for name, source in SOURCES.items() if source.is_of(weights)), None)


def convert(weights: Mapping[str, Tensor], name: str) -> Converted:
    """Turn the weights of a source into ours; names are without the "module." of a parallel
    model."""
    source = SOURCES[name]
    renamed: dict[str, Tensor] = {}
    left_over: dict[str, str] = {}
    for theirs, value in weights.items():
        ours = source.rename(theirs)
        if ours is None:
            left_over[theirs] = source.why_left_over(theirs)
        elif ours.startswith(CLASSIFIER) and value.shape[0] in source.clip_classes:
            left_over[theirs] = WHOLE_CLIP_CLASSIFIER
        else:
            if ours.startswith(CLASSIFIER):
                value = value[source.first_class :]
            renamed[ours] = as_linear(value) if ours.startswith("roi_heads.") else value
    if not any(".multipathway_blocks.1." in ours for ours in renamed):  # one pathway has no number
        renamed = {ours.replace("multipathway_blocks.0.", ""): x for ours, x in renamed.items()}
    return Converted(renamed, left_over)
