"""Boxes for inputs that bring none, from the configured detector."""

from __future__ import annotations

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances

from .detector import Detector, configured_detector


class BoxFinder:
    """Adds the persons and objects that a detector finds to an input of `ActionRCNN`.

    Not a module: its weights are no part of the action model's checkpoints. The detector is built
    when it is first needed.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self._cfg = cfg.clone()
        self._detector: Detector | None = None

    def __call__(self, clip: dict) -> dict:
        """A copy of the input with `proposals` and `objects`, found in the middle frame."""
        if self._detector is None:
            self._detector = configured_detector(self._cfg)
        picture = (
            clip["image"] if "image" in clip else clip["video"][:, clip["video"].shape[1] // 2]
        )
        size = tuple(picture.shape[1:])
        pixels = picture.detach().cpu().float().round().clamp(0, 255).to(torch.uint8)
        found = self._detector([np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())])[0].by_kind()
        node = self._cfg.INPUT
        persons, objects = found["persons"], found["objects"]
        keep = persons["scores"] >= node.PERSON_SCORE_THRESH_TEST
        proposals = Instances(size, proposal_boxes=_boxes(persons, keep))
        proposals.objectness_logits = torch.from_numpy(persons["scores"][keep])
        proposals.person_ids = torch.from_numpy(persons["person_ids"][keep])
        order = np.argsort(objects["scores"], kind="stable")
        order = order[objects["scores"][order] >= node.OBJECT_SCORE_THRESH][-node.MAX_OBJECTS :]
        things = Instances(size, boxes=_boxes(objects, order))
        things.scores = torch.from_numpy(objects["scores"][order])
        return {**clip, "proposals": proposals, "objects": things}


def _boxes(found: dict[str, np.ndarray], rows: np.ndarray) -> Boxes:
    return Boxes(torch.from_numpy(found["boxes"][rows]))
