"""Training clips in an order that depends on the seed alone.

The stream of keyframes, and its division into batches, is the same however many processes train and
load; every process takes its share of each batch. The n-th clip of the stream draws its
augmentation from (seed, n). So a run continues exactly where it stopped, given seed and batch
number, and a run on two processes sees what a run on one sees.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList
from detectron2.data.build import trivial_batch_collator
from detectron2.data.samplers import RepeatFactorTrainingSampler
from torch.utils.data import DataLoader, Dataset

from ..config import check_keys, number, one_of
from .randomness import derived_seed, seeded

# A keyframe's index in the data set, and its place in the stream.
Place = tuple[int, int]


def keyframe_stream(repeats: np.ndarray, seed: int) -> Iterator[int]:
    """Indices of keyframes without end, shuffled in every epoch; ValueError if none ever comes.

    Of `repeats` (K,), how often a keyframe comes in an epoch on average, the fraction is drawn.
    """
    if not (repeats > 0).any():
        raise ValueError("the training set has no keyframes")
    for epoch in itertools.count():
        rng = np.random.default_rng((seed, epoch))
        counts = np.floor(repeats + rng.random(len(repeats))).astype(np.int64)
        indices = np.repeat(np.arange(len(repeats)), counts)
        yield from rng.permutation(indices).tolist()


def repeats_from_config(cfg: CfgNode, keyframes: list[dict], seed: int) -> np.ndarray:
    """(K,) repeats as `cfg.DATALOADER.SAMPLER_TRAIN` wants them; ValueError for unknown names."""
    names = ("Training", "RepeatFactorTraining", "RandomSubsetTraining")
    keys = {
        "SAMPLER_TRAIN": one_of(f"{name}Sampler" for name in names),
        # A frequency; far above 1 one epoch would not fit into memory.
        "REPEAT_THRESHOLD": number(0, 1),
    }
    check_keys(cfg, "DATALOADER", keys)
    node = cfg.DATALOADER
    if node.SAMPLER_TRAIN == "TrainingSampler":
        return np.ones(len(keyframes))
    if node.SAMPLER_TRAIN == "RepeatFactorTrainingSampler":
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            keyframes, node.REPEAT_THRESHOLD
        )
        return factors.double().numpy()
    check_keys(cfg, "DATALOADER", {"RANDOM_SUBSET_RATIO": number(0, 1, above=True)})
    size = max(1, int(len(keyframes) * node.RANDOM_SUBSET_RATIO))
    chosen = np.random.default_rng(seed).permutation(len(keyframes))[:size]
    return np.isin(np.arange(len(keyframes)), chosen).astype(np.float64)


def group_batches(
    stream: Iterator[int], is_wide: Sequence[bool] | np.ndarray | None, batch_size: int
) -> Iterator[list[Place]]:
    """Batches of places without end; with `is_wide` each has wide or upright pictures only.

    A batch comes out as soon as it is full, so nothing of the stream is lost or kept for long.
    """
    groups: dict[bool, list[Place]] = {False: [], True: []}
    for serial, index in enumerate(stream):
        group = groups[bool(is_wide[index]) if is_wide is not None else False]
        group.append((index, serial))
        if len(group) == batch_size:
            yield group.copy()
            group.clear()


class SeededClips(Dataset):
    """Clips by their place; what is random in preparing one depends on seed and place only."""

    def __init__(self, keyframes: Sequence[dict], mapper: Callable[[dict], dict], seed: int):
        self.keyframes, self.mapper, self.seed = keyframes, mapper, seed

    def __getitem__(self, place: Place) -> dict:
        index, serial = place
        with seeded(derived_seed(self.seed, serial)):
            return self.mapper(self.keyframes[index])


class TrainLoader:
    """Batches of clips without end, which knows where it is and can go on from there."""

    def __init__(
        self,
        keyframes: list[dict],
        mapper: Callable[[dict], dict],
        *,
        repeats: np.ndarray,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        aspect_ratio_grouping: bool = True,
        num_workers: int = 0,
    ) -> None:
        """
        Args:
            repeats: see :func:`keyframe_stream`.
            batch_size: clips of a step, of all processes together.
            aspect_ratio_grouping: pictures of a batch are all wide or all upright.
        """
        if batch_size % world_size:
            raise ValueError(
                f"SOLVER.IMS_PER_BATCH {batch_size} cannot be shared by {world_size} processes"
            )
        self.repeats, self.seed, self.batch_size = repeats, seed, batch_size
        self.rank, self.world_size, self.num_workers = rank, world_size, num_workers
        wide = [x["width"] > x["height"] for x in keyframes]
        self.is_wide = np.array(wide) if aspect_ratio_grouping else None
        self.keyframes = DatasetFromList(keyframes, copy=False)  # one buffer, cheap to share
        self.mapper = mapper
        self.batches = 0  # delivered so far, of the whole run

    def __iter__(self) -> Iterator[list[dict]]:
        loader = DataLoader(
            SeededClips(self.keyframes, self.mapper, self.seed),
            batch_sampler=self._shares(),  # type: ignore[arg-type]  # any iterable will do
            num_workers=self.num_workers,
            collate_fn=trivial_batch_collator,
            generator=torch.Generator(),  # else the loader draws from the global one
        )
        for batch in loader:
            self.batches += 1
            yield batch

    def _shares(self) -> Iterator[list[Place]]:
        """This process's share of every global batch, from the next one on."""
        stream = keyframe_stream(self.repeats, self.seed)
        share = self.batch_size // self.world_size
        mine = slice(self.rank * share, (self.rank + 1) * share)
        batches = group_batches(stream, self.is_wide, self.batch_size)
        return (batch[mine] for batch in itertools.islice(batches, self.batches, None))

    def prepare_with(self, mapper: Callable[[dict], dict]) -> None:
        """Prepare clips with another mapper, in this process; before the first iteration."""
        self.mapper, self.num_workers = mapper, 0

    def from_start(self) -> TrainLoader:
        """The same clips from the first one on, prepared in this process; this loader stays."""
        other = copy.copy(self)
        other.batches = other.num_workers = 0
        return other

    def state_dict(self) -> dict:
        """Where the run is; plain numbers."""
        return {"seed": self.seed, "batches": self.batches}

    def load_state_dict(self, state: dict) -> None:
        """Go on from there; before the first iteration."""
        self.seed, self.batches = int(state["seed"]), int(state["batches"])
