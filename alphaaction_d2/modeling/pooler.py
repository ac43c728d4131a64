"""RoI features of maps at any stride.

detectron2's ROIPooler assigns boxes to the levels of a pyramid, and so asks for strides that are
powers of two; patches of 14 pixels are none.

Shape letters: N pictures, R boxes of all, C channels, H W cells of a map, K cells of a RoI's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Boxes
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchvision.ops import roi_align

# Whether cell centres lie where the pixels' centres do ("ROIAlignV2"), or half a cell beside them.
ALIGNED = {"ROIAlign": False, "ROIAlignV2": True}


class RoIPooler(nn.Module):
    """RoIAlign of every map at its own stride, side by side along the channels."""

    def __init__(
        self, resolution: int, strides: Sequence[float], sampling_ratio: int, pooler_type: str
    ) -> None:
        """Pool K x K cells, K = `resolution`, of maps at strides in pixels of the picture;
        `sampling_ratio` 0 takes as many samples along a cell as it has pixels. `pooler_type` is a
        key of ALIGNED."""
        super().__init__()
        if pooler_type not in ALIGNED:
            raise ValueError(
                f"MODEL.ROI_ACTION_HEAD.POOLER_TYPE {pooler_type!r} is not one of {list(ALIGNED)}"
            )
        self.output_size = (resolution, resolution)
        self.options = [(1 / x, sampling_ratio, ALIGNED[pooler_type]) for x in strides]

    def forward(self, maps: Sequence[Tensor], boxes: Sequence[Boxes]) -> Tensor:
        """Pool all R boxes of N pictures, in their pixels and in order, from maps (N, Cj, Hj, Wj):
        (R, sum of Cj, K, K)."""
        rois = [x.tensor.to(maps[0].dtype) for x in boxes]
        pooled = [
            _RoIAlign.apply(x, self.output_size[0], *options, *rois)
            if x.requires_grad
            else roi_align(x, rois, self.output_size, *options)
            for options, x in zip(self.options, maps, strict=True)
        ]
        return torch.cat(pooled, dim=1)


class _RoIAlign(torch.autograd.Function):
    """torchvision's, with another way back: what a RoI has of a map is a product with a matrix for
    each axis. That takes a third of the time (on the CPU), and on a GPU comes out the same every
    time."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, grid: int, scale: float, ratio: int, aligned: bool, *boxes: Tensor
    ) -> Tensor:
        ctx.shape, ctx.boxes, ctx.options = x.shape[2:], boxes, (grid, scale, ratio, aligned)
        return roi_align(x, list(boxes), (grid, grid), scale, ratio, aligned)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (height, width), (grid, scale, ratio, aligned) = ctx.shape, ctx.options
        counts = [len(x) for x in ctx.boxes]
        low, high = (scale * torch.cat(ctx.boxes) - 0.5 * aligned).split(2, dim=1)
        if not aligned:
            high = torch.maximum(high, low + 1)
        columns = axis_weights(low[:, 0], high[:, 0], grid, width, ratio).split(counts)
        rows = axis_weights(low[:, 1], high[:, 1], grid, height, ratio).split(counts)
        found = []
        for g, row, column in zip(gradient.split(counts), rows, columns):
            of_rows = torch.einsum("rcjk,rjh->chrk", g, row).flatten(2)  # C x H x RK
            found.append(of_rows @ column.flatten(0, 1))
        return torch.stack(found), *[None] * (4 + len(counts))


def axis_weights(low: Tensor, high: Tensor, grid: int, length: int, ratio: int) -> Tensor:
    """Compute what RoIAlign's cells have of a map's, along one axis: (R, K, length).

    A cell is the mean of samples at equal distances; one between two of the map's cells has of
    both, one outside of the outermost, one more than a cell outside of none.

    Args:
        low, high: (R,) where the RoIs begin and end, in cells of the map.
        ratio: samples of a cell; 0: as many as it has of the map's cells.
    """
    size = high - low
    counts = torch.full_like(size, ratio) if ratio else (size / grid).ceil()
    samples = torch.arange(max([1, *counts.int().tolist()]), device=low.device)
    cells = torch.arange(grid, device=low.device)[:, None]
    divisor = counts.clamp(min=1)[:, None, None]
    places = low[:, None, None] + (size / grid)[:, None, None] * (cells + (samples + 0.5) / divisor)
    counted = (samples < counts[:, None, None]) & (places >= -1) & (places <= length)  # R x K x M
    map_cells = torch.arange(length, device=low.device)
    distances = (places.clamp(0, length - 1)[..., None] - map_cells).abs()
    return ((1 - distances).clamp(min=0) * counted[..., None]).sum(dim=2) / divisor
