"""Pools for training, in any training loop, and filling one with what a network says of every
training keyframe."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.evaluation import inference_context
from detectron2.structures import Instances
from detectron2.utils import comm
from torch import nn

from ..memory.pool import MemoryPool, MemoryWrite, has_frozen_memory
from ..memory.slots import Clock
from ..modeling.meta_arch import ActionRCNN
from ..structures import AnnotatedPersons, Losses
from .detector_memory import build_detector_memory
from .distributed.exchange import gather_numbers, store_everywhere
from .distributed.shared_tensors import shared_zeros
from .feature_files import FeatureFiles, as_text, network_checksum
from .inference import build_frozen_model, build_stream, extract, frozen_cfg, uses_memory

logger = logging.getLogger(__name__)


def build_training_pool(
    cfg: CfgNode, model: ActionRCNN, keyframes: Sequence[dict]
) -> MemoryPool | None:
    """Build a pool with room for all persons of keyframes, one copy a machine; None without need.
    All processes call this together; ValueError for two keyframes of a video with one slot."""
    if not uses_memory(model):
        return None
    if cfg.MODEL.MEMORY.DETECTOR_CHANNELS:
        return build_detector_memory(cfg, cfg.DATASETS.TRAIN)
    most, clock = cfg.INPUT.MAX_PERSONS_TRAIN, Clock(cfg.MODEL.MEMORY.SLOTS_PER_SECOND)
    places = []
    for keyframe in (keyframes[i] for i in range(len(keyframes))):
        if not clock.remembers(keyframe):
            continue
        persons = min(len(AnnotatedPersons.of(keyframe)), most)
        persons += min(len(keyframe.get("persons", ())), cfg.INPUT.NEGATIVE_PERSONS_TRAIN)
        places.append((str(keyframe["video_id"]), keyframe["timestamp"], persons))
    pool = MemoryPool(
        cfg,
        model.roi_heads.memory_channels,
        keyframes=places,
        allocate=shared_zeros,
        writes=comm.get_local_rank() == 0,
    )
    logger.info("Memory pool: %.2f GB", pool.num_bytes / 1e9)
    return pool


def frozen_origin(cfg: CfgNode, model: ActionRCNN) -> str:
    """What decides the features of a frozen memory, its network and what it sees, as a text."""
    sizes = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    return f"{network_checksum(cfg, model)} {as_text(sizes)}"


def attach_memory(
    cfg: CfgNode, model: nn.Module, keyframes: Sequence[dict] | None = None
) -> MemoryPool | None:
    """Give a model its memory in a training loop that is not `Trainer`'s.

    From now on every forward pass in training first gets the clips' windows, and stores what it has
    computed with its loss. All processes call this together.

    Args:
        model: an `ActionRCNN`, before or after it is made parallel.
        keyframes: dataset dicts that training draws from; default: those of `cfg.DATASETS.TRAIN`.

    Returns:
        The pool, for a checkpointer; None for a model without memory, which stays as it is.
    """
    network: Any = getattr(model, "module", model)
    if keyframes is None:
        filter_empty = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
        keyframes = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=filter_empty)
    pool = build_training_pool(cfg, network, keyframes)
    if pool is None:
        return None
    frozen = has_frozen_memory(cfg)
    if frozen:
        fill_memory(frozen_cfg(cfg), build_frozen_model(cfg), pool, keyframes, tag=1.0)
    kept: list[Instances] = []

    def trains() -> bool:
        # Statistics of normalisation are estimated in training mode, too, but without gradients.
        return network.training and torch.is_grad_enabled()

    def read(_: nn.Module, inputs: tuple) -> None:
        kept.clear()
        if network.training:
            pool.attach(inputs[0], training=True)

    def keep(_: nn.Module, inputs: tuple, result: object) -> None:
        if trains():
            kept.extend(clip.detach().persons for clip in inputs[0])

    def write(_: nn.Module, inputs: tuple, losses: Losses) -> None:
        if trains():
            loss = float(gather_numbers([float(sum(x.detach() for x in losses.values()))]).mean())
            clips = zip(inputs[0], kept, strict=True)
            writes = [pool.prepare(x, y) for x, y in clips if pool.clock.remembers(x)]
            store_everywhere(pool, writes, loss)
            pool.err = loss

    network.register_forward_pre_hook(read)
    if not frozen and not cfg.MODEL.MEMORY.DETECTOR_CHANNELS:
        interaction = network.roi_heads.interaction
        assert interaction is not None  # or there was no pool
        interaction.register_forward_hook(keep)
        network.register_forward_hook(write)
    return pool


@torch.no_grad()
def fill_memory(
    cfg: CfgNode, model: ActionRCNN, pool: MemoryPool, keyframes: Sequence[dict], tag: float
) -> None:
    """Store the annotated persons of all keyframes, as `model` (not wrapped) sees them in testing,
    with a loss tag. Every process takes its share of the videos; all call this together."""
    logger.info("Filling the memory pool from %d keyframes", len(keyframes))
    records = [dict(keyframes[i]) for i in range(len(keyframes))]
    for record in records:
        persons = AnnotatedPersons.of(record)
        record["persons"] = persons.found(record["width"], record["height"])
        record["annotations"] = record["negatives"] = []
    with inference_context(model):
        for writes in _until_all_have_finished(_extract(cfg, model, records, pool)):
            store_everywhere(pool, writes, tag)
    logger.info("Memory pool: %d persons", len(pool))


def _extract(
    cfg: CfgNode, model: ActionRCNN, records: list[dict], pool: MemoryPool
) -> Iterator[list[MemoryWrite]]:
    files = FeatureFiles.of(cfg, model)
    for batch in build_stream(cfg, records, single_view=True):
        features = extract(model, batch, files=files)
        clips = zip(batch, features)
        yield [pool.prepare(x, f.persons) for x, f in clips if pool.clock.remembers(x)]


def _until_all_have_finished(
    batches: Iterator[list[MemoryWrite]],
) -> Iterator[list[MemoryWrite]]:
    """Yield in step with all other processes: nothing where they have more to do."""
    for writes in itertools.chain(batches, itertools.repeat(None)):
        if not gather_numbers([writes is not None]).any():
            return
        yield writes or []
