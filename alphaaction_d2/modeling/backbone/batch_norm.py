"""Batch normalisation whose statistics, scale and shift stay as they are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FrozenBatchNorm3d(nn.Module):
    """`nn.BatchNorm3d` in evaluation mode for ever, with nothing to train.

    All four vectors are buffers, so they are saved and loaded under the names of `nn.BatchNorm3d`
    and never reach an optimiser. (detectron2's FrozenBatchNorm2d handles 4-dimensional inputs
    only.)
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = None) -> None:
        """`momentum` is accepted for the sake of pytorchvideo's builders and has no effect."""
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, C, T, H, W)."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}"
