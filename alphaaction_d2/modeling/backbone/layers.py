"""Layers that torch lacks: frozen batch normalisation, convolutions longer than the clip."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d


class FrozenBatchNorm3d(FrozenBatchNorm2d):
    """`nn.BatchNorm3d` in evaluation mode for ever, with nothing to train.

    All four vectors are buffers, so they are saved and loaded under the names of `nn.BatchNorm3d`
    and never reach an optimiser.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = None) -> None:
        """`momentum` is accepted for the sake of pytorchvideo's builders and has no effect."""
        super().__init__(num_features, eps)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, C, T, H, W)."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


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
