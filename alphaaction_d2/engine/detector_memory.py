"""A memory of what a detector has said of objects (AIA, Sec. 6: nouns): read from files, once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils import comm

from ..config import TEXT, check_keys, several
from ..formats.epic55 import FEATURE_FPS, read_detected_features
from ..memory.pool import MemoryPool, MemoryWrite
from ..memory.slots import Clock
from ..structures import UNKNOWN_PERSON
from .distributed.exchange import wait_for_all
from .distributed.shared_tensors import shared_zeros

logger = logging.getLogger(__name__)

# Of a slot: where its features come from.
_Slots = dict[tuple[str, int], np.ndarray]


def build_detector_memory(cfg: CfgNode, datasets: Sequence[str]) -> MemoryPool:
    """Build a pool of the features in `MODEL.MEMORY.DETECTOR_FILES`, or in data sets' own files.

    There is one copy a machine, and nobody writes to it any more. All processes call this together.
    FileNotFoundError for a missing file; ValueError for something else, another width, or none.
    """
    check_keys(cfg, "MODEL.MEMORY", {"DETECTOR_FILES": several(TEXT, range(1001))})
    channels, most = cfg.MODEL.MEMORY.DETECTOR_CHANNELS, cfg.MODEL.MEMORY.MAX_PERSONS
    paths = [Path(x) for x in cfg.MODEL.MEMORY.DETECTOR_FILES] or _files_of(datasets)
    clock = Clock(cfg.MODEL.MEMORY.SLOTS_PER_SECOND)
    # A file may have gigabytes: of each machine one process reads it, and tells how much there is.
    found: _Slots = {}
    problem = None
    if comm.get_local_rank() == 0:
        try:
            for path in dict.fromkeys(paths):
                found |= _by_slot(path, channels, most, clock)
        except (OSError, ValueError) as error:
            problem = error
    sizes = [(video, slot, len(x)) for (video, slot), x in found.items()]
    if comm.get_world_size() > 1:  # nobody waits for one that has failed
        told = comm.all_gather((sizes, None if problem is None else ValueError(str(problem))))
        sizes, problem = told[0][0], next((x for _, x in told if x is not None), None)
    if problem is not None:
        raise problem
    places = [(video, slot / clock.slots_per_second, size) for video, slot, size in sizes]
    pool = MemoryPool(
        cfg,
        channels,
        keyframes=places,
        allocate=shared_zeros,
        writes=comm.get_local_rank() == 0,
    )
    logger.info("Memory of detected objects: %.2f GB, %d slots", pool.num_bytes / 1e9, len(places))
    for (video, slot), features in found.items():
        n = len(features)
        ids, boxes = torch.full((n,), UNKNOWN_PERSON), torch.zeros(n, 4)
        # best first, as in the file
        scores = -torch.arange(n, dtype=torch.float32)
        copy = torch.tensor(features, dtype=torch.float32)
        pool.update([MemoryWrite(video, slot, copy, boxes, ids, scores)], 1.0)
    pool.writes = False
    wait_for_all()
    return pool


def _files_of(datasets: Sequence[str]) -> list[Path]:
    paths = []
    for name in datasets:
        path = getattr(MetadataCatalog.get(name).get("files"), "features", None)
        if path is None:
            raise ValueError(
                f"data set {name!r} has no file of detected objects' features: name files in "
                "MODEL.MEMORY.DETECTOR_FILES, or set MODEL.MEMORY.DETECTOR_CHANNELS to 0"
            )
        if not path.is_file():
            raise FileNotFoundError(
                f"{name}: no features of detected objects at {path} (LFB's, or what "
                "tools/make_boxes.py --features writes)"
            )
        paths.append(path)
    return paths


def _by_slot(path: Path, channels: int, most: int, clock: Clock) -> _Slots:
    """Read of each slot the frame nearest to it, and of this the best objects."""
    nearest: dict[tuple[str, int], tuple[float, np.ndarray]] = {}
    for video, frames in read_detected_features(path).items():
        for frame, features in frames.items():
            if features.shape[1] != channels:
                raise ValueError(
                    f"{path}: features of {features.shape[1]} channels, "
                    f"MODEL.MEMORY.DETECTOR_CHANNELS says {channels}"
                )
            slot = clock.slot_of(frame / FEATURE_FPS)
            distance = abs(frame / FEATURE_FPS - slot / clock.slots_per_second)
            if distance < nearest.get((video, slot), (float("inf"),))[0]:
                nearest[video, slot] = distance, features[:most]  # a view
    return {key: best for key, (_, best) in nearest.items()}
