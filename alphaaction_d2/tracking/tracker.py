"""The default tracker, in the form that detectron2's registry wants; `tracks.py` is what it does.

Shape letters: R persons of a keyframe, C feature channels.
"""

from __future__ import annotations

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Instances
from detectron2.tracking import TRACKER_HEADS_REGISTRY, BaseTracker

from ..config import check_keys, number
from ..structures import UNKNOWN_PERSON
from .tracks import Tracks


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
    """

    @configurable
    def __init__(self, **options: float) -> None:
        """Take the options of :class:`Tracks`."""
        super().__init__()
        self._tracks = Tracks(**options)  # type: ignore[arg-type]  # one of them is a bool
        self._now: float | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        return {**tracking_options(cfg), "first_id": cfg.TRACKER_HEADS.FIRST_ID}

    @property
    def reads(self) -> tuple[str, ...]:
        """Optional fields that :meth:`update` looks at."""
        return ("timestamps", "person_ids") + ("roi_features",) * self._tracks.by_appearance

    def update(self, predictions: Instances) -> Instances:
        """Identify the persons of the next keyframe; see the class."""
        given, scores = ([UNKNOWN_PERSON] * len(predictions), [0.0] * len(predictions))
        if predictions.has("person_ids"):
            given = [int(i) for i in predictions.person_ids]
        if predictions.has("scores"):
            scores = predictions.scores.tolist()
        features = None
        if "roi_features" in self.reads and predictions.has("roi_features"):
            features = predictions.roi_features.detach().to("cpu", torch.float64).numpy()
        boxes = predictions.pred_boxes.tensor.detach().cpu().double().numpy()
        ids = self._tracks.identify(self._advance(predictions), boxes, given, scores, features)
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


def tracking_options(cfg: CfgNode) -> dict[str, float]:
    """Read the options of :class:`Tracks`, all but the first id."""
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
    own = ("box_margin", "max_gap", "motion", "appearance_weight", "min_cosine")
    return {"min_iou": node.TRACK_IOU_THRESHOLD, **{x: node[x.upper()] for x in own}}
