"""Testing in one pass, in time order, L seconds late (DESIGN.md, "Data flow", 6).

A clip can be classified when the last clip of its memory window has been extracted. Until then its
RoI features wait; no frame is decoded or convolved twice. Data-set evaluation, the demo and live
use all run this.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from torch import nn

from ..memory import MemoryPool, MemoryWrite, slot_of
from ..structures import ClipFeatures


@dataclass
class _Waiting:
    slot: int
    clip: dict  # the input without its frames
    features: ClipFeatures


class DelayedInference(nn.Module):
    """An `ActionRCNN` with memory, as a function of a stream of clips.

    Call it with batches of clips, video after video and each in time order; it returns the results
    of all clips that have become ready, in order. An empty batch ends the stream: everything that
    still waits is classified. Results say which clip they belong to (`video_id`, `timestamp`).

    A window holds `before` past and `after` future slots; `delay` future slots are waited for.
    """

    def __init__(self, model: nn.Module, pool: MemoryPool | None, delay: int | None = None) -> None:
        """
        Args:
            model: an `ActionRCNN`, not wrapped.
            pool: an empty pool of its own; None for a model without memory.
            delay: future slots to wait for; None: all of the window.
        """
        super().__init__()
        self.model = model
        self.pool = pool
        offsets = pool.offsets if pool is not None else torch.zeros(1, dtype=torch.int64)
        self.before = -int(offsets.min())
        self.after = int(offsets.max()) if delay is None else min(delay, int(offsets.max()))
        self._waiting: deque[_Waiting] = deque()
        self._video: str | None = None
        self.train(model.training)

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """Extract these clips; return the results of all clips that are ready."""
        if not batched_inputs:
            return self.flush()
        if self.pool is None:
            return self.model.inference(batched_inputs)
        results = []
        for x, features in zip(batched_inputs, self.model.extract(batched_inputs)):
            results += self._push(x, features)
        return results

    def flush(self) -> list[dict]:
        """Results of the clips that still wait; the stream of their video has ended."""
        results = [self._classify(self._waiting.popleft()) for _ in range(len(self._waiting))]
        if self.pool is not None:
            self.pool.clear()
        self._video = None
        return results

    def _push(self, x: dict, features: ClipFeatures) -> list[dict]:
        video, slot = str(x["video_id"]), slot_of(x["timestamp"])
        results = []
        if video != self._video:
            results += self.flush()
            self._video = video
        if self._waiting and slot < self._waiting[-1].slot:
            raise ValueError(
                f"{video}: clip at {x['timestamp']} s comes after one at "
                f"{self._waiting[-1].clip['timestamp']} s; testing needs time order"
            )
        self.pool.update([MemoryWrite.from_clip(x, features.persons, self.pool.dtype)], loss=1.0)
        identification = {k: v for k, v in x.items() if not isinstance(v, torch.Tensor)}
        self._waiting.append(_Waiting(slot, identification, features))
        while self._waiting and self._waiting[0].slot + self.after <= slot:
            results.append(self._classify(self._waiting.popleft()))
        oldest = self._waiting[0].slot if self._waiting else slot + 1
        self.pool.forget(video, before=oldest - self.before)
        return results

    def _classify(self, waiting: _Waiting) -> dict:
        # One clip at a time: results do not depend on what else is in a batch.
        window = self.pool.read(str(waiting.clip["video_id"]), waiting.slot, training=False)
        instances = self.model.classify([waiting.features], [window])[0]
        return self.model.postprocess(instances, waiting.clip)


def build_memory_pool(cfg: CfgNode, model: nn.Module) -> MemoryPool | None:
    """An empty pool for a model, or None when it has no use for memory."""
    interaction = model.roi_heads.interaction
    if interaction is None or not interaction.needs_memory:
        return None
    return MemoryPool(cfg, model.roi_heads.num_channels)


def build_delayed_inference(cfg: CfgNode, model: nn.Module) -> DelayedInference:
    """The testing form of a model, with a pool of its own and the configured delay."""
    delay = cfg.MODEL.MEMORY.DELAY
    return DelayedInference(model, build_memory_pool(cfg, model), None if delay < 0 else delay)
