"""Evaluation: the metric (:mod:`average_precision`), AVA's rules, and detectron2's evaluators.

The evaluators need detectron2 and torch, the metrics only numpy; so the former are imported when
they are first used.
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
    DEFAULT_DIALECT,
    DIALECTS,
    Dialect,
    FrameBoxes,
    FrameMAP,
    InvertedBoxError,
    evaluate_frame_map,
    get_dialect,
)

if TYPE_CHECKING:
    from .ava_evaluation import AVAEvaluator

# name -> module that has it
_IMPORTED_ON_USE = {"AVAEvaluator": "ava_evaluation"}

__all__ = [
    "DEFAULT_DIALECT",
    "DIALECTS",
    "AVAEvaluator",
    "Dialect",
    "FrameBoxes",
    "FrameMAP",
    "InvertedBoxError",
    "evaluate_ava",
    "evaluate_ava_files",
    "evaluate_frame_map",
    "get_dialect",
    "group_ap",
    "results_as_json",
    "results_as_text",
]


def __getattr__(name: str) -> Any:
    if name in _IMPORTED_ON_USE:
        return getattr(importlib.import_module(f".{_IMPORTED_ON_USE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
