"""Writing a file so that nobody ever sees half of it."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO


def write_atomically(
    path: str | os.PathLike, content: bytes | str | Callable[[BinaryIO], object]
) -> Path:
    """Write `content` beside `path` and move it there; folders are made as needed.

    The file is complete and on the disk before it takes the place of an older one, so a process
    that is killed, or a machine that fails, at any moment leaves one of the two.

    Args:
        content: bytes; text, stored as UTF-8 with its newlines as they are (a character that UTF-8
            can't hold, half a surrogate pair out of a damaged name, becomes "?"); or a function
            that writes to the open file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        content = content.encode("utf-8", errors="replace")
    # Not tempfile: its files are private to the user, and a report is made to be shared. The name
    # has no process number: what a killed process left behind is used up by the next one. A second
    # process that writes the same file waits for the first.
    scratch = path.with_name(f".{path.name}.partial")
    with _open_alone(scratch) as file:
        try:
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(scratch, path)
        except BaseException as error:
            scratch.unlink(missing_ok=True)
            failed = _cause(error)
            if failed is None:
                raise
            raise OSError(failed.errno, failed.strerror, str(path)) from error
    return path


def write_csv(path: str | os.PathLike, rows: Iterable[Sequence[object]]) -> Path:
    """Write rows, the header before all, as a table with commas, whole or not at all."""
    return write_atomically(path, csv_text(rows))


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Write rows as a table with commas."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _open_alone(scratch: Path) -> BinaryIO:
    """Open a new file of that name, which no other process has open; wait for one that has."""
    while True:
        file = os.fdopen(os.open(scratch, os.O_RDWR | os.O_CREAT, 0o666), "wb")
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        # Whoever had it may have moved it to its place, or removed it, or may be about to.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), scratch.stat()):
                file.truncate()
                return file
        file.close()


def _cause(error: BaseException | None) -> OSError | None:
    """What the system said without a file's name (the disk is full), perhaps through torch."""
    while isinstance(error, RuntimeError):  # of torch's writer
        error = error.__context__
    return error if isinstance(error, OSError) and error.filename is None else None


@contextlib.contextmanager
def only_writer(folder: str | os.PathLike) -> Iterator[None]:
    """Hold a folder of results for one run; the system frees it when the process ends, however."""
    path = Path(folder, ".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{folder}: another run writes into this folder; wait for it, or name another"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
