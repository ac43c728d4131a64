"""The memory pool of the asynchronous memory update (AIA, Sec. 3.3 and Algorithm 1).

The pool is the only thing with a state that outlives a step. It has one reader,
:meth:`MemoryPool.attach`, and one writer, :meth:`MemoryPool.update`; the model never sees it.

Storage: one table of rows, each a person (feature, box, id), allocated once. Row 0 is the empty
person: zeros for ever. Every slot of a video owns consecutive rows, so that reading a window is one
gather. Which slots there are is known beforehand in training (:class:`FixedSlots`); a stream in
testing goes through a ring of them (:class:`RingSlots`).

Time: a slot is the pool's unit of time, 1 / SLOTS_PER_SECOND long, and a keyframe belongs to the
one nearest to it. Where keyframes are denser than slots, those between slots only read. All of that
is said by the pool's :class:`Clock`.

Shape letters: S slots of a window, M persons a slot, C feature channels, R persons of a clip.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Instances
from torch import Tensor

from ..config import check_keys, number
from ..structures import UNKNOWN_PERSON, MemoryWindow, fractions, precision
from .file import MemoryFileError, read_memory_file, write_memory_file
from .slots import Clock, FixedSlots, RingSlots
from .window import WINDOW_KEYS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemoryWrite:
    """The persons of one clip, ready to be stored."""

    video_id: str
    slot: int
    features: Tensor  # (R, C)
    boxes: Tensor  # (R, 4), fractions of the picture
    person_ids: Tensor  # (R,) int64
    scores: Tensor  # (R,), best first when a slot is crowded in testing


# Of a stream, this many times the persons of a slot that are read are remembered, for those who
# are read because of who they are.
_CROWD = 5


def read_weights(tags: np.ndarray, err: float) -> np.ndarray:
    """Trust slots written at loss `tag` by w = min(err / tag, tag / err) in float32 (AIA, Eq. 2); 0
    where the tag is 0 (nothing was written) or `err`, the current loss, is 0 or infinite (no step
    yet)."""
    weights = np.zeros(tags.shape, dtype=np.float32)
    if err > 0:
        known = tags > 0
        weights[known] = np.minimum(err / tags[known], tags[known] / err)
    return weights


class MemoryPool:
    """Person features of all slots of all videos, as they were when last computed.

    Attributes:
        origin: what computed them, where it is not the network in training: a file of such features
            is only for a pool of the same origin.
    """

    origin = ""

    @configurable
    def __init__(
        self,
        *,
        num_channels: int,
        window: tuple[int, int] = (30, 30),
        stride: int = 1,
        max_persons: int = 5,
        own_tracks_first: bool = False,
        reweight: bool = True,
        fresh_centre: bool = True,
        dtype: torch.dtype = torch.float16,
        slots_per_second: float = 1.0,
        shared_slots: bool = False,
        keyframes: Iterable[tuple[str, float, int]] | None = None,
        allocate: Callable[..., Tensor] = torch.zeros,
        writes: bool = True,
    ) -> None:
        """
        Args:
            num_channels: C.
            window: slots before and after the clip.
            stride: every stride-th slot of the window is read.
            max_persons: M, persons read from a slot. Of a crowded slot, training reads a random
                subset and testing the best-scoring ones.
            own_tracks_first: of a crowded slot, whoever is in the clip itself is read before
                others; of more than M of them, the same ones in all slots.
            reweight: training scales slots by :func:`read_weights`.
            fresh_centre: the model puts a clip's fresh features into the centre of its window.
                False: there is the pool's own entry, of the network that fills the pool.
            dtype: of the stored features.
            slots_per_second: the clock of the data set, see :class:`Clock`.
            shared_slots: keyframes of one slot stand there side by side, told apart by the ids of
                their persons; its loss tag is that of the latest.
            keyframes: all that may be stored, as (video, timestamp, most persons); None: a stream,
                of which a ring as long as the window holds the latest.
            allocate: makes the tables of zeros: torch.zeros, or what shares them between processes.
            writes: whether this process does the writing; False where another one writes into the
                same shared tables.
        """
        if window[0] < 0 or window[1] < 0 or stride < 1 or max_persons < 1:
            raise ValueError(
                f"MODEL.MEMORY: WINDOW {tuple(window)} must not be negative, STRIDE {stride} and "
                f"MAX_PERSONS {max_persons} must be 1 or more"
            )
        if slots_per_second <= 0:
            raise ValueError(
                f"MODEL.MEMORY.SLOTS_PER_SECOND {slots_per_second} must be larger than 0"
            )
        self.num_channels = num_channels
        self.max_persons = max_persons
        self.own_tracks_first = own_tracks_first
        self.reweight = reweight
        self.fresh_centre = fresh_centre
        self.clock = Clock(slots_per_second)
        self.shared_slots = shared_slots
        self.dtype = dtype
        self.writes = writes
        self.err = math.inf
        before, after = window
        self.offsets = torch.arange(-before, after + 1) * stride
        self.slots: FixedSlots | RingSlots
        if keyframes is None:
            capacity = max_persons * (_CROWD if own_tracks_first else 1)
            self.slots = RingSlots(sum(window) * stride + 1, capacity)
        else:
            self.slots = FixedSlots(keyframes, self.clock.slot_of, shared_slots)
        rows, positions = int(self.slots.starts[-1]), len(self.slots.starts) - 1
        self._features = allocate((rows, num_channels), dtype=dtype)
        self._boxes = allocate((rows, 4), dtype=torch.float32)
        # Stored plus one, so that fresh zeros mean an unknown person.
        self._ids_plus_one = allocate((rows,), dtype=torch.int64)
        self._counts = allocate((positions,), dtype=torch.int64)
        self._tags = allocate((positions,), dtype=torch.float64)

    @classmethod
    def from_config(cls, cfg: CfgNode, num_channels: int) -> dict:
        check_keys(cfg, "MODEL.MEMORY", WINDOW_KEYS)
        check_keys(cfg, "MODEL.MEMORY", {"SLOTS_PER_SECOND": number(0, 1000, above=True)})
        node = cfg.MODEL.MEMORY
        frozen = has_frozen_memory(cfg) or node.DETECTOR_CHANNELS > 0
        return {
            "num_channels": num_channels,
            "window": tuple(node.WINDOW),
            "stride": node.STRIDE,
            "max_persons": node.MAX_PERSONS,
            "own_tracks_first": node.OWN_TRACKS_FIRST,
            # The loss says nothing about features that do not change.
            "reweight": node.REWEIGHT and not frozen,
            "fresh_centre": not frozen,
            "dtype": precision(
                node.DTYPE, "MODEL.MEMORY.DTYPE", ("float32", "float16", "bfloat16")
            ),
            "slots_per_second": node.SLOTS_PER_SECOND,
            "shared_slots": node.SHARED_SLOTS,
        }

    # ------------------------------------------------------------------ the reader
    def attach(self, batched_inputs: list[dict], training: bool) -> list[dict]:
        """Add `memory`, the window around each clip, to every input; the pool does not change."""
        places = [(str(x["video_id"]), self.clock.slot_of(x["timestamp"])) for x in batched_inputs]
        persons = [
            x["features"].persons if "features" in x else x.get("proposals") for x in batched_inputs
        ]
        if places:
            windows = self.read_batch(places, training, persons).unstack()
            for x, window in zip(batched_inputs, windows):
                x["memory"] = window
        return batched_inputs

    def read(
        self, video_id: str, slot: int, training: bool, persons: Instances | None = None
    ) -> MemoryWindow:
        """Read the window around one slot; see :meth:`read_batch`."""
        return self.read_batch([(video_id, slot)], training, [persons]).unstack()[0]

    def read_batch(
        self,
        places: list[tuple[str, int]],
        training: bool,
        persons_of: Sequence[Instances | None] = (),
    ) -> MemoryWindow:
        """Read the windows around N >= 1 slots of videos, all rows in one gather.

        In training, slots are weighted by their loss tags and crowded ones thinned out at random.
        `persons_of` are each clip's own, for `own_tracks_first`.
        """
        offsets = self.offsets.numpy()
        found = [self.slots.find(video, slot + offsets) for video, slot in places]
        positions, known = (np.stack(part) for part in zip(*found))  # N x S
        if self.fresh_centre:
            known &= offsets != 0
        counts = self._counts.numpy()[positions] * known
        persons = np.arange(self.max_persons)
        valid = persons < counts[..., None]
        starts = self.slots.starts[positions]
        rows = (starts[..., None] + persons) * valid  # row 0 is the empty person
        if training or self.own_tracks_first:
            ranks: dict[int, dict[int, int]] = {}
            for place in zip(*np.nonzero(counts > self.max_persons)):
                count, clip = int(counts[place]), int(place[0])
                order = torch.randperm(count) if training else torch.arange(count)
                if self.own_tracks_first and clip < len(persons_of):
                    if clip not in ranks:
                        ranks[clip] = _ranks(persons_of[clip], training)
                    ids = self._ids_plus_one[int(starts[place]) + order] + UNKNOWN_PERSON
                    rank = [ranks[clip].get(i, len(ids)) for i in ids.tolist()]
                    order = order[torch.tensor(rank).argsort(stable=True)]
                rows[place] = starts[place] + order[: self.max_persons].sort().values.numpy()
        weights = np.ones(counts.shape, dtype=np.float32)
        if training and self.reweight:
            weights = read_weights(self._tags.numpy()[positions] * known, self.err)
        flat = torch.from_numpy(rows.reshape(-1))
        ids = self._ids_plus_one.index_select(0, flat) + UNKNOWN_PERSON
        return MemoryWindow(
            features=self._features.index_select(0, flat).unflatten(0, rows.shape),
            valid=torch.from_numpy(valid),
            person_ids=ids.unflatten(0, rows.shape),
            boxes=self._boxes.index_select(0, flat).unflatten(0, rows.shape),
            weights=torch.from_numpy(weights),
            fresh_centre=torch.full((len(places),), self.fresh_centre),
            offsets=self.offsets,
        )

    # ------------------------------------------------------------------ the writer
    def prepare(self, clip: dict, persons: Instances) -> MemoryWrite:
        """Make an entry, on the CPU, of an input of the model and its persons' `roi_features`."""
        features = persons.roi_features.detach()
        if self.dtype == torch.float16:  # an overflow would be an infinity for good
            features = features.clamp(-65504, 65504)
        boxes = persons.proposal_boxes.tensor.detach().float().cpu()
        return MemoryWrite(
            video_id=str(clip["video_id"]),
            slot=self.clock.slot_of(clip["timestamp"]),
            features=features.to("cpu", self.dtype),
            boxes=fractions(boxes, persons.image_size),
            person_ids=persons.person_ids.cpu(),
            scores=persons.objectness_logits.detach().float().cpu(),
        )

    def update(self, writes: list[MemoryWrite], loss: float) -> None:
        """Store clips, tagged with the training loss of this step, averaged over workers (in
        testing, where tags are not read, 1); an older entry of the same slot is replaced.

        Raises:
            ValueError: `loss` is not a finite number above or equal to 0; nothing is stored.
            KeyError: a clip has no place in this pool.
        """
        if not 0 <= loss < math.inf:
            raise ValueError(f"memory: refused to store features of a step with loss {loss}")
        for write in writes if self.writes else ():
            if write.features.isfinite().all():
                self._write(write, loss)
            else:  # it would spread to the scores of every clip whose window it is in
                logger.warning(
                    "Memory: features of %s in slot %d are not finite and were not stored",
                    *(write.video_id, write.slot),
                )

    def _write(self, write: MemoryWrite, tag: float) -> None:
        if self.shared_slots:
            write = self._with_others(write)
        position = self.slots.place(write.video_id, write.slot)
        start, end = self.slots.starts[position : position + 2]
        best = write.scores.argsort(descending=True, stable=True)[: end - start]
        rows = slice(start, start + len(best))
        self._features[rows] = write.features[best].to(self.dtype)
        self._boxes[rows] = write.boxes[best]
        self._ids_plus_one[rows] = write.person_ids[best] - UNKNOWN_PERSON
        self._counts[position] = len(best)
        self._tags[position] = tag

    def _with_others(self, write: MemoryWrite) -> MemoryWrite:
        """Put whoever else is in the slot before the persons of a write, and earlier ones of it
        aside."""
        positions, known = self.slots.find(write.video_id, np.array([write.slot]))
        start = int(self.slots.starts[positions[0]])
        rows = torch.arange(start, start + int(self._counts[positions[0]]) * int(known[0]))
        ids = self._ids_plus_one[rows] + UNKNOWN_PERSON
        others = ~torch.isin(ids, write.person_ids)
        rows = rows[others]
        return replace(
            write,
            features=torch.cat([self._features[rows], write.features.to(self.dtype)]),
            boxes=torch.cat([self._boxes[rows], write.boxes]),
            person_ids=torch.cat([ids[others], write.person_ids]),
            scores=torch.cat([torch.ones(len(rows)), write.scores]),
        )

    # ------------------------------------------------------------------ housekeeping
    def clear(self) -> None:
        """Forget everything; the current loss is unknown again."""
        self.err = math.inf
        self.slots.clear()
        if self.writes:
            self._counts.zero_()
            self._tags.zero_()

    def __len__(self) -> int:
        """Count the persons stored."""
        return int(self._counts.sum())

    @property
    def num_bytes(self) -> int:
        """Size of the tables."""
        return sum(table.nbytes for table in self._tables().values())

    def _tables(self) -> dict[str, Tensor]:
        names = ("features", "boxes", "ids_plus_one", "counts", "tags")
        return {name: getattr(self, f"_{name}") for name in names}

    def state_dict(self) -> dict:
        """Give plain numbers and the tables themselves, not copies; not of a stream's ring."""
        assert isinstance(self.slots, FixedSlots), "what a stream remembers is not kept"
        return {
            "num_channels": self.num_channels,
            "origin": self.origin,
            "err": self.err,
            "slots": self.slots.state_dict(),
            **self._tables(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Take over the contents of a pool; MemoryFileError for one of other videos, channels,
        numbers or weights."""
        if state["num_channels"] != self.num_channels:
            raise MemoryFileError(
                f"features of {state['num_channels']} channels, the model has {self.num_channels}"
            )
        if state["features"].dtype != self.dtype:
            raise MemoryFileError(
                f"features of {state['features'].dtype}, MODEL.MEMORY.DTYPE says {self.dtype}"
            )
        if state.get("origin", self.origin) != self.origin:  # older files have none
            raise MemoryFileError(
                "features of other weights or another configuration (MODEL.MEMORY.FROZEN_WEIGHTS)"
            )
        _compare_slots(state["slots"], self.state_dict()["slots"])
        self.err = float(state["err"])
        if self.writes:
            for name, table in self._tables().items():
                table.copy_(state[name])

    def save(self, path: str | Path) -> str:
        """Write a file of its own, and give the checksum of its contents; a crash while writing
        leaves the file that was there before."""
        return write_memory_file(path, self.state_dict())

    def load(self, path: str | Path, checksum: str | None = None) -> None:
        """Read a file written by :meth:`save`, of a checksum if one is given; MemoryFileError, with
        file and reason, leaves the pool as it was."""
        try:
            self.load_state_dict(read_memory_file(path, checksum))
        except MemoryFileError as error:
            raise MemoryFileError(
                f"{path}: {error}; --rebuild-memory fills the memory again"
            ) from error


def _ranks(persons: Instances | None, shuffled: bool) -> dict[int, int]:
    """Number the known ids of a clip's persons, the best first or at random."""
    if persons is None or not persons.has("person_ids"):
        return {}
    if shuffled:
        order = torch.randperm(len(persons))
    else:
        order = persons.objectness_logits.argsort(descending=True, stable=True)
    ids = persons.person_ids[order].tolist()
    return {number: rank for rank, number in enumerate(ids) if number != UNKNOWN_PERSON}


def _compare_slots(theirs: dict, mine: dict) -> None:
    """Raise MemoryFileError, naming a difference, unless both describe the same keyframes."""
    strangers = sorted(set(theirs["videos"]) ^ set(mine["videos"]))
    if strangers:
        raise MemoryFileError(
            f"memory of other videos: {len(theirs['videos'])} in the file, {len(mine['videos'])} "
            f"in the data set, {len(strangers)} only in one of them, such as {strangers[0]}"
        )
    if theirs["first_slots"] != mine["first_slots"] or not torch.equal(
        theirs["starts"], mine["starts"]
    ):
        raise MemoryFileError("memory of the same videos with other keyframes or persons")


def has_frozen_memory(cfg: CfgNode) -> bool:
    """Tell whether a network fills the memory once and for all."""
    return bool(cfg.MODEL.MEMORY.FROZEN_WEIGHTS or cfg.MODEL.MEMORY.FROZEN_CONFIG)
