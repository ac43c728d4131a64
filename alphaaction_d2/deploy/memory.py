"""The memory of one stream: what `MemoryPool` is in testing, in arrays alone.

Shape letters: S slots of a window, M persons a slot, C channels, R persons of a clip.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .description import MemoryDescription

# Of a slot, this many times the persons that are read from it are remembered, for those who are
# read because of who they are.
_CROWD = 5


class Persons(NamedTuple):
    """Persons of a clip, in any order: features (R, C), ids (R,), scores (R,)."""

    features: np.ndarray
    ids: np.ndarray
    scores: np.ndarray

    def at(self, rows: np.ndarray) -> Persons:
        return Persons(*(x[rows] for x in self))

    def best(self, number: int) -> np.ndarray:
        """Index at most this many, the best score first."""
        return np.argsort(-self.scores, kind="stable")[:number]


class Memory:
    """The latest slots of a video, as many as a window holds."""

    def __init__(self, options: MemoryDescription) -> None:
        self.options = options
        before, after = options.window
        self.offsets = np.arange(-before, after + 1) * options.stride
        self._held: dict[int, Persons] = {}

    def slot_of(self, seconds: float) -> int:
        """Find the slot nearest to a moment; halfway it is the later one."""
        return math.floor(seconds * self.options.slots_per_second + 0.5)

    def write(self, slot: int, persons: Persons) -> None:
        """Store the persons of a clip, unless their features are broken; forget what no window
        reaches any more."""
        features = rounded(persons.features, self.options.dtype)
        if np.isfinite(features).all():
            persons = persons._replace(features=features)
            crowd = _CROWD if self.options.own_tracks_first else 1
            self._held[slot] = persons.at(persons.best(self.options.max_persons * crowd))
        oldest = slot + int(self.offsets[0] - self.offsets[-1])
        self._held = {key: x for key, x in self._held.items() if key >= oldest}

    def window(self, slot: int, clip: Persons) -> dict[str, np.ndarray]:
        """Give what the graph of scores reads: `memory_features` (S, M, C), `memory_valid` (S, M)
        and `memory_ids` (S, M) around a clip with these persons."""
        shape = (len(self.offsets), self.options.max_persons)
        features = np.zeros((*shape, self.options.channels), np.float32)
        valid, ids = np.zeros(shape, bool), np.full(shape, -1, np.int64)
        for k, offset in enumerate(self.offsets.tolist()):
            if offset == 0 and self.options.fresh_centre:
                persons = clip.at(np.sort(clip.best(shape[1])))
            elif (held := self._held.get(slot + offset)) is not None:
                persons = held.at(self._read(held, clip))
            else:
                continue
            count = len(persons.ids)
            features[k, :count], valid[k, :count] = persons.features, True
            ids[k, :count] = persons.ids
        return {"memory_features": features, "memory_valid": valid, "memory_ids": ids}

    def _read(self, held: Persons, clip: Persons) -> np.ndarray:
        """Choose whom to read from a slot: the best, or first whoever is in the clip itself."""
        order = np.arange(len(held.ids))
        if self.options.own_tracks_first:
            own = clip.ids[clip.best(len(clip.ids))].tolist()
            ranks = {number: rank for rank, number in enumerate(own) if number != -1}
            rank = [ranks.get(i, len(order)) for i in held.ids.tolist()]
            order = np.argsort(rank, kind="stable")
        return np.sort(order[: self.options.max_persons])


def rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    """Round float32 to what `dtype` has; what float16 cannot hold becomes its largest."""
    if dtype == "float16":
        return np.clip(x, -65504, 65504).astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":  # the upper half of the bits, to the nearest, of two as near the even
        bits = np.ascontiguousarray(x).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return x
