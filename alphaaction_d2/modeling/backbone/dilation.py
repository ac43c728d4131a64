"""Denser maps from the same weights: strides traded for dilation ("à trous", Chen et al., PAMI
2018)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spacing:
    """How far a stage steps and looks in space.

    Attributes:
        stride: of the first block.
        dilations: of the 3x3 convolutions, in the first block and in the others.
        gave_up_stride: what the first block's shortcut has a convolution for, stride or not.
    """

    stride: int
    dilations: tuple[int, int]
    gave_up_stride: bool = False


def space_stages(
    strides: Sequence[int], dilations: Sequence[int], stem_stride: int, output_stride: int
) -> list[Spacing]:
    """Let the last stages give up their strides, as many as it takes, and dilate instead.

    What follows a stride that was given up is dilated by it. So every (product of these strides)-th
    cell of the new maps, counted from the first, is what the stages compute without this (but for
    non-local blocks, which look at all cells there are).

    Args:
        strides, dilations: of the stages, as their weights were trained.
        stem_stride: of what comes before them.
        output_stride: pixels of the picture between cells of the last stage; 0: as it comes.

    Raises:
        ValueError: no number of stages leads to `output_stride`.
    """
    kept = range(len(strides), -1, -1)  # the fewer give up theirs, the better
    reached = [stem_stride * math.prod(strides[:k]) for k in kept]
    wanted = output_stride or reached[0]
    if wanted not in reached:
        raise ValueError(
            f"MODEL.SLOWFAST.OUTPUT_STRIDE {output_stride}: the stages can end with "
            f"{', '.join(map(str, sorted(set(reached))))}"
        )
    first = kept[reached.index(wanted)]
    stages, factor = [], 1
    for i, (stride, dilation) in enumerate(zip(strides, dilations)):
        if i < first:
            stages.append(Spacing(stride, (dilation, dilation)))
        else:
            widened = (factor * dilation, factor * stride * dilation)
            stages.append(Spacing(1, widened, gave_up_stride=stride > 1))
            factor *= stride
    return stages
