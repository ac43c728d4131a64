"""What the command-line tools share: a user's mistake is one line, not a traceback."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shlex
import signal
import sys
import threading
import traceback
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

INTERRUPTED = 130  # what shells give for a command that was ended by Ctrl-C
# Raised with a message that says what is wrong and where.
USER_ERRORS = (ValueError, KeyError, OSError, FloatingPointError)


def tool_parser(description: str | None) -> ArgumentParser:
    """A parser whose help shows a module's docstring as it is written, and fits a screen."""
    return ArgumentParser(
        description=description,
        # with more room for options than argparse gives them, few take a second line
        formatter_class=lambda prog: RawDescriptionHelpFormatter(prog, max_help_position=34),
    )


def import_models() -> None:
    """Import the package as a whole where the command line has begun without it; ValueError without
    detectron2."""
    package = sys.modules[__name__.partition(".")[0]]
    if "setup_cfg" in vars(package):  # to ask for it would import it
        return
    if importlib.util.find_spec("detectron2") is None:
        raise ValueError("detectron2 is missing here: `alphaaction setup` installs it")
    importlib.reload(package)


def typed_command() -> str:
    """The running command with its arguments, to be typed again."""
    return f"{sys.argv[0]} {shlex.join(sys.argv[1:])}".strip()


def run_module(module: str, argv: Sequence[str], needs_models: bool = True) -> int:
    """Run a module of apps, which has `parse_args` and `main`; returns the exit code. Some need
    neither torch nor detectron2."""

    def start() -> int | None:
        if needs_models:
            import_models()
        app = importlib.import_module(f"{__package__}.{module}")
        return app.main(app.parse_args(argv))

    return run_tool(start)


def tell_failed(failed: Sequence[str], num_videos: int) -> int:
    """List the videos that could not be used; the tool's exit code."""
    if failed:
        lines = [f"{len(failed)} of {num_videos} videos failed:", *failed]
        print(*lines, sep="\n  ", file=sys.stderr)
    return 1 if failed else 0


def run_tool(main: Callable[[], int | None]) -> int:
    """Run a tool's main function; returns its exit code, that of :func:`report_error`, or 130 after
    Ctrl-C."""
    with _interrupts_taken_once() as interrupts:
        try:
            return main() or 0
        except KeyboardInterrupt:
            pass
        except Exception as error:
            if not interrupts:  # else it is what an interrupted worker or library made of that
                return report_error(error)
        sys.stderr.write("interrupted\n")
        return INTERRUPTED


@contextlib.contextmanager
def _interrupts_taken_once() -> Iterator[list[int]]:
    """Let Ctrl-C end this process alone; a list of the interrupts that have come.

    A terminal sends it to all processes of a command, and each worker that a process has forked
    would print where it was. Workers leave when the process that they work for does.
    """
    interrupts: list[int] = []
    mine = os.getpid()

    def take(number: int, frame: FrameType | None) -> None:
        if os.getpid() == mine:
            interrupts.append(number)
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()  # others get no signals
    if before != signal.default_int_handler or not is_main:  # a job in the background ignores them
        yield interrupts
        return
    signal.signal(signal.SIGINT, take)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


def report_error(error: Exception) -> int:
    """Print one line about a user's mistake (exit code 2), or the traceback of any other error (1).

    With ALPHAACTION_TRACEBACK set, all errors keep their traceback.
    """
    line = None
    if isinstance(error, USER_ERRORS):
        line = describe_error(error)
    elif isinstance(error, RuntimeError):
        # Errors of loading workers come as text with a traceback.
        line = _last_line_of_user_error(str(error))
    if line is None or "ALPHAACTION_TRACEBACK" in os.environ:
        traceback.print_exception(error)
    else:
        sys.stderr.write(f"error: {line}\n")
    sys.stderr.flush()
    return 1 if line is None else 2


def describe_error(error: BaseException) -> str:
    """The message of an error, without the quotes of KeyError and the traceback of a worker."""
    if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str):
        return error.args[0]
    return _last_line_of_user_error(str(error)) or str(error)


def _last_line_of_user_error(text: str) -> str | None:
    """The message at the end of a printed traceback, if it is about a user's mistake."""
    if "Traceback (most recent call last)" not in text:
        return None
    kind, _, message = text.strip().splitlines()[-1].partition(": ")
    known = ("VideoError", "FileError", "Mismatch", "ValueError", "KeyError", "NotFoundError")
    return message.strip("'\"") if kind.endswith(known) else None
