"""A pool that two processes share is whole before either of them reads it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from detectron2.engine import launch
from detectron2.utils import comm

from alphaaction_d2.engine import Trainer
from alphaaction_d2.memory.pool import MemoryPool
from tests.helpers import build_trainer, small_cfg, write_dataset


def train_or_resume(folder: Path, output: Path, resume: bool, options: tuple) -> Trainer:
    cfg = small_cfg(folder, "SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()", *options)
    trainer = build_trainer(cfg, output)
    trainer.resume_or_load(resume=resume)
    return trainer


def resume_with_a_slow_writer(folder: Path, output: Path, options: tuple) -> None:
    """What every process runs: resume, and leave how many persons the pool had then."""
    load = MemoryPool.load_state_dict

    def slow(pool: MemoryPool, state: dict) -> None:
        if pool.writes:
            time.sleep(2)
        load(pool, state)

    MemoryPool.load_state_dict = slow
    trainer = train_or_resume(folder, output, True, options)
    torch.save(len(trainer.pool), output / f"seen_by_{comm.get_rank()}")


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True])
def test_nobody_reads_a_pool_that_is_half_full(tmp_path, frozen):
    folder = write_dataset(tmp_path / f"shared_squares_{frozen}", seconds=3, videos=1)
    output, options = tmp_path / "run", ()
    if frozen:
        baseline = ("MODEL.INTERACTION.NAME", "")
        train_or_resume(folder, tmp_path / "baseline", False, baseline).train()
        weights = str(tmp_path / "baseline" / "model_final.pth")
        options = ("MODEL.MEMORY.FROZEN_WEIGHTS", weights)
    trainer = train_or_resume(folder, output, False, options)
    trainer.train()
    launch(resume_with_a_slow_writer, 2, dist_url="auto", args=(folder, output, options))
    seen = [torch.load(output / f"seen_by_{rank}", weights_only=True) for rank in range(2)]
    assert seen == [len(trainer.pool)] * 2 and seen[0] > 0
