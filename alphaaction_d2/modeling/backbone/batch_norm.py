"""Batch normalisation whose statistics, scale and shift stay as they are."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
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
