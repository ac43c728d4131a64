"""Videos, clips and data sets.

What needs detectron2 is imported when it is asked for: `alphaaction_d2.deploy` does without.
"""

from importlib import import_module
from typing import Any

from .video import VideoError as VideoError

_LATER = {"ActionDatasetMapper": "dataset_mapper"}
_LATER |= dict.fromkeys(("register_ava", "register_folder"), "datasets")


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f".{_LATER[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
