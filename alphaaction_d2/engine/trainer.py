"""The trainer: detectron2's, with a memory pool and the AVA evaluator."""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.engine import DefaultTrainer, HookBase, SimpleTrainer, TrainerBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..checkpoint import ActionCheckpointer
from ..data.dataset_mapper import ActionDatasetMapper
from ..data.datasets import read_metadata
from ..data.samplers import WholeVideoSampler
from ..evaluation import AVAEvaluator
from ..memory import MemoryPool
from .hooks import MemoryHook
from .inference import DelayedInference, build_delayed_inference, build_memory_pool
from .solver import build_optimizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainStep:
    """What hooks may know of the step that just ended.

    Attributes:
        batch: the inputs of the model.
        loss: total loss of this worker.
    """

    batch: list[dict]
    loss: float


class ActionTrainLoop(SimpleTrainer):
    """One step: read the memory, forward, backward, optimise."""

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[list[dict]],
        optimizer: torch.optim.Optimizer,
        pool: MemoryPool | None,
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        self.pool = pool
        self.last_step: TrainStep | None = None

    def run_step(self) -> None:
        """Memory is attached here, not in the loader: prefetched clips see its newest state."""
        assert self.model.training, "the model was changed to eval mode"
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        if self.pool is not None:
            self.pool.attach(batch, training=True)
        losses = self.model(batch)
        total = sum(losses.values())
        loss = float(total.detach())
        if not torch.isfinite(total):
            raise FloatingPointError(_explain_bad_loss(self.iter, losses, batch))
        self.optimizer.zero_grad()
        total.backward()
        self.after_backward()
        self._write_metrics(losses, data_time)
        self.optimizer.step()
        self.last_step = TrainStep(batch, loss)


class Trainer(DefaultTrainer):
    """`DefaultTrainer` for `ActionRCNN`, on CPU and GPU, in one process or many."""

    def __init__(self, cfg: CfgNode) -> None:
        # NOTE DefaultTrainer's constructor wraps the model with `device_ids`, which a model on the
        # CPU refuses, and has no place for the pool; so this one replaces it.
        TrainerBase.__init__(self)
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        if cfg.MODEL.DEVICE == "cpu":
            share_cores(cfg.DATALOADER.NUM_WORKERS)
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        self.pool = build_memory_pool(cfg, model)
        self._trainer = ActionTrainLoop(parallel(model), data_loader, optimizer, self.pool)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = ActionCheckpointer(
            model, cfg.OUTPUT_DIR, pool=self.pool, trainer=weakref.proxy(self)
        )
        if cfg.MODEL.SLOWFAST.NORM == "FrozenBN" and not cfg.MODEL.WEIGHTS:
            logger.warning(
                "MODEL.WEIGHTS is empty and MODEL.SLOWFAST.NORM is FrozenBN: a network with frozen "
                "normalisation hardly learns from nothing; give Kinetics weights or use BN."
            )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    @property
    def last_step(self) -> TrainStep:
        """What the step that just ended worked on."""
        return self._trainer.last_step

    def build_hooks(self) -> list[HookBase]:
        """detectron2's hooks, with the memory hook before the checkpointer."""
        hooks = [hook for hook in super().build_hooks() if hook is not None]
        if self.pool is not None:
            # First after the timer, on every worker alike: before anything that runs the model
            # again (PreciseBN) or saves it.
            hooks.insert(1, MemoryHook(self.pool, unwrap(self.model).roi_heads))
        return hooks

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable[list[dict]]:
        for name in cfg.DATASETS.TRAIN:
            check_classes(cfg, name)
        return build_detection_train_loader(cfg, mapper=ActionDatasetMapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[list[dict]]:
        """Whole videos in time order, and an empty batch that ends the stream."""
        check_classes(cfg, dataset_name)
        keyframes = sorted(
            DatasetCatalog.get(dataset_name), key=lambda x: (x["video_id"], x["timestamp"])
        )
        loader = build_detection_test_loader(
            keyframes,
            mapper=ActionDatasetMapper(cfg, is_train=False),
            sampler=WholeVideoSampler([x["video_id"] for x in keyframes]),
            batch_size=cfg.TEST.IMS_PER_BATCH,
            # One worker reads in order and decodes each frame once; more would share out the clips.
            num_workers=min(cfg.DATALOADER.NUM_WORKERS, 1),
        )
        return WithEnd(loader)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        folder = Path(cfg.OUTPUT_DIR)
        if len(cfg.DATASETS.TEST) > 1:  # each with files of its own
            folder = folder / dataset_name
        return AVAEvaluator(dataset_name, folder, dialect=cfg.TEST.AVA_DIALECT)

    @classmethod
    def test(
        cls, cfg: CfgNode, model: nn.Module, evaluators: list[DatasetEvaluator] | None = None
    ) -> dict[str, Any]:
        """Evaluate in one delayed pass; see DefaultTrainer.test."""
        if not isinstance(model, DelayedInference):
            model = build_delayed_inference(cfg, unwrap(model))
        share_buffers(model)
        return super().test(cfg, model, evaluators)


class WithEnd:
    """A loader followed by one empty batch."""

    def __init__(self, loader: Iterable[list[dict]]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[list[dict]]:
        yield from self.loader
        yield []

    def __len__(self) -> int:
        return len(self.loader) + 1


def parallel(model: nn.Module) -> nn.Module:
    """DistributedDataParallel when there are several workers, on CPU and GPU."""
    if comm.get_world_size() == 1:
        return model
    device = next(model.parameters()).device
    device_ids = [comm.get_local_rank()] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=device_ids, broadcast_buffers=False)


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def share_cores(num_workers: int) -> None:
    """Leave a core to every loading worker, unless OMP_NUM_THREADS says how many threads there are.

    Torch's threads wait for each other actively: with more of them than free cores a step takes
    several times as long (measured: 5 times with two on a busy pair of cores).
    """
    if "OMP_NUM_THREADS" not in os.environ:
        if hasattr(os, "sched_getaffinity"):  # what this process may use, not what there is
            cores = len(os.sched_getaffinity(0))
        else:
            cores = os.cpu_count() or 1
        cores //= comm.get_world_size()
        torch.set_num_threads(max(1, cores - num_workers))


def share_buffers(model: nn.Module) -> None:
    """Give all workers the first one's buffers.

    In training the statistics of batch normalisation drift apart; the checkpoint holds the first
    worker's, and testing must not depend on who tests.
    """
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)


def check_classes(cfg: CfgNode, dataset_name: str) -> None:
    """Raise ValueError when a data set and the configuration disagree about the classes."""
    read_metadata(dataset_name)
    names = MetadataCatalog.get(dataset_name).thing_classes
    node = cfg.MODEL.ROI_ACTION_HEAD
    if len(names) != sum(node.GROUP_SIZES):
        raise ValueError(
            f"{dataset_name} has {len(names)} classes (largest id of its label map), "
            f"MODEL.ROI_ACTION_HEAD.GROUP_SIZES {tuple(node.GROUP_SIZES)} add up to "
            f"{sum(node.GROUP_SIZES)}"
        )


def _explain_bad_loss(iteration: int, losses: dict[str, torch.Tensor], batch: list[dict]) -> str:
    values = {name: float(value.detach()) for name, value in losses.items()}
    clips = ", ".join(f"{x['video_id']} at {x['timestamp']} s" for x in batch)
    return f"Loss is not finite at iteration {iteration}: {values}; clips: {clips}"
