"""AVA's file formats: exclusion lists, lists of videos, and CSV files of boxes.

This is the one module that knows what the columns of AVA's text files are. A CSV has no header, or
one that names these columns (see `dialects`) in any order; coordinates are fractions of the frame's
width and height. Three kinds of rows share the first six columns:

=============  ============================================================
`kind`         columns
=============  ============================================================
annotations    video_id, timestamp, x1, y1, x2, y2, action_id[, person_id]; in a data set
               an action_id that is empty or -1 is a person who does nothing of the list,
               and a row without box a keyframe with nobody
results        video_id, timestamp, x1, y1, x2, y2, action_id[, score]
boxes          video_id, timestamp, x1, y1, x2, y2, class, score[, person_id]
=============  ============================================================
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from .dialects import HEAD, find_dialect
from .label_map import LabelMap
from .tables import (
    Check,
    Column,
    Findings,
    Table,
    find_encoding,
    not_nan,
    numbered_rows,
    open_text,
    passing,
    read_table,
    strict,
)
from .writing import write_atomically

_BOX = ("x1", "y1", "x2", "y2")
_MAX_OVERSHOOT = 0.05  # outside [0, 1] by so much is still a sloppy box and not a wrong unit
_MAX_SECONDS = 10**7
NOTHING = -1  # the action of a person who does nothing of the list
_MAX_PERSON_ID = 2**53  # beyond it a double is no longer one whole number
_WRITE_CHUNK = 1 << 18  # rows formatted at a time: bounds the memory taken by text


# ---------------------------------------------------------------------------------------- lists


def _is_second(number: Any) -> Any:
    return (0 <= number) & (number <= _MAX_SECONDS)


_VIDEO = Column("video_id", str, bool, "a video's name")
_SECOND = Column("timestamp", int, _is_second, "whole seconds")
# pandas writes whole seconds with a point
_WHOLE = replace(_SECOND, kind=float, is_good=lambda x: _is_second(x) & (np.floor(x) == x))
_KEYFRAME = (_VIDEO, _WHOLE)
_VIDEO_EXTENSION = re.compile(r"\.(mp4|mkv|webm|avi|mov|m4v|flv|wmv|mpe?g|ts|3gp|ogv)$", re.I)


def read_exclusions(path: str | os.PathLike) -> set[tuple[str, int]]:
    """Read a list of frames that are left out of an evaluation: rows `video_id,timestamp`.

    Raises:
        DataFileError: naming every bad row.
    """
    table = read_table(path, _KEYFRAME)
    columns = strict((table.columns, table.findings))
    videos, codes = table.words["video_id"], columns["video_id"].tolist()
    seconds = columns["timestamp"].astype(np.int64).tolist()
    return set(zip([videos[code] for code in codes], seconds))


def lists_keyframes(path: str | os.PathLike) -> bool:
    """Tell by its first rows whether a table has videos and whole seconds, and nothing else."""
    try:
        with open_text(path, find_encoding(path, whole=False)[0]) as file:
            dialect = find_dialect(file.read(HEAD), False, _KEYFRAME, has_header=False)
        rows = [cells for _, cells in itertools.islice(numbered_rows(path, dialect), 100)]
    except (OSError, ValueError):  # whoever reads it says what is wrong
        return False
    return bool(rows) and all(
        len(cells) == 2 and re.fullmatch(r"\d+([.,]0*)?", cells[1].strip()) for cells in rows
    )


def read_seconds(path: str | os.PathLike) -> list[int]:
    """Read the seconds of a list, one a line (AVA's `ava_included_timestamps`), in order, once.

    Raises:
        DataFileError: naming every bad line.
    """
    table = read_table(path, (_SECOND,))
    return sorted(set(strict((table.columns, table.findings))["timestamp"].tolist()))


def read_video_list(path: str | os.PathLike) -> list[str]:
    """Read the ids of a list of videos, one a line: ids (AVA's `ava_test`) or names of files.

    Raises:
        DataFileError: naming every bad line; an id that comes twice is bad.
    """
    table = read_table(path, (Column("video", str),))
    names = [table.words["video"][code].strip() for code in table.columns["video"].tolist()]
    first: dict[str, int] = {}  # where an id comes first
    again = []
    for row, name in enumerate(names):
        video_id = _VIDEO_EXTENSION.sub("", name)
        if first.setdefault(video_id, row) != row:
            again.append((row, first[video_id]))
    lines = table.lines(np.arange(len(names))) if again else []
    for i, j in again:
        what = f"{names[i][:80]!r}: line {lines[j]} names this video already"
        table.findings.bad_row(lines[i], what)
    return strict((list(first), table.findings))


# -------------------------------------------------------------------------------- rows of boxes


@dataclass(frozen=True)
class AVARows:
    """The rows of a CSV as columns, in the order of the file (N rows)."""

    videos: list[str]  # the distinct ids
    video_codes: np.ndarray  # (N,) int32, index into `videos`
    timestamps: np.ndarray  # (N,) float64, seconds; whole numbers normally
    # (N, 4) float64, x1 y1 x2 y2 as fractions of the picture: the doubles nearest to the text.
    boxes: np.ndarray
    # (N,) int64. The action id, -1 of a person who does nothing of the list; of boxes the index
    # into `class_names`, -1 where the column is empty.
    labels: np.ndarray
    # (N,) floating. 1.0 where the file has none. Of annotations: column 8 as a number (the person
    # id) or 1.0, because that is what the official AVA evaluators take it for.
    scores: np.ndarray
    person_ids: np.ndarray  # (N,) int64, -1 where unknown
    class_names: Sequence[str] = ()  # the distinct words of the class column (files of boxes)
    empty_frames: Sequence[tuple[str, float]] = ()  # rows of a video and a time only
    has_scores: bool = True  # False if some row of a results file has none
    source: str = ""  # the file's name for messages

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def video_ids(self) -> np.ndarray:
        """(N,) object array: the video id of every row."""
        return np.asarray(self.videos, dtype=object)[self.video_codes]


_COLUMNS = ("video_codes", "timestamps", "boxes", "labels", "scores", "person_ids")


def select_rows(rows: AVARows, which: np.ndarray) -> AVARows:
    """Take the rows that a mask (N,) or an index (M,) names, in its order."""
    return replace(rows, **{name: getattr(rows, name)[which] for name in _COLUMNS})


def rename_videos(rows: AVARows, renamed: Mapping[str, str]) -> AVARows:
    """Call videos otherwise, those that `renamed` names; several may get one name."""
    if not set(renamed).intersection(rows.videos) and not rows.empty_frames:
        return rows
    names = [renamed.get(video, video) for video in rows.videos]
    places = {name: i for i, name in enumerate(dict.fromkeys(names))}
    codes = np.array([places[name] for name in names], dtype=np.int32)
    return replace(
        rows,
        videos=list(places),
        video_codes=codes[rows.video_codes] if names else rows.video_codes,
        empty_frames=[(renamed.get(video, video), time) for video, time in rows.empty_frames],
    )


def concatenate_rows(tables: Sequence[AVARows]) -> AVARows:
    """Put all rows of several tables one after the other; videos and classes are merged by name."""
    if len(tables) == 1:
        return tables[0]
    videos: dict[str, int] = {}
    classes: dict[str, int] = {}
    parts = []
    for rows in tables:
        new = [videos.setdefault(video, len(videos)) for video in rows.videos]
        part = {name: getattr(rows, name) for name in _COLUMNS}
        part["video_codes"] = np.array(new, dtype=np.int32)[rows.video_codes]
        if rows.class_names:  # the last place is that of -1, the empty class
            new = [classes.setdefault(name, len(classes)) for name in rows.class_names]
            part["labels"] = np.array([*new, -1], dtype=np.int64)[rows.labels]
        parts.append(part)
    if not parts:
        none, numbers = np.zeros(0, np.int64), np.zeros(0)
        codes = none.astype(np.int32)
        parts = [dict(zip(_COLUMNS, (codes, numbers, np.zeros((0, 4)), none, numbers, none)))]
    return AVARows(
        videos=list(videos),
        **{name: np.concatenate([part[name] for part in parts]) for name in _COLUMNS},
        class_names=list(classes),
        empty_frames=[frame for rows in tables for frame in rows.empty_frames],
        has_scores=all(rows.has_scores for rows in tables),
        source=", ".join(rows.source for rows in tables),
    )


def duplicates(rows: AVARows) -> np.ndarray:
    """Find, (N,) bool, the rows that are equal in every column to one that comes before them."""
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


# ------------------------------------------------------------------------------------ reading CSV


def read_ava_csv(
    path: str | os.PathLike,
    kind: str = "annotations",
    *,
    check_boxes: bool = True,
    integer_timestamps: bool = False,
    allow_empty_frames: bool = False,
    label_map: LabelMap | None = None,
) -> AVARows:
    """Read a CSV file of AVA's family.

    Args:
        kind: "annotations", "results" or "boxes"; see the module's table.
        check_boxes: demand what a data set should have: x1 < x2 and y1 < y2, coordinates in [0, 1]
            (an overshoot of up to 0.05 is clipped, with a warning that counts the boxes), action
            ids from 1 on, seconds from 0 on, finite scores, person ids that are whole or text; and
            read action ids as `2.0` or names, too. The official evaluators demand none of this;
            False reads what they would read, except for numbers that are NaN and boxes that are
            infinite.
        integer_timestamps: refuse `902.0`, as most of the official evaluators do.
        allow_empty_frames: accept rows `video_id,timestamp` ("nothing on this frame"), see
            `AVARows.empty_frames`.
        label_map: says which ids the names of classes stand for.

    Raises:
        DataFileError: one line per bad row (file, line, column, value, what was expected), at most
            20 and the number of the others.
    """
    if check_boxes:
        columns = _columns(kind, label_map)
    else:
        columns = [replace(column, read=None) for column in _columns(kind)]
        if kind == "annotations":  # whose column 8 the evaluators take for a score
            columns[-1] = Column("person_id", is_good=not_nan, required=False, may_be_empty=True)
    if integer_timestamps:
        columns[1] = Column("timestamp", int)
    table = read_table(path, columns, stub_length=2 if allow_empty_frames else 0)
    return strict(_checked(table, kind, check_boxes))


def scan_ava_csv(
    path: str | os.PathLike, kind: str = "annotations", label_map: LabelMap | None = None
) -> tuple[AVARows, Findings]:
    """Read the good rows of a data set's CSV, and say what is wrong with the others."""
    stub_length = 2 if kind == "annotations" else 0
    table = read_table(path, _columns(kind, label_map), stub_length=stub_length)
    return _checked(table, kind, check_boxes=True)


def _columns(kind: str, label_map: LabelMap | None = None) -> list[Column]:
    score = Column("score", is_good=not_nan)
    is_good = float.is_integer if kind == "annotations" else not_nan
    person = Column(
        *("person_id", str, lambda x: (number := _number_of(x)) is None or is_good(number)),
        expected="a whole number or text",
        required=False,
    )
    ids = {} if label_map is None else {name.lower(): i for i, name in label_map.names.items()}
    expected = "a whole number" + (" or a name of the label map" if ids else "")
    if kind == "annotations":
        ids[""] = NOTHING
    action = Column("action_id", int, read=functools.partial(_action_id, ids), expected=expected)
    endings = {
        "annotations": (action, person),
        "results": (action, replace(score, required=False)),
        "boxes": (Column("class", str, may_lack=True), replace(score, may_lack=True), person),
    }
    if kind not in endings:
        raise ValueError(f"kind {kind!r}: expected one of {', '.join(endings)}")
    return [_VIDEO, Column("timestamp"), *map(Column, _BOX), *endings[kind]]


def _action_id(ids: Mapping[str, int], text: str) -> int:
    """Read an action id: a whole number, also as `2.0`, or a word of `ids`, in lower case."""
    text = text.strip()
    if re.fullmatch(r"[+-]?\d+(\.0*)?", text):
        return int(text.partition(".")[0])
    if text.lower() in ids:
        return ids[text.lower()]
    raise ValueError


def _number_of(text: str) -> float | None:
    """The number that a text is; None for any other text."""
    try:
        return float(text)
    except ValueError:
        return None


def _person_ids(words: Sequence[str], codes: np.ndarray, videos: np.ndarray) -> np.ndarray:
    """Give persons numbers, (N,) int64, -1 where there is no word (or a fraction).

    Whole numbers below 2**53 stand for themselves. Any other word gets, within its video, a number
    beyond all these, in the order of the alphabet.

    Args:
        words: as the file has them.
        codes, videos: (N,) the place of each row's word, and its video's number.
    """
    numbers = [_number_of(word) for word in words]
    # what stands for no number is infinite
    known = np.array([math.inf if x is None else x for x in numbers], np.float64)
    is_text = np.array([bool(x.strip()) for x in words], bool) & (np.abs(known) >= _MAX_PERSON_ID)
    ids = _whole_or_unknown(known)[codes] if len(words) else np.full(len(codes), -1)
    rows = np.flatnonzero(is_text[codes]) if is_text.any() else ()
    if not len(rows):
        return ids
    order = np.argsort(np.argsort(np.array(words, dtype=object)))  # places in the alphabet
    pairs = np.stack([videos[rows], order[codes[rows]]], axis=1)
    named, place = np.unique(pairs, axis=0, return_inverse=True)
    # the n-th name of a video comes after the largest number in it
    largest = np.zeros(videos.max() + 1, np.int64)
    np.maximum.at(largest, videos, ids)
    first = np.searchsorted(named[:, 0], named[:, 0])
    ids[rows] = (largest[named[:, 0]] + 1 + np.arange(len(named)) - first)[place.reshape(-1)]
    return ids


def _checked(table: Table, kind: str, check_boxes: bool) -> tuple[AVARows, Findings]:
    rows = _as_rows(table, kind)
    rows = good_rows(rows, kind, table.findings, table.lines, check_boxes=check_boxes)
    return (clipped(rows, table.findings) if check_boxes else rows), table.findings


def _as_rows(table: Table, kind: str) -> AVARows:
    """Make rows of a table, which loses its columns: they are the peak of memory."""
    columns, num_rows = table.columns, len(table.columns["video_id"])
    boxes = np.empty((num_rows, 4))
    for i, name in enumerate(_BOX):
        boxes[:, i] = columns.pop(name)
    class_names: list[str] = []
    scores = columns.pop("score", None)
    if kind == "boxes":
        words, codes = table.words.get("class", [""]), columns.pop("class", None)
        if codes is None:  # a header without classes: persons
            codes = np.zeros(num_rows, np.int32)
            if "action_id" in table.dialect.unread:  # of a file of results, scores are of actions
                scores = None
        class_names = list(filter(None, words))
        places = {word: i for i, word in enumerate(class_names)}
        # the empty word is no class; without rows there are no words
        labels = np.array([places.get(word, -1) for word in words or [""]], dtype=np.int64)[codes]
    else:
        labels = columns.pop("action_id")
    empty_frames = [(video, float(time)) for video, time in table.stubs]
    persons, ids = columns.pop("person_id", None), np.full(num_rows, -1)
    if persons is not None and "person_id" in table.words:
        words = table.words["person_id"]
        ids = _person_ids(words, persons, columns["video_id"])
        persons = np.where(np.array([*map(bool, words)], bool)[persons], ids, math.nan)
    elif persons is not None:
        ids = _whole_or_unknown(persons)
    if kind == "annotations" and persons is not None:
        scores = persons
    missing = np.full(num_rows, True) if scores is None else np.isnan(scores)
    if scores is None or missing.any():
        scores = np.where(missing, 1.0, 0.0 if scores is None else scores)
    return AVARows(
        videos=list(dict.fromkeys([*table.words["video_id"], *(v for v, _ in empty_frames)])),
        video_codes=columns.pop("video_id"),
        timestamps=columns.pop("timestamp").astype(np.float64, copy=False),
        boxes=boxes,
        labels=labels,
        scores=scores,
        person_ids=ids,
        class_names=class_names,
        empty_frames=empty_frames,
        has_scores=kind != "results" or not missing.any(),
        source=str(table.findings.path),
    )


def _whole_or_unknown(numbers: np.ndarray) -> np.ndarray:
    """float -> int64; -1 for NaN and for what is no whole number."""
    return np.where(_is_id(numbers), numbers, -1).astype(np.int64)


def _is_id(numbers: np.ndarray) -> np.ndarray:
    return (np.floor(numbers) == numbers) & (np.abs(numbers) < _MAX_PERSON_ID)


def good_rows(
    rows: AVARows,
    kind: str,
    findings: Findings,
    numbers: Callable[[np.ndarray], Sequence[int]],
    *,
    check_boxes: bool = True,
) -> AVARows:
    """Leave out rows that are not what `read_ava_csv` demands of a file's; `findings` get them.

    Args:
        rows: with `boxes` as fractions.
        numbers: see `passing`.
    """
    # most files are good: one demand after the other, not all at once in memory
    if all(check.good.all() for check in _checks(rows, kind, check_boxes)):
        return rows
    return select_rows(rows, passing(_checks(rows, kind, check_boxes), findings, numbers))


def _checks(rows: AVARows, kind: str, check_boxes: bool) -> Iterator[Check]:
    """Yield what is demanded of the numbers of `rows`, the most telling demands first."""
    coordinates = list(zip(_BOX, rows.boxes.T))
    x1, y1, x2, y2 = rows.boxes.T
    times, scores = rows.timestamps, rows.scores
    yield Check(np.isfinite(times), "timestamp", times, "a finite number of seconds")
    for name, values in coordinates:
        yield Check(np.isfinite(values), name, values, "a finite number")
    if not check_boxes:
        return

    expected = f"seconds from 0 on, {_MAX_SECONDS} at most"
    yield Check(_is_second(times), "timestamp", times, expected)
    for name, values in coordinates:
        good = (values >= -_MAX_OVERSHOOT) & (values <= 1 + _MAX_OVERSHOOT)
        yield Check(good, name, values, "a fraction of the frame's size, 0 to 1")
    # after clipping: a box just outside of the frame has nothing left
    yield Check(x1.clip(0, 1) < x2.clip(0, 1), "x2", x2, "more than x1", x1)
    yield Check(y1.clip(0, 1) < y2.clip(0, 1), "y2", y2, "more than y1", y1)
    if kind != "boxes":
        good = rows.labels >= 1
        if kind == "annotations":
            good |= rows.labels == NOTHING
        yield Check(good, "action_id", rows.labels, "an action id from 1 on")
    if kind == "annotations":  # whose scores are what column 8 says
        yield Check(_is_id(scores), "person_id", scores, "a whole number")
    else:
        yield Check(np.isfinite(scores), "score", scores, "a finite number")


def clipped(rows: AVARows, findings: Findings) -> AVARows:
    """Clip the boxes to [0, 1], with a note that counts the boxes if that changes any."""
    outside = ((rows.boxes < 0) | (rows.boxes > 1)).any(axis=1)
    if not outside.any():
        return rows
    boxes = rows.boxes.clip(0, 1)
    most = f"{np.abs(rows.boxes - boxes).max():.3g}"
    what = f"clipped {outside.sum()} boxes that reach outside of the frame (by at most"
    findings.note(f"{what} {most} of its size)")
    return replace(rows, boxes=boxes)


# ------------------------------------------------------------------------------------------ writing


def write_ava_results(path: str | os.PathLike, rows: AVARows) -> None:
    """Write detections of actions: rows `video_id,timestamp,x1,y1,x2,y2,action_id,score`.

    Every number is written with the fewest digits that read back as the same number (`scores` in
    their own precision, so float32 scores take at most 9 digits). Fixed decimals, as AlphAction (5)
    and PySlowFast (4) write them, make equal scores out of different ones, and the order of equal
    scores is what an average precision is least sure of: the file would evaluate to another number
    than the scores in memory.

    Whole seconds are written as `%04d`; others as they are, which only the protocol official2020
    can read.
    """
    write_atomically(path, lambda file: _write_rows(file, rows))


def _write_rows(file: IO[bytes], rows: AVARows) -> None:
    seconds, second_codes = np.unique(rows.timestamps, return_inverse=True)
    texts = [f"{int(x):04d}" if x == int(x) else f"{x:.6f}" for x in seconds.tolist()]
    second_texts = pa.array(texts, pa.string())
    names = [_quoted(video) for video in rows.videos]
    videos, needs_quotes = pa.array(names, pa.string()), any('"' in name for name in names)
    options = pa_csv.WriteOptions(include_header=False, quoting_style="none")
    writer = None
    for start in range(0, len(rows), _WRITE_CHUNK):
        part = slice(start, start + _WRITE_CHUNK)
        columns = {
            "video_id": videos.take(pa.array(rows.video_codes[part])),
            "timestamp": second_texts.take(pa.array(second_codes[part])),
            **{name: pa.array(rows.boxes[part, i].copy()) for i, name in enumerate(_BOX)},
            "action_id": pa.array(rows.labels[part]),
            "score": pa.array(rows.scores[part]),
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


def _quoted(text: str) -> str:
    """Write a cell as CSV wants it: names with commas, quotes or line breaks go between quotes."""
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",\r\n]', text) else text
