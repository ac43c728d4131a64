"""What the command-line tools share: a user's mistake is one line, not a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from torch.multiprocessing import ProcessRaisedException

# Raised with a message that says what is wrong and where.
USER_ERRORS = (ValueError, KeyError, OSError, FloatingPointError)


def run_tool(main: Callable[[], int | None]) -> int:
    """Run a tool's main function; its exit code, or 2 after one line about a user's mistake.

    With ALPHAACTION_TRACEBACK set, errors keep their traceback.
    """
    if "ALPHAACTION_TRACEBACK" in os.environ:
        return main() or 0
    try:
        return main() or 0
    except USER_ERRORS as error:
        line = describe_error(error)
    except (RuntimeError, ProcessRaisedException) as error:
        # Errors of loading workers and of launched processes come as text with a traceback.
        line = _last_line_of_user_error(str(error))
        if line is None:
            raise
    sys.stderr.write(f"error: {line}\n")
    return 2


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
