"""Evaluation: the metric (`average_precision`), the rules of AVA, UCF101-24 and
EPIC-Kitchens-55, and detectron2's evaluators.

The evaluators need detectron2 and torch, the metrics only numpy; so the former are imported when
they are first used, and so is what scores the smaller data sets.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .ava_protocol import (
    evaluate_ava,
    evaluate_ava_files,
    group_ap,
    results_as_json,
    results_as_text,
)
from .average_precision import (
    AVA_PROTOCOLS,
    DEFAULT_AVA_PROTOCOL,
    AVAProtocol,
    FrameBoxes,
    FrameMAP,
    InvertedBoxError,
    evaluate_frame_map,
    get_protocol,
)

if TYPE_CHECKING:
    from .ava_evaluation import AVAEvaluator
    from .epic55 import evaluate_epic55
    from .ucf101_24 import UCF_PROTOCOLS, evaluate_ucf101_24

# name -> module that has it
_IMPORTED_ON_USE = {
    "AVAEvaluator": "ava_evaluation",
    "UCF_PROTOCOLS": "ucf101_24",
    "evaluate_epic55": "epic55",
    "evaluate_ucf101_24": "ucf101_24",
}

# what they were called before
_RENAMED = {
    "DEFAULT_DIALECT": "DEFAULT_AVA_PROTOCOL",
    "DIALECTS": "AVA_PROTOCOLS",
    "Dialect": "AVAProtocol",
    "get_dialect": "get_protocol",
}

__all__ = [
    "DEFAULT_AVA_PROTOCOL",
    "AVA_PROTOCOLS",
    "UCF_PROTOCOLS",
    "AVAEvaluator",
    "AVAProtocol",
    "FrameBoxes",
    "FrameMAP",
    "InvertedBoxError",
    "evaluate_ava",
    "evaluate_ava_files",
    "evaluate_epic55",
    "evaluate_frame_map",
    "evaluate_ucf101_24",
    "get_protocol",
    "group_ap",
    "results_as_json",
    "results_as_text",
]


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        return globals()[_RENAMED[name]]
    if name in _IMPORTED_ON_USE:
        return getattr(importlib.import_module(f".{_IMPORTED_ON_USE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
