"""What video backbones share: how they freeze, how far they pad, where the slow frames start."""

from __future__ import annotations

import torch
from detectron2.modeling import Backbone
from torch import Tensor


class VideoBackbone(Backbone):
    """A subclass sets `num_frames`, `tau`, `slow_jitter`, `frozen` and detectron2's features."""

    num_frames: int
    tau: int
    slow_jitter: bool
    frozen: bool

    def train(self, mode: bool = True) -> VideoBackbone:
        """A frozen network stays as it is in testing."""
        return super().train(mode and not self.frozen)

    @property
    def size_divisibility(self) -> int:
        """Pictures are padded to a multiple of the stride, so that all pathways stay aligned."""
        return self._out_feature_strides["slow"]

    def slow_start(self, clips: Tensor) -> int | None:
        """First slow frame of a batch (N, 3, T, H, W), see :func:`pathway_indices`.

        Drawn from [0, tau) in training with jitter, else None. A clip of another length than
        `num_frames` is refused.
        """
        assert clips.shape[2] == self.num_frames, (
            f"clips of {clips.shape[2]} frames, the network expects {self.num_frames}"
        )
        if self.training and self.slow_jitter:
            return int(torch.randint(self.tau, ()))
        return None
