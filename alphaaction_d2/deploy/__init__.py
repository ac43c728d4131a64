"""Exported models at work: numpy and onnxruntime (or OpenVINO), without torch and detectron2.

`alphaaction export` makes a folder of a trained model; a `Runner` finds with it who does what in
videos, as `VideoPredictor` does with the model. See docs/deploy.md.
"""

from ..found_boxes import BoxesAt, FoundBoxes, TimedBoxes
from .description import Description, is_exported
from .runner import KeyframeScores, Runner

__all__ = [
    "BoxesAt",
    "Description",
    "FoundBoxes",
    "KeyframeScores",
    "Runner",
    "TimedBoxes",
    "is_exported",
]
