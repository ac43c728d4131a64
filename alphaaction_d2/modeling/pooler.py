"""RoI features of maps at any stride.

detectron2's ROIPooler assigns boxes to the levels of a pyramid, and so asks for strides that are
powers of two; patches of 14 pixels are none.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes
from torch import Tensor, nn
from torchvision.ops import RoIAlign

# Whether cell centres lie where the pixels' centres do ("ROIAlignV2"), or half a cell beside them.
ALIGNED = {"ROIAlign": False, "ROIAlignV2": True}


class RoIPooler(nn.Module):
    """RoIAlign of every map at its own stride, side by side along the channels."""

    def __init__(
        self, resolution: int, strides: Sequence[float], sampling_ratio: int, pooler_type: str
    ) -> None:
        """
        Args:
            resolution: cells along each side of a RoI, K.
            strides: pixels of the picture between the cells of each map.
            sampling_ratio: samples along each side of a cell; 0: as many as it has pixels.
            pooler_type: a key of ALIGNED.
        """
        super().__init__()
        if pooler_type not in ALIGNED:
            raise ValueError(
                f"MODEL.ROI_ACTION_HEAD.POOLER_TYPE {pooler_type!r} is not one of {list(ALIGNED)}"
            )
        self.output_size = (resolution, resolution)
        self.poolers = nn.ModuleList(
            RoIAlign(self.output_size, 1.0 / stride, sampling_ratio, ALIGNED[pooler_type])
            for stride in strides
        )

    def forward(self, maps: Sequence[Tensor], boxes: Sequence[Boxes]) -> Tensor:
        """
        Args:
            maps: each (N, Cj, Hj, Wj).
            boxes: of N pictures, in their pixels.

        Returns:
            (R, sum of Cj, K, K) of all R boxes in order.
        """
        rois = [x.tensor.to(maps[0].dtype) for x in boxes]
        pooled = [pooler(x, rois) for pooler, x in zip(self.poolers, maps, strict=True)]
        return torch.cat(pooled, dim=1)
