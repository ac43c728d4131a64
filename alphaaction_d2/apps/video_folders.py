"""A folder of results for many videos, filled by any number of processes that may die at any time.

settings.json       what the results depend on besides the videos
<video>/            the results of one; it appears when all of them are in it
.<video>.partial/   what is being written, or what a killed process left
failed.csv          videos that could not be used, and why
results.parquet     the tables of all videos
.lock               every video has a byte of it, which whoever works on it holds
"""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ..data.video import one_line
from ..formats.names import file_name
from ..formats.writing import csv_text, write_atomically

SETTINGS, FAILED, TABLES = "settings.json", "failed.csv", "results.parquet"
MOST_DEATHS = 5  # of processes over one video, before it is left aside
_BEGUN = "begun"  # in a folder that is being written: a byte for each time that somebody began
_HEADER = ("name", "video", "reason")
_COLUMNS = {
    "video_id": pa.dictionary(pa.int32(), pa.string()),
    "timestamp": pa.float64(),
    **dict.fromkeys(("x1", "y1", "x2", "y2"), pa.float32()),
    "action_id": pa.int32(),
    "action_name": pa.dictionary(pa.int32(), pa.string()),
    "score": pa.float32(),
    "person_id": pa.int64(),
}
_GROUP_ROWS = 1 << 20  # rows of a Parquet file that are held at once


def claim_folder(folder: Path, settings: Mapping[str, object]) -> None:
    """Make a folder of results, or see that it was begun with the same settings; ValueError, naming
    one that differs, where it was not."""
    path = folder / SETTINGS

    def write(file: BinaryIO) -> None:
        if path.exists():  # here nobody else writes it
            raise FileExistsError(errno.EEXIST, "it is there", str(path))
        file.write(json.dumps(dict(settings), indent=1).encode())

    if not path.is_file():
        try:
            write_atomically(path, write)
        except FileExistsError:  # another process was faster: whose settings are compared
            pass
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        known = None
    if not isinstance(known, dict):
        raise ValueError(f"{path}: damaged, so nobody knows what made the results: remove {folder}")
    for key in sorted({*known, *settings}):
        old, new = known.get(key), json.loads(json.dumps(settings.get(key)))
        if old != new:
            raise ValueError(
                f"{folder}: begun with {key} {old!r}, not {new!r}: go on with that, or remove this "
                "folder"
            )


class VideoFolders:
    """The results of many videos; a video is finished when its folder is there."""

    def __init__(self, output: str | os.PathLike) -> None:
        """Take a folder, which is made as needed."""
        self.output = Path(output)
        self.output.mkdir(parents=True, exist_ok=True)
        # One file for all, and open for ever: closing it would free what this process holds.
        self._locks = (self.output / ".lock").open("ab")

    def place(self, name: str) -> Path:
        """Where the results of a video are, or would be."""
        return self.output / file_name(name, reserved=(SETTINGS, FAILED, TABLES))

    def is_finished(self, name: str) -> bool:
        return self.place(name).is_dir()

    def begin(self, name: str) -> Path | None:
        """Take a video: the folder to write into, or None where it is finished or another process
        has it; ValueError where too many have died of it."""
        if self.is_finished(name) or not self._lock(name, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return None
        scratch = self._scratch(name)
        if self.is_finished(name):  # by whoever had it until now
            self._lock(name, fcntl.LOCK_UN)
            return None
        scratch.mkdir(exist_ok=True)
        with (scratch / _BEGUN).open("ab") as file:
            if file.tell() >= MOST_DEATHS:
                self._lock(name, fcntl.LOCK_UN)
                raise ValueError(
                    f"{file.tell()} processes were killed, or failed, over it: remove {scratch} to "
                    "have it tried again"
                )
            file.write(b".")
        return scratch

    def was_begun(self, name: str) -> bool:
        """Whether somebody has it, or has died over it."""
        return (self._scratch(name) / _BEGUN).exists()

    def finish(self, name: str) -> None:
        """Put what was written into its place."""
        scratch = self._scratch(name)
        self._note(name)
        (scratch / _BEGUN).unlink()
        try:
            scratch.rename(self.place(name))
        except OSError:
            if not self.is_finished(name):  # by another one, on a file system without locks
                raise
        self.leave(name)

    def fail(self, name: str, video: str, reason: str) -> None:
        """Note that a video cannot be used, and why; the next run tries it again."""
        self._note(name, (_written(name), video, reason))

    def leave(self, name: str) -> None:
        """Give back a video that was begun, as if it had not been."""
        shutil.rmtree(self._scratch(name), ignore_errors=True)
        self._lock(name, fcntl.LOCK_UN)

    def failed(self) -> dict[str, tuple[str, ...]]:
        """Read failed.csv: rows (name, video, reason), by name."""
        try:
            text = (self.output / FAILED).read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        return {row[0]: tuple(row) for row in list(csv.reader(io.StringIO(text)))[1:] if row}

    def has_failed(self, name: str) -> bool:
        """Tell whether a video is in failed.csv."""
        return _written(name) in self.failed()

    def write_tables(self) -> Path:
        """Join the tables of all videos that are finished, in the order of their names."""
        return write_atomically(self.output / TABLES, self._join)

    def _join(self, file: BinaryIO) -> None:
        types = pa_csv.ConvertOptions(column_types=_COLUMNS)
        parse = pa_csv.ParseOptions(newlines_in_values=True)
        paths = [x for x in self.output.glob("*/results.csv") if not x.parent.name.startswith(".")]
        tables: list[pa.Table] = []
        with pq.ParquetWriter(file, pa.schema(_COLUMNS.items()), compression="zstd") as writer:
            for path in sorted(paths):
                tables.append(pa_csv.read_csv(path, convert_options=types, parse_options=parse))
                if sum(map(len, tables)) >= _GROUP_ROWS:
                    writer.write_table(pa.concat_tables(tables).unify_dictionaries())
                    tables.clear()
            if tables:
                writer.write_table(pa.concat_tables(tables).unify_dictionaries())

    def _scratch(self, name: str) -> Path:
        return self.output / f".{self.place(name).name}.partial"

    def _note(self, name: str, row: tuple[str, ...] = ()) -> None:
        """Put the row of a video into failed.csv, or take it out."""
        if not row and not self.has_failed(name):
            return

        def write(file: BinaryIO) -> None:
            rows = {**self.failed(), _written(name): row}  # read while nobody else writes
            text = csv_text([_HEADER, *(x for _, x in sorted(rows.items()) if x)])
            file.write(text.encode("utf-8", errors="replace"))

        write_atomically(self.output / FAILED, write)

    def _lock(self, name: str, how: int) -> bool:
        """Lock or free a video among processes; whether it is ours now."""
        digest = hashlib.sha256(name.encode("utf-8", errors="surrogatepass")).digest()
        try:
            fcntl.lockf(self._locks, how, 1, int.from_bytes(digest[:7], "big"))
        except OSError as error:  # else a file system without locks
            return error.errno not in (errno.EACCES, errno.EAGAIN)
        return True


def _written(name: str) -> str:
    """A name as a table in UTF-8 has it."""
    return one_line(name).encode("utf-8", errors="replace").decode()


def shard_of(name: str, number: int) -> int:
    """Which of a number of shards a video belongs to, by its name alone: others that come or go do
    not move it."""
    digest = hashlib.sha256(name.encode("utf-8", errors="surrogatepass")).digest()
    return int.from_bytes(digest[8:16], "big") % number
