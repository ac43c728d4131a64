"""Testing in one pass, in time order, L seconds late.

A clip can be classified when the last clip of its memory window has been extracted. Until then its
RoI features wait; no frame is decoded or convolved twice. Data-set evaluation, the demo and live
use all run this.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.modeling import build_model
from torch import nn
from torch.utils.data import DataLoader

from ..checkpoint.checkpointer import load_for_inference
from ..config import check_keys, whole
from ..data.dataset_mapper import ActionDatasetMapper
from ..data.samplers import WholeVideoSampler
from ..memory.pool import MemoryPool
from ..modeling.interaction.inspection import record_attention
from ..modeling.meta_arch import ActionRCNN
from ..structures import ClipFeatures, MemoryWindow
from ..tracking import IdentityLinker, build_identity_linker, first_new_id


def extract(
    model: ActionRCNN, clips: list[dict], together: bool | None = None
) -> list[ClipFeatures]:
    """Extract the features of every clip.

    Args:
        model: not wrapped.
        clips: inputs of the model, of one video or of several.
        together: clips of one size go through the network as one batch (of other sizes they would
            be padded, which changes what the network sees at the edge). None: not on the CPU: there
            a convolution picks its kernel by the size of the batch, so results would depend on
            TEST.IMS_PER_BATCH in their last bits, and a batch is hardly faster.
    """
    if together is None:
        together = model.device.type != "cpu"
    batches: dict[object, list[int]] = {}
    for i, x in enumerate(clips):
        size = tuple(x["video" if "video" in x else "image"].shape)
        batches.setdefault(size if together else i, []).append(i)
    found: dict[int, ClipFeatures] = {}
    for rows in batches.values():
        found.update(zip(rows, model.extract([clips[i] for i in rows])))
    return [found[i] for i in range(len(clips))]


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

    model: ActionRCNN
    memory_model: ActionRCNN | None

    def __init__(
        self,
        model: ActionRCNN,
        pool: MemoryPool | None,
        delay: int | None = None,
        memory_model: ActionRCNN | None = None,
        linker: IdentityLinker | None = None,
        together: bool | None = None,
    ) -> None:
        """
        Args:
            model: not wrapped.
            pool: an empty pool of its own; None for a model without memory.
            delay: future slots to wait for; None: all of the window.
            memory_model: the network whose features are remembered; None: `model` itself.
            linker: gives ids to persons who come without; None: ids stay as they are.
            together: see :func:`extract`.
        """
        super().__init__()
        self.model = model
        self.pool = pool
        self.memory_model = memory_model
        self.linker = linker
        self.together = together
        offsets = pool.offsets if pool is not None else torch.zeros(1, dtype=torch.int64)
        self.after = int(offsets.max()) if delay is None else min(delay, int(offsets.max()))
        self._waiting: deque[_Waiting] = deque()
        self._video: str | None = None
        self._written: int | None = None  # slot that was written last
        self.train(model.training)

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
        views = [extract(self.model, batched_inputs, self.together)]
        if self.memory_model is not None:
            views.append(extract(self.memory_model, batched_inputs, self.together))
        results = []
        # From here on one after the other: ids and memory of a clip depend on those before it.
        for x, *views_of_clip in zip(batched_inputs, *views):
            if self.pool is None:
                (features,) = self._identify(x, views_of_clip)
                results.append(self.result(x, features, None))
            else:
                results += self._push(self.pool, x, views_of_clip)
        return results

    def flush(self) -> list[dict]:
        """Classify the clips that still wait; the stream of their video has ended."""
        results = []
        if self.pool is not None:
            results = [self._classify(self.pool, waiting) for waiting in self._waiting]
            self._waiting.clear()
            self.pool.clear()
            self._written = None
        if self.linker is not None:
            self.linker.reset()
        self._video = None
        return results

    def _identify(self, x: dict, views: list[ClipFeatures]) -> list[ClipFeatures]:
        """Complete the ids of a clip's persons; all views are of the same persons."""
        if self.linker is None:
            return views
        video, first_id = str(x["video_id"]), x.get("first_new_id", first_new_id([]))
        for seconds, seen in x.get("persons_between", ()):  # by their boxes: they have no features
            self.linker(video, seconds, seen, first_id)
        ids = self.linker(video, x["timestamp"], views[0].persons, first_id)
        return [view.with_ids(torch.from_numpy(ids)) for view in views]

    def _push(self, pool: MemoryPool, x: dict, views: list[ClipFeatures]) -> list[dict]:
        """Remember a clip; results of those that are ready.

        Args:
            views: features for the result and, from another network, for the memory.
        """
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
        features, *others = self._identify(x, views)
        remembered = others[0] if others else features
        # Before the new slot takes the place of one that they still need.
        results += self._classify_up_to(pool, slot - self.after - 1)
        if pool.clock.remembers(x):
            pool.update([pool.prepare(x, remembered.persons)], loss=1.0)
            self._written = slot
        identification = {k: v for k, v in x.items() if not isinstance(v, torch.Tensor)}
        identification.pop("persons_between", None)
        self._waiting.append(_Waiting(slot, identification, features))
        # A frame before the slot's own moment does not complete the windows that end with it.
        complete = slot if self._written == slot else slot - 1
        return results + self._classify_up_to(pool, complete - self.after)

    def _classify_up_to(self, pool: MemoryPool, slot: int) -> list[dict]:
        """Classify the waiting clips whose windows have ended by then."""
        results = []
        while self._waiting and self._waiting[0].slot <= slot:
            results.append(self._classify(pool, self._waiting.popleft()))
        return results

    def _classify(self, pool: MemoryPool, waiting: _Waiting) -> dict:
        window = pool.read(str(waiting.clip["video_id"]), waiting.slot, training=False)
        return self.result(waiting.clip, waiting.features, window)

    def result(self, clip: dict, features: ClipFeatures, window: MemoryWindow | None) -> dict:
        """Make the result of one clip, from its features and its memory window."""
        instances = self.model.classify([features], [window])[0]
        return self.model.postprocess(instances, clip)


class AttentiveInference(DelayedInference):
    """The same results, with what the interaction module looked at.

    A model that has attention adds `attention` to every result, a `ClipAttention`.
    """

    def result(self, clip: dict, features: ClipFeatures, window: MemoryWindow | None) -> dict:
        clock = 1.0 if self.pool is None else self.pool.clock.slots_per_second
        with record_attention(self.model.roi_heads.interaction, clock) as attention:
            result = super().result(clip, features, window)
        if attention:
            result["attention"] = attention[0]
        return result


class PlainInference(nn.Module):
    """A model that has no halves, in a stream: batch by batch, and nothing at the stream's end."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

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


def build_stream(cfg: CfgNode, keyframes: list[dict]) -> WithEnd:
    """This process's share of keyframes, as testing sees them: whole videos, each in time order.

    An empty batch ends the stream.
    """
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
    """Build an empty pool for streams, or None when a model has no use for memory."""
    return MemoryPool(cfg, model.roi_heads.num_channels) if uses_memory(model) else None


def build_frozen_model(cfg: CfgNode) -> ActionRCNN:
    """Build the network that fills a frozen memory: this configuration without interaction."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.INTERACTION.NAME = ""
    model = build_model(cfg).eval()
    load_for_inference(model, cfg.MODEL.MEMORY.FROZEN_WEIGHTS)
    return model.requires_grad_(False)


def build_delayed_inference(
    cfg: CfgNode, model: ActionRCNN, form: type[DelayedInference] = DelayedInference
) -> DelayedInference:
    """Build the testing form of a model, with a pool of its own and the configured delay."""
    check_keys(cfg, "MODEL.MEMORY", {"DELAY": whole(-1, 10_000)})
    delay = cfg.MODEL.MEMORY.DELAY
    pool = build_memory_pool(cfg, model)
    frozen = bool(cfg.MODEL.MEMORY.FROZEN_WEIGHTS) and pool is not None
    return form(
        model,
        pool,
        delay=None if delay < 0 else delay,
        memory_model=build_frozen_model(cfg) if frozen else None,
        linker=build_identity_linker(cfg),
    )
