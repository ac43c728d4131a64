"""Boxes for inputs that bring none, from the configured detector."""

from __future__ import annotations

import numpy as np
import torch
from detectron2.config import CfgNode

from ..structures import BoxChoice, FoundBoxes
from .detector import configured_detector
from .picture_boxes import PictureDetector


class BoxFinder:
    """Adds the persons and objects that a detector finds to an input of `ActionRCNN`.

    Not a module: its weights are no part of the action model's checkpoints. The detector is built
    when it is first needed.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self._cfg = cfg.clone()
        self._choice = BoxChoice.of(cfg)
        self._detector: PictureDetector | None = None

    def __call__(self, clip: dict) -> dict:
        """Copy the input, with `proposals` and `objects`, found in the middle frame."""
        if self._detector is None:
            self._detector = configured_detector(self._cfg)
            assert self._detector is not None, "MODEL.PERSON_DETECTOR.CONFIG names no detector"
        picture = (
            clip["image"] if "image" in clip else clip["video"][:, clip["video"].shape[1] // 2]
        )
        height, width = picture.shape[1:]
        pixels = picture.detach().cpu().float().round().clamp(0, 255).to(torch.uint8)
        found = self._detector([np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())])[0]

        def place(boxes: FoundBoxes) -> np.ndarray:
            return boxes.in_pixels(width, height)

        proposals = self._choice.persons(found.persons, place, (height, width))
        objects = self._choice.objects(found.objects, place, (height, width))
        return {**clip, "proposals": proposals, "objects": objects}
