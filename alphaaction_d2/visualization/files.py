"""Writing a file so that nobody ever sees half of it."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: str | os.PathLike, content: bytes | str) -> Path:
    """Write `content` beside `path` and move it there; folders are made as needed.

    Text is stored as UTF-8 with its newlines as they are. A character that UTF-8 can't hold (half
    a surrogate pair out of a damaged name) becomes "?".
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        content = content.encode("utf-8", errors="replace")
    # Not tempfile: its files are private to the user, and a report is made to be shared.
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        scratch.write_bytes(content)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
    return path
