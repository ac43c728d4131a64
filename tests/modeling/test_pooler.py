"""RoI pooling: as detectron2 does it where it can, and at strides where it can't."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes

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
    boxes = some_boxes(128, 4, 0, 3)
    boxes[0].tensor[0] += 40  # some reach out of the picture, or lie there, or have no size
    boxes[0].tensor[1] -= 200
    boxes[2].tensor[0, 2:] = boxes[2].tensor[0, :2]
    found = RoIPooler(7, [16, 16], sampling_ratio, kind)(maps, boxes)
    expected = ROIPooler(7, [1 / 16], sampling_ratio, kind)([torch.cat(maps, dim=1)], boxes)
    assert found.shape == (7, 7, 7, 7) and torch.equal(found, expected)
    weights = torch.rand_like(found)
    for x, y in zip(*(torch.autograd.grad((r * weights).sum(), maps) for r in (found, expected))):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("kind, shift", [("ROIAlign", 0.0), ("ROIAlignV2", 0.5)])
def test_every_map_at_its_own_stride(kind, shift):
    """On a slope, interpolation is exact: a cell has the value of the slope at its centre."""
    strides, slopes = [14, 12], torch.tensor([[2.0, -3.0], [0.5, 1.0]])
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    maps = [(a * rows + b * columns).expand(2, 1, 20, 20) for a, b in slopes]
    boxes = some_boxes(100, 2, 1)
    for x in boxes:  # away from the border, and larger than a cell
        x.tensor[:, :2] += 20
        x.tensor[:, 2:] += 50
    found = RoIPooler(4, strides, 2, kind)(maps, boxes)
    corners = Boxes.cat(boxes).tensor
    steps = (torch.arange(4) + 0.5) / 4
    for j, (stride, (a, b)) in enumerate(zip(strides, slopes)):
        x0, y0, x1, y1 = (corners / stride - shift).T[..., None]
        y, x = y0 + steps * (y1 - y0), x0 + steps * (x1 - x0)
        torch.testing.assert_close(found[:, j], a * y[:, :, None] + b * x[:, None, :])


def test_unknown_kinds_are_named():
    with pytest.raises(ValueError, match="POOLER_TYPE 'ROIPool' is not one of"):
        RoIPooler(7, [16], 0, "ROIPool")
