"""Hooks of the trainer."""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path

from detectron2.engine import HookBase, hooks
from detectron2.structures import Instances
from detectron2.utils.events import EventWriter, get_event_storage
from torch.utils.hooks import RemovableHandle

from ..checkpoint.checkpointer import ActionCheckpointer
from ..data.train_loader import TrainLoader
from ..formats.writing import write_atomically
from ..memory.pool import MemoryPool
from ..modeling.interaction import InteractionModule
from .distributed.exchange import store_everywhere
from .stopwatch import TimeLeft

logger = logging.getLogger(__name__)


class MemoryHook(HookBase):
    """Writes what a step computed back to the pool (AIA, Algorithm 1, lines 15 and 16).

    The persons come through a forward hook on the interaction module, which every part of a batch
    goes through once: neither model nor loop knows about the pool. Put this hook before the
    checkpointer: weights and pool then describe the same step.
    """

    def __init__(self, pool: MemoryPool, interaction: InteractionModule) -> None:
        self.pool = pool
        self.interaction = interaction
        self._persons: list[Instances] = []
        self._handle: RemovableHandle | None = None

    def before_train(self) -> None:
        self._handle = self.interaction.register_forward_hook(self._keep_persons)

    def after_train(self) -> None:
        if self._handle is not None:  # None: another hook failed before this one began
            self._handle.remove()

    def before_step(self) -> None:
        self._persons = []  # something else may have run the model in between

    def after_step(self) -> None:
        step = self.trainer.last_step
        writes = [
            self.pool.prepare(clip, persons)
            for clip, persons in zip(step.batch, self._persons, strict=True)
            if self.pool.clock.remembers(clip)
        ]
        store_everywhere(self.pool, writes, step.loss)
        self.pool.err = step.loss

    def _keep_persons(self, interaction: InteractionModule, inputs: tuple, _: tuple) -> None:
        if interaction.training:
            clips, _memory = inputs
            # Of one part of the batch after the other; detached, or the graph would live on.
            self._persons += [clip.detach().persons for clip in clips]


class BestCheckpoint(HookBase):
    """Keeps the weights with the best value of a metric so far as model_best.pth.

    The value lies beside them in model_best.json, so a resumed run knows it. (detectron2's
    BestCheckpointer forgets it, and makes its file the one to resume from.)
    """

    def __init__(self, checkpointer: ActionCheckpointer, metric: str) -> None:
        """Watch a metric, under the name of evaluation results such as "ava/mAP@0.5"; larger is
        better."""
        self.checkpointer = checkpointer
        self.metric = metric
        self.record = Path(checkpointer.save_dir, "model_best.json")
        self._best = -math.inf
        self._seen = -1  # iteration of the newest value that was looked at

    def before_train(self) -> None:
        if self.trainer.start_iter > 0 and self.record.is_file():
            try:
                record = json.loads(self.record.read_text(encoding="utf-8"))
                metric, best = record["metric"], float(record["value"])
            except (ValueError, KeyError, TypeError, RecursionError):  # no JSON, or other
                raise ValueError(
                    f"{self.record}: damaged; remove it, and the next evaluation is the best so far"
                ) from None
            if metric == self.metric:
                self._best = best

    def after_step(self) -> None:
        self._look()

    def after_train(self) -> None:
        self._look()  # the last evaluation takes place after the last step
        if self._seen < 0:
            known = sorted(name for name in self.trainer.storage.latest() if "/" in name)
            logger.warning(
                "TEST.BEST_METRIC %r was never measured, so no model_best.pth; there are: %s",
                self.metric,
                ", ".join(known) or "no evaluation results",
            )

    def _look(self) -> None:
        value, iteration = self.trainer.storage.latest().get(self.metric, (math.nan, -1))
        if iteration <= self._seen:
            return
        self._seen = iteration
        if value > self._best:
            self._best = value
            self.checkpointer.save_weights("model_best")
            record = {"metric": self.metric, "value": value, "iteration": iteration}
            write_atomically(self.record, json.dumps(record))
            logger.info("Best %s so far: %.4f", self.metric, value)


class RepeatablePreciseBN(hooks.PreciseBN):
    """Estimates from the same clips every time, whatever happened before."""

    _data_loader: TrainLoader

    def update_stats(self) -> None:
        loader = self._data_loader  # type: ignore[has-type]  # detectron2 has no types
        self._data_loader = loader.from_start()
        self._data_iter = None
        super().update_stats()


class ProgressWriter(EventWriter):
    """Tells people now and then how far training is. All numbers of all steps are in the files."""

    def __init__(self, max_iter: int, every: float = 15.0) -> None:
        """Tell of a run of `max_iter` steps, with at least `every` seconds between two lines."""
        self._max_iter, self._every = max_iter, every
        self._told = -math.inf

    def write(self) -> None:
        storage, now = get_event_storage(), time.monotonic()
        done = storage.iter + 1
        histories = storage.histories()
        if not {"time", "total_loss"} <= histories.keys():  # of a run that has only just begun
            return
        if done > self._max_iter or (done < self._max_iter and now < self._told + self._every):
            return
        self._told = now
        each = histories["time"].global_avg()
        left = TimeLeft(each * (self._max_iter - done))
        logger.info(
            "Step %d of %d, loss %.3f, %.2f s a step, %s",
            *(done, self._max_iter, histories["total_loss"].median(20), each, left),
        )
