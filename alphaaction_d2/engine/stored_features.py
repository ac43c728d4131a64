"""Training on stored features: what a backbone that stands still says is computed once.

Every training keyframe is augmented in V ways; the network's features of all of them are kept in
memory, and training steps draw from these instead of from videos. A step then costs what follows
the backbone.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterator

import torch
from detectron2.utils import comm
from detectron2.utils.logger import log_every_n_seconds
from torch.utils.data import DataLoader

from ..data.randomness import derived_seed, seeded
from ..data.train_loader import Place, SeededClips, TrainLoader
from ..modeling.meta_arch import ActionRCNN
from ..structures import ClipFeatures

logger = logging.getLogger(__name__)

CLIPS_AT_ONCE = 16
DTYPE = torch.float16  # of what is kept, as in the memory pool


class StoredClips:
    """The mapper of a loader whose clips come from memory: a keyframe to one of its V variants.

    The variant is drawn from torch's generator, which the loader seeds for every clip.
    """

    def __init__(self, clips: dict[tuple[str, float], list[dict]]) -> None:
        """
        Args:
            clips: (file name, timestamp) of a keyframe to the V inputs of the model: `features`
                (`ClipFeatures`), `instances` and the identification of the clip.
        """
        self.clips = clips

    def __call__(self, keyframe: dict) -> dict:
        variants = self.clips[_key(keyframe)]
        return dict(variants[int(torch.randint(len(variants), ()))])  # others will add to it

    @property
    def num_bytes(self) -> int:
        """Size of the features."""
        return sum(x["features"].num_bytes for clips in self.clips.values() for x in clips)


@torch.no_grad()
def store_features(model: ActionRCNN, loader: TrainLoader, num_variants: int) -> None:
    """Let `loader` deliver stored features instead of videos from now on.

    Every process computes its share and keeps all of them. What a variant looks like depends on the
    loader's seed, the keyframe and the variant only (a jittered slow pathway starts alike in
    CLIPS_AT_ONCE of them), so a resumed run has the same ones.

    Args:
        model: not wrapped, with a frozen backbone.
        num_variants: V, how many augmented variants of a keyframe there are.

    Raises:
        ValueError: two keyframes of the training set are of one video and second.
    """
    keyframes = loader.keyframes
    if len({_key(keyframes[i]) for i in range(len(keyframes))}) < len(keyframes):
        raise ValueError(
            "DATALOADER.STORED_VARIANTS: the training sets share keyframes; use 0, or sets of "
            "different videos"
        )
    places = [(i, i * num_variants + v) for i in range(len(keyframes)) for v in range(num_variants)]
    logger.info("Storing the features of %d keyframes in %d variants", len(keyframes), num_variants)
    clips: dict[tuple[str, float], list[dict]] = {}
    model.train()
    start = time.monotonic()
    for done, batch in enumerate(_extracted(model, loader, places), 1):
        for x in batch:
            clips.setdefault(_key(x), []).append(x)
        share = done * CLIPS_AT_ONCE / len(places)
        left = (time.monotonic() - start) * (1 / share - 1) / 60
        text = f"{100 * share:.0f} % of the features, {left:.1f} minutes left"
        log_every_n_seconds(logging.INFO, text, n=30)
    stored = StoredClips(clips)
    loader.prepare_with(stored)
    logger.info("Stored features: %.2f GB", stored.num_bytes / 1e9)


def _extracted(model: ActionRCNN, loader: TrainLoader, places: list[Place]) -> Iterator[list[dict]]:
    """Inputs with features in place of pictures, in order; the same in all processes."""
    chunks = [places[i : i + CLIPS_AT_ONCE] for i in range(0, len(places), CLIPS_AT_ONCE)]
    workers = comm.get_world_size()
    mine = chunks[comm.get_rank() :: workers]
    # Another seed than that of the steps: their clips are counted, too.
    clips = SeededClips(loader.keyframes, loader.mapper, derived_seed(loader.seed, len(places)))
    ready = iter(
        DataLoader(
            clips,
            batch_sampler=mine,
            num_workers=loader.num_workers,
            collate_fn=list,
            generator=torch.Generator(),
        )
    )
    for i in range(0, len(chunks), workers):
        batch = next(ready, None)
        if batch is not None:
            with seeded(derived_seed(loader.seed, i + comm.get_rank())):  # a jittered slow pathway
                features = model.extract(batch)
            batch = [_without_pictures(x, f) for x, f in zip(batch, features)]
        for part in comm.all_gather(batch):
            yield part or []


def _without_pictures(x: dict, features: ClipFeatures) -> dict:
    consumed = ("video", "image", "proposals", "objects")
    rest = {key: value for key, value in x.items() if key not in consumed}
    # A copy: what came from a loading process holds a file open for as long as it lives.
    return copy.deepcopy({**rest, "features": features.to(torch.device("cpu"), DTYPE)})


def _key(keyframe: dict) -> tuple[str, float]:
    return keyframe["file_name"], keyframe["timestamp"]
