"""What a command writes to the terminal: a line a stage. All the rest is in `log.txt`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import IO

from detectron2.utils.logger import setup_logger

OURS = "alphaaction_d2"
_LIBRARIES = ("detectron2", "fvcore")


class _Console(logging.StreamHandler):
    """Shows what a person wants to read while it runs."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(stream)
        self.setLevel(logging.INFO)
        self.setFormatter(_OneLine())
        self.addFilter(_is_for_people)


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname}: "
        line = f"{self.formatTime(record, '%H:%M:%S')} {level}{record.getMessage()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _is_for_people(record: logging.LogRecord) -> bool:
    """Libraries tell their configuration, their network, and every step that they take."""
    if record.name.split(".")[0] == OURS or record.levelno >= logging.WARNING:
        return True
    return "ETA=" in record.getMessage()  # of a long evaluation


def setup_console(
    output: str | Path | None = None, *, rank: int = 0, stream: IO[str] | None = None
) -> logging.Logger:
    """Set up where messages go.

    Args:
        output: folder whose `log.txt` (of other processes: `log.txt.rank1`, ...) gets everything.
        rank: of this process; the first one alone writes to the terminal.
        stream: of the terminal; None: stdout.

    Returns:
        The package's logger.
    """
    logging.captureWarnings(True)
    # Python's own warnings are for who develops: they go into the file, if there is one.
    for name in (OURS, *_LIBRARIES, "py.warnings"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        for handler in [x for x in logger.handlers if isinstance(x, _Console)]:
            logger.removeHandler(handler)
        if rank == 0 and name != "py.warnings":
            logger.addHandler(_Console(stream or sys.stdout))
        if output is not None:
            setup_logger(str(output), rank, name=name, configure_stdout=False)
        logger.addHandler(logging.NullHandler())  # else Python has one of its own
    return logging.getLogger(OURS)
