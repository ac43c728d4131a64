"""Convolutions whose kernel is longer than the clip, in mixed precision on CPUs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LongConv3d(nn.Conv3d):
    """`Conv3d` that computes in float32 where autocast would meet a fault of torch.

    For a kernel that is longer than the clip, oneDNN on CPUs with bfloat16 instructions leaves a
    part of the weights' gradient unwritten (seen with torch 2.14: 3e34, or NaN). So every
    convolution that may look along time has to be one of these.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or self.kernel_size[0] <= x.shape[2]:
            return super().forward(x)
        if not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            result = super().forward(x.float())
        return result.to(torch.get_autocast_dtype("cpu"))
