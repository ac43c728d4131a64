"""Denser maps from the same weights: strides traded for dilation ("à trous", Chen et al., PAMI
2018)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pytorchvideo.models.resnet import ResBlock
from torch import nn


def reach_output_stride(
    pathways: Iterable[Sequence[nn.Module]],
    strides: Sequence[int],
    stem_stride: int,
    output_stride: int,
) -> int:
    """Let the last stages give up their strides, as many as it takes, and dilate instead.

    Args:
        pathways: of each, the stages of pytorchvideo's residual blocks, in order; changed.
        strides: spatial strides of the stages. stem_stride: of what comes before them.
        output_stride: pixels of the picture between cells of the last stage; 0: as it is.

    Returns:
        The stride that the last stage has now.

    Raises:
        ValueError: no number of stages leads to `output_stride`.
    """
    kept = range(len(strides), -1, -1)  # the fewer give up theirs, the better
    reached = [stem_stride * math.prod(strides[:k]) for k in kept]
    if output_stride == 0:
        return reached[0]
    if output_stride not in reached:
        raise ValueError(
            f"MODEL.SLOWFAST.OUTPUT_STRIDE {output_stride}: the stages can end with "
            f"{', '.join(map(str, sorted(set(reached))))}"
        )
    first = kept[reached.index(output_stride)]
    for stages in pathways:
        trade_strides_for_dilation(stages[first:])
    return output_stride


def trade_strides_for_dilation(stages: Iterable[nn.Module]) -> None:
    """Give up the spatial strides of consecutive stages; what follows a stride is dilated by it.

    Every (product of the strides)-th cell of the new maps, counted from the first, is what the
    stages computed before (but for non-local blocks, which look at all cells there are).

    Args:
        stages: of pytorchvideo's residual blocks, in order, up to the end of the pathway; changed.
    """
    dilation = 1
    for stage in stages:
        for block in (m for m in stage.modules() if isinstance(m, ResBlock)):
            convolutions = [m for m in block.modules() if isinstance(m, nn.Conv3d)]
            stride = max(int(c.stride[1]) for c in convolutions)
            for convolution in convolutions:
                _widen(convolution, dilation)
            dilation *= stride


def _widen(convolution: nn.Conv3d, factor: int) -> None:
    """Spatial stride 1, and taps `factor` times as far apart over as much padding."""
    convolution.stride = (int(convolution.stride[0]), 1, 1)
    for name in ("padding", "dilation"):
        time, *space = getattr(convolution, name)
        setattr(convolution, name, (time, *(factor * v for v in space)))
