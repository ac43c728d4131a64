"""Who of a keyframe is who of the keyframes before: Hungarian assignment to the live tracks.

Arrays alone, for who has neither torch nor detectron2; `tracker.py` is detectron2's form of it.

Shape letters: R persons of a keyframe, Q live tracks, C feature channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..found_boxes import UNKNOWN_PERSON
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


@dataclass
class Tracks:
    """The tracks of one video.

    Ids are never used twice in a video, and at most once in a keyframe. Only the tracks of the last
    `max_gap` seconds are held.
    """

    min_iou: float = 0.5  # this, and the last two, see `association_cost`
    box_margin: float = 0.5  # see `motion_overlap`
    max_gap: float = 2.0  # seconds after which a person who is not seen is forgotten
    motion: bool = True  # whether people are expected to go on as well as to stay
    appearance_weight: float = 0.0
    min_cosine: float = -1.0
    # New ids count from here. Ids that are given later in the same video must be lower, or they may
    # meet a new one.
    first_id: int = 1

    def __post_init__(self) -> None:
        self.next_id = self.first_id
        self.live: list[_Track] = []

    @property
    def by_appearance(self) -> bool:
        """Whether features are looked at."""
        return self.appearance_weight > 0 or self.min_cosine > -1

    def identify(
        self,
        now: float,
        boxes: np.ndarray,
        given: list[int],
        scores: list[float],
        features: np.ndarray | None = None,
    ) -> list[int]:
        """Identify the persons of the next keyframe, at `now` seconds: their R ids.

        Args:
            boxes: (R, 4) float64, in the same pixels for all of a video.
            given: R ids that are known already, -1 where not. They are kept, and a track with such
                an id can be continued by a person without.
            scores: decide who keeps an id that was given twice.
            features: (R, C) float64 appearance.
        """
        features = features if self.by_appearance else None
        self.live = [x for x in self.live if now - x.time <= self.max_gap + 1e-6]

        # 1. Ids that are known, each once.
        ids = _each_once(given, scores)
        by_id = {track.person_id: track for track in self.live}
        track_of = {i: by_id[x] for i, x in enumerate(ids) if x in by_id}
        # A new id must never have been seen, not even as a given one.
        self.next_id = max(self.next_id, max(ids, default=UNKNOWN_PERSON) + 1)
        # 2. The others continue the remaining tracks.
        unknown = [i for i, person_id in enumerate(ids) if person_id < 0]
        taken = set(ids)
        free = [track for track in self.live if track.person_id not in taken]
        chosen = None if features is None else features[unknown]
        for row, column in assign(self._cost(boxes[unknown], chosen, free, now)):
            track_of[unknown[row]] = free[column]
            ids[unknown[row]] = free[column].person_id
        # 3. Who is left is new.
        for i, person_id in enumerate(ids):
            if person_id < 0:
                ids[i] = self.next_id
                self.next_id += 1
            feature = None if features is None else features[i]
            if i in track_of:
                _continue(track_of[i], now, boxes[i], feature)
            else:
                self.live.append(_Track(ids[i], now, boxes[i], np.zeros(2), feature))
        return ids

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


def _each_once(given: list[int], scores: list[float]) -> list[int]:
    """Leave every known id to whoever has the best score; -1 for everybody else."""
    ids = [max(i, UNKNOWN_PERSON) for i in given]
    keeps: dict[int, int] = {}
    for i in sorted(range(len(ids)), key=lambda i: -scores[i]):
        keeps.setdefault(ids[i], i)
    return [x if keeps[x] == i else UNKNOWN_PERSON for i, x in enumerate(ids)]


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
