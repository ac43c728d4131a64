"""What travels between the data, memory, modeling and engine parts.

Shape letters: N clips, S time slots of a memory window, M persons per slot, C feature channels, R
persons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from torch import Tensor

from .config import check_keys, number, whole
from .found_boxes import (  # noqa: F401
    UNKNOWN_PERSON,
    BoxesAt,
    FoundBoxes,
    TimedBoxes,
    box_iou,
)


def precision(name: str, key: str, allowed: Sequence[str]) -> torch.dtype:
    """Look up the type that a key names, such as "bfloat16"; ValueError unless it is allowed."""
    if name not in allowed:
        raise ValueError(f"{key} {name!r} is not one of {sorted(allowed)}")
    return getattr(torch, name)


@dataclass(frozen=True, eq=False)
class AnnotatedPersons:
    """The persons of a keyframe, which has one annotation for every action of every person.

    A person is an id together with a box, since AVA repeats the box for every action; without ids
    the box alone. Who does nothing of the list is among the keyframe's `negatives`: detectron2
    counts and samples by the classes of `annotations`, so these must have one.

    Attributes:
        boxes: (R, 4) float64 XYXY in pixels of the video.
        ids: (R,) int64, -1 where unknown.
        rows: (A,) int64, whose each of the A annotations is, and each of the negatives after them.
    """

    boxes: np.ndarray
    ids: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, keyframe: Mapping[str, Any]) -> AnnotatedPersons:
        """Find them in a dataset dict, by `bbox` (XYXY, pixels) and `person_id`."""
        persons: dict[tuple, int] = {}
        annotations = (*keyframe["annotations"], *keyframe.get("negatives", ()))
        keys = [(*a["bbox"], a["person_id"]) for a in annotations]
        rows = [persons.setdefault(key, len(persons)) for key in keys]
        table = np.array(list(persons), dtype=np.float64).reshape(-1, 5)
        return cls(table[:, :4], table[:, 4].astype(np.int64), np.array(rows, np.int64))

    def __len__(self) -> int:
        return len(self.boxes)

    def found(self, width: int, height: int) -> FoundBoxes:
        """Take them for detected ones, with score 1, in a video of this size."""
        return FoundBoxes.of(self.boxes, 1.0, self.ids, (width, height))


Place = Callable[[FoundBoxes], np.ndarray]  # to (n, 4) pixels of the network's picture


@dataclass(frozen=True)
class BoxChoice:
    """Which of the found persons and objects a model is shown: the only place of the thresholds.

    What a model is shown becomes detectron2's `Instances` here and nowhere else.

    Attributes:
        min_person_score, min_object_score: lower ones are not shown.
        max_objects: of the others, the best are.
        min_hand_score, max_hands: the same of hands.
    """

    min_person_score: float
    min_object_score: float
    max_objects: int
    min_hand_score: float = 0.5
    max_hands: int = 0

    @classmethod
    def of(cls, cfg: CfgNode) -> BoxChoice:
        """Read it from `cfg.INPUT`."""
        keys = {
            "PERSON_SCORE_THRESH_TEST": number(0, 1),
            "OBJECT_SCORE_THRESH": number(0, 1),
            "MAX_OBJECTS": whole(0),
            "HAND_SCORE_THRESH": number(0, 1),
            "MAX_HANDS": whole(0),
        }
        check_keys(cfg, "INPUT", keys)
        return cls(*(cfg.INPUT[key] for key in keys))

    def persons(self, found: FoundBoxes, place: Place, image_size: tuple[int, int]) -> Instances:
        """Make proposals of persons, see :func:`as_proposals`."""
        found = found.above(self.min_person_score)
        return as_proposals(found, place(found), image_size)

    def objects(self, found: FoundBoxes, place: Place, image_size: tuple[int, int]) -> Instances:
        """Make `boxes` and `scores` of objects, in ascending order of score."""
        found = found.above(self.min_object_score).best(self.max_objects)
        return _as_instances(found, place(found), image_size)

    def hands(self, found: FoundBoxes, place: Place, image_size: tuple[int, int]) -> Instances:
        """Make the same of hands."""
        found = found.above(self.min_hand_score).best(self.max_hands)
        return _as_instances(found, place(found), image_size)


def _as_instances(found: FoundBoxes, pixels: np.ndarray, image_size: tuple[int, int]) -> Instances:
    scores = torch.from_numpy(found.scores)
    return Instances(image_size, boxes=as_boxes(pixels), scores=scores)


def as_proposals(found: FoundBoxes, pixels: np.ndarray, image_size: tuple[int, int]) -> Instances:
    """Make proposals of persons at `pixels` (n, 4) of a picture of `image_size` (height, width).

    These are `proposal_boxes`, `objectness_logits` and `person_ids`.
    """
    return Instances(
        image_size,
        proposal_boxes=as_boxes(pixels),
        objectness_logits=torch.from_numpy(found.scores),
        person_ids=torch.from_numpy(found.ids),
    )


def as_boxes(boxes: np.ndarray) -> Boxes:
    """Make detectron2's boxes of an array (n, 4)."""
    return Boxes(torch.from_numpy(boxes.astype(np.float32)))


@dataclass(frozen=True)
class MemoryWindow:
    """The memory around one clip (no leading axis) or around a batch of N clips (leading axis N).

    The centre slot belongs to the clip itself. Who fills it is decided where the window is read
    from the pool, and nowhere else: `fresh_centre` says it.

    Attributes:
        features: ([N,] S, M, C) person features, zero where not valid.
        valid: ([N,] S, M) bool, True where a person is stored.
        person_ids: ([N,] S, M) int64, -1 where unknown.
        boxes: ([N,] S, M, 4) person boxes, XYXY as fractions of the picture's width and height.
        weights: ([N,] S) read weight of every slot in [0, 1] (AIA, Eq. 2; 1 when testing).
        fresh_centre: ([N]) bool, True: the centre is empty and the model puts the features of its
            current forward pass there (AIA, Algorithm 1, line 13); False: the pool's own entry is
            there and stays.
        offsets: (S,) int64, time of every slot relative to the clip, in slots of the memory.
    """

    features: Tensor
    valid: Tensor
    person_ids: Tensor
    boxes: Tensor
    weights: Tensor
    fresh_centre: Tensor
    offsets: Tensor

    @property
    def centre(self) -> int:
        """Index of the slot that belongs to the clip itself."""
        return int((self.offsets == 0).nonzero()[0, 0])

    def to(self, device: torch.device) -> MemoryWindow:
        """Copy to `device`."""
        values = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        return replace(self, **values)

    @staticmethod
    def stack(windows: list[MemoryWindow]) -> MemoryWindow:
        """Batch windows of equal shape along a new leading axis N."""
        values = [torch.stack([getattr(w, name) for w in windows]) for name in _BATCHED]
        return MemoryWindow(*[*values, windows[0].offsets])

    def unstack(self) -> list[MemoryWindow]:
        """Give the N windows of a batch, as views."""
        columns = [getattr(self, name).unbind() for name in _BATCHED]
        return [MemoryWindow(*[*values, self.offsets]) for values in zip(*columns)]


# The fields with an axis N, which come first.
_BATCHED = ("features", "valid", "person_ids", "boxes", "weights", "fresh_centre")


@dataclass(frozen=True)
class ClipFeatures:
    """Everything that has to be kept of a clip between extraction and classification.

    Attributes:
        persons: `Instances` of one clip in the network's picture: `proposal_boxes` (Boxes),
            `objectness_logits` (Ri,), `person_ids` (Ri,), `roi_features` (Ri, C) and, when the
            interaction module asks for them, `roi_maps` (Ri, C, K, K).
        objects: `Instances` with `boxes` (Boxes), `scores` (O,), `roi_features` (O, C).
        scene: (C, K, K) the whole picture, pooled like a box, when the interaction module asks for
            it.
        pooled_boxes: the Ri boxes that the grid of the RoI maps divides: jittered in training,
            enlarged in testing; None where they are the proposals.
        gt_classes: (Ri, K) multi-hot, in training.
        gt_boxes: the Ri annotated boxes, neither jittered nor enlarged, in training.
        hands: of segments, like the objects.
    """

    persons: Instances
    objects: Instances
    scene: Tensor | None = None
    pooled_boxes: Boxes | None = None
    gt_classes: Tensor | None = None
    gt_boxes: Boxes | None = None
    hands: Instances | None = None

    @property
    def grid_boxes(self) -> Tensor:
        """(Ri, 4) boxes that the grid of the RoI maps divides."""
        boxes = self.persons.proposal_boxes if self.pooled_boxes is None else self.pooled_boxes
        return boxes.tensor

    def with_targets(self, targets: Instances) -> ClipFeatures:
        """Copy, and add `gt_classes` and, if there are, `gt_boxes` of the persons."""
        boxes = targets.gt_boxes if targets.has("gt_boxes") else None
        return replace(self, gt_classes=targets.gt_classes, gt_boxes=boxes)

    def with_ids(self, ids: Tensor) -> ClipFeatures:
        """Copy, and say who the persons are: (Ri,)."""
        values = {**self.persons.get_fields(), "person_ids": ids.to(self.grid_boxes.device)}
        return replace(self, persons=Instances(self.persons.image_size, **values))

    def to(self, device: torch.device, dtype: torch.dtype) -> ClipFeatures:
        """Copy to `device`, features as `dtype`; boxes and numbers keep their types."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {name: x.to(device) for name, x in values.items() if x is not None}
        return replace(self, **moved).each_feature(lambda x: x.to(dtype))

    def detach(self) -> ClipFeatures:
        """Copy without the gradients of the features."""
        return self.each_feature(Tensor.detach)

    @property
    def num_bytes(self) -> int:
        """Size of the features."""
        sets = [x for x in (self.persons, self.objects, self.hands) if x is not None]
        found = [x.get(name) for x in sets for name in _FEATURES if x.has(name)]
        return sum(x.nbytes for x in [*found, self.scene] if x is not None)

    def each_feature(self, function: Callable[[Tensor], Tensor]) -> ClipFeatures:
        """Copy, with the results of a function in place of the features."""
        copies = {}
        for part in ("persons", "objects", "hands"):
            if (x := getattr(self, part)) is not None:
                features = {name: function(x.get(name)) for name in _FEATURES if x.has(name)}
                copies[part] = Instances(x.image_size, **{**x.get_fields(), **features})
        scene = None if self.scene is None else function(self.scene)
        return replace(self, **copies, scene=scene)


_FEATURES = ("roi_features", "roi_maps")  # fields of `Instances`


def fractions(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Turn boxes (..., 4) in pixels into fractions of the picture's width and height."""
    height, width = image_size
    return boxes / boxes.new_tensor([width, height, width, height])


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
