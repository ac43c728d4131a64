"""Hooks on their own."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from alphaaction_d2.data.train_loader import TrainLoader
from alphaaction_d2.engine.hooks import RepeatablePreciseBN


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)

    def forward(self, batch: list[dict]) -> None:
        self.norm(torch.stack([x["value"] for x in batch]))


def test_statistics_come_from_the_same_clips_every_time():
    keyframes = [{"width": 2, "height": 1} for _ in range(7)]
    loader = TrainLoader(
        keyframes, lambda _: {"value": torch.rand(1)}, repeats=np.ones(7), batch_size=3, seed=1
    )
    next(iter(loader))
    model = Normalised().train()
    hook = RepeatablePreciseBN(1, model, loader, 2)
    found = []
    for _ in range(2):
        hook.update_stats()
        found.append((model.norm.running_mean.item(), model.norm.running_var.item()))
    assert found[0] == found[1] != (0.0, 1.0)
    assert loader.batches == 1, "training goes on where it was"
