"""One step: what losses are means over, and losses too small for the numbers they are kept in."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from alphaaction_d2.data.train_loader import TrainLoader
from alphaaction_d2.engine import train_loop
from alphaaction_d2.engine.train_loop import (
    ActionTrainLoop,
    factors_of_workers,
    over_all_workers,
    shares_of_parts,
)
from alphaaction_d2.structures import Losses


@pytest.mark.parametrize(
    "persons",
    [
        [[2, 1]],
        [[0, 3]],
        [[0, 0]],
        [[1, 3], [0, 2]],  # less than one a worker in the first part
        [[4, 0, 1], [0, 0, 0], [0, 1, 0]],
        [[1, 0], [0, 0], [0, 0]],
    ],
)
def test_everybody_counts_alike_however_persons_are_spread(persons):
    """Workers (rows) and parts of a batch (columns): the loss is that of all clips together."""
    counts = torch.tensor(persons, dtype=torch.float64)
    sums = counts * torch.rand(counts.shape, dtype=torch.float64)
    # What the model says of each part on each worker, and what the step makes of it.
    means = sums / counts.clamp(min=1)
    shares = torch.tensor(shares_of_parts(counts), dtype=torch.float64)
    step = (shares * factors_of_workers(counts) * means).sum(dim=1).mean()
    whole = sums.sum() / len(counts) / max(counts.sum() / len(counts), 1)
    torch.testing.assert_close(step, whole)


def test_one_exchange_makes_the_means_of_all_losses(monkeypatch):
    losses = Losses()
    losses.add("a", torch.tensor(6.0), 3)
    losses.add("b", torch.tensor(0.0), 0)
    assert over_all_workers(losses) is losses, "alone there is nothing to do"
    sent = []

    def gather(counts):
        sent.append(counts)
        return torch.tensor([[1.0, 4.0], counts], dtype=torch.float64)

    monkeypatch.setattr(train_loop, "gather_numbers", gather)
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda: 1)
    assert over_all_workers(losses) == {"a": 6.0 / 2, "b": 0.0}
    assert sent == [[3, 0]]


class Line(nn.Module):
    """A loss of `slope` times one weight."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.slope = slope

    def forward(self, batch: list[dict]) -> Losses:
        losses = Losses()
        losses.add("loss", self.weight * self.slope, 1)
        return losses


def step(slope: float, amp_dtype: torch.dtype | None) -> ActionTrainLoop:
    """A loop with a rate of 1 after one step."""
    model = Line(slope)
    keyframes = [{"width": 2, "height": 1, "video_id": "v", "timestamp": 1.0}]
    loader = TrainLoader(keyframes, dict, repeats=np.ones(1), batch_size=1, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    loop = ActionTrainLoop(model, loader, optimizer, None, amp_dtype=amp_dtype)
    with EventStorage(0):
        loop.iter = 0
        loop.run_step()
    return loop


@pytest.mark.parametrize("amp_dtype", [None, torch.float16])
@pytest.mark.parametrize("slope", [0.0, 1e-30, 1e-6])
def test_a_loss_that_underflows_is_a_small_loss(slope, amp_dtype):
    """A slope of 1e-6 has its weight in float16 only when it is scaled."""
    loop = step(slope, amp_dtype)
    assert loop.last_step.loss == pytest.approx(slope, rel=1e-6)
    assert loop.model.weight.grad.item() == pytest.approx(slope, rel=1e-6)
    assert loop.model.weight.item() == pytest.approx(1 - slope, abs=1e-7)


def test_a_gradient_that_overflows_is_left_out_and_the_scale_falls():
    loop = step(1e34, torch.float16)  # finite itself, but not times the scale
    assert loop.model.weight.item() == 1.0
    assert loop.scaler.get_scale() == 65536.0 / 2
    assert loop.last_step.loss == pytest.approx(1e34, rel=1e-6)


@pytest.mark.parametrize("amp_dtype", [None, torch.float16])
def test_a_loss_that_is_not_finite_stops_the_run(amp_dtype):
    with pytest.raises(FloatingPointError, match="Loss is not finite at iteration 0.*v at 1.0 s"):
        step(math.inf, amp_dtype)


def test_a_gradient_that_is_not_finite_stops_the_run_without_a_scaler():
    class Root(Line):
        def forward(self, batch):
            losses = Losses()
            losses.add("loss", (self.weight - 1).sqrt(), 1)  # 0, with an infinite slope
            return losses

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "Line", Root)
        with pytest.raises(FloatingPointError, match="Gradient is not finite at iteration 0"):
            step(1.0, None)
