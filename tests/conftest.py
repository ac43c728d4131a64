"""What all tests share: thread counts, a scratch data-set root, and the reference material."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Two cores shared by several workers make timings meaningless, and a failure must come back in the
# next run.
settings.register_profile("alphaaction_d2", deadline=None, derandomize=True)
settings.load_profile("alphaaction_d2")

_DATASETS = pytest.StashKey[tempfile.TemporaryDirectory]()


def pytest_configure(config: pytest.Config) -> None:
    """Set what detectron2 and torch read at import time, before any test module imports them."""
    config.stash[_DATASETS] = tempfile.TemporaryDirectory(prefix="alphaaction_d2_datasets_")
    os.environ["DETECTRON2_DATASETS"] = config.stash[_DATASETS].name
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as what a shell starts with `&`
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "PYTEST_XDIST_WORKER" in os.environ:
        import torch

        torch.set_num_threads(1)


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_DATASETS].cleanup()


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    """Put back what commands that run in this process change about who writes messages where."""
    names = ("", "alphaaction_d2", "detectron2", "fvcore", "py.warnings")
    loggers = [logging.getLogger(name) for name in names]
    before = [(x, x.level, x.propagate, list(x.handlers)) for x in loggers]
    yield
    logging.captureWarnings(False)
    for logger, level, propagate, handlers in before:
        logger.setLevel(level)
        logger.propagate, logger.handlers[:] = propagate, handlers


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference material, a folder `shared` beside the checkout (or ALPHAACTION_SHARED).

    Tests that use it are skipped where it is absent: users don't have it.
    """
    named = os.environ.get("ALPHAACTION_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        if named:
            pytest.fail(f"ALPHAACTION_SHARED={named} is not a folder")
        pytest.skip(f"no reference material in {folder}")
    return folder
