"""Which rows of the memory's tables belong to which slot of which video.

Shape letters: S slots of a window, P slots of the whole pool.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Clock:
    """How the time of keyframes becomes slots."""

    slots_per_second: float = 1.0  # of the data set; a slot is this part of a second long

    def slot_of(self, timestamp: float) -> int:
        """Find the slot nearest to a timestamp; halfway it is the later one."""
        return _nearest(timestamp * self.slots_per_second)

    def remembers(self, keyframe: Mapping[str, Any]) -> bool:
        """Tell whether a keyframe, by its dataset dict, is written to its slot.

        Every one is, unless its data set counts frames (`frame_rate`) and so has more keyframes
        than slots: then the frame on screen at the slot's own moment is, and those around it read
        only.
        """
        rate = keyframe.get("frame_rate")
        if rate is None:
            return True
        slot = self.slot_of(keyframe["timestamp"])
        # The frame count of both: seconds that are rounded differently must not tell them apart.
        return _nearest(keyframe["timestamp"] * rate) == _nearest(
            slot / self.slots_per_second * rate
        )


def _nearest(number: float) -> int:
    return math.floor(number + 0.5)


class FixedSlots:
    """The slots of keyframes that are all known beforehand: training.

    Attributes:
        starts: (P + 1,) int64, first row of every slot; slot p owns rows starts[p] : starts[p + 1].
        videos: in the order of the tables.
    """

    def __init__(
        self,
        keyframes: Iterable[tuple[str, float, int]],
        slot_of: Callable[[float], int],
        shared: bool = False,
    ) -> None:
        """Make room for keyframes: video, timestamp and the most persons that it will hold.

        Of a keyframe that comes several times (data sets may share some), the most crowded counts.
        A shared slot has room for all keyframes that fall into it; else two that would take turns
        in overwriting one are a ValueError.
        """
        wanted: dict[str, dict[int, int]] = {}
        owners: dict[tuple[str, int], float] = {}
        for video, timestamp, count in keyframes:
            slot = slot_of(timestamp)
            slots = wanted.setdefault(video, {})
            if shared:
                slots[slot] = slots.get(slot, 0) + count
                continue
            owner = owners.setdefault((video, slot), timestamp)
            if owner != timestamp:
                enough = math.ceil(1 / abs(timestamp - owner))
                raise ValueError(
                    f"memory: the keyframes of {video} at {owner} s and {timestamp} s fall into "
                    f"one slot; set MODEL.MEMORY.SLOTS_PER_SECOND to {enough}.0 or more"
                )
            slots[slot] = max(count, slots.get(slot, 0))
        self.videos = sorted(wanted)
        self.first_slots = [min(wanted[video]) for video in self.videos]
        capacities: list[int] = []
        self._places: dict[str, tuple[int, int, int]] = {}  # first position, first slot, length
        for video, first in zip(self.videos, self.first_slots):
            length = max(wanted[video]) - first + 1
            self._places[video] = (len(capacities), first, length)
            capacities += [wanted[video].get(first + i, 0) for i in range(length)]
        self.starts = np.concatenate([[1], 1 + np.cumsum(capacities, dtype=np.int64)])

    def find(self, video: str, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find positions (S,) in the tables of slots (S,) of a video, and where there are such."""
        if video not in self._places:
            return np.zeros(len(slots), dtype=np.int64), np.zeros(len(slots), dtype=bool)
        position, first, length = self._places[video]
        inside = (slots >= first) & (slots < first + length)
        return np.where(inside, slots - first + position, 0), inside

    def place(self, video: str, slot: int) -> int:
        """Find the position to write a slot to; KeyError for one that nobody announced."""
        positions, inside = self.find(video, np.array([slot]))
        if not inside[0]:
            raise KeyError(f"memory: slot {slot} of {video} is not one of the keyframes in it")
        return int(positions[0])

    def clear(self) -> None:
        """Forget nothing: the places stay."""

    def state_dict(self) -> dict:
        """Give what two pools must agree in to exchange their contents."""
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
        """Hold P = `size` slots of `capacity` persons; of more the best-scoring ones are kept."""
        self.starts = 1 + capacity * np.arange(size + 1, dtype=np.int64)
        self._held = np.zeros(size, dtype=np.int64)
        self._occupied = np.zeros(size, dtype=bool)
        self._video: str | None = None

    def find(self, video: str, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :meth:`FixedSlots.find`."""
        positions = slots % len(self._held)
        known = self._occupied[positions] & (self._held[positions] == slots)
        return positions, known & (video == self._video)

    def place(self, video: str, slot: int) -> int:
        """Make room for a slot, and forget what was held of another video; returns the position."""
        if video != self._video:
            self.clear()
            self._video = video
        position = slot % len(self._held)
        self._held[position] = slot
        self._occupied[position] = True
        return position

    def clear(self) -> None:
        """Hold nothing."""
        self._video = None
        self._occupied[:] = False
