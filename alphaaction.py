"""The command `alphaaction`.

It lies beside the package, whose import takes seconds and needs detectron2: help is there at once,
and `alphaaction setup` runs where detectron2 is missing.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence


def _leave_with(parent: int) -> None:
    """End this process when the one that has started it is gone."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if "--multiprocessing-fork" in sys.orig_argv:
    # One of several training processes, or a worker of one, imports this first. A terminal sends
    # Ctrl-C to all of them; the process that was typed says so and ends those that it has started.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()


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


def run_app(module: str) -> int:
    """Run a module of the package's apps, as the scripts of tools/ do; returns its exit code."""
    import_lightly()  # the rest takes seconds, in which Ctrl-C is already one line
    from alphaaction_d2.apps.command_line import run_module

    return run_module(module, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
