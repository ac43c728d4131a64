"""The memory pool of the asynchronous memory update (AIA, Sec. 3.3 and Algorithm 1).

The pool is the only thing with a state that outlives a step. It has one reader,
:meth:`MemoryPool.attach`, and one writer, :meth:`MemoryPool.update`; the model never sees it.

Storage: one table of rows, each a person (feature, box, id), allocated once. Row 0 is the empty
person: zeros for ever. Every slot of a video owns consecutive rows, so that reading a window is one
gather. Which slots there are is known beforehand in training (:class:`FixedSlots`); a stream in
testing goes through a ring of them (:class:`RingSlots`).

Shape letters: S slots of a window, M persons a slot, C feature channels, R persons of a clip, P
slots of the whole pool.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Instances
from torch import Tensor

from ..structures import UNKNOWN_PERSON, MemoryWindow
from .file import MemoryFileError, read_memory_file, write_memory_file

logger = logging.getLogger(__name__)

DTYPES = {"float16": torch.float16, "float32": torch.float32, "bfloat16": torch.bfloat16}

# Gives a tensor of zeros of a shape and a type; torch.zeros, or one in shared memory.
Allocate = Callable[[tuple[int, ...], torch.dtype], Tensor]


@dataclass(frozen=True)
class MemoryWrite:
    """The persons of one clip, ready to be stored.

    Attributes:
        video_id, slot: where they belong.
        features: (R, C). boxes: (R, 4), fractions of the picture. person_ids: (R,) int64.
        scores: (R,), best first when a slot is crowded in testing.
    """

    video_id: str
    slot: int
    features: Tensor
    boxes: Tensor
    person_ids: Tensor
    scores: Tensor

    @classmethod
    def from_clip(cls, clip: dict, persons: Instances, dtype: torch.dtype) -> MemoryWrite:
        """From an input of the model and its persons with `roi_features`; detached, on the CPU."""
        height, width = persons.image_size
        boxes = persons.proposal_boxes.tensor.detach().float().cpu()
        features = persons.roi_features.detach()
        if dtype == torch.float16:  # an overflow would be an infinity for good
            features = features.clamp(-65504, 65504)
        return cls(
            video_id=str(clip["video_id"]),
            slot=slot_of(clip["timestamp"]),
            features=features.to("cpu", dtype),
            boxes=boxes / torch.tensor([width, height, width, height], dtype=torch.float32),
            person_ids=persons.person_ids.cpu(),
            scores=persons.objectness_logits.detach().float().cpu(),
        )


def slot_of(timestamp: float) -> int:
    """The memory slot of a keyframe: its second."""
    return int(math.floor(timestamp + 0.5))


def read_weights(tags: np.ndarray, err: float) -> np.ndarray:
    """w = min(err / tag, tag / err), the trust in slots written at loss `tag` (AIA, Eq. 2).

    Args:
        tags: (...) loss tags, 0 where nothing was written.
        err: current training loss; infinite before the first step.

    Returns:
        (...) float32 in [0, 1]; 0 where the tag is 0 or `err` is 0 or infinite.
    """
    weights = np.zeros(tags.shape, dtype=np.float32)
    if 0 < err < math.inf:
        known = tags > 0
        weights[known] = np.minimum(err / tags[known], tags[known] / err)
    return weights


class FixedSlots:
    """The slots of keyframes that are all known beforehand: training.

    Attributes:
        starts: (P + 1,) int64, first row of every slot; slot p owns rows starts[p] : starts[p + 1].
        videos: in the order of the tables. numbers: video -> its place in that order.
    """

    def __init__(self, keyframes: Iterable[tuple[str, int, int]]) -> None:
        """
        Args:
            keyframes: video, slot and the most persons that it will hold. Of several keyframes in
                one slot, the most crowded counts.
        """
        wanted: dict[str, dict[int, int]] = {}
        for video, slot, count in keyframes:
            slots = wanted.setdefault(video, {})
            slots[slot] = max(count, slots.get(slot, 0))
        self.videos = sorted(wanted)
        self.numbers = {video: number for number, video in enumerate(self.videos)}
        self.first_slots = [min(wanted[video]) for video in self.videos]
        capacities: list[int] = []
        self._places: dict[str, tuple[int, int, int]] = {}  # first position, first slot, length
        for video, first in zip(self.videos, self.first_slots):
            length = max(wanted[video]) - first + 1
            self._places[video] = (len(capacities), first, length)
            capacities += [wanted[video].get(first + i, 0) for i in range(length)]
        self.starts = np.concatenate([[1], 1 + np.cumsum(capacities, dtype=np.int64)])

    def find(self, video: str, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions (S,) in the tables of slots (S,) of a video, and where there are such."""
        if video not in self._places:
            return np.zeros(len(slots), dtype=np.int64), np.zeros(len(slots), dtype=bool)
        position, first, length = self._places[video]
        inside = (slots >= first) & (slots < first + length)
        return np.where(inside, slots - first + position, 0), inside

    def place(self, video: str, slot: int) -> int:
        """The position to write a slot to; KeyError for one that nobody announced."""
        positions, inside = self.find(video, np.array([slot]))
        if not inside[0]:
            raise KeyError(f"memory: {video} at second {slot} is not among the keyframes in it")
        return int(positions[0])

    def clear(self) -> None:
        """Nothing to forget: the places stay."""

    def state_dict(self) -> dict:
        """What two pools must agree in to exchange their contents."""
        return {
            "videos": self.videos,
            "first_slots": self.first_slots,
            "starts": torch.from_numpy(self.starts),
        }


class RingSlots:
    """Room for the latest slots of one video at a time: testing.

    A slot takes the place of the one `size` slots before it, so that a stream of any length needs
    the same memory.
    """

    def __init__(self, size: int, capacity: int) -> None:
        """
        Args:
            size: P, slots that are held.
            capacity: persons a slot; of more the best-scoring ones are kept.
        """
        self.starts = 1 + capacity * np.arange(size + 1, dtype=np.int64)
        self._held = np.zeros(size, dtype=np.int64)
        self.clear()

    def find(self, video: str, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See FixedSlots.find."""
        positions = slots % len(self._held)
        known = self._occupied[positions] & (self._held[positions] == slots)
        return positions, known & (video == self._video)

    def place(self, video: str, slot: int) -> int:
        """The position to write a slot to; what was held of another video is forgotten."""
        if video != self._video:
            self.clear()
            self._video = video
        position = slot % len(self._held)
        self._held[position] = slot
        self._occupied[position] = True
        return position

    def clear(self) -> None:
        """Hold nothing."""
        self._video: str | None = None
        self._occupied = np.zeros(len(self._held), dtype=bool)


class MemoryPool:
    """Person features of all seconds of all videos, as they were when last computed."""

    @configurable
    def __init__(
        self,
        *,
        num_channels: int,
        window: tuple[int, int] = (30, 30),
        stride: int = 1,
        max_persons: int = 5,
        reweight: bool = True,
        keep_centre: bool = False,
        dtype: torch.dtype = torch.float16,
        slots: FixedSlots | RingSlots | None = None,
        allocate: Allocate = torch.zeros,
        writes: bool = True,
    ) -> None:
        """
        Args:
            num_channels: C.
            window: slots before and after the clip.
            stride: distance of slots in seconds.
            max_persons: M, persons read from a slot. Of a crowded slot, training reads a random
                subset and testing the best-scoring ones.
            reweight: training scales slots by :func:`read_weights`.
            keep_centre: windows come with the pool's own entry of the clip itself, where otherwise
                the model puts its fresh features (a pool that another network fills).
            dtype: of the stored features.
            slots: who may be stored where; None: a ring as long as the window.
            allocate: makes the tables.
            writes: whether this process does the writing; False where another one writes into the
                same shared tables.
        """
        if window[0] < 0 or window[1] < 0 or stride < 1 or max_persons < 1:
            raise ValueError(
                f"MODEL.MEMORY: WINDOW {tuple(window)} must not be negative, STRIDE {stride} and "
                f"MAX_PERSONS {max_persons} must be 1 or more"
            )
        self.num_channels = num_channels
        self.max_persons = max_persons
        self.reweight = reweight
        self.keep_centre = keep_centre
        self.dtype = dtype
        self.writes = writes
        self.err = math.inf
        before, after = window
        self.offsets = torch.arange(-before, after + 1) * stride
        self.slots = RingSlots(sum(window) * stride + 1, max_persons) if slots is None else slots
        rows, positions = int(self.slots.starts[-1]), len(self.slots.starts) - 1
        self._features = allocate((rows, num_channels), dtype=dtype)
        self._boxes = allocate((rows, 4), dtype=torch.float32)
        # Stored plus one, so that fresh zeros mean an unknown person.
        self._ids_plus_one = allocate((rows,), dtype=torch.int64)
        self._counts = allocate((positions,), dtype=torch.int64)
        self._tags = allocate((positions,), dtype=torch.float64)

    @classmethod
    def from_config(cls, cfg: CfgNode, num_channels: int) -> dict:
        node = cfg.MODEL.MEMORY
        if node.DTYPE not in DTYPES:
            raise ValueError(f"MODEL.MEMORY.DTYPE {node.DTYPE!r} is not one of {sorted(DTYPES)}")
        frozen = bool(node.FROZEN_WEIGHTS)
        return {
            "num_channels": num_channels,
            "window": tuple(node.WINDOW),
            "stride": node.STRIDE,
            "max_persons": node.MAX_PERSONS,
            # The loss says nothing about features that do not change.
            "reweight": node.REWEIGHT and not frozen,
            "keep_centre": frozen,
            "dtype": DTYPES[node.DTYPE],
        }

    # ------------------------------------------------------------------ the reader
    def attach(self, batched_inputs: list[dict], training: bool) -> list[dict]:
        """Add `memory`, the window around each clip, to every input; the pool does not change."""
        places = [(str(x["video_id"]), slot_of(x["timestamp"])) for x in batched_inputs]
        if places:
            for x, window in zip(batched_inputs, self.read_batch(places, training).unstack()):
                x["memory"] = window
        return batched_inputs

    def read(self, video_id: str, slot: int, training: bool) -> MemoryWindow:
        """The window around one slot; see :meth:`read_batch`."""
        return self.read_batch([(video_id, slot)], training).unstack()[0]

    def read_batch(self, places: list[tuple[str, int]], training: bool) -> MemoryWindow:
        """The windows around N >= 1 slots, all rows in one gather.

        Args:
            places: video and slot of each.
            training: weight slots by their loss tags and thin out crowded ones at random.
        """
        offsets = self.offsets.numpy()
        found = [self.slots.find(video, slot + offsets) for video, slot in places]
        positions, known = (np.stack(part) for part in zip(*found))  # N x S
        if not self.keep_centre:
            known &= offsets != 0
        counts = self._counts.numpy()[positions] * known
        persons = np.arange(self.max_persons)
        valid = persons < counts[..., None]
        starts = self.slots.starts[positions]
        rows = (starts[..., None] + persons) * valid  # row 0 is the empty person
        if training:
            for place in zip(*np.nonzero(counts > self.max_persons)):
                chosen = torch.randperm(int(counts[place]))[: self.max_persons].sort().values
                rows[place] = starts[place] + chosen.numpy()
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
            offsets=self.offsets,
        )

    # ------------------------------------------------------------------ the writer
    def update(self, writes: list[MemoryWrite], loss: float) -> None:
        """Store clips, tagged with `loss`; an older entry of the same slot is replaced.

        Args:
            loss: total training loss of this step, averaged over workers; 1 in testing, where tags
                are not read.

        Raises:
            ValueError: `loss` is not a finite number above or equal to 0; nothing is stored.
            KeyError: a clip has no place in this pool.
        """
        if not 0 <= loss < math.inf:
            raise ValueError(f"memory: refused to store features of a step with loss {loss}")
        if self.writes:
            for write in writes:
                self._write(write, loss)

    def _write(self, write: MemoryWrite, tag: float) -> None:
        position = self.slots.place(write.video_id, write.slot)
        start, end = self.slots.starts[position : position + 2]
        best = write.scores.argsort(descending=True, stable=True)[: end - start]
        rows = slice(start, start + len(best))
        self._features[rows] = write.features[best].to(self.dtype)
        self._boxes[rows] = write.boxes[best]
        self._ids_plus_one[rows] = write.person_ids[best] - UNKNOWN_PERSON
        self._counts[position] = len(best)
        self._tags[position] = tag

    # ------------------------------------------------------------------ housekeeping
    def clear(self) -> None:
        """Forget everything; the current loss is unknown again."""
        self.err = math.inf
        self.slots.clear()
        if self.writes:
            self._counts.zero_()
            self._tags.zero_()

    def __len__(self) -> int:
        """Number of persons stored."""
        return int(self._counts.sum())

    @property
    def num_bytes(self) -> int:
        """Size of the tables."""
        tables = (self._features, self._boxes, self._ids_plus_one, self._counts, self._tags)
        return sum(table.nbytes for table in tables)

    def state_dict(self) -> dict:
        """Plain numbers and the tables themselves, not copies; of a pool with FixedSlots."""
        return {
            "num_channels": self.num_channels,
            "err": self.err,
            "slots": self.slots.state_dict(),
            "features": self._features,
            "boxes": self._boxes,
            "ids_plus_one": self._ids_plus_one,
            "counts": self._counts,
            "tags": self._tags,
        }

    def load_state_dict(self, state: dict) -> None:
        """Take over the contents of a pool of the same videos and channels.

        Raises:
            MemoryFileError: the state belongs to other videos, channels or numbers.
        """
        if state["num_channels"] != self.num_channels:
            raise MemoryFileError(
                f"features of {state['num_channels']} channels, the model has {self.num_channels}"
            )
        if state["features"].dtype != self.dtype:
            raise MemoryFileError(
                f"features of {state['features'].dtype}, MODEL.MEMORY.DTYPE says {self.dtype}"
            )
        _compare_slots(state["slots"], self.slots.state_dict())
        self.err = float(state["err"])
        if self.writes:
            mine = self.state_dict()
            for name in ("features", "boxes", "ids_plus_one", "counts", "tags"):
                mine[name].copy_(state[name])

    def save(self, path: str | Path) -> str:
        """Write a file of its own; a crash while writing leaves the file that was there before.

        Returns:
            The checksum of the contents.
        """
        return write_memory_file(path, self.state_dict())

    def load(self, path: str | Path, checksum: str | None = None) -> None:
        """Read a file written by :meth:`save`.

        Args:
            checksum: of the contents that the file must have; None: any sound contents.

        Raises:
            MemoryFileError: with file and reason; the pool is as it was.
        """
        try:
            self.load_state_dict(read_memory_file(path, checksum))
        except MemoryFileError as error:
            raise MemoryFileError(
                f"{path}: {error}; --rebuild-memory fills the memory again"
            ) from error


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
