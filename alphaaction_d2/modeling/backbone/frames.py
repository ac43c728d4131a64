"""Which raw frames of a clip the pathways of a SlowFast see."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FrameSampling:
    """The fast pathway takes every (tau // alpha)-th frame, the slow one every tau-th, both from
    the middle of their first step unless told otherwise (released AIA model: 64 frames, tau 16,
    alpha 8 -> slow 7, 23, 39, 55).

    Attributes:
        num_frames: raw frames T of a clip.
        tau: temporal stride of the slow pathway.
        alpha: frame-rate ratio of the pathways.
        jitter: training draws the first slow frame from [0, tau).
        spread: unless it is drawn, the slow frames are spread evenly over the fast ones instead,
            from the first to the last (PySlowFast, pytorchvideo).
        start: first slow frame, where it is neither drawn nor spread; None: the middle of its step.
    """

    num_frames: int
    tau: int
    alpha: int
    jitter: bool = False
    spread: bool = False
    start: int | None = None

    def indices(self, slow_start: int | None = None) -> tuple[list[int], list[int]]:
        """List slow and fast frames; the slow ones from `slow_start`, None: `self.start`."""
        fast_stride = self.tau // self.alpha
        fast = list(range((fast_stride - 1) // 2, self.num_frames, fast_stride))
        middle = (self.tau - 1) // 2 if self.start is None else self.start
        start = middle if slow_start is None else slow_start
        slow = list(range(start, self.num_frames, self.tau))
        if self.spread and slow_start is None:
            # torch's own numbers, truncated: that is how those models were trained
            slow = [fast[i] for i in torch.linspace(0, len(fast) - 1, len(slow)).long().tolist()]
        return slow, fast

    def sample(self, clips: Tensor, number: int, training: bool) -> list[Tensor]:
        """Take the slow and perhaps the fast frames: (N, C, T, H, W) -> (N, C, Ts, H, W) ..."""
        assert clips.shape[2] == self.num_frames, (
            f"clips of {clips.shape[2]} frames, the network expects {self.num_frames}"
        )
        start = int(torch.randint(self.tau, ())) if training and self.jitter else None
        return [clips[:, :, frames] for frames in self.indices(start)[:number]]
