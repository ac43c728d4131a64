"""How a table is written: its encoding, what separates cells, decimal commas, a header line.

All of it is seen in the first lines of a file. A table of commas, points and UTF-8 without a header
is what is expected; anything else must read better to be taken.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from .tables import Column

HEAD = 1 << 16  # bytes that show how a file is written
_NUM_ROWS = 100  # of the head that are looked at
_MAX_NAMES = 1000  # columns of a header
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16 does
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROL = bytes(x for x in range(32) if x not in b"\t\n\f\r\x1a")  # bytes that no text has
# (separator, decimal point) in the order of preference
_WRITINGS = tuple((x[0], x[1]) for x in (",.", ";.", ";,", "\t.", "\t,", "|.", "|,", " .", ",,"))
# What else a header may call a column; the first that is there counts.
_SYNONYMS = {
    f"{axis}{i}": [
        *(f"{axis}_{i}", f"{axis}{end}", f"{axis}_{end}", f"{end}{axis}", f"{end}_{axis}", side),
        *(f"{what}_{axis}{i}" for what in ("box", "bbox", "entity_box", "person_box")),
    ]
    for (axis, i), end, side in (
        *(("x1", "min", "left"), ("y1", "min", "top")),
        *(("x2", "max", "right"), ("y2", "max", "bottom")),
    )
}
_SYNONYMS |= {
    name: known.split()
    for name, known in {
        "video_id": "video video_name videoid vid file_name filename file video_file clip",
        "video": "video_id video_name videoid vid file_name filename",
        "timestamp": "frame_timestamp second seconds sec time time_s time_sec timestamp_s "
        "timestamp_sec middle_frame_timestamp keyframe",
        "frame": "frame_id frame_number frame_index frame_no",
        "action_id": "label_id class_id category_id action_label action label class category "
        "action_name label_name class_name activity",
        "class": "class_name category label object class_id category_id category_name",
        "person_id": "entity_id track_id track person identity id_person object_id tracking_id "
        "actor_id actor",
        "score": "confidence conf probability prob",
    }.items()
}
_SIZES = ("w", "h", "width", "height", "box_w", "box_h", "bbox_w", "bbox_h")


@dataclass(frozen=True)
class Dialect:
    """How a table is written."""

    encoding: str = "utf-8-sig"  # a codec of Python
    delimiter: str = ","  # between cells
    decimal: str = "."  # between the whole part of a number and the rest
    skip: int = 0  # lines before the first row
    # Where the columns stand in a row, by name; None: in the order that is expected.
    places: dict[str, int] | None = None
    num_cells: int = 0  # of every row; 0 without names
    unread: tuple[str, ...] = ()  # what the header calls the other columns, in lower case
    notes: tuple[str, ...] = ()  # what was guessed


def text_encoding(file: IO[bytes], whole: bool = True) -> tuple[str, str]:
    """Find the codec of a text, by all of it or its head, and what to tell of it if it is a guess.

    What is no text is a UnicodeDecodeError.
    """
    chunk = file.read(HEAD)
    for bom, name in _BOMS:
        if chunk.startswith(bom):
            return name, ""
    zeros = [chunk[i::2].count(0) for i in (0, 1)]  # UTF-16 without a mark: every other byte is 0
    if min(zeros) == 0 and max(zeros) > len(chunk) // 5:
        return ("utf-16-be" if zeros[0] else "utf-16-le"), ""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while chunk:
            decoder.decode(chunk)
            last, chunk = chunk, file.read(1 << 20) if whole else b""
            if whole and not chunk:
                decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        data = chunk or last
        if data.translate(None, _CONTROL) != data:
            raise error
        # the five bytes that Windows' own codec does not have
        name = "latin-1" if re.search(rb"[\x81\x8d\x8f\x90\x9d]", data) else "cp1252"
        return name, f"is not UTF-8 ({error.reason}): read as {name}"
    return "utf-8-sig", ""


def find_dialect(
    head: str, line_ends: bool, columns: Sequence[Column], has_header: bool, stub_length: int = 0
) -> Dialect:
    """See how a table is written.

    Args:
        head: its first lines; all of it if `line_ends`, else the last line may be cut off.
        columns, has_header, stub_length: see `read_table`.

    Raises:
        ValueError: there is a header, and a column that is needed is not in it.
    """
    lines = head.splitlines(keepends=True)
    if not line_ends and len(lines) > 1:
        lines.pop()
    said = re.fullmatch(r"sep=([,;|\t])\s*", lines[0]) if lines else None  # Excel's own mark
    start = 1 if said else 0
    best, most = Dialect(skip=start), (-1, -1)
    for delimiter, decimal in _WRITINGS:
        if delimiter != said[1] if said else delimiter != "," and len(columns) == 1:
            continue
        rows = _rows(lines, delimiter, start)
        if not rows:
            continue
        dialect = _with_header(rows, Dialect("", delimiter, decimal, start), columns, has_header)
        body = [cells for line, cells in rows if line > dialect.skip]
        fit = [_fits(cells, dialect, columns, stub_length) for cells in body]
        # a file with nothing but a header shows by its names how it is written
        found = sum(x == 2 for x in fit) + (bool(dialect.places) and not body), sum(map(bool, fit))
        if delimiter == " " and found[0] < len(body):
            continue  # words in a row: anything
        if found > most:
            best, most = dialect, found
        if found[0] == len(body):
            break
    return best


def _rows(lines: list[str], delimiter: str, start: int) -> list[tuple[int, list[str]]]:
    reader = csv.reader(itertools.islice(lines, start, None), delimiter=delimiter)
    found: list[tuple[int, list[str]]] = []
    with contextlib.suppress(csv.Error):  # told by who reads all rows
        for cells in reader:
            if any(cell.strip() for cell in cells) and len(found) < _NUM_ROWS:
                found.append((reader.line_num + start, cells))
    return found


def _fits(cells: list[str], dialect: Dialect, columns: Sequence[Column], stub_length: int) -> int:
    """0: a row of another length; 1: some of its numbers are none; 2: all are."""
    if dialect.places is None:
        if len(cells) == stub_length:
            return 2
        if not sum(column.required for column in columns) <= len(cells) <= len(columns):
            return 0
    elif len(cells) != dialect.num_cells:
        return 0
    numbers = _number_cells(cells, dialect.places, columns)
    return 2 if all(_is_number(cell, dialect.decimal) for cell in numbers) else 1


def _number_cells(
    cells: list[str], places: dict[str, int] | None, columns: Sequence[Column]
) -> list[str]:
    """The cells of a row that have to be numbers."""
    wanted = [
        i if places is None else places.get(column.name, len(cells))
        for i, column in enumerate(columns)
        if column.kind is not str and column.read is None and column.required
    ]
    return [cells[i] for i in wanted if i < len(cells)]


def _is_number(cell: str, decimal: str) -> bool:
    with contextlib.suppress(ValueError):
        float(cell.replace(decimal, "."))
        return True
    return False


def _with_header(
    rows: list[tuple[int, list[str]]], dialect: Dialect, columns: Sequence[Column], required: bool
) -> Dialect:
    """Add what the header says, if the first row is one."""
    line, first = rows[0]
    if len(first) > _MAX_NAMES:
        return dialect
    names = [re.sub(r"[^a-z0-9]+", "_", cell.strip().lower()).strip("_") for cell in first]
    places: dict[str, int] = {}
    for column in columns:
        known = [column.name, *_SYNONYMS.get(column.name, ())]
        place = next((names.index(name) for name in known if name in names), None)
        if place is not None and place not in places.values():
            places[column.name] = place
    missing = [c.name for c in columns if c.required and not c.may_lack and c.name not in places]
    if not missing and (required or len(columns) > 1):
        unread = tuple(name for i, name in enumerate(names) if i not in places.values())
        notes = (f"columns that are not read: {', '.join(unread)[:200]}",) if unread else ()
        found = replace(dialect, skip=line, places=places, num_cells=len(first), unread=unread)
        return found if required else replace(found, notes=notes)
    if required:
        return dialect
    numbers = _number_cells(first, None, columns)
    is_header = len(numbers) > 1 and len(first) <= len(columns)
    is_header &= all(re.match(r"[^\W\d]", x) and not _is_number(x, ".") for x in numbers)
    below = [_fits(cells, dialect, columns, 0) == 2 for _, cells in rows[1:]]
    if not is_header or not any(below):
        return dialect
    expected = ",".join(column.name for column in columns)
    strange = [name for name in names if name in _SIZES]
    moved = [c.name for i, c in enumerate(columns) if places.get(c.name, i) != i]
    if strange or moved:
        what = f"column {(strange or moved)[0]!r} in the header, which lacks {missing[0]!r}"
        raise ValueError(f"{what}; expected {expected}")
    note = f"line {line} is taken for a header ({','.join(first)[:80]}); expected {expected}"
    return replace(dialect, skip=line, notes=(note,))
