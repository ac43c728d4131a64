"""Evaluation: the metric (`average_precision`), the rules of AVA, UCF101-24 and EPIC-Kitchens-55,
and evaluators for detectron2.

These need detectron2 and torch, all else only numpy; so they are imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .ava_protocol import evaluate_ava, evaluate_ava_files, results_as_json, results_as_text
from .average_precision import AVA_PROTOCOLS, DEFAULT_AVA_PROTOCOL
from .epic55 import evaluate_epic55
from .ucf101_24 import UCF_PROTOCOLS, evaluate_ucf101_24

if TYPE_CHECKING:
    from .ava_evaluation import AVAEvaluator
    from .ucf101_24_evaluation import UCFEvaluator

__all__ = [
    "AVA_PROTOCOLS",
    "DEFAULT_AVA_PROTOCOL",
    "UCF_PROTOCOLS",
    "AVAEvaluator",
    "UCFEvaluator",
    "evaluate_ava",
    "evaluate_ava_files",
    "evaluate_epic55",
    "evaluate_ucf101_24",
    "results_as_json",
    "results_as_text",
]

_EVALUATORS = {"AVAEvaluator": ".ava_evaluation", "UCFEvaluator": ".ucf101_24_evaluation"}


def __getattr__(name: str) -> Any:
    if name in _EVALUATORS:
        return getattr(import_module(_EVALUATORS[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
