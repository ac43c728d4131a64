"""Testing in one pass, in time order, L seconds late.

A clip can be classified when the last clip of its memory window has been extracted. Until then its
RoI features wait; no frame is decoded or convolved twice. Data-set evaluation, the demo and live
use all run this.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.modeling import build_model
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..checkpoint.checkpointer import load_for_inference
from ..config import (
    TEXT,
    check_keys,
    class_groups,
    files_of,
    says_classes,
    set_classes,
    several,
    whole,
)
from ..data.dataset_mapper import ActionDatasetMapper, build_views
from ..data.samplers import WholeVideoSampler
from ..formats.config_files import setup_cfg
from ..memory.pool import MemoryPool, has_frozen_memory
from ..modeling.interaction.inspection import record_attention
from ..modeling.meta_arch import ActionRCNN
from ..structures import ClipFeatures, MemoryWindow
from ..tracking.linking import IdentityLinker, build_identity_linker, first_new_id
from .detector_memory import build_detector_memory
from .feature_files import FeatureFiles, seen_checksum

logger = logging.getLogger(__name__)


def extract(
    model: ActionRCNN,
    clips: list[dict],
    together: bool | None = None,
    files: FeatureFiles | None = None,
) -> list[ClipFeatures]:
    """Extract the features of every clip, of one video or of several, by a model that is not
    wrapped.

    Args:
        together: clips of one size go through the network as one batch (of other sizes they would
            be padded, which changes what the network sees at the edge). None: not on the CPU: there
            a convolution picks its kernel by the size of the batch, so results would depend on
            TEST.IMS_PER_BATCH in their last bits, and a batch is hardly faster.
        files: of the model: clips that have one are read, the others get one.
    """
    names = [] if files is None else [seen_checksum(x) for x in clips]
    found: dict[int, ClipFeatures] = {}
    for i, name in enumerate(names):
        for x in files.read(name) if files is not None else ():
            found[i] = x["features"].to(model.device, torch.float32)
    if together is None:
        together = model.device.type != "cpu"
    batches: dict[object, list[int]] = {}
    for i, x in enumerate(clips):
        size = tuple(x["video" if "video" in x else "image"].shape)
        if i not in found:
            batches.setdefault(size if together else i, []).append(i)
    for rows in batches.values():
        found.update(zip(rows, model.extract([clips[i] for i in rows])))
        for i in rows if files is not None else ():
            assert files is not None
            # Copies: a file holds all that a view is of.
            own = found[i].to(torch.device("cpu"), torch.float32).each_feature(torch.clone)
            files.write(names[i], [{"features": own}])
    return [found[i] for i in range(len(clips))]


@dataclass(frozen=True)
class _Look:
    """What a member has found in a clip: features for the result, and for the memory."""

    features: ClipFeatures
    remembered: ClipFeatures

    def with_ids(self, ids: Tensor) -> _Look:
        return _Look(self.features.with_ids(ids), self.remembered.with_ids(ids))


@dataclass
class _Waiting:
    slot: int
    clip: dict  # the input without its frames
    features: list[ClipFeatures]  # of every member


class Member(nn.Module):
    """One network's look at every clip in one view, with a memory of its own."""

    def __init__(
        self,
        model: ActionRCNN,
        pool: MemoryPool | None,
        memory_model: ActionRCNN | None = None,
        view: int = 0,
    ) -> None:
        """
        Args:
            model: not wrapped.
            pool: an empty one of its own; None for a model without memory.
            memory_model: the network whose features are remembered; None: `model` itself.
            view: of the clips that come in several (`TEST.AUG`), which one it sees.
        """
        super().__init__()
        self.model = model
        self.pool = pool
        self.memory_model = memory_model
        self.view = view
        # Of the two models, see :meth:`DelayedInference.keep_features`.
        self.files: FeatureFiles | None = None
        self.memory_files: FeatureFiles | None = None

    def look(self, clips: list[dict], together: bool | None) -> list[_Look]:
        """Extract what result and memory need of every clip."""
        if self.view > 0:
            clips = [x["views"][self.view - 1] for x in clips]
        features = remembered = extract(self.model, clips, together, self.files)
        if self.memory_model is not None:
            remembered = extract(self.memory_model, clips, together, self.memory_files)
        return list(map(_Look, features, remembered))


class DelayedInference(nn.Module):
    """An `ActionRCNN` with memory, as a function of a stream of clips.

    Call it with batches of clips, video after video and each in time order; it returns the results
    of all clips that have become ready, in order. An empty batch ends the stream: everything that
    still waits is classified. Results say which clip they belong to (`video_id`, `timestamp`).

    A window holds `before` past and `after` future slots; `delay` future slots are waited for.

    Several members look at the same persons, in other views or with other networks. Ids are given
    once, by the first one; a person's scores are the mean of all members' scores; boxes are those
    of the first member, whose view is neither mirrored nor, in the results, scaled.

    Attributes:
        pool: of the first member that has one; all pools have one clock and one window.
    """

    def __init__(
        self,
        members: Sequence[Member],
        delay: int | None = None,
        linker: IdentityLinker | None = None,
        together: bool | None = None,
    ) -> None:
        """
        Args:
            members: the first is the model itself.
            delay: future slots to wait for; None: all of the window.
            linker: gives ids to persons who come without; None: ids stay as they are.
            together: see :func:`extract`.
        """
        super().__init__()
        self.members = list(members)
        self._networks = nn.ModuleList(self.members)  # for `eval` and buffers
        self.pool = next((x.pool for x in self.members if x.pool is not None), None)
        self.linker = linker
        self.together = together
        offsets = torch.zeros(1, dtype=torch.int64) if self.pool is None else self.pool.offsets
        self.after = int(offsets.max()) if delay is None else min(delay, int(offsets.max()))
        self._waiting: deque[_Waiting] = deque()
        self._video: str | None = None
        self._written: int | None = None  # slot that was written last
        self.train(self.model.training)

    @property
    def model(self) -> ActionRCNN:
        return self.members[0].model

    def keep_features(self, cfg: CfgNode) -> None:
        """Keep what frozen networks say of clips in `cfg.DATALOADER.STORED_FOLDER`, if that is set,
        and look there first: results stay the same, and cost what follows the networks."""
        for member in self.members:
            if member.model is self.model:  # others have a configuration of their own
                member.files = FeatureFiles.of(cfg, member.model)
                if member.memory_model is not None:
                    member.memory_files = FeatureFiles.of(frozen_cfg(cfg), member.memory_model)

    def train(self, mode: bool = True) -> DelayedInference:
        """See torch. Raises ValueError when somebody, such as detectron2's `inference_on_dataset`,
        is done with a stream that did not end: its last results would be lost without a word."""
        if self._waiting:
            raise ValueError(
                f"{len(self._waiting)} clips still wait for their results: end the stream with an "
                "empty batch, as the loaders of Trainer.build_test_loader do"
            )
        return super().train(mode)

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """Extract these clips; return the results of all clips that are ready."""
        if not batched_inputs:
            return self.flush()
        return self.take(batched_inputs, self.look(batched_inputs))

    def another(self) -> DelayedInference:
        """Begin another stream through the same networks, with memory and ids of its own. This one
        has seen nothing yet."""
        networks = [x for member in self.members for x in (member.model, member.memory_model)]
        return copy.deepcopy(self, {id(x): x for x in networks if x is not None})

    def look(self, clips: list[dict]) -> list[list[_Look]]:
        """Extract what every member's results and memory need of every clip; they may be of several
        streams, each of which then takes its own."""
        looks = [member.look(clips, self.together) for member in self.members]
        return [list(looks_of_clip) for looks_of_clip in zip(*looks)]

    def take(self, clips: list[dict], looks: list[list[_Look]]) -> list[dict]:
        """Go on with clips of this stream that were looked at; results as of :meth:`forward`."""
        results = []
        # One after the other: ids and memory of a clip depend on those before it.
        for x, looks_of_clip in zip(clips, looks):
            if self.pool is None:
                looks_of_clip = self._identify(x, looks_of_clip)
                nothing: list[MemoryWindow | None] = [None] * len(self.members)
                results.append(self.result(x, [look.features for look in looks_of_clip], nothing))
            else:
                results += self._push(self.pool, x, looks_of_clip)
        return results

    def flush(self) -> list[dict]:
        """Classify the clips that still wait; the stream of their video has ended."""
        results = []
        if self.pool is not None:
            results = [self._classify(waiting) for waiting in self._waiting]
            self._waiting.clear()
            for member in self.members:
                if member.pool is not None:
                    member.pool.clear()
            self._written = None
        if self.linker is not None:
            self.linker.reset()
        self._video = None
        return results

    def _identify(self, x: dict, looks: list[_Look]) -> list[_Look]:
        """Complete the ids of a clip's persons; all looks are at the same persons."""
        if self.linker is None:
            return looks
        video, first_id = str(x["video_id"]), x.get("first_new_id", first_new_id([]))
        for seconds, seen in x.get("persons_between", ()):  # by their boxes: they have no features
            self.linker(video, seconds, seen, first_id)
        ids = self.linker(video, x["timestamp"], looks[0].features.persons, first_id)
        return [look.with_ids(torch.from_numpy(ids)) for look in looks]

    def _push(self, pool: MemoryPool, x: dict, looks: list[_Look]) -> list[dict]:
        """Remember a clip, seen by all members; results of those that are ready."""
        video, slot = str(x["video_id"]), pool.clock.slot_of(x["timestamp"])
        results = []
        if video != self._video:
            results += self.flush()
            self._video = video
        if self._waiting and slot < self._waiting[-1].slot:
            raise ValueError(
                f"{video}: clip at {x['timestamp']} s comes after one at "
                f"{self._waiting[-1].clip['timestamp']} s; testing needs time order"
            )
        looks = self._identify(x, looks)
        # Before the new slot takes the place of one that they still need.
        results += self._classify_up_to(slot - self.after - 1)
        if pool.clock.remembers(x):
            for member, look in zip(self.members, looks):
                if member.pool is not None:
                    write = member.pool.prepare(x, look.remembered.persons)
                    member.pool.update([write], loss=1.0)
            self._written = slot
        identification = {k: v for k, v in x.items() if not isinstance(v, torch.Tensor)}
        for much in ("persons_between", "views"):
            identification.pop(much, None)
        features = [look.features for look in looks]
        self._waiting.append(_Waiting(slot, identification, features))
        # A frame before the slot's own moment does not complete the windows that end with it.
        complete = slot if self._written == slot else slot - 1
        return results + self._classify_up_to(complete - self.after)

    def _classify_up_to(self, slot: int) -> list[dict]:
        """Classify the waiting clips whose windows have ended by then."""
        results = []
        while self._waiting and self._waiting[0].slot <= slot:
            results.append(self._classify(self._waiting.popleft()))
        return results

    def _classify(self, waiting: _Waiting) -> dict:
        video = str(waiting.clip["video_id"])
        windows = [
            None if x.pool is None else x.pool.read(video, waiting.slot, False, seen.persons)
            for x, seen in zip(self.members, waiting.features)
        ]
        return self.result(waiting.clip, waiting.features, windows)

    def result(
        self, clip: dict, features: list[ClipFeatures], windows: list[MemoryWindow | None]
    ) -> dict:
        """Make the result of one clip, from every member's features and memory window.

        It also has the first member's `roi_features` (Ri, C), by `person_index`, and what became of
        them in the interaction, of which actions are told: `context_features` (Ri, C').
        """
        roi_heads, heard = self.model.roi_heads, []
        hook = roi_heads.predictor.register_forward_pre_hook(lambda _, x: heard.append(x[0]))
        with hook:
            found = [
                member.model.score([x], [window])[0]
                for member, x, window in zip(self.members, features, windows)
            ]
        instances = roi_heads.list_actions(features[0], torch.stack(found).mean(dim=0))
        known = {"roi_features": features[0].persons.roi_features, "context_features": heard[0]}
        return {**self.model.postprocess(instances, clip), **known}


class AttentiveInference(DelayedInference):
    """The same results, with what the interaction module of the first member looked at.

    A model that has attention adds `attention` to every result, a `ClipAttention`.
    """

    def result(
        self, clip: dict, features: list[ClipFeatures], windows: list[MemoryWindow | None]
    ) -> dict:
        clock = 1.0 if self.pool is None else self.pool.clock.slots_per_second
        with record_attention(self.model.roi_heads.interaction, clock) as attention:
            result = super().result(clip, features, windows)
        if attention:
            result["attention"] = attention[0]
        return result


class PlainInference(nn.Module):
    """A model that has no halves, in a stream: batch by batch, and nothing at the stream's end."""

    def __init__(self, cfg: CfgNode, model: nn.Module) -> None:
        """Take a model; ValueError for several views."""
        super().__init__()
        self.model = model
        kind = type(model).__name__
        if cfg.TEST.AUG.ENABLED or cfg.TEST.ENSEMBLE:
            raise ValueError(
                "TEST.AUG.ENABLED and TEST.ENSEMBLE: expected False and () for a model without "
                f"extract() and classify(), {kind}"
            )
        logger.info("%s has no extract(): tested batch by batch, without memory", kind)

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """Give the model's results of these clips."""
        return self.model(batched_inputs) if batched_inputs else []


class WithEnd:
    """A loader followed by one empty batch."""

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[list[dict]]:
        yield from self.loader
        yield []

    def __len__(self) -> int:
        return len(self.loader) + 1


def build_stream(cfg: CfgNode, keyframes: list[dict], single_view: bool = False) -> WithEnd:
    """This process's share of keyframes, as testing sees them: whole videos, each in time order,
    and an empty batch that ends the stream; with `single_view`, whatever `TEST.AUG` says."""
    if single_view:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.TEST.AUG.ENABLED = False
    check_keys(cfg, "TEST", {"IMS_PER_BATCH": whole(1, 100_000)})
    check_keys(cfg, "DATALOADER", {"NUM_WORKERS": whole(0, 256)})
    keyframes = sorted(keyframes, key=lambda x: (x["video_id"], x["timestamp"]))
    keyframes = _with_first_new_id(keyframes)
    loader = build_detection_test_loader(
        keyframes,
        mapper=ActionDatasetMapper(cfg, is_train=False),
        sampler=WholeVideoSampler([x["video_id"] for x in keyframes]),
        batch_size=cfg.TEST.IMS_PER_BATCH,
        # One worker reads in order and decodes each frame once; more would share out the clips.
        num_workers=min(cfg.DATALOADER.NUM_WORKERS, 1),
    )
    return WithEnd(loader)


def _with_first_new_id(keyframes: list[dict]) -> list[dict]:
    """Add `first_new_id` to keyframes: nobody new gets an id that a box of the video carries."""
    given: dict[str, set[int]] = {}
    for x in keyframes:
        ids = given.setdefault(x["video_id"], set())
        ids.update(x["persons"].ids.tolist())
        if "persons_between" in x:
            ids.update(x["persons_between"].found.ids.tolist())
    first = {video: first_new_id(ids) for video, ids in given.items()}
    return [{**x, "first_new_id": first[x["video_id"]]} for x in keyframes]


def uses_memory(model: nn.Module) -> bool:
    """Tell whether a model looks at the memory; one of another kind than ActionRCNN does not."""
    interaction = getattr(getattr(model, "roi_heads", None), "interaction", None)
    return interaction is not None and interaction.needs_memory


def build_memory_pool(cfg: CfgNode, model: ActionRCNN) -> MemoryPool | None:
    """Build a pool for streams, empty unless it is of detected objects; None without need."""
    if not uses_memory(model):
        return None
    if cfg.MODEL.MEMORY.DETECTOR_CHANNELS:
        return build_detector_memory(cfg, cfg.DATASETS.TEST)
    return MemoryPool(cfg, model.roi_heads.memory_channels)


def build_frozen_model(cfg: CfgNode) -> ActionRCNN:
    """Build the network that fills a frozen memory, with its weights."""
    model = build_model(frozen_cfg(cfg)).eval()
    if not cfg.MODEL.MEMORY.FROZEN_CONFIG:
        with files_of("MODEL.MEMORY.FROZEN_WEIGHTS"):
            load_for_inference(model, cfg.MODEL.MEMORY.FROZEN_WEIGHTS)
    return model.requires_grad_(False)


def frozen_cfg(cfg: CfgNode) -> CfgNode:
    """Configure the network that fills a frozen memory: this one without interaction, or with the
    backbone of `MODEL.MEMORY.FROZEN_CONFIG`, joined with nothing."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.INTERACTION.NAME = ""
    memory = cfg.MODEL.MEMORY
    if memory.FROZEN_CONFIG:
        cfg.MODEL.BACKBONE.NAME = "build_joined_backbone"
        cfg.MODEL.JOINED_BACKBONE.NETWORKS = ((memory.FROZEN_CONFIG, memory.FROZEN_WEIGHTS),)
        cfg.MODEL.WEIGHTS = memory.FROZEN_CONFIG = ""
    return cfg


def build_delayed_inference(
    cfg: CfgNode, model: ActionRCNN, form: type[DelayedInference] = DelayedInference
) -> DelayedInference:
    """Build the testing form of a model, with a pool of its own and the configured delay.

    With `TEST.AUG` it sees every clip in several views, and with `TEST.ENSEMBLE` other networks see
    them, too: each with a pool of its own.
    """
    check_keys(cfg, "MODEL.MEMORY", {"DELAY": whole(-1, 10_000)})
    # what a detector has said of the future is there already, and the same for all views
    from_detector = cfg.MODEL.MEMORY.DETECTOR_CHANNELS > 0
    delay = 0 if from_detector else cfg.MODEL.MEMORY.DELAY
    members: list[Member] = []
    for node, network in [(cfg, model), *build_ensemble(cfg)]:
        frozen = has_frozen_memory(node) and uses_memory(network)
        memory_model = build_frozen_model(node) if frozen else None
        pool = None
        for view in range(len(build_views(cfg))):
            if pool is None or not from_detector:
                pool = build_memory_pool(node, network)
            members.append(Member(network, pool, memory_model, view))
    linker = build_identity_linker(cfg)
    return form(members, delay=None if delay < 0 else delay, linker=linker)


def build_ensemble(cfg: CfgNode) -> list[tuple[CfgNode, ActionRCNN]]:
    """Build the further networks of `cfg.TEST.ENSEMBLE`, with their weights; ValueError for one
    that would need other clips, persons, classes or another memory window than `cfg`."""
    check_keys(cfg, "TEST", {"ENSEMBLE": several(several(TEXT, [2]), range(100))})
    built = []
    for file, weights in cfg.TEST.ENSEMBLE:
        node = setup_cfg(file, ["MODEL.DEVICE", cfg.MODEL.DEVICE])
        if not says_classes(node):  # then they are this one's
            set_classes(node, class_groups(cfg))
        for key in _SHARED:
            mine, theirs = _value(cfg, key), _value(node, key)
            if mine != theirs:
                raise ValueError(
                    f"TEST.ENSEMBLE: {file}: {key} {theirs!r}, here it is {mine!r}: models that "
                    "are tested in one pass need the same; evaluate each alone, and average with "
                    "tools/evaluate_ava.py --average"
                )
        network = build_model(node).eval()
        load_for_inference(network, weights)
        built.append((node, network))
    return built


# What all networks of an ensemble have in common: what the mapper reads, the classes, and when a
# clip can be classified.
_SHARED = (
    *("INPUT.NUM_FRAMES", "INPUT.SAMPLING_RATE", "INPUT.CLIP_FPS", "INPUT.MIN_SIZE_TEST"),
    *("INPUT.MAX_SIZE_TEST", "INPUT.PERSON_SCORE_THRESH_TEST", "INPUT.OBJECT_SCORE_THRESH"),
    *("INPUT.MAX_OBJECTS", "INPUT.HAND_SCORE_THRESH", "INPUT.MAX_HANDS"),
    "MODEL.ROI_ACTION_HEAD.GROUP_NAMES",
    *("MODEL.ROI_ACTION_HEAD.GROUP_SIZES", "MODEL.MEMORY.SLOTS_PER_SECOND"),
    *("MODEL.MEMORY.WINDOW", "MODEL.MEMORY.STRIDE", "MODEL.MEMORY.DETECTOR_CHANNELS"),
)


def _value(cfg: CfgNode, key: str) -> Any:
    value = functools.reduce(lambda node, name: node[name], key.split("."), cfg)
    return tuple(value) if isinstance(value, list) else value  # as a saved configuration has it
