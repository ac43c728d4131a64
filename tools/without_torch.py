"""For tools that score files: the parts of the package that need neither torch nor detectron2."""

from __future__ import annotations

import sys
import types
from pathlib import Path


def import_without_torch() -> None:
    """Make the package's light modules importable without running its `__init__`.

    That one registers the models in detectron2, which takes seconds and needs torch; files of text
    need neither. Call it before the first import of the package, and only in a process of its own.
    """
    package = types.ModuleType("alphaaction_d2")
    package.__path__ = [str(Path(__file__).resolve().parents[1] / "alphaaction_d2")]
    sys.modules["alphaaction_d2"] = package
