"""Training on stored features: what a backbone that stands still says is computed once.

Every training keyframe is augmented in V ways; the network's features of all of them are kept, and
training steps draw from these instead of from videos. A step then costs what follows the backbone.

They are kept in memory, by one run; or in a folder, by all runs whose networks see the same. There
a file holds what has gone through the network together, a few keyframes of one video in one
variant. Its name says what they show: video, boxes and variant, but neither labels nor identities,
which come from the data set as it is now. So another film, or another label, costs no more than
itself, and a run that was killed has lost one file.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import logging
import math
import os
import pickle
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from detectron2.utils import comm
from torch.utils.data import DataLoader

from ..data.dataset_mapper import CONSUMED, ActionDatasetMapper, annotated_classes
from ..data.randomness import derived_seed, seeded
from ..data.train_loader import Place, SeededClips, TrainLoader
from ..data.video.timing import timing_of_file, timing_of_folder
from ..memory.file import state_checksum
from ..modeling.meta_arch import ActionRCNN
from ..structures import AnnotatedPersons, ClipFeatures
from .distributed.exchange import wait_for_all
from .feature_files import FeatureFiles
from .inference import extract
from .stopwatch import TimeLeft

logger = logging.getLogger(__name__)

CLIPS_AT_ONCE = 16
_TELL_EVERY = 30.0  # seconds
DTYPE = torch.float16  # of what is kept, as in the memory pool
_ENDS = 1 << 16  # bytes of a video's start and end that tell it from others of its size
_BYTES_BESIDES = 4096  # of a clip's file besides features: boxes and names, measured


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


@dataclass(frozen=True)
class _Unit:
    """Clips that go through the network together; `seed` is of what is random there."""

    places: list[Place]
    seed: int
    name: str = ""  # of their file, which may be there already


@torch.no_grad()
def store_features(
    model: ActionRCNN, loader: TrainLoader, num_variants: int, files: FeatureFiles | None = None
) -> None:
    """Let `loader` deliver stored features instead of videos from now on.

    Every process computes its share and keeps all of them. What a variant looks like depends on the
    keyframe, the variant and, in memory, the loader's seed only (a jittered slow pathway starts
    alike in CLIPS_AT_ONCE of them), so a resumed run has the same ones, and with files every run.

    Args:
        model: not wrapped, with a frozen backbone.
        num_variants: V, how many augmented variants of a keyframe there are.
        files: of the model; None keeps the features in memory.

    Raises:
        ValueError: two keyframes of the training set are of one video and second, or the disk has
            not enough room.
    """
    keyframes = loader.keyframes
    if len({_key(keyframes[i]) for i in range(len(keyframes))}) < len(keyframes):
        raise ValueError(
            "DATALOADER.STORED_VARIANTS: the training sets share keyframes; use 0, or sets of "
            "different videos"
        )
    logger.info("Storing the features of %d keyframes in %d variants", len(keyframes), num_variants)
    model.train()
    if files is None:
        found = _in_memory(model, loader, num_variants)
    else:
        found = _in_files(model, loader, num_variants, files)
    clips: dict[tuple[str, float], list[dict]] = {}
    for x in found:
        clips.setdefault(_key(x), []).append(x)
    stored = StoredClips(clips)
    loader.prepare_with(stored)
    logger.info("Stored features: %.2f GB", stored.num_bytes / 1e9)


def _in_memory(model: ActionRCNN, loader: TrainLoader, num_variants: int) -> Iterator[dict]:
    """Inputs with features in place of pictures, in order; the same in all processes."""
    serials = range(len(loader.keyframes) * num_variants)
    places = [(i // num_variants, i) for i in serials]
    chunks = [places[i : i + CLIPS_AT_ONCE] for i in range(0, len(places), CLIPS_AT_ONCE)]
    units = [_Unit(chunk, derived_seed(loader.seed, i)) for i, chunk in enumerate(chunks)]
    # Another seed than that of the steps: their clips are counted, too.
    extracted = _extracted(model, loader, units, derived_seed(loader.seed, len(places)))
    for _ in range(math.ceil(len(units) / comm.get_world_size())):
        _, batch = next(extracted, (None, None))
        for part in comm.all_gather(batch):
            yield from part or ()


def _in_files(
    model: ActionRCNN, loader: TrainLoader, num_variants: int, files: FeatureFiles
) -> Iterator[dict]:
    """The same of files, the missing of which are made first."""
    mapper = cast(ActionDatasetMapper, loader.mapper)
    units = _units_of_videos(loader.keyframes, mapper, num_variants, files.clips)
    stored = {unit.name: files.read(unit.name) for unit in units}
    missing = [i for unit in units if not stored[unit.name] for i, _ in unit.places]
    size = sum(_expected_bytes(model, mapper, loader.keyframes[i]) for i in missing)
    files.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(files.folder).free
    need = (
        f"{len(missing)} clips x {size / max(len(missing), 1) / 1e3:.1f} kB = {size / 1e6:.1f} MB"
    )
    logger.info("%s: to be computed: %s", files.folder, need)
    if size > free:
        raise ValueError(
            f"DATALOADER.STORED_FOLDER {str(files.folder.parent)!r}: stored features need {need}, "
            f"the disk has {free / 1e6:.1f} MB left; free some, name a folder on another disk, or "
            "lower DATALOADER.STORED_VARIANTS"
        )
    wait_for_all()  # until everybody has seen what there is
    for unit, batch in _extracted(model, loader, units, 0, files):
        # The rest of a clip is the keyframe's.
        kept = [{key: x[key] for key in ("features", "instances")} for x in batch]
        files.write(unit.name, kept)
    wait_for_all()
    for unit in units:
        batch = stored[unit.name] or files.read(unit.name)
        if not batch:
            raise ValueError(
                f"{files.path(unit.name)}: not there after another process has written it: "
                "DATALOADER.STORED_FOLDER must be a folder that all machines share"
            )
        for (index, _), x in zip(unit.places, batch, strict=True):
            yield _as_annotated(x, loader.keyframes[index], mapper.num_classes)


def _units_of_videos(
    keyframes: Sequence[dict], mapper: ActionDatasetMapper, num_variants: int, settings: str
) -> list[_Unit]:
    """Divide the clips so that what is in a file does not depend on other videos or on runs."""
    videos: dict[str, list[tuple[float, int, str]]] = {}
    for i in range(len(keyframes)):
        keyframe = keyframes[i]
        place = (keyframe["timestamp"], i, _what_is_shown(keyframe, mapper))
        videos.setdefault(keyframe["file_name"], []).append(place)
    units = []
    for file_name, places in videos.items():
        places.sort()
        video = _fingerprint(Path(file_name))
        for variant, start in itertools.product(
            range(num_variants), range(0, len(places), CLIPS_AT_ONCE)
        ):
            _, rows, shown = zip(*places[start : start + CLIPS_AT_ONCE])
            content = {"settings": settings, "variant": variant, "video": video, "clips": shown}
            name = state_checksum(content)
            seed = int(name[:16], 16)
            units.append(_Unit([(i, seed + n) for n, i in enumerate(rows)], seed, name))
    return units


def _what_is_shown(keyframe: dict, mapper: ActionDatasetMapper) -> str:
    """What decides the pictures and boxes of a keyframe, as a checksum."""
    found: list = [keyframe.get(name) for name in ("span", "frame_rate", "objects", "hands")]
    if mapper.negative_persons:
        found.append(keyframe["persons"].above(mapper.choice.min_person_score))
    content = keyframe["timestamp"], AnnotatedPersons.of(keyframe).boxes, found
    return hashlib.sha256(pickle.dumps(content, protocol=4)).hexdigest()


def _fingerprint(path: Path) -> str:
    """Tell a video from others by its content, wherever it lies: by size, start and end of a file,
    by names and sizes of a folder's files, and by what frames.yaml says of their times."""
    timing = timing_of_folder(path) if path.is_dir() else timing_of_file(path)
    shown = str((timing.fps, timing.start, timing.first))
    if path.is_dir():
        return str([shown, *sorted((x.name, x.stat().st_size) for x in os.scandir(path))])
    with path.open("rb") as file:
        start, size = file.read(_ENDS), path.stat().st_size
        file.seek(max(size - _ENDS, 0))
        content = {"shown": shown, "size": size, "start": start, "end": file.read()}
        return state_checksum(content)


def _expected_bytes(model: ActionRCNN, mapper: ActionDatasetMapper, keyframe: dict) -> int:
    """Compute how much the features of one clip will take."""
    heads, choice = model.roi_heads, mapper.choice
    persons = min(len(AnnotatedPersons.of(keyframe)), mapper.max_persons_train)
    persons += min(len(keyframe["persons"]), mapper.negative_persons)
    objects = keyframe["objects"].near(keyframe["timestamp"]).above(choice.min_object_score)
    things = min(len(objects), choice.max_objects) + choice.max_hands * ("hands" in keyframe)
    cells = math.prod(heads.pooler.output_size)
    grids = cells * (persons * heads.needs_roi_maps + heads.needs_scene)
    vectors = persons + things + grids
    return _BYTES_BESIDES + vectors * heads.num_channels * DTYPE.itemsize


def _as_annotated(stored: dict, keyframe: dict, num_classes: int) -> dict:
    """Complete a stored clip by who the keyframe's persons are and what they do."""
    instances = copy.copy(stored["instances"])
    rows = instances.annotated_rows.numpy()
    instances.gt_classes, ids = annotated_classes(keyframe, rows, num_classes)
    rest = {key: x for key, x in keyframe.items() if key not in CONSUMED}
    return {**rest, "features": stored["features"].with_ids(ids), "instances": instances}


def _extracted(
    model: ActionRCNN,
    loader: TrainLoader,
    units: Sequence[_Unit],
    clip_seed: int,
    files: FeatureFiles | None = None,
) -> Iterator[tuple[_Unit, list[dict]]]:
    """This process's share of units, and their inputs with features in place of pictures.

    Those whose file is there, perhaps by now, are left out.
    """
    mine = units[comm.get_rank() :: comm.get_world_size()]
    if mine and files is not None:  # runs that begin together share the work
        turn = os.getpid() % len(mine)
        mine = [*mine[turn:], *mine[:turn]]
    begun: deque[tuple[int, _Unit]] = deque()

    def places() -> Iterator[list[Place]]:
        for number, unit in enumerate(mine, 1):
            if files is None or not files.path(unit.name).exists():
                begun.append((number, unit))
                yield unit.places

    batches = DataLoader(
        SeededClips(loader.keyframes, loader.mapper, clip_seed),
        batch_sampler=places(),
        num_workers=loader.num_workers,
        collate_fn=list,
        generator=torch.Generator(),
    )
    start = time.monotonic()
    told = -math.inf
    for batch in batches:
        number, unit = begun.popleft()
        with seeded(unit.seed):  # a jittered slow pathway
            # What is shared does without the activations of so many clips at a time.
            features = model.extract(batch) if files is None else extract(model, batch)
        yield unit, [_without_pictures(x, f) for x, f in zip(batch, features)]
        share = number / len(mine)
        left = TimeLeft((time.monotonic() - start) * (1 / share - 1))
        if time.monotonic() > told + _TELL_EVERY:
            told = time.monotonic()
            logger.info("%.0f %% of the features, %s", 100 * share, left)


def _without_pictures(x: dict, features: ClipFeatures) -> dict:
    consumed = ("video", "image", "proposals", "objects")
    rest = {key: value for key, value in x.items() if key not in consumed}
    # A copy: what came from a loading process holds a file open for as long as it lives.
    return copy.deepcopy({**rest, "features": features.to(torch.device("cpu"), DTYPE)})


def _key(keyframe: dict) -> tuple[str, float]:
    return keyframe["file_name"], keyframe["timestamp"]
