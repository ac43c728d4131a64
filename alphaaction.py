"""The command `alphaaction`.

It lies beside the package, whose import takes seconds and needs detectron2: help is there at once,
and `alphaaction setup` runs where detectron2 is missing.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence


def import_lightly() -> None:
    """Make the package's modules importable without running its `__init__`, unless it has run.

    That one registers the models in detectron2. What needs them runs it later
    (`alphaaction_d2.apps.command_line.import_models`).
    """
    name = "alphaaction_d2"
    spec = importlib.util.find_spec(name)
    assert spec is not None  # it is installed, or lies, beside this file
    sys.modules.setdefault(name, importlib.util.module_from_spec(spec))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    import_lightly()
    from alphaaction_d2.apps.commands import run

    return run(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
