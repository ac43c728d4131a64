"""The memory pool of the asynchronous memory update (AIA, Sec. 3.3 and Algorithm 1).

The pool is the only thing with a state that outlives a step. It has one reader,
:meth:`MemoryPool.attach`, and one writer, :meth:`MemoryPool.update`; the model never sees it.

Storage: one table of rows, each a person (feature, box, id). Row 0 is the empty person: zeros for
ever. Per video an index (slot -> rows) says who is where, so that reading a window is a slice of
the index and one gather.

Shape letters: S slots of a window, M persons a slot, C feature channels, R persons of a clip.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Instances
from torch import Tensor

from .structures import UNKNOWN_PERSON, MemoryWindow

logger = logging.getLogger(__name__)

FORMAT = "alphaaction_d2 memory pool"
VERSION = 1


class MemoryFileError(ValueError):
    """A memory file that is damaged, of another kind, or of another model. One line."""


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
        tags: (S,) loss tags, 0 where nothing was written.
        err: current training loss; infinite before the first step.

    Returns:
        (S,) float32 in [0, 1]; 0 where the tag is 0 or `err` is 0 or infinite.
    """
    weights = np.zeros(len(tags), dtype=np.float32)
    if 0 < err < math.inf:
        known = tags > 0
        weights[known] = np.minimum(err / tags[known], tags[known] / err)
    return weights


class _VideoIndex:
    """Which rows of the table hold the persons of each slot of one video."""

    def __init__(self) -> None:
        self.first = 0  # slot of row 0 of the arrays below
        self.rows = np.zeros((0, 0), dtype=np.int64)  # slots x widest slot; 0: nobody
        self.tags = np.zeros(0)

    def make_room(self, slot: int, width: int) -> int:
        """Grow to cover `slot` with `width` persons; returns the slot's position."""
        length, old_width = self.rows.shape
        if length == 0:
            self.first = slot
        before = max(0, self.first - slot)
        after = max(0, slot - self.first - length + 1)
        if before or after:
            # Grow in large steps, so that filling a video in order costs linear time.
            after = max(after, length // 2) if after else 0
            before = max(before, length // 2) if before else 0
        wider = max(0, width - old_width)
        if before or after or wider:
            self.rows = np.pad(self.rows, ((before, after), (0, wider)))
            self.tags = np.pad(self.tags, (before, after))
            self.first -= before
        return slot - self.first

    def window(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows (S, widest) and tags (S,) of slots, zeros outside."""
        positions = slots - self.first
        inside = (positions >= 0) & (positions < len(self.tags))
        rows = np.zeros((len(slots), self.rows.shape[1]), dtype=np.int64)
        tags = np.zeros(len(slots))
        rows[inside], tags[inside] = self.rows[positions[inside]], self.tags[positions[inside]]
        return rows, tags


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
        dtype: torch.dtype = torch.float16,
    ) -> None:
        """
        Args:
            num_channels: C.
            window: slots before and after the clip.
            stride: distance of slots in seconds.
            max_persons: M, persons read from a slot. All persons are stored; of a crowded slot,
                training reads a random subset and testing the best-scoring ones.
            reweight: training scales slots by :func:`read_weights`.
            dtype: of the stored features.
        """
        self.num_channels = num_channels
        self.max_persons = max_persons
        self.reweight = reweight
        self.dtype = dtype
        before, after = window
        self.offsets = torch.arange(-before, after + 1) * stride
        self.clear()

    @classmethod
    def from_config(cls, cfg: CfgNode, num_channels: int) -> dict:
        node = cfg.MODEL.MEMORY
        dtypes = {"float16": torch.float16, "float32": torch.float32, "bfloat16": torch.bfloat16}
        if node.DTYPE not in dtypes:
            raise ValueError(f"MODEL.MEMORY.DTYPE {node.DTYPE!r} is not one of {sorted(dtypes)}")
        return {
            "num_channels": num_channels,
            "window": tuple(node.WINDOW),
            "stride": node.STRIDE,
            "max_persons": node.MAX_PERSONS,
            "reweight": node.REWEIGHT,
            "dtype": dtypes[node.DTYPE],
        }

    # ------------------------------------------------------------------ the reader
    def attach(self, batched_inputs: list[dict], training: bool) -> list[dict]:
        """Add `memory`, the window around each clip, to every input; the pool does not change."""
        for x in batched_inputs:
            x["memory"] = self.read(str(x["video_id"]), slot_of(x["timestamp"]), training)
        return batched_inputs

    def read(self, video_id: str, slot: int, training: bool) -> MemoryWindow:
        """The window around one slot. Its centre is left empty: the model fills it.

        Args:
            training: weight slots by their loss tags and thin out crowded ones at random.
        """
        offsets = self.offsets.numpy()
        rows = np.zeros((len(offsets), self.max_persons), dtype=np.int64)
        tags = np.zeros(len(offsets))
        index = self._videos.get(video_id)
        if index is not None:
            stored, tags = index.window(slot + offsets)
            stored[offsets == 0] = 0
            if stored.shape[1] > self.max_persons and training:
                _shuffle_crowded(stored, self.max_persons)
            width = min(stored.shape[1], self.max_persons)
            rows[:, :width] = stored[:, :width]
        weights = np.ones(len(offsets), dtype=np.float32)
        if training and self.reweight:
            weights = read_weights(tags, self.err)
        rows = torch.from_numpy(rows)
        flat = rows.flatten()
        shape = rows.shape
        return MemoryWindow(
            features=self._features.index_select(0, flat).unflatten(0, shape),
            valid=rows > 0,
            person_ids=self._person_ids.index_select(0, flat).unflatten(0, shape),
            boxes=self._boxes.index_select(0, flat).unflatten(0, shape),
            weights=torch.from_numpy(weights),
            offsets=self.offsets,
        )

    # ------------------------------------------------------------------ the writer
    def update(self, writes: list[MemoryWrite], loss: float) -> None:
        """Store clips, tagged with `loss`; an older entry of the same slot is replaced.

        Args:
            loss: total training loss of this step, averaged over workers; 1 in testing, where tags
                are not read.
        """
        for write in writes:
            self._write(write, loss)

    def _write(self, write: MemoryWrite, tag: float) -> None:
        index = self._videos.setdefault(write.video_id, _VideoIndex())
        position = index.make_room(write.slot, len(write.features))
        order = write.scores.argsort(descending=True, stable=True)
        rows = self._replace_rows(index.rows[position], len(order))
        index.rows[position] = 0
        index.rows[position, : len(rows)] = rows
        index.tags[position] = tag
        rows = torch.from_numpy(rows)
        self._features[rows] = write.features[order].to(self.dtype)
        self._boxes[rows] = write.boxes[order]
        self._person_ids[rows] = write.person_ids[order]

    def _replace_rows(self, old: np.ndarray, count: int) -> np.ndarray:
        """Rows for `count` persons in place of the old ones, which are reused or freed."""
        rows = old[old > 0].tolist()
        self._free.extend(rows[count:])
        rows = rows[:count]
        missing = count - len(rows)
        if missing > len(self._free):
            self._grow(missing - len(self._free))
        rows += [self._free.pop() for _ in range(missing)]
        return np.array(rows, dtype=np.int64)

    def _grow(self, needed: int) -> None:
        size = len(self._features)
        extra = max(needed, size // 2, 64)
        self._features = torch.cat(
            [self._features, self._features.new_zeros(extra, self.num_channels)]
        )
        self._boxes = torch.cat([self._boxes, self._boxes.new_zeros(extra, 4)])
        ids = torch.full((extra,), UNKNOWN_PERSON)
        self._person_ids = torch.cat([self._person_ids, ids])
        self._free.extend(range(size + extra - 1, size - 1, -1))

    # ------------------------------------------------------------------ housekeeping
    def clear(self) -> None:
        """Forget everything; the current loss is unknown again."""
        self.err = math.inf
        self._features = torch.zeros(1, self.num_channels, dtype=self.dtype)
        self._boxes = torch.zeros(1, 4)
        self._person_ids = torch.full((1,), UNKNOWN_PERSON)
        self._free: list[int] = []
        self._videos: dict[str, _VideoIndex] = {}

    def forget(self, video_id: str, before: int) -> None:
        """Drop what one video holds before slot `before` (testing keeps a bounded past)."""
        index = self._videos.get(video_id)
        if index is None:
            return
        cut = min(before - index.first, len(index.tags))
        if cut > 0:
            dropped = index.rows[:cut]
            self._free.extend(dropped[dropped > 0].tolist())
            index.rows, index.tags = index.rows[cut:], index.tags[cut:]
            index.first += cut

    def __len__(self) -> int:
        """Number of persons stored."""
        return len(self._features) - 1 - len(self._free)

    def state_dict(self) -> dict:
        """Plain tensors and numbers; only rows in use, in a canonical order."""
        videos = sorted(self._videos)
        entries, rows, tags = [], [], []
        for number, video in enumerate(videos):
            index = self._videos[video]
            for position in np.flatnonzero((index.tags > 0) | (index.rows > 0).any(axis=1)):
                used = index.rows[position]
                used = used[used > 0]
                entries.append((number, index.first + int(position), len(used)))
                tags.append(float(index.tags[position]))
                rows.append(torch.from_numpy(used))
        rows = torch.cat(rows) if rows else torch.zeros(0, dtype=torch.int64)
        return {
            "format": FORMAT,
            "version": VERSION,
            "num_channels": self.num_channels,
            "err": self.err,
            "videos": videos,
            "entries": torch.tensor(entries, dtype=torch.int64).reshape(-1, 3),
            "tags": torch.tensor(tags, dtype=torch.float64),
            "features": self._features[rows],
            "boxes": self._boxes[rows],
            "person_ids": self._person_ids[rows],
        }

    def load_state_dict(self, state: dict) -> None:
        """Replace the contents; raises MemoryFileError for a state of another kind or width."""
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise MemoryFileError("not a memory pool")
        if state["version"] != VERSION:
            raise MemoryFileError(f"memory pool of version {state['version']}, expected {VERSION}")
        if state["num_channels"] != self.num_channels:
            raise MemoryFileError(
                f"features of {state['num_channels']} channels, the model has {self.num_channels}"
            )
        self.clear()
        self.err = float(state["err"])
        start = 0
        for (video, slot, count), tag in zip(state["entries"].tolist(), state["tags"].tolist()):
            rows = slice(start, start + count)
            start += count
            # Rows were saved best first; descending scores keep that order.
            self._write(
                MemoryWrite(
                    state["videos"][video],
                    slot,
                    state["features"][rows],
                    state["boxes"][rows],
                    state["person_ids"][rows],
                    -torch.arange(count, dtype=torch.float32),
                ),
                tag,
            )

    def save(self, path: str | Path) -> None:
        """Write a file of its own; a crash while writing leaves the file that was there before."""
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        torch.save(self.state_dict(), partial)
        partial.replace(path)

    def load(self, path: str | Path) -> None:
        """Read a file written by :meth:`save`; raises MemoryFileError with file and reason."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.load_state_dict(state)
        except FileNotFoundError:
            raise MemoryFileError(f"{path}: no such memory file") from None
        except MemoryFileError as error:
            raise MemoryFileError(f"{path}: {error}") from None
        except Exception as error:  # torch.load raises nearly anything on a damaged file
            raise MemoryFileError(
                f"{path}: damaged memory file ({type(error).__name__})"
            ) from error


def _shuffle_crowded(rows: np.ndarray, max_persons: int) -> None:
    """Put a random subset of every crowded slot in front, in place, with torch's random numbers."""
    for slot in np.flatnonzero((rows > 0).sum(axis=1) > max_persons):
        used = rows[slot][rows[slot] > 0]
        chosen = torch.randperm(len(used))[:max_persons].sort().values.numpy()
        rows[slot] = 0
        rows[slot, :max_persons] = used[chosen]
