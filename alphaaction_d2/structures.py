"""What travels between the data, memory, modeling and engine parts.

Shape letters: N clips, S time slots of a memory window, M persons per slot, C feature channels, R
persons.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from detectron2.structures import Instances
from torch import Tensor

UNKNOWN_PERSON = -1  # person id of somebody whose identity is not known


@dataclass(frozen=True)
class MemoryWindow:
    """The memory around one clip (no leading axis) or around a batch of N clips (leading axis N).

    The centre slot belongs to the clip itself. It is empty when it comes out of the pool; the model
    fills it with the features of the current forward pass (AIA, Algorithm 1, line 13).

    Attributes:
        features: ([N,] S, M, C) person features, zero where not valid.
        valid: ([N,] S, M) bool, True where a person is stored.
        person_ids: ([N,] S, M) int64, -1 where unknown.
        boxes: ([N,] S, M, 4) person boxes, XYXY as fractions of the picture's width and height.
        weights: ([N,] S) read weight of every slot in [0, 1] (AIA, Eq. 2; 1 when testing).
        offsets: (S,) int64, time of every slot relative to the clip, in memory slots (seconds).
    """

    features: Tensor
    valid: Tensor
    person_ids: Tensor
    boxes: Tensor
    weights: Tensor
    offsets: Tensor

    @property
    def centre(self) -> int:
        """Index of the slot that belongs to the clip itself."""
        return int((self.offsets == 0).nonzero()[0, 0])

    def emptied(self) -> MemoryWindow:
        """A window of the same shape with nobody in it."""
        return replace(
            self,
            features=torch.zeros_like(self.features),
            valid=torch.zeros_like(self.valid),
            person_ids=torch.full_like(self.person_ids, UNKNOWN_PERSON),
            boxes=torch.zeros_like(self.boxes),
            weights=torch.ones_like(self.weights),
        )

    def to(self, device: torch.device) -> MemoryWindow:
        """Copy to `device`."""
        values = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        return replace(self, **values)

    @staticmethod
    def stack(windows: list[MemoryWindow]) -> MemoryWindow:
        """Batch windows of equal shape along a new leading axis N."""
        values = {name: torch.stack([getattr(w, name) for w in windows]) for name in _BATCHED}
        return MemoryWindow(**values, offsets=windows[0].offsets)

    def unstack(self) -> list[MemoryWindow]:
        """The N windows of a batch, as views."""
        columns = [getattr(self, name).unbind() for name in _BATCHED]
        return [
            MemoryWindow(**dict(zip(_BATCHED, values)), offsets=self.offsets)
            for values in zip(*columns)
        ]


_BATCHED = ("features", "valid", "person_ids", "boxes", "weights")  # the fields with an axis N


@dataclass
class ClipFeatures:
    """Everything that has to be kept of a clip between extraction and classification.

    Attributes:
        persons: `Instances` of one clip in the network's picture: `proposal_boxes` (Boxes),
            `objectness_logits` (R,), `person_ids` (R,), `roi_features` (R, C) and, when the
            interaction module asks for them, `roi_maps` (R, C, K, K).
        objects: `Instances` with `boxes` (Boxes), `scores` (O,), `roi_features` (O, C).
        scene: (C, K, K) the whole picture, pooled like a box, when the interaction module asks for
            it.
    """

    persons: Instances
    objects: Instances
    scene: Tensor | None = None

    def to(self, device: torch.device, dtype: torch.dtype) -> ClipFeatures:
        """A copy on `device`, features of type `dtype`; boxes and numbers keep theirs."""
        persons, objects = self.persons.to(device), self.objects.to(device)
        for x in (persons, objects):
            for name in _FEATURES:
                if x.has(name):
                    x.set(name, x.get(name).to(dtype))
        scene = None if self.scene is None else self.scene.to(device, dtype)
        return ClipFeatures(persons, objects, scene)

    @property
    def num_bytes(self) -> int:
        """Size of the features."""
        found = [
            x.get(name) for x in (self.persons, self.objects) for name in _FEATURES if x.has(name)
        ]
        return sum(x.nbytes for x in found) + (0 if self.scene is None else self.scene.nbytes)


_FEATURES = ("roi_features", "roi_maps")  # fields of `Instances`


class Losses(dict[str, Tensor]):
    """Losses by name as detectron2 wants them, which also know what they are means over.

    A model knows its own clips alone. The mean over the persons of all workers and of all parts of
    a batch is made by the training step, which needs the number behind each mean for it; any other
    loop may take the values as they are.

    Attributes:
        counts: name -> what the loss is a mean over, such as the number of persons; 0 if nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}

    def add(self, name: str, total: Tensor, count: int) -> None:
        """Store the mean of a sum over `count` things; of none the sum, which is a zero."""
        self[name] = total / max(count, 1)
        self.counts[name] = count

    def merge(self, others: Losses) -> None:
        """Take over all losses of `others`."""
        self.update(others)
        self.counts.update(others.counts)
