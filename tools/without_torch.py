"""For tools that score files: the parts of the package that need neither torch nor detectron2."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path


def import_without_torch() -> None:
    """Makes the package's light modules importable without running its ``__init__``.

    That one registers the models in detectron2, which takes seconds and needs torch; files of text
    need neither. Call it before the first import of the package, and only in a process of its own.
    """
    package = types.ModuleType("alphaaction_d2")
    package.__path__ = [str(Path(__file__).resolve().parents[1] / "alphaaction_d2")]
    sys.modules["alphaaction_d2"] = package


def run_scoring(score: Callable[[], str]) -> int:
    """Prints what ``score`` returns; input that it refuses is a line and the exit code 2."""
    try:
        print(score())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
