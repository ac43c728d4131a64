"""The default tracker: Hungarian assignment of a keyframe's persons to the live tracks.

Shape letters: R persons of a keyframe, Q live tracks, C feature channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Instances
from detectron2.tracking import TRACKER_HEADS_REGISTRY, BaseTracker

from ..config import check_keys, number
from ..structures import UNKNOWN_PERSON
from .association import assign, association_cost, cosine_similarity, motion_overlap

# Share of the old value when a track's velocity or appearance meets a new one.
_INERTIA = 0.5


@dataclass
class _Track:
    person_id: int
    time: float  # when it was seen last
    box: np.ndarray  # (4,)
    velocity: np.ndarray  # (2,) of the centre, per second
    features: np.ndarray | None  # (C,)
    moved: bool = False  # whether its velocity has been measured


@TRACKER_HEADS_REGISTRY.register()
class PersonTracker(BaseTracker):
    """Links persons over keyframes a second apart, or over dense frames, of one video.

    :meth:`update` is detectron2's: `Instances` of the next keyframe in, the same with `ID` out.
    Besides `pred_boxes` it looks at fields that other trackers do not know (`reads`), all optional:

    * `timestamps` (R,) seconds, all alike; without them every update is a second later;
    * `person_ids` (R,) ids that are known already, -1 where not. They are kept, and a track with
      such an id can be continued by a person without;
    * `roi_features` (R, C) appearance; used if `appearance_weight` or `min_cosine` ask for it;
    * `scores` (R,) decide who keeps an id that was given twice in one keyframe.

    Ids are never used twice in a video, and at most once in a keyframe. Only the tracks of the last
    `max_gap` seconds are held.
    """

    @configurable
    def __init__(
        self,
        *,
        min_iou: float = 0.5,
        box_margin: float = 0.5,
        max_gap: float = 2.0,
        motion: bool = True,
        appearance_weight: float = 0.0,
        min_cosine: float = -1.0,
        first_id: int = 1,
    ) -> None:
        """
        Args:
            min_iou, appearance_weight, min_cosine: see :func:`association_cost`.
            box_margin: see :func:`motion_overlap`.
            max_gap: seconds after which a person who is not seen is forgotten.
            motion: whether people are expected to go on as well as to stay.
            first_id: new ids count from here. Ids that are given later in the same video must be
                lower, or they may meet a new one.
        """
        super().__init__()
        self.min_iou = min_iou
        self.box_margin = box_margin
        self.max_gap = max_gap
        self.motion = motion
        self.appearance_weight = appearance_weight
        self.min_cosine = min_cosine
        self._by_appearance = appearance_weight > 0 or min_cosine > -1
        self._id_count = first_id  # BaseTracker's name for the next new id
        self._tracks: list[_Track] = []
        self._now: float | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        check_keys(
            cfg,
            "TRACKER_HEADS",
            {
                "TRACK_IOU_THRESHOLD": number(0, 1),
                "BOX_MARGIN": number(0, 1000),
                "MAX_GAP": number(),
                "APPEARANCE_WEIGHT": number(),
                "MIN_COSINE": number(-1, 1),
            },
        )
        node = cfg.TRACKER_HEADS
        own = ("box_margin", "max_gap", "motion", "appearance_weight", "min_cosine", "first_id")
        return {"min_iou": node.TRACK_IOU_THRESHOLD, **{x: node[x.upper()] for x in own}}

    @property
    def reads(self) -> tuple[str, ...]:
        """Optional fields that :meth:`update` looks at."""
        return ("timestamps", "person_ids") + ("roi_features",) * self._by_appearance

    def update(self, predictions: Instances) -> Instances:
        """Identify the persons of the next keyframe; see the class."""
        boxes = predictions.pred_boxes.tensor.detach().cpu().double().numpy()
        features = self._features(predictions)
        now = self._advance(predictions)
        self._tracks = [x for x in self._tracks if now - x.time <= self.max_gap + 1e-6]

        # 1. Ids that are known, each once.
        ids = self._given_ids(predictions)
        by_id = {track.person_id: track for track in self._tracks}
        track_of = {i: by_id[x] for i, x in enumerate(ids) if x in by_id}
        # A new id must never have been seen, not even as a given one.
        self._id_count = max(self._id_count, max(ids, default=UNKNOWN_PERSON) + 1)
        # 2. The others continue the remaining tracks.
        unknown = [i for i, person_id in enumerate(ids) if person_id < 0]
        taken = set(ids)
        free = [track for track in self._tracks if track.person_id not in taken]
        chosen = None if features is None else features[unknown]
        for row, column in assign(self._cost(boxes[unknown], chosen, free, now)):
            track_of[unknown[row]] = free[column]
            ids[unknown[row]] = free[column].person_id
        # 3. Who is left is new.
        for i, person_id in enumerate(ids):
            if person_id < 0:
                ids[i] = self._id_count
                self._id_count += 1
            feature = None if features is None else features[i]
            if i in track_of:
                _continue(track_of[i], now, boxes[i], feature)
            else:
                self._tracks.append(_Track(ids[i], now, boxes[i], np.zeros(2), feature))
        return Instances(predictions.image_size, **predictions.get_fields(), ID=ids)

    def _advance(self, predictions: Instances) -> float:
        """Find the time of this keyframe."""
        if not predictions.has("timestamps"):
            now = 0.0 if self._now is None else self._now + 1.0
        elif len(predictions):
            now = float(predictions.timestamps[0])
        else:  # nobody is there to say how late it is, and nobody needs to know
            now = -np.inf if self._now is None else self._now
        if self._now is not None and now < self._now:
            raise ValueError(
                f"tracking: a keyframe at {now:g} s comes after one at {self._now:g} s; identities "
                "need time order"
            )
        self._now = now
        return now

    def _features(self, predictions: Instances) -> np.ndarray | None:
        """Give the appearance (R, C), if it is used."""
        if not self._by_appearance or not predictions.has("roi_features"):
            return None
        return predictions.roi_features.detach().to("cpu", torch.float64).numpy()

    def _given_ids(self, predictions: Instances) -> list[int]:
        """List known ids, each once (the best score has it), and -1 for everybody else."""
        if not predictions.has("person_ids"):
            return [UNKNOWN_PERSON] * len(predictions)
        ids = [max(int(i), UNKNOWN_PERSON) for i in predictions.person_ids]
        scores = predictions.scores.tolist() if predictions.has("scores") else [0.0] * len(ids)
        keeps: dict[int, int] = {}
        for i in sorted(range(len(ids)), key=lambda i: -scores[i]):
            keeps.setdefault(ids[i], i)
        return [x if keeps[x] == i else UNKNOWN_PERSON for i, x in enumerate(ids)]

    def _cost(
        self, boxes: np.ndarray, features: np.ndarray | None, tracks: list[_Track], now: float
    ) -> np.ndarray:
        """Compute the cost (R, Q) of every person for every track."""
        if not len(boxes) or not tracks:
            return np.full((len(boxes), len(tracks)), np.inf)
        gaps = np.array([now - track.time for track in tracks])
        velocities = np.stack([track.velocity for track in tracks])
        last = np.stack([track.box for track in tracks])
        overlaps = motion_overlap(
            boxes, last, velocities if self.motion else 0 * velocities, gaps, self.box_margin
        )
        cosines = None
        if features is not None:
            nothing = np.full(features.shape[1], np.nan)
            known = [nothing if t.features is None else t.features for t in tracks]
            cosines = cosine_similarity(features, np.stack(known))
        return association_cost(
            overlaps, gaps, self.min_iou, cosines, self.appearance_weight, self.min_cosine
        )


def _continue(track: _Track, now: float, box: np.ndarray, features: np.ndarray | None) -> None:
    """Note where a track's person was seen."""
    gap = now - track.time
    if gap > 0:
        velocity = (box - track.box).reshape(2, 2).mean(axis=0) / gap
        track.velocity = _blend(track.velocity, velocity) if track.moved else velocity
        track.moved = True
    track.box, track.time = box, now
    if features is not None and np.isfinite(features).all():
        old = track.features
        if old is not None and np.isfinite(old).all():
            features = _blend(old, features)
        track.features = features


def _blend(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    return _INERTIA * old + (1 - _INERTIA) * new
