"""RoI pooling: as detectron2 does it where it can, and at strides where it can't."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import Tensor

from alphaaction_d2.modeling.pooler import RoIPooler


def some_boxes(size: int, *counts: int) -> list[Boxes]:
    generator = torch.Generator().manual_seed(0)
    corners = [torch.rand(n, 2, 2, generator=generator).sort(dim=1).values for n in counts]
    return [Boxes(size * x.flatten(1)) for x in corners]


@pytest.mark.parametrize("kind", ["ROIAlign", "ROIAlignV2"])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_as_detectron2_pools_the_maps_side_by_side(kind, sampling_ratio):
    torch.manual_seed(0)
    maps = [torch.rand(3, channels, 8, 8, requires_grad=True) for channels in (5, 2)]
    boxes = some_boxes(128, 4, 0, 2)
    found = RoIPooler(7, [16, 16], sampling_ratio, kind)(maps, boxes)
    expected = ROIPooler(7, [1 / 16], sampling_ratio, kind)([torch.cat(maps, dim=1)], boxes)
    assert found.shape == (6, 7, 7, 7) and torch.equal(found, expected)
    weights = torch.rand_like(found)
    for x, y in zip(*(torch.autograd.grad((r * weights).sum(), maps) for r in (found, expected))):
        assert torch.equal(x, y)


def interpolated(x: Tensor, row: float, column: float) -> Tensor:
    """(C,) of a map (C, H, W) between its cells; the border goes on for one cell, then zeros."""
    height, width = x.shape[1:]
    if not (-1 <= row <= height and -1 <= column <= width):
        return x.new_zeros(len(x))
    row, column = max(row, 0.0), max(column, 0.0)
    i, j = min(math.floor(row), height - 1), min(math.floor(column), width - 1)
    down, right = min(i + 1, height - 1), min(j + 1, width - 1)
    a, b = (row - i if down > i else 0.0), (column - j if right > j else 0.0)
    upper = (1 - b) * x[:, i, j] + b * x[:, i, right]
    lower = (1 - b) * x[:, down, j] + b * x[:, down, right]
    return (1 - a) * upper + a * lower


def pooled_cell_by_cell(x: Tensor, box: Tensor, cells: int, stride: float, aligned: bool) -> Tensor:
    """RoIAlign of one box with 2x2 samples a cell, as the paper says it."""
    left, top, right, bottom = (box / stride - (0.5 if aligned else 0.0)).tolist()
    width, height = right - left, bottom - top
    if not aligned:
        width, height = max(width, 1.0), max(height, 1.0)
    result = x.new_zeros(len(x), cells, cells)
    for i in range(cells):
        for j in range(cells):
            samples = [
                interpolated(x, top + (i + a) * height / cells, left + (j + b) * width / cells)
                for a in (0.25, 0.75)
                for b in (0.25, 0.75)
            ]
            result[:, i, j] = torch.stack(samples).mean(dim=0)
    return result


@pytest.mark.parametrize("kind", ["ROIAlign", "ROIAlignV2"])
def test_every_map_at_its_own_stride(kind):
    torch.manual_seed(0)
    maps, strides = [torch.rand(2, 3, 12, 12), torch.rand(2, 4, 14, 14)], [14, 12]
    boxes = some_boxes(168, 2, 1)
    found = RoIPooler(4, strides, 2, kind)(maps, boxes)
    rows = [(n, box) for n, x in enumerate(boxes) for box in x.tensor]
    aligned = kind == "ROIAlignV2"
    for roi, (n, box) in zip(found, rows, strict=True):
        expected = [
            pooled_cell_by_cell(x[n], box, 4, stride, aligned) for x, stride in zip(maps, strides)
        ]
        torch.testing.assert_close(roi, torch.cat(expected), rtol=1e-4, atol=1e-5)


def test_unknown_kinds_are_named():
    with pytest.raises(ValueError, match="POOLER_TYPE 'ROIPool' is not one of"):
        RoIPooler(7, [16], 0, "ROIPool")
