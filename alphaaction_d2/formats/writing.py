"""Writing a file so that nobody ever sees half of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(
    path: str | os.PathLike, content: bytes | str | Callable[[BinaryIO], object]
) -> Path:
    """Write `content` beside `path` and move it there; folders are made as needed.

    The file is complete and on the disk before it takes the place of an older one, so a process
    that is killed, or a machine that fails, at any moment leaves one of the two.

    Args:
        path: the file.
        content: bytes; text, stored as UTF-8 with its newlines as they are (a character that UTF-8
            can't hold, half a surrogate pair out of a damaged name, becomes "?"); or a function
            that writes to the open file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        content = content.encode("utf-8", errors="replace")
    # Not tempfile: its files are private to the user, and a report is made to be shared. The name
    # has no process number: what a killed process left behind is used up by the next one.
    scratch = path.with_name(f".{path.name}.partial")
    try:
        with scratch.open("wb") as file:
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
    return path
