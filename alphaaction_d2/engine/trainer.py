"""The trainer: detectron2's, with a memory pool and the evaluators of our data sets."""

from __future__ import annotations

import logging
import math
import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase, hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..checkpoint.checkpointer import ActionCheckpointer
from ..config import TEXT, check_keys, class_groups, one_of, several, whole
from ..data.dataset_mapper import ActionDatasetMapper
from ..data.datasets import read_metadata
from ..data.train_loader import TrainLoader, repeats_from_config
from ..evaluation import UCF_PROTOCOLS, AVAEvaluator, UCFEvaluator
from ..evaluation.epic55_evaluation import EPICEvaluator
from ..formats.label_map import LABEL_MAP, LabelMap, write_label_map
from ..memory.pool import MemoryPool, has_frozen_memory
from ..modeling import ActionRCNN
from ..modeling.backbone import has_frozen_normalisation, stands_still
from ..tracking.linking import build_identity_linker, link_dataset
from .checks import check_run_keys
from .classes import with_classes
from .distributed.exchange import wait_for_all
from .feature_files import FeatureFiles
from .hooks import BestCheckpoint, MemoryHook, ProgressWriter, RepeatablePreciseBN
from .inference import (
    DelayedInference,
    PlainInference,
    build_delayed_inference,
    build_frozen_model,
    build_stream,
    frozen_cfg,
)
from .memory_fill import build_training_pool, fill_memory, frozen_origin
from .solver import build_optimizer, scale_to_batch
from .stored_features import store_features
from .train_loop import ActionTrainLoop, TrainStep

logger = logging.getLogger(__name__)


def _ava_evaluator(cfg: CfgNode, dataset_name: str, folder: Path) -> DatasetEvaluator:
    protocol = cfg.TEST.AVA_DIALECT or cfg.TEST.AVA_PROTOCOL
    lowest = cfg.INPUT.PERSON_SCORE_THRESH_TEST
    return AVAEvaluator(dataset_name, folder, protocol=protocol, min_person_score=lowest)


def _ucf101_24_evaluator(cfg: CfgNode, dataset_name: str, folder: Path) -> DatasetEvaluator:
    check_keys(cfg, "TEST", {"UCF101_24_PROTOCOL": one_of(UCF_PROTOCOLS)})
    return UCFEvaluator(dataset_name, folder, protocol=cfg.TEST.UCF101_24_PROTOCOL)


# By the `evaluator_type` of a data set's metadata: from configuration, data set and a folder for
# results.
EVALUATORS: dict[str, Callable[[CfgNode, str, Path], DatasetEvaluator]] = {
    "ava": _ava_evaluator,
    "epic": lambda _, dataset_name, folder: EPICEvaluator(dataset_name, folder),
    "ucf101_24": _ucf101_24_evaluator,
}


class Trainer(DefaultTrainer):
    """`DefaultTrainer` for `ActionRCNN`, on CPU and GPU, in one process or many."""

    def __init__(self, cfg: CfgNode) -> None:
        # NOTE DefaultTrainer's constructor wraps the model with `device_ids`, which a model on the
        # CPU refuses, and has no place for the pool; so this one replaces it.
        TrainerBase.__init__(self)
        check_run_keys(cfg)
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        cfg = with_classes(scale_to_batch(cfg))
        check_run_keys(cfg)  # again: what was scaled to nothing never ends
        check_keys(cfg, "DATASETS", {"TRAIN": several(TEXT)})
        if cfg.MODEL.DEVICE == "cpu":
            share_cores(cfg.DATALOADER.NUM_WORKERS)
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        self.pool = build_training_pool(cfg, model, data_loader.keyframes)
        self._trainer = ActionTrainLoop(
            cfg,
            model=parallel(model),
            data_loader=data_loader,
            optimizer=optimizer,
            pool=self.pool,
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        keep_class_names(cfg, model)
        memory = cfg.MODEL.MEMORY
        self.fills_once = self.pool is not None and has_frozen_memory(cfg)
        stands_by = self.fills_once or memory.DETECTOR_CHANNELS > 0
        # The pool that changes with the weights: of AMU.
        self.changing_pool = None if stands_by else self.pool
        self.checkpointer = ActionCheckpointer(
            model,
            cfg.OUTPUT_DIR,
            pool=self.changing_pool,
            trainer=weakref.proxy(self),
        )
        backbone = getattr(model, "backbone", model)
        weights = cfg.MODEL.WEIGHTS or cfg.MODEL.VIDEO_BACKBONE.WEIGHTS
        if has_frozen_normalisation(backbone) and not weights:
            logger.warning(
                "MODEL.WEIGHTS is empty and the backbone's normalisation is frozen "
                "(NORM FrozenBN in its section): such a network hardly learns from nothing; give "
                "Kinetics weights or use BN."
            )
        if cfg.DATALOADER.STORED_VARIANTS > 0 and not stands_still(backbone):
            raise ValueError(
                "DATALOADER.STORED_VARIANTS needs a backbone that stands still: set "
                "FROZEN True in its section, such as MODEL.SLOWFAST, or STORED_VARIANTS 0"
            )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True, rebuild_memory: bool = False) -> None:
        """Begin from `cfg.MODEL.WEIGHTS`, or go on from the last checkpoint of `cfg.OUTPUT_DIR`, if
        there is one. With `rebuild_memory` the pool's file is not read, but filled with the model's
        features."""
        resuming = resume and self.checkpointer.has_checkpoint()
        self.checkpointer.resume_or_load(
            self.cfg.MODEL.WEIGHTS, resume=resume, rebuild_memory=rebuild_memory
        )
        if resuming:
            self.start_iter = self.iter + 1
        if self.pool is not None and self.fills_once:
            self._provide_frozen_memory(self.pool, rebuild_memory or not resuming)
        elif self.changing_pool is not None and resuming and rebuild_memory:
            # All as trustworthy as what the last step wrote.
            tag = self.changing_pool.err if math.isfinite(self.changing_pool.err) else 1.0
            fill_memory(self.cfg, unwrap(self.model), self.changing_pool, self._keyframes, tag)
        # One process of a machine writes the shared pool: nobody may read it half full.
        wait_for_all()

    def before_train(self) -> None:
        if self.start_iter < self.max_iter:  # what cannot be scored is told before hours of work
            for name in self.cfg.DATASETS.TEST:
                self.build_test_loader(self.cfg, name)
                self.build_evaluator(self.cfg, name)
        # Now, when all weights have been loaded; not for a run that only has to be tested.
        if self.cfg.DATALOADER.STORED_VARIANTS > 0 and self.start_iter < self.max_iter:
            model, loader = unwrap(self.model), self._trainer.data_loader
            files = FeatureFiles.of(self.cfg, model)
            store_features(model, loader, self.cfg.DATALOADER.STORED_VARIANTS, files)
        super().before_train()

    def _provide_frozen_memory(self, pool: MemoryPool, fill: bool) -> None:
        """Have the frozen network fill the pool, once for all checkpoints of a run."""
        assert self.pool is not None
        path = Path(self.cfg.OUTPUT_DIR, "frozen.memory")
        network = build_frozen_model(self.cfg)
        cfg = frozen_cfg(self.cfg)
        pool.origin = frozen_origin(cfg, network)
        if not fill:
            pool.load(path)
            return
        fill_memory(cfg, network, pool, self._keyframes, tag=1.0)
        if comm.is_main_process():
            pool.save(path)

    @property
    def _keyframes(self) -> Sequence[dict]:
        return self._trainer.data_loader.keyframes

    @property
    def last_step(self) -> TrainStep:
        """What the step that just ended worked on."""
        return self._trainer.last_step

    def build_hooks(self) -> list[HookBase]:
        """detectron2's hooks and ours; their order matters."""
        cfg, main = self.cfg, comm.is_main_process()
        built: list[HookBase] = [hooks.IterationTimer()]
        if self.changing_pool is not None:
            interaction = unwrap(self.model).roi_heads.interaction
            assert interaction is not None  # or there was no pool
            # On every worker, and before anything that runs the model again or saves it.
            built.append(MemoryHook(self.changing_pool, interaction))
        built.append(hooks.LRScheduler())
        if cfg.TEST.PRECISE_BN.ENABLED and get_bn_modules(self.model):
            clips = self._trainer.data_loader.from_start()
            number = cfg.TEST.PRECISE_BN.NUM_ITER
            built.append(RepeatablePreciseBN(cfg.TEST.EVAL_PERIOD, self.model, clips, number))
        if main:
            built.append(
                hooks.PeriodicCheckpointer(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD)
            )
        # After the checkpointer: should testing fail, the weights are there.
        built.append(hooks.EvalHook(cfg.TEST.EVAL_PERIOD, self._test_and_keep_results))
        if main and cfg.TEST.BEST_METRIC:
            built.append(BestCheckpoint(self.checkpointer, cfg.TEST.BEST_METRIC))
        if main:  # last, so that it writes what the others have measured
            built.append(hooks.PeriodicWriter(self.build_writers(), period=20))
        return built

    def build_writers(self) -> list[EventWriter]:
        return [*super().build_writers(), ProgressWriter(self.max_iter)]

    def _test_and_keep_results(self) -> dict[str, Any]:
        self._last_eval_results = self.test(self.cfg, self.model)
        return self._last_eval_results

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> TrainLoader:
        for name in cfg.DATASETS.TRAIN:
            check_classes(cfg, name)
        check_keys(cfg, "DATASETS.UCF101_24", {"TRAIN_FRAME_STRIDE": whole(1, 10_000)})
        keyframes = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=False)
        stride = cfg.DATASETS.UCF101_24.TRAIN_FRAME_STRIDE
        keyframes = [x for x in keyframes if frame_number(x) % stride == 0]
        if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
            # detectron2 would leave out keyframes where nobody does anything of the list, too
            keyframes = [x for x in keyframes if x["annotations"] or x.get("negatives")]
        keyframes = with_identities(cfg, keyframes)
        # Without a seed the run gets one, which its checkpoints keep.
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        return TrainLoader(
            keyframes,
            ActionDatasetMapper(cfg, is_train=True),
            repeats=repeats_from_config(cfg, keyframes, seed),
            batch_size=cfg.SOLVER.IMS_PER_BATCH,
            seed=seed,
            rank=comm.get_rank(),
            world_size=comm.get_world_size(),
            aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
        )

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[list[dict]]:
        """Whole videos in time order, and an empty batch that ends the stream."""
        check_classes(cfg, dataset_name)
        return build_stream(cfg, DatasetCatalog.get(dataset_name))

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """The evaluator of the data set's kind; ValueError for a kind that has none."""
        kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
        if kind not in EVALUATORS:
            raise ValueError(
                f"data set {dataset_name!r}: no evaluator for its evaluator_type {kind!r}; there "
                f"are: {', '.join(sorted(EVALUATORS))}"
            )
        folder = Path(cfg.OUTPUT_DIR)
        if len(cfg.DATASETS.TEST) > 1:  # each with files of its own
            folder = folder / dataset_name
        return EVALUATORS[kind](cfg, dataset_name, folder)

    @classmethod
    def test(
        cls, cfg: CfgNode, model: nn.Module, evaluators: list[DatasetEvaluator] | None = None
    ) -> dict[str, Any]:
        """Evaluate in one delayed pass; see DefaultTrainer.test.

        A model without the two halves of `ActionRCNN`, `extract` and `classify`, is asked batch by
        batch, as detectron2 does.
        """
        if not isinstance(model, DelayedInference):
            network = unwrap(model)
            compare_class_names(cfg, network)
            if hasattr(network, "extract"):
                model = build_delayed_inference(cfg, network)
                model.keep_features(cfg)
            else:
                model = PlainInference(cfg, network)
        share_buffers(model)
        return super().test(cfg, model, evaluators)


def frame_number(keyframe: dict) -> int:
    """The number of a keyframe of a data set that counts frames; of any other 0."""
    return round(keyframe["timestamp"] * keyframe.get("frame_rate", 0.0))


def with_identities(cfg: CfgNode, keyframes: list[dict]) -> list[dict]:
    """The training keyframes with ids for annotated persons who have none."""
    linker = build_identity_linker(cfg)
    if linker is None:
        return keyframes
    persons = (a for x in keyframes for a in (*x["annotations"], *x.get("negatives", ())))
    unknown = any(a["person_id"] < 0 for a in persons)
    if linker.keep_given and not unknown:
        return keyframes
    return link_dataset(keyframes, linker)


def parallel(model: nn.Module) -> nn.Module:
    """DistributedDataParallel when there are several workers, on CPU and GPU."""
    if comm.get_world_size() == 1:
        return model
    device = next(model.parameters()).device
    device_ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=device_ids, broadcast_buffers=False)


def unwrap(model: nn.Module) -> ActionRCNN:
    """Take the model out of DistributedDataParallel."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    return cast(ActionRCNN, inner)


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
        cores //= comm.get_local_size()
        torch.set_num_threads(max(1, cores - num_workers))


def share_buffers(model: nn.Module) -> None:
    """Give all workers the first one's buffers.

    In training the statistics of batch normalisation drift apart; the checkpoint holds the first
    worker's, and testing must not depend on who tests.
    """
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)


def keep_class_names(cfg: CfgNode, model: nn.Module) -> None:
    """Give a model, for its checkpoints, and OUTPUT_DIR the names of the classes it trains."""
    names, groups = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).thing_classes, class_groups(cfg)
    model.class_names = list(names)  # type: ignore[assignment]  # no module
    model.class_groups = groups  # type: ignore[assignment]
    if comm.is_main_process():
        group_of = enumerate(np.repeat(groups.names, groups.sizes).tolist(), 1)
        label_map = LabelMap(dict(enumerate(names, 1)), dict(group_of), groups.exclusive)
        Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
        comment = "The classes of the models that were trained in this folder."
        write_label_map(Path(cfg.OUTPUT_DIR, LABEL_MAP), label_map, comment)


def compare_class_names(cfg: CfgNode, model: nn.Module) -> None:
    """Warn when a model was trained on classes of other names than those it is tested on."""
    trained = getattr(model, "class_names", None) or ()  # without names, nothing to compare
    for name in cfg.DATASETS.TEST:
        pairs = zip(trained, MetadataCatalog.get(name).get("thing_classes") or ())
        for number, (mine, theirs) in enumerate(pairs, 1):
            if mine != theirs:
                logger.warning(
                    "%s: class %d is called %r there, the weights were trained on %r; if it is not "
                    "the same action, the results mean nothing",
                    *(name, number, theirs, mine),
                )
                break


def check_classes(cfg: CfgNode, dataset_name: str) -> None:
    """Raise ValueError when a data set and the configuration disagree about the classes."""
    read_metadata(dataset_name)
    names = MetadataCatalog.get(dataset_name).thing_classes
    sizes = class_groups(cfg).sizes
    if len(names) != sum(sizes):
        raise ValueError(
            f"{dataset_name} has {len(names)} classes (largest id of its label map), "
            f"MODEL.ROI_ACTION_HEAD.GROUP_SIZES {sizes} add up to {sum(sizes)}"
        )
