"""AVA's file formats: label maps, exclusion lists, lists of videos, and CSV files of boxes.

This is the one module that knows how AVA's text files look. It is a leaf: numpy and pyarrow only.

A CSV has no header; coordinates are fractions of the frame's width and height. Three kinds of rows
share the first six columns:

=============  ============================================================
``kind``       columns
=============  ============================================================
annotations    video_id, timestamp, x1, y1, x2, y2, action_id[, person_id]
results        video_id, timestamp, x1, y1, x2, y2, action_id[, score]
boxes          video_id, timestamp, x1, y1, x2, y2, class, score[, person_id]
=============  ============================================================

Files are read by pyarrow. Only when something in them is wrong or unusual does a second, slower
pass look at every line: it either explains all bad rows in one report or reads what pyarrow could
not (rows of different lengths, say).
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import logging
import os
import re
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

__all__ = [
    "AVAFileError",
    "AVARows",
    "BadRows",
    "LabelMap",
    "check_rows",
    "clip_boxes",
    "concatenate_rows",
    "duplicates",
    "numbered_rows",
    "read_ava_csv",
    "read_exclusions",
    "read_label_map",
    "read_seconds",
    "read_video_list",
    "select_rows",
    "write_ava_results",
]

logger = logging.getLogger(__name__)

# label_type of AVA's own label map -> the short names that tables and configs use
_GROUP_NAMES = {
    "PERSON_MOVEMENT": "pose",
    "OBJECT_MANIPULATION": "object",
    "PERSON_INTERACTION": "person",
}

_BOX_COLUMNS = ("video_id", "timestamp", "x1", "y1", "x2", "y2")
# kind -> (names of all columns, how many of them every row must have)
_COLUMNS = {
    "annotations": ((*_BOX_COLUMNS, "action_id", "person_id"), 7),
    "results": ((*_BOX_COLUMNS, "action_id", "score"), 7),
    "boxes": ((*_BOX_COLUMNS, "class", "score", "person_id"), 8),
}
_MAX_OVERSHOOT = (
    0.05  # how far outside [0, 1] a coordinate is still a sloppy box and not a wrong unit
)
_MAX_REPORTED = 20
_MAX_ID = 1 << 16  # an action id takes a place in every network's output
_MAX_SECONDS = 10**7
_MAX_PERSON_ID = 2**53  # beyond it a double is no longer one whole number
_WRITE_CHUNK = 1 << 18  # rows formatted at a time: bounds the memory taken by text


class AVAFileError(ValueError):
    """A file that is not what it should be: file, line, column, value, and what was expected."""


class BadRows:
    """Collects what is wrong with a file's rows; keeps only as many texts as a report shows."""

    def __init__(self, path: str | os.PathLike, where: Callable[[int], str] | None = None):
        """
        Args:
            path: the file, for messages.
            where: from the number of a row to the text that says where it is; by default the
                numbers are lines.
        """
        self.count = 0
        self._where = where or (lambda line: f"{path}:{line}")
        self._shown: list[tuple[int, str]] = []

    def add(self, line: int, problem: str) -> None:
        """Adds one bad row; rows must come in the order of the file."""
        self.count += 1
        if self.count <= _MAX_REPORTED:
            self._shown.append((line, problem))

    def merge(self, other: list[tuple[int, str]], count: int) -> None:
        """Adds the first of ``count`` more bad rows, found by another check."""
        self.count += count
        self._shown = sorted(self._shown + other)[:_MAX_REPORTED]

    def raise_if_any(self) -> None:
        """Raises one report with a line of text per bad row."""
        if self.count:
            lines = [f"{self._where(line)}: {problem}" for line, problem in self._shown]
            if self.count > len(lines):
                lines.append(f"... and {self.count - len(lines)} more")
            raise AVAFileError("\n".join(lines))


@contextlib.contextmanager
def _open_text(path: str | os.PathLike) -> Iterator[IO[str]]:
    """Opens a UTF-8 text file, gzipped or not; what is no text raises :class:`AVAFileError`."""
    with open(path, "rb") as file:
        is_gzip = str(path).endswith(".gz") or file.read(2) == b"\x1f\x8b"
    binary = gzip.open(path, "rb") if is_gzip else open(path, "rb")
    with binary, io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as file:
        try:
            yield file
        except UnicodeDecodeError as error:
            raise AVAFileError(
                f"{path}: not a text file (expected UTF-8: {error.reason})"
            ) from None
        except gzip.BadGzipFile as error:
            raise AVAFileError(f"{path}: not a gzip file ({error})") from None
        except (EOFError, zlib.error) as error:
            raise AVAFileError(f"{path}: a damaged gzip file ({error})") from None


def numbered_rows(path: str | os.PathLike) -> Iterator[tuple[int, list[str]]]:
    """Yields ``(line number, cells)`` of the rows of a CSV that are not blank."""
    with _open_text(path) as file:
        reader = csv.reader(file)
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield reader.line_num, cells
        except csv.Error as error:
            raise AVAFileError(f"{path}:{reader.line_num}: not a CSV row ({error})") from None


# --------------------------------------------------------------------------------------- label maps


@dataclass(frozen=True)
class LabelMap:
    """Names and groups of the action classes.

    Attributes:
        names: action id (1-based, as in the files) -> class name.
        groups: action id -> group name in lower case ("pose", "object", "person" for AVA), "" where
            the file names none.
    """

    names: dict[int, str]
    groups: dict[int, str]

    @property
    def num_classes(self) -> int:
        """The highest action id: ids in between that have no name still take a place."""
        return max(self.names)


_LABEL_TOKEN = re.compile(
    r"""(?P<skip>\s+|\#[^\n]*|,|;)
      | (?P<open>(?:item|label)\s*\{)
      | (?P<close>\})
      | (?P<key>\w+)\s*:\s*(?P<value>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[^\s"'{};,]+)
    """,
    re.VERBOSE,
)

# what only the pbtxt form has: braces, or a key and a value in quotes
_LABEL_ENTRY = re.compile(r"""[{}]|^\s*\w+\s*:\s*["']""", re.MULTILINE)


def read_label_map(path: str | os.PathLike) -> LabelMap:
    """Reads a label map in either of AVA's text forms, or a plain list of names.

    Both ``item { name: "..." id: 1 }`` (the 60 classes that are evaluated) and ``label { name:
    "..." label_id: 1 label_type: ... }`` (all 80) are understood, whatever their indentation and
    line ends. A plain list has one name a line, in the order of the ids from 1 on; a line
    ``[pose]`` starts a group, and lines that begin with ``#`` are comments.

    Args:
        path: the file; its content tells which form it is in.

    Returns:
        The label map, in the order of the file.

    Raises:
        AVAFileError: with file and line, if the text is malformed, an entry has no name or id, an
            id or a name comes twice, an id is below 1, or there is no entry at all.
    """
    with _open_text(path) as file:
        text = file.read()
    if not _LABEL_ENTRY.search(text):
        return _read_plain_list(path, text)
    names: dict[int, str] = {}
    groups: dict[int, str] = {}
    entry: dict[str, str] | None = None
    entry_line = position = 0
    while position < len(text):
        token = _LABEL_TOKEN.match(text, position)
        line = text.count("\n", 0, position) + 1
        if token is None:
            rest = text[position:].splitlines()[0].strip()[:80]
            raise AVAFileError(
                f'{path}:{line}: {rest!r}: expected an entry like item {{ name: "run" id: 1 }}'
            )
        position = token.end()
        if token["skip"]:
            continue
        if token["open"]:
            if entry is not None:
                raise AVAFileError(
                    f"{path}:{line}: the entry of line {entry_line} is not closed with }}"
                )
            entry, entry_line = {}, line
        elif entry is None:
            raise AVAFileError(
                f"{path}:{line}: {token[0].strip()!r} stands outside of item {{ }} or label {{ }}"
            )
        elif token["close"]:
            _add_label(path, entry_line, entry, names, groups)
            entry = None
        else:
            key = "id" if token["key"] == "label_id" else token["key"]
            if key in entry:
                raise AVAFileError(
                    f"{path}:{line}: a second {token['key']} in the entry of line {entry_line}: "
                    "one entry for each class"
                )
            entry[key] = _unquoted(token["value"])
    if entry is not None:
        raise AVAFileError(f"{path}:{entry_line}: this entry is not closed with }}")
    if not names:
        raise AVAFileError(
            f'{path}: no classes found; expected entries like item {{ name: "run" id: 1 }}'
        )
    return LabelMap(names, groups)


def _read_plain_list(path: object, text: str) -> LabelMap:
    """A label map from one name a line, see :func:`read_label_map`."""
    names: dict[int, str] = {}
    groups: dict[int, str] = {}
    group = ""
    for line, content in enumerate(text.splitlines(), 1):
        content = content.strip()
        if not content or content.startswith("#"):
            continue
        if content.startswith("[") and content.endswith("]"):
            group = content[1:-1].strip()
        elif re.match(r"\d+\s*[,;:.\t ]", content) or content.isdigit():
            raise AVAFileError(
                f"{path}:{line}: {content[:80]!r}: expected names only, in the order of their ids, "
                'or entries like item { name: "run" id: 1 }'
            )
        else:
            entry = {"name": content, "id": str(len(names) + 1), "label_type": group}
            _add_label(path, line, entry, names, groups)
    if not names:
        raise AVAFileError(
            f'{path}: no classes found; expected entries like item {{ name: "run" id: 1 }}'
        )
    return LabelMap(names, groups)


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value[0] in "\"'" else value


def _add_label(
    path: object, line: int, entry: dict[str, str], names: dict[int, str], groups: dict[int, str]
) -> None:
    """Adds one entry of a label map to ``names`` and ``groups``."""
    for key, other in (("name", "name"), ("id", "id or label_id")):
        if not entry.get(key):
            raise AVAFileError(f"{path}:{line}: this entry has no {other}")
    try:
        action_id = int(entry["id"])
    except ValueError:
        action_id = 0
    if not 1 <= action_id <= _MAX_ID:
        raise AVAFileError(
            f"{path}:{line}: id {entry['id'][:80]!r}: expected a whole number from 1 on, "
            f"{_MAX_ID} at most"
        )
    if action_id in names:
        raise AVAFileError(
            f"{path}:{line}: id {action_id} is taken by {names[action_id]!r} already"
        )
    if entry["name"] in names.values():
        raise AVAFileError(f"{path}:{line}: name {entry['name']!r} is used twice")
    group = entry.get("label_type", "")
    names[action_id] = entry["name"]
    groups[action_id] = _GROUP_NAMES.get(group, group.lower())


# --------------------------------------------------------------------------------------- exclusions


def read_exclusions(path: str | os.PathLike) -> set[tuple[str, int]]:
    """Reads a list of frames that are left out of an evaluation: rows ``video_id,timestamp``.

    Args:
        path: a CSV file without header; it may be empty.

    Returns:
        The frames as (video id, second); ``902`` and ``0902`` are the same second.

    Raises:
        AVAFileError: naming every bad row.
    """
    excluded, bad_rows = set(), BadRows(path)
    for line, cells in numbered_rows(path):
        if len(cells) != 2 or not cells[0]:
            text = ",".join(cells)[:80]
            bad_rows.add(line, f"{text!r}: expected two columns, video_id,timestamp")
            continue
        second = _whole_seconds(cells[1])
        if second is None:
            bad_rows.add(line, f"column timestamp: {cells[1][:80]!r}: expected whole seconds")
        else:
            excluded.add((cells[0], second))
    bad_rows.raise_if_any()
    return excluded


def read_seconds(path: str | os.PathLike) -> list[int]:
    """Reads a list of seconds, one a line, as AVA's ``ava_included_timestamps``.

    Returns:
        The seconds in increasing order, each once.

    Raises:
        AVAFileError: naming every bad line.
    """
    seconds, bad_rows = set(), BadRows(path)
    for line, cells in numbered_rows(path):
        second = _whole_seconds(cells[0]) if len(cells) == 1 else None
        if second is None:
            bad_rows.add(line, f"{','.join(cells)[:80]!r}: expected whole seconds")
        else:
            seconds.add(second)
    bad_rows.raise_if_any()
    return sorted(seconds)


def _whole_seconds(text: str) -> int | None:
    try:
        second = int(text)
    except ValueError:
        return None
    return second if 0 <= second <= _MAX_SECONDS else None


def read_video_list(path: str | os.PathLike) -> list[str]:
    """Reads a list of videos, one a line: ids (AVA's ``ava_test``) or file names.

    Returns:
        The ids in the order of the file: without the extension where a name has that of a video.

    Raises:
        AVAFileError: naming every bad line; an id that comes twice is bad.
    """
    ids: dict[str, int] = {}
    bad_rows = BadRows(path)
    for line, cells in numbered_rows(path):
        name = cells[0].strip()
        if len(cells) != 1:
            bad_rows.add(line, f"{','.join(cells)[:80]!r}: expected one video a line")
            continue
        video_id = _VIDEO_EXTENSION.sub("", name)
        if video_id in ids:
            bad_rows.add(line, f"{name[:80]!r}: line {ids[video_id]} names this video already")
        ids.setdefault(video_id, line)
    bad_rows.raise_if_any()
    return list(ids)


_VIDEO_EXTENSION = re.compile(r"\.(mp4|mkv|webm|avi|mov|m4v|flv|wmv|mpe?g|ts|3gp|ogv)$", re.I)


# ------------------------------------------------------------------------------------ rows of boxes


@dataclass(frozen=True)
class AVARows:
    """The rows of a CSV as columns, in the order of the file (N rows).

    Attributes:
        videos: the distinct video ids.
        video_codes: (N,) int32, index into ``videos``.
        timestamps: (N,) float64, seconds; whole numbers normally.
        boxes: (N, 4) float64, x1 y1 x2 y2 as fractions of width and height: the doubles nearest to
            the decimal text.
        labels: (N,) int64. The action id; in files of boxes the index into ``class_names``; -1
            where the column is empty.
        scores: (N,) floating. 1.0 where the file has none. Of annotations: column 8 as a number
            (the person id) or 1.0, because that is what the official AVA evaluators take it for.
        person_ids: (N,) int64, -1 where unknown.
        class_names: the distinct words of the class column (files of boxes).
        empty_frames: (video id, timestamp) of rows that have these two columns only.
        has_scores: False if some row of a results file has no score.
        source: the file's name for messages, "" for rows made in memory.
    """

    videos: list[str]
    video_codes: np.ndarray
    timestamps: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    person_ids: np.ndarray
    class_names: Sequence[str] = ()
    empty_frames: Sequence[tuple[str, float]] = ()
    has_scores: bool = True
    source: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def video_ids(self) -> np.ndarray:
        """(N,) object array: the video id of every row."""
        return np.asarray(self.videos, dtype=object)[self.video_codes]


def select_rows(rows: AVARows, which: np.ndarray) -> AVARows:
    """The rows that a mask (N,) or an index (M,) names, in its order."""
    columns = ("video_codes", "timestamps", "boxes", "labels", "scores", "person_ids")
    return replace(rows, **{name: getattr(rows, name)[which] for name in columns})


def concatenate_rows(tables: Sequence[AVARows]) -> AVARows:
    """All rows of several tables, one after the other; videos and classes are merged by name."""
    if len(tables) == 1:
        return tables[0]
    videos: dict[str, int] = {}
    classes: dict[str, int] = {}
    video_codes, labels = [], []
    for rows in tables:
        new = [videos.setdefault(video, len(videos)) for video in rows.videos]
        video_codes.append(np.array(new, dtype=np.int32)[rows.video_codes])
        new = [classes.setdefault(name, len(classes)) for name in rows.class_names]
        named = bool(rows.class_names)
        # the last place is that of -1, the empty class
        labels.append(np.array([*new, -1], dtype=np.int64)[rows.labels] if named else rows.labels)
    return AVARows(
        videos=list(videos),
        video_codes=np.concatenate(video_codes),
        labels=np.concatenate(labels),
        class_names=list(classes),
        empty_frames=[frame for rows in tables for frame in rows.empty_frames],
        has_scores=all(rows.has_scores for rows in tables),
        source=", ".join(rows.source for rows in tables),
        **{
            name: np.concatenate([getattr(rows, name) for rows in tables])
            for name in ("timestamps", "boxes", "scores", "person_ids")
        },
    )


def duplicates(rows: AVARows) -> np.ndarray:
    """(N,) bool: rows that are equal, in every column, to one that comes before them."""
    columns = [
        *(rows.video_codes, rows.timestamps, *rows.boxes.T, rows.labels),
        *(rows.scores.astype(np.float64), rows.person_ids),
    ]
    # Sorting by all columns would take longer than reading the file; sorting by one number that
    # mixes them, and looking closely at those few that have it in common, does not.
    mixed = np.zeros(len(rows), dtype=np.uint64)
    for column in columns:
        bits = (column + 0).astype(np.result_type(column, np.int64)).view(np.uint64)  # -0.0 -> 0.0
        mixed = (mixed ^ bits) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    order = np.argsort(mixed, kind="stable")
    same = mixed[order][1:] == mixed[order][:-1]
    suspects = order[np.flatnonzero(np.append(same, False) | np.append(False, same))]
    # the file's order last: the first of equal rows comes first
    suspects = suspects[np.lexsort((suspects, *(column[suspects] for column in columns)))]
    equal = np.ones(max(len(suspects) - 1, 0), dtype=bool)
    for column in columns:
        equal &= column[suspects][1:] == column[suspects][:-1]
    found = np.zeros(len(rows), dtype=bool)
    found[suspects[1:][equal]] = True
    return found


def read_ava_csv(
    path: str | os.PathLike,
    kind: str = "annotations",
    *,
    check_boxes: bool = True,
    integer_timestamps: bool = False,
    allow_empty_frames: bool = False,
) -> AVARows:
    """Reads a CSV file of AVA's family; blank lines are ignored, ``.gz`` files are unpacked.

    Args:
        path: the file.
        kind: "annotations", "results" or "boxes"; see the module's table.
        check_boxes: demand what a data set should have: x1 < x2 and y1 < y2, coordinates in [0, 1]
            (an overshoot of up to 0.05 is clipped, with a warning that counts the boxes), action
            ids from 1 on, seconds from 0 on, finite scores, whole person ids. The official
            evaluators demand none of this; False reads what they would read, except for numbers
            that are NaN and boxes that are infinite.
        integer_timestamps: refuse ``902.0``, as most of the official evaluators do.
        allow_empty_frames: accept rows ``video_id,timestamp`` ("nothing on this frame"), see
            :attr:`AVARows.empty_frames`.

    Returns:
        The columns.

    Raises:
        AVAFileError: one line per bad row (file, line, column, value, what was expected), at most
            20 and the number of the others.
    """
    if kind not in _COLUMNS:
        raise ValueError(f"kind {kind!r}: expected one of {', '.join(_COLUMNS)}")
    rows = _read_fast(path, kind, integer_timestamps)
    if rows is None or not all(check.good.all() for check in _checks(rows, kind, check_boxes)):
        rows, lines, bad_rows = _read_slow(path, kind, integer_timestamps, allow_empty_frames)
        _add_failed_checks(bad_rows, lines, _checks(rows, kind, check_boxes))
        bad_rows.raise_if_any()
    return clip_boxes(rows) if check_boxes else rows


def check_rows(rows: AVARows, kind: str, bad_rows: BadRows) -> None:
    """Demands of rows that come from elsewhere what :func:`read_ava_csv` demands of a file's.

    Args:
        rows: with ``boxes`` as fractions.
        kind: see :func:`read_ava_csv`.
        bad_rows: what is wrong already; rows are counted from 0 on.

    Raises:
        AVAFileError: a line of text for each bad row.
    """
    _add_failed_checks(bad_rows, range(len(rows)), _checks(rows, kind, check_boxes=True))
    bad_rows.raise_if_any()


def _read_fast(path: str | os.PathLike, kind: str, integer_timestamps: bool) -> AVARows | None:
    """Reads with pyarrow; None if it can't, whatever the reason: the slow pass will find it."""
    first = next(numbered_rows(path), None)
    names, num_required = _COLUMNS[kind]
    if first is None or not num_required <= len(first[1]) <= len(names):
        return None
    names = names[: len(first[1])]
    word = pa.dictionary(pa.int32(), pa.string())
    types = {name: pa.float64() for name in names}
    types |= {"video_id": word, "class": word, "action_id": pa.int64()}
    if integer_timestamps:
        types["timestamp"] = pa.int64()
    try:
        table = pa_csv.read_csv(
            str(path),
            read_options=pa_csv.ReadOptions(column_names=names, block_size=1 << 22),
            # "" is the only missing value: pyarrow's own list would turn a "nan" into one silently
            convert_options=pa_csv.ConvertOptions(column_types=types, null_values=[""]),
        )
    except (pa.ArrowException, OSError):  # OSError: a damaged gzip file
        return None
    optional = {"class", "person_id"}
    if any(table[name].null_count for name in names if name not in optional):
        return None

    num_rows = table.num_rows
    columns = dict(zip(names, table.columns))
    del table  # each column is let go as soon as it has been copied: they are the peak of memory
    videos, video_codes = _decoded(columns.pop("video_id"))
    if "" in videos:
        return None
    boxes = np.empty((num_rows, 4))
    for i, name in enumerate(("x1", "y1", "x2", "y2")):
        boxes[:, i] = columns.pop(name).to_numpy()
    class_names: list[str] = []
    if "class" in names:
        class_names, labels = _without_empty(*_decoded(columns.pop("class")))
    else:
        labels = _numbers(columns.pop("action_id"))
    # a cell without a person id is empty and not "nan": that one must be reported
    has_persons = "person_id" in names
    person_numbers = _numbers(columns["person_id"]) if has_persons else None
    if has_persons and np.isnan(person_numbers).sum() != columns["person_id"].null_count:
        return None
    if kind == "annotations" and has_persons:
        scores = np.where(np.isnan(person_numbers), 1.0, person_numbers)
    else:
        scores = _numbers(columns.pop("score")) if "score" in names else np.ones(num_rows)
    person_ids = _whole_or_unknown(person_numbers) if has_persons else np.full(num_rows, -1)
    timestamps = _numbers(columns.pop("timestamp")).astype(np.float64, copy=False)
    columns.clear()
    pa.default_memory_pool().release_unused()  # else forked loaders carry it along
    return AVARows(
        videos=videos,
        video_codes=video_codes,
        timestamps=timestamps,
        boxes=boxes,
        labels=labels,
        scores=scores,
        person_ids=person_ids,
        class_names=class_names,
        has_scores=kind != "results" or "score" in names,
        source=str(path),
    )


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers as an array that may be written to; empty cells are NaN."""
    numbers = column.to_numpy()
    return numbers if numbers.flags.writeable else numbers.copy()


def _decoded(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """A dictionary-encoded column as (distinct words, (N,) int32 codes)."""
    column = column.unify_dictionaries()
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in column.chunks])
    return column.chunk(0).dictionary.to_pylist(), codes.astype(np.int32, copy=False)


def _without_empty(words: list[str], codes: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Takes the empty word out of ``words``; its rows get the code -1."""
    kept = [word for word in words if word]
    new_codes = np.array([kept.index(word) if word else -1 for word in words], dtype=np.int64)
    return kept, new_codes[codes] if words else codes.astype(np.int64)


def _whole_or_unknown(numbers: np.ndarray) -> np.ndarray:
    """float -> int64; -1 for NaN and for what is no whole number."""
    whole = (
        np.isfinite(numbers) & (np.floor(numbers) == numbers) & (np.abs(numbers) < _MAX_PERSON_ID)
    )
    return np.where(whole, numbers, -1).astype(np.int64)


class _BadCell(Exception):
    """A cell that can't be read; the arguments are the column, its text, and what was expected."""

    def __str__(self) -> str:
        column, text, expected = self.args
        return f"column {column}: {text[:80]!r}: expected {expected}"


def _number(column: str, text: str, kind: type = float) -> float | int:
    try:
        return kind(text)
    except ValueError:
        expected = "a number" if kind is float else "a whole number"
        raise _BadCell(column, text, expected) from None


def _read_slow(
    path: str | os.PathLike, kind: str, integer_timestamps: bool, allow_empty_frames: bool
) -> tuple[AVARows, array, BadRows]:
    """Reads line by line.

    Returns:
        The rows that could be read, their line numbers, and what is wrong with the others.
    """
    names, num_required = _COLUMNS[kind]
    names_text = ",".join(names[:num_required]) + "".join(
        f"[,{name}]" for name in names[num_required:]
    )
    videos: dict[str, int] = {}
    classes: dict[str, int] = {"": -1}
    empty_frames: list[tuple[str, float]] = []
    bad_rows = BadRows(path)
    has_scores = True
    # arrays of machine numbers: lists of tuples would take gigabytes for the files this must
    # survive
    lines, video_codes, labels = array("q"), array("q"), array("q")
    timestamps, boxes, scores, person_numbers = array("d"), array("d"), array("d"), array("d")
    for line, cells in numbered_rows(path):
        try:
            is_empty_frame = allow_empty_frames and len(cells) == 2
            if not (is_empty_frame or num_required <= len(cells) <= len(names)):
                bad_rows.add(line, f"{len(cells)} columns: expected {names_text}")
                continue
            if not cells[0]:
                raise _BadCell("video_id", "", "a video's name")
            timestamp = _number("timestamp", cells[1], int if integer_timestamps else float)
            if is_empty_frame:
                empty_frames.append((cells[0], float(timestamp)))
                continue
            box = [_number(name, text) for name, text in zip(_BOX_COLUMNS[2:], cells[2:6])]
            extra = dict(zip(names[6:], cells[6:]))
            if "class" in extra:
                label = classes.setdefault(extra["class"], len(classes) - 1)
            else:
                label = _number("action_id", extra["action_id"], int)
                if not -(2**63) <= label < 2**63:
                    raise _BadCell("action_id", extra["action_id"], "a smaller number")
            score = _number("score", extra["score"]) if "score" in extra else 1.0
            person = _number("person_id", extra["person_id"]) if extra.get("person_id") else None
            if person is not None and np.isnan(person):
                raise _BadCell("person_id", extra["person_id"], "a number")
        except _BadCell as problem:
            hint = (
                " (the file should have no header)"
                if line == 1 and cells[1:2] == ["timestamp"]
                else ""
            )
            bad_rows.add(line, f"{problem}{hint}")
            continue
        has_scores &= kind != "results" or "score" in extra
        lines.append(line)
        video_codes.append(videos.setdefault(cells[0], len(videos)))
        timestamps.append(timestamp)
        boxes.extend(box)
        labels.append(label)
        scores.append(
            1.0 if person is None else person
        ) if kind == "annotations" else scores.append(score)
        person_numbers.append(np.nan if person is None else person)
    rows = AVARows(
        videos=list(videos),
        video_codes=np.array(video_codes, dtype=np.int32),
        timestamps=np.array(timestamps, dtype=np.float64),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
        scores=np.array(scores, dtype=np.float64),
        person_ids=_whole_or_unknown(np.array(person_numbers, dtype=np.float64)),
        class_names=[word for word in classes if word],
        empty_frames=empty_frames,
        has_scores=has_scores,
        source=str(path),
    )
    return rows, lines, bad_rows


class _Check(NamedTuple):
    """One demand on one column of all rows."""

    good: np.ndarray  # (N,) bool
    column: str
    values: np.ndarray  # (N,)
    expected: str
    limits: np.ndarray | None = None  # (N,), shown after ``expected``


def _checks(rows: AVARows, kind: str, check_boxes: bool) -> Iterator[_Check]:
    """Yields what is demanded of the numbers of ``rows``, the most telling demands first."""
    coordinates = list(zip(_BOX_COLUMNS[2:], rows.boxes.T))
    x1, y1, x2, y2 = rows.boxes.T
    column8 = "person_id" if kind == "annotations" else "score"
    times, scores = rows.timestamps, rows.scores
    yield _Check(np.isfinite(times), "timestamp", times, "a finite number of seconds")
    for name, values in coordinates:
        yield _Check(np.isfinite(values), name, values, "a finite number")
    yield _Check(~np.isnan(scores), column8, scores, "a number")
    if not check_boxes:
        return

    good = (times >= 0) & (times <= _MAX_SECONDS)
    yield _Check(good, "timestamp", times, f"seconds from 0 on, {_MAX_SECONDS} at most")
    for name, values in coordinates:
        good = (values >= -_MAX_OVERSHOOT) & (values <= 1 + _MAX_OVERSHOOT)
        yield _Check(good, name, values, "a fraction of the frame's size, 0 to 1")
    # after clipping: a box just outside of the frame has nothing left
    yield _Check(x1.clip(0, 1) < x2.clip(0, 1), "x2", x2, "more than x1", x1)
    yield _Check(y1.clip(0, 1) < y2.clip(0, 1), "y2", y2, "more than y1", y1)
    if kind != "boxes":
        yield _Check(rows.labels >= 1, "action_id", rows.labels, "an action id from 1 on")
    if kind == "annotations":
        whole = (np.floor(scores) == scores) & (np.abs(scores) < _MAX_PERSON_ID)
        yield _Check(whole, column8, scores, "a whole number")
    yield _Check(np.isfinite(scores), column8, scores, "a finite number")


def _add_failed_checks(bad_rows: BadRows, lines: Sequence[int], checks: Iterator[_Check]) -> None:
    """Adds the rows that fail a check, each with the first check that it fails."""
    checks = list(checks)
    failed = np.full(len(lines), -1)
    for number, check in reversed(list(enumerate(checks))):
        failed[~check.good] = number
    rows = np.flatnonzero(failed >= 0)
    shown = []
    for row in rows[:_MAX_REPORTED].tolist():
        _, column, values, expected, limits = checks[failed[row]]
        limit = "" if limits is None else f" = {limits[row]:g}"
        text = f"column {column}: {values[row]:.12g}: expected {expected}{limit}"
        shown.append((lines[row], text))
    bad_rows.merge(shown, len(rows))


def clip_boxes(rows: AVARows) -> AVARows:
    """Clips the boxes to [0, 1], with a warning that counts the boxes if that changes any."""
    outside = ((rows.boxes < 0) | (rows.boxes > 1)).any(axis=1)
    if not outside.any():
        return rows
    overshoot = np.abs(rows.boxes - rows.boxes.clip(0, 1)).max()
    logger.warning(
        "%s: clipped %d boxes that reach outside of the frame (by at most %.3g of its size)",
        rows.source,
        outside.sum(),
        overshoot,
    )
    return replace(rows, boxes=rows.boxes.clip(0, 1))


# ------------------------------------------------------------------------------------------ writing


def write_ava_results(
    path: str | os.PathLike, rows: AVARows, *, decimals: int | None = None
) -> None:
    """Writes detections of actions: rows ``video_id,timestamp,x1,y1,x2,y2,action_id,score``.

    By default every number is written with the fewest digits that read back as the same number
    (``scores`` in their own precision, so float32 scores take at most 9 digits). Fixed decimals, as
    AlphAction (5) and PySlowFast (4) write them, make equal scores out of different ones, and the
    order of equal scores is what an average precision is least sure of: the file would evaluate to
    another number than the scores in memory.

    Whole seconds are written as ``%04d``; others as they are, which only the dialect official2020
    can read.

    Args:
        path: the file to write or replace; on failure the old one stays as it was.
        rows: the detections; ``videos``, ``video_codes``, ``timestamps``, ``boxes``, ``labels`` and
            ``scores`` are used.
        decimals: round boxes and scores to so many decimals first.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            _write_rows(file, rows, decimals)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_rows(file: IO[bytes], rows: AVARows, decimals: int | None) -> None:
    seconds, second_codes = np.unique(rows.timestamps, return_inverse=True)
    second_texts = pa.array([_timestamp_text(second) for second in seconds.tolist()], pa.string())
    videos = pa.array([_quoted(video) for video in rows.videos], pa.string())
    options = pa_csv.WriteOptions(include_header=False, quoting_style="none")
    needs_quotes = any('"' in video.as_py() for video in videos)
    writer = None
    for start in range(0, len(rows), _WRITE_CHUNK):
        part = slice(start, start + _WRITE_CHUNK)
        boxes, scores = rows.boxes[part], rows.scores[part]
        if decimals is not None:
            boxes, scores = boxes.round(decimals), scores.round(decimals)
        columns = {
            "video_id": videos.take(pa.array(rows.video_codes[part])),
            "timestamp": second_texts.take(pa.array(second_codes[part])),
            **{name: pa.array(boxes[:, i].copy()) for i, name in enumerate(_BOX_COLUMNS[2:])},
            "action_id": pa.array(rows.labels[part]),
            "score": pa.array(scores),
        }
        table = pa.table(columns)
        if needs_quotes:  # pyarrow quotes all text or none
            lines = zip(*(column.to_pylist() for column in table.columns))
            file.writelines((",".join(map(str, line)) + "\n").encode() for line in lines)
            continue
        writer = writer or pa_csv.CSVWriter(file, table.schema, write_options=options)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _timestamp_text(seconds: float) -> str:
    return f"{int(seconds):04d}" if seconds == int(seconds) else f"{seconds:.6f}"


def _quoted(text: str) -> str:
    """A cell as CSV wants it: names with commas, quotes or line breaks go between quotes."""
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",\r\n]', text) else text
