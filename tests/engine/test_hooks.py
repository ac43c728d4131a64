"""Hooks on their own."""

from __future__ import annotations

import numpy as np
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from alphaaction_d2.data.train_loader import TrainLoader
from alphaaction_d2.engine.hooks import ProgressWriter, RepeatablePreciseBN


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


def test_progress_is_told_now_and_then(caplog):
    caplog.set_level("INFO", logger="alphaaction_d2")
    writer = ProgressWriter(max_iter=40, every=3600)
    with EventStorage(0) as storage:
        for step in range(41):  # detectron2 writes once more after the last step
            if step:
                storage.put_scalars(total_loss=2.0, time=1.5)
            writer.write()
            storage.step()
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "Step 2 of 40, loss 2.000, 1.50 s a step, 0:57 min left",
        "Step 40 of 40, loss 2.000, 1.50 s a step, 0:00 min left",
    ]
