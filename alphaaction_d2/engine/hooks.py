"""Hooks of the trainer."""

from __future__ import annotations

from detectron2.engine import HookBase
from detectron2.structures import Instances
from detectron2.utils import comm
from torch import nn

from ..memory import MemoryPool, MemoryWrite


class MemoryHook(HookBase):
    """Writes what a step computed back to the pool (AIA, Algorithm 1, lines 15 and 16).

    The persons come through a forward hook on the ROI heads, so neither model nor loop knows about
    the pool. Put this hook before the checkpointer: weights and pool then describe the same step.
    """

    def __init__(self, pool: MemoryPool, roi_heads: nn.Module) -> None:
        self.pool = pool
        self.roi_heads = roi_heads
        self._persons: list[Instances] = []
        self._handle = None

    def before_train(self) -> None:
        self._handle = self.roi_heads.register_forward_hook(self._keep_persons)

    def after_train(self) -> None:
        if self._handle is not None:  # None: another hook failed before this one began
            self._handle.remove()

    def after_step(self) -> None:
        step = self.trainer.last_step
        writes = [
            MemoryWrite.from_clip(clip, persons, self.pool.dtype)
            for clip, persons in zip(step.batch, self._persons, strict=True)
        ]
        self._persons = []
        gathered = comm.all_gather((writes, step.loss))
        loss = sum(loss for _, loss in gathered) / len(gathered)
        for writes, _ in gathered:
            self.pool.update(writes, loss)
        self.pool.err = loss

    def _keep_persons(self, roi_heads: nn.Module, inputs: tuple, output: tuple) -> None:
        if roi_heads.training:
            self._persons = output[0]
