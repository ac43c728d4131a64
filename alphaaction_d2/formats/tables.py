"""Text files and the typed columns in them: read fast, and every bad cell named.

Everything that comes as a table goes through `read_table`; `dialects` sees how it is written.

Files are read by pyarrow. Only when something in them is wrong or unusual does a second, slower
pass look at every line: it either finds all bad rows or reads what pyarrow could not (rows of
different lengths, say).
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import itertools
import logging
import math
import os
import re
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any, NamedTuple, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from .dialects import HEAD, Dialect, find_dialect, text_encoding

logger = logging.getLogger(__name__)

GZIP = b"\x1f\x8b"  # how a gzip file starts
MAX_SHOWN = 20  # bad rows in one error message
MAX_KEPT = 4000  # bad rows that a list of findings tells in words
_MAX_BAD = 200_000  # rows of a file without a single good one that are looked at
_MIN_UNPACKED, _MAX_RATIO = 1 << 24, 50  # bytes that a gzip file may always hold; and per byte
_BLOCK = 1 << 22  # bytes that pyarrow reads at a time
_ARROW_TYPES: dict[type, pa.DataType] = {
    # as words: of numbers pyarrow reads 0x10 as 16, and not 2.0
    int: pa.dictionary(pa.int32(), pa.string()),
    float: pa.float64(),
    str: pa.dictionary(pa.int32(), pa.string()),
}

T = TypeVar("T")


# ------------------------------------------------------------------------------------- findings


@dataclass(frozen=True)
class Finding:
    """One thing about the data that somebody should know."""

    wrong: bool  # it has to be mended; otherwise it is unusual and may be meant
    where: str  # file (with the line), split or video
    what: str  # it is, how often, and an example

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class DataFileError(ValueError):
    """A file that is not what it should be: file, line, column, value, and what was expected.

    Attributes:
        findings: the same, one by one.
    """

    def __init__(self, where: object, what: str = "", findings: Sequence[Finding] = ()) -> None:
        # `where` alone is the whole message: so workers of a loader make an error again, of its
        # text
        super().__init__(f"{where}: {what}" if what else str(where))
        self.findings = tuple(findings) or (Finding(True, str(where), what),)


# what differs between the messages about two rows with the same fault
_SAID = re.compile(
    r"(?<=: )('.*'|\".*\"|[-+.\w]+)(?=: expected)|^'.*'(?=: )|(?<== )[-+.\w]+$", re.S
)


class Findings:
    """What a reader has to say about a file: bad rows, which it left out, and what is unusual.

    All bad rows count; only as many are kept in words as anybody could read.
    """

    def __init__(self, path: object, where: Callable[[int], str] | None = None) -> None:
        """Begin without any; `where` says where the row of a number is, by default a line."""
        self.path = path
        self.notes: list[Finding] = []
        self.num_rows = 0  # good or bad, if the reader says so
        self.where = where or (lambda line: f"{path}:{line}")
        self._bad: list[tuple[int, str]] = []
        self._num_bad = 0

    def bad_row(self, number: int, what: str) -> None:
        """Add a bad row; they come in the order of the file."""
        self._num_bad += 1
        if self._num_bad <= MAX_KEPT:
            self._bad.append((number, what))

    def bad_rows(self, first: Iterable[tuple[int, str]], count: int) -> None:
        """Add `count` rows that another check finds bad, of which the first come in words."""
        self._num_bad += count
        self._bad.extend(first)

    def note(self, what: str, where: object = None) -> None:
        """Add something unusual; about the file, unless `where` says otherwise."""
        self.notes.append(Finding(False, str(self.path if where is None else where), what))

    def wrong(self) -> list[Finding]:
        """List the bad rows in the order of the file; once, if all rows fail alike."""
        kept = sorted(self._bad)[:MAX_KEPT]
        if self._num_bad == self.num_rows > 2 and len({_SAID.sub("", x) for _, x in kept}) == 1:
            number, what = kept[0]
            return [Finding(True, self.where(number), f"{what}; all {self._num_bad} rows alike")]
        found = [Finding(True, self.where(number), what) for number, what in kept]
        if self._num_bad > len(kept):
            more = f"{self._num_bad - len(kept)} more rows are wrong"
            found.append(Finding(True, str(self.path), more))
        return found

    def raise_if_wrong(self) -> None:
        """Raise one report with a line of text for each bad row, at most 20."""
        if self._num_bad:
            wrong = self.wrong()
            lines = [str(finding) for finding in wrong[: min(MAX_SHOWN, self._num_bad)]]
            if self._num_bad > len(lines) and len(wrong) > 1:
                lines.append(f"... and {self._num_bad - len(lines)} more")
            raise DataFileError("\n".join(lines), findings=wrong)


def listed(names: Iterable[object], shown: int = 3) -> str:
    """Name the first few of many."""
    texts = list(map(str, names))
    return ", ".join(texts[:shown]) + (", ..." if len(texts) > shown else "")


def strict(found: tuple[T, Findings]) -> T:
    """Give what was read of a file, DataFileError if rows are wrong; log what is unusual."""
    read, findings = found
    findings.raise_if_wrong()
    for note in findings.notes:
        logger.warning("%s", note)
    return read


class Check(NamedTuple):
    """One demand on one column of all rows."""

    good: np.ndarray  # (N,) bool
    column: str
    values: np.ndarray  # (N,)
    expected: str
    limits: np.ndarray | None = None  # (N,), shown after `expected`


def passing(
    checks: Iterable[Check], findings: Findings, numbers: Callable[[np.ndarray], Sequence[int]]
) -> np.ndarray:
    """Find, (N,) bool, the rows that pass all checks; tell of the others the first that they fail.

    Args:
        checks: the most telling first.
        numbers: from places in the table, which increase, to the numbers that `findings` know.
    """
    checks = list(checks)
    first = np.full(len(checks[0].good), -1)
    for number, check in reversed(list(enumerate(checks))):
        first[~check.good] = number
    rows = np.flatnonzero(first >= 0)
    told = []
    shown = rows[:MAX_KEPT]
    for row, number in zip(shown.tolist(), numbers(shown) if len(shown) else ()):
        _, column, values, expected, limits = checks[first[row]]
        limit = "" if limits is None else f" = {limits[row]:g}"
        told.append((number, f"column {column}: {values[row]:.12g}: expected {expected}{limit}"))
    findings.bad_rows(told, len(rows))
    return first < 0


# ----------------------------------------------------------------------------------------- text


def check_unpacked_size(path: str | os.PathLike, num_bytes: int) -> None:
    """Refuse a compressed file that holds absurdly many bytes, DataFileError."""
    if num_bytes > _MIN_UNPACKED and num_bytes > _MAX_RATIO * os.path.getsize(path):
        what = f"a compressed file that unpacks to more than {_MAX_RATIO} times its size"
        raise DataFileError(path, f"{what}: unpack it first, if this is meant")


class _Unpacked(io.RawIOBase):
    """The bytes in a gzip file, as long as they are not absurdly many."""

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__()
        self._file = gzip.open(path, "rb")
        self._path, self._count = path, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)
        self._count += count
        check_unpacked_size(self._path, self._count)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


@contextlib.contextmanager
def gunzipping(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Open a file to read its bytes, those inside if it is gzipped.

    Raises:
        DataFileError: it is a damaged gzip file, only called like one, or unpacks to too much.
    """
    is_gzip = _is_gzip(path)
    with io.BufferedReader(_Unpacked(path)) if is_gzip else open(path, "rb") as binary:
        try:
            yield cast("IO[bytes]", binary)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            other = ", or not a gzip file" if isinstance(error, gzip.BadGzipFile) else ""
            raise DataFileError(path, f"a damaged gzip file{other} ({error})") from None


def _is_gzip(path: str | os.PathLike) -> bool:
    with open(path, "rb") as file:
        return str(path).lower().endswith(".gz") or file.read(len(GZIP)) == GZIP


def find_encoding(path: str | os.PathLike, whole: bool = True) -> tuple[str, str]:
    """Find the codec of a text file, see `dialects.text_encoding`."""
    with gunzipping(path) as binary, _demanding_text(path, "UTF-8"):
        return text_encoding(binary, whole)


@contextlib.contextmanager
def _demanding_text(path: str | os.PathLike, encoding: str) -> Iterator[None]:
    try:
        yield
    except UnicodeError as error:
        reason = getattr(error, "reason", str(error))
        what = f"not a text file (expected {encoding.upper()}: {reason})"
        raise DataFileError(path, what) from None


@contextlib.contextmanager
def open_text(path: str | os.PathLike, encoding: str = "") -> Iterator[IO[str]]:
    """Open a text file, gzipped or not, by default as what it looks like; or `DataFileError`."""
    if not encoding:
        encoding, note = find_encoding(path)
        if note:
            logger.warning("%s: %s", path, note)
    with gunzipping(path) as binary, _demanding_text(path, encoding):
        with io.TextIOWrapper(binary, encoding=encoding, newline="") as file:
            yield file


def numbered_rows(
    path: str | os.PathLike, dialect: Dialect | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of the rows of a table that are not blank."""
    dialect = dialect or Dialect(encoding=find_encoding(path)[0])
    with open_text(path, dialect.encoding) as file:
        reader = csv.reader(file, delimiter=dialect.delimiter)
        try:
            for cells in reader:
                if reader.line_num > dialect.skip and any(map(str.strip, cells)):
                    yield reader.line_num, cells
        except csv.Error as error:
            where = f"{path}:{reader.line_num}"
            raise DataFileError(where, f"not a row of a table ({error})") from None


# ---------------------------------------------------------------------------------------- tables


def not_nan(numbers: Any) -> Any:
    """Whether numbers are any; for `Column.is_good`."""
    return numbers == numbers


@dataclass(frozen=True)
class Column:
    """What the cells of a column are."""

    name: str  # for messages, and to find it in a file with a header
    kind: type = float  # or int or str
    # Which values are right, if not all are; of numbers it takes one or an array, of words one.
    is_good: Callable[[Any], Any] | None = None
    expected: str = ""  # what a cell should be, for messages
    # False: rows may end before it, and what is missing is NaN or empty. Not of ints.
    required: bool = True
    # A cell without text is NaN, and not wrong. Only of floats; words may be empty.
    may_be_empty: bool = False
    may_lack: bool = False  # a file with a header need not have it
    read: Callable[[str], Any] | None = None  # in place of `kind`; raises `ValueError`

    def value(self, text: str, decimal: str = ".") -> Any:
        """Read a cell; raise `ValueError` with what is wrong with it."""
        if self.kind is not str and self.may_be_empty and not text:
            return math.nan
        expected = self.expected or ("a number" if self.kind is float else "a whole number")
        try:
            if self.read is not None:
                value = self.read(text)
            elif self.kind is str:
                value = text
            elif "_" in text:  # which Python allows in numbers
                raise ValueError
            else:
                value = self.kind(text.replace(decimal, "."))
            if self.kind is int and not -(2**63) <= value < 2**63:
                expected = self.expected or "a smaller number"
            elif self.is_good is None or self.is_good(value):
                return value
        except ValueError:
            pass
        raise ValueError(f"column {self.name}: {text[:80]!r}: expected {expected}")


@dataclass
class Table:
    """The rows of a file as columns, in the order of the file (N rows).

    The `findings` tell of bad rows, which are left out.
    """

    path: str | os.PathLike
    dialect: Dialect
    # By name: (N,) float64 or int64; of words (N,) int32, places in `words`. Those that the file
    # lacks, where it may, are not there.
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    words: dict[str, list[str]] = field(default_factory=dict)  # the distinct ones, by column
    stubs: list[tuple] = field(default_factory=list)  # rows that have the first few columns only
    _lines: Sequence[int] | None = None  # None: nobody has counted them yet

    def __post_init__(self) -> None:
        self.findings = Findings(self.path)

    def lines(self, rows: np.ndarray) -> list[int]:
        """Find the numbers of the lines of some rows, whose places increase."""
        if self._lines is not None:
            return [self._lines[row] for row in rows.tolist()]
        wanted = set(rows.tolist())
        numbered = enumerate(numbered_rows(self.path, self.dialect))
        found = (line for row, (line, _) in numbered if row in wanted)
        return list(itertools.islice(found, len(wanted)))


def read_table(
    path: str | os.PathLike,
    columns: Sequence[Column],
    *,
    has_header: bool = False,
    stub_length: int = 0,
) -> Table:
    """Read a table; blank lines are ignored, gzipped files are unpacked.

    Args:
        path: the file, in any way of writing that `dialects` knows.
        columns: in their order; in a file with a header those that are wanted, in any order.
        has_header: the first row has the names of the columns; otherwise it may.
        stub_length: rows with these first columns alone, nothing in the others, are right, too.

    Raises:
        DataFileError: the file is no text, or its header lacks a column. Bad rows raise nothing:
            they are among the table's findings.
    """
    tried = None
    for whole in (False, True):  # what the head does not show, a letter beyond UTF-8, comes later
        dialect = _dialect(path, columns, has_header, stub_length, whole)
        table = _read_fast(path, columns, dialect) if dialect != tried else None
        if table is not None:
            break
        tried = dialect
    if table is None:
        table = _read_slow(path, columns, dialect, stub_length)
    for note in dialect.notes:
        table.findings.note(note)
    return table


def _dialect(
    path: str | os.PathLike,
    columns: Sequence[Column],
    has_header: bool,
    stub_length: int,
    whole: bool,
) -> Dialect:
    encoding, note = find_encoding(path, whole)
    with open_text(path, encoding) as file:
        head = file.read(HEAD)
    try:
        dialect = find_dialect(head, len(head) < HEAD, columns, has_header, stub_length)
    except ValueError as error:
        raise DataFileError(f"{path}:1", str(error)) from None
    if has_header and dialect.places is None:
        names = tuple(column.name for column in columns)
        _, first = next(numbered_rows(path, Dialect(encoding)), (0, []))
        missing = next((name for name in names if name not in first), names[0])
        raise DataFileError(f"{path}:1", f"no column {missing!r}; expected a header with {names}")
    notes = (note, *dialect.notes) if note else dialect.notes
    return replace(dialect, encoding=encoding, notes=notes)


def _read_fast(
    path: str | os.PathLike, columns: Sequence[Column], dialect: Dialect
) -> Table | None:
    """Read with pyarrow; None if it can't, whatever the reason: the slow pass will find it."""
    _, first = next(numbered_rows(path, dialect), (0, []))
    if dialect.places is not None:
        header = [f"#{i}" for i in range(dialect.num_cells)]  # what nobody asks for
        for name, place in dialect.places.items():
            header[place] = name
        columns = [column for column in columns if column.name in dialect.places]
    else:
        header = [column.name for column in columns[: len(first)]]
        if not sum(column.required for column in columns) <= len(first) == len(header):
            return None
        columns = columns[: len(first)]
    source: Any = str(path)
    with contextlib.ExitStack() as stack:
        if _is_gzip(path):
            source = stack.enter_context(gunzipping(path))
        try:
            table = pa_csv.read_csv(
                source,
                read_options=pa_csv.ReadOptions(
                    column_names=header,
                    skip_rows=dialect.skip,
                    block_size=_BLOCK,
                    encoding="utf8" if dialect.encoding == "utf-8-sig" else dialect.encoding,
                ),
                parse_options=pa_csv.ParseOptions(delimiter=dialect.delimiter),
                convert_options=pa_csv.ConvertOptions(
                    column_types={column.name: _ARROW_TYPES[column.kind] for column in columns},
                    include_columns=[column.name for column in columns],
                    # "" is the only missing value: of pyarrow's own list "nan" would go in silence
                    null_values=[""],
                    decimal_point=dialect.decimal,
                ),
            )
        except (pa.ArrowException, OSError, KeyError, UnicodeError):
            return None
    read = Table(path, dialect)
    arrow = dict(zip(table.column_names, table.columns))
    read.findings.num_rows = table.num_rows
    del table  # each column is let go as soon as it has been copied: they are the peak of memory
    for column in columns:
        cells = arrow.pop(column.name)
        if column.kind is float:
            if cells.null_count and not column.may_be_empty:
                return None
            values = cells.to_numpy()
            # what is empty is NaN, which is not good either
            if column.is_good and np.count_nonzero(~column.is_good(values)) != cells.null_count:
                return None
        else:
            words, values = _decoded(cells)
            try:
                known = [column.value(word, dialect.decimal) for word in words]
            except ValueError:
                return None
            if column.kind is str:
                read.words[column.name] = known
            else:
                values = np.array(known, np.int64)[values]
        read.columns[column.name] = values if values.flags.writeable else values.copy()
        del cells, values
    pa.default_memory_pool().release_unused()  # else forked loaders carry it along
    return read


def _decoded(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """Take a dictionary-encoded column apart: (distinct words, (N,) int32 codes)."""
    if not column.num_chunks:
        return [], np.zeros(0, np.int32)
    column = column.unify_dictionaries()
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in column.chunks])
    return column.chunk(0).dictionary.to_pylist(), codes.astype(np.int32, copy=False)


def _read_slow(
    path: str | os.PathLike, columns: Sequence[Column], dialect: Dialect, stub_length: int
) -> Table:
    """Read line by line what is right, and say what is wrong with everything else."""
    table, rows = Table(path, dialect), numbered_rows(path, dialect)
    places: Sequence[int] = range(len(columns))
    num_required, num_known = sum(column.required for column in columns), len(columns)
    if dialect.places is not None:
        columns = [column for column in columns if column.name in dialect.places]
        places = [dialect.places[column.name] for column in columns]
        num_required = num_known = dialect.num_cells
    # arrays of machine numbers: lists of tuples would take gigabytes for the files this must
    # survive
    lines = array("q")
    values = {c.name: array("d" if c.kind is float else "q") for c in columns}
    words: dict[str, dict[str, int]] = {c.name: {} for c in columns if c.kind is str}
    for line, cells in rows:
        table.findings.num_rows += 1
        if not lines and table.findings.num_rows > _MAX_BAD:
            raise DataFileError(
                path, f"the first {_MAX_BAD} rows are wrong; {table.findings.wrong()[0]}"
            )
        alone = [cells[i] for i in places[:stub_length] if i < len(cells)]
        is_stub = 0 < len(list(filter(None, cells))) == stub_length == len(alone) and all(alone)
        if not (num_required <= len(cells) <= num_known or is_stub):
            what = f"{len(cells)} columns: expected {num_known}, as in the header"
            has_header = dialect.places is not None
            table.findings.bad_row(line, what if has_header else _wrong_length(cells, columns))
            continue
        try:
            row = [
                column.value(cells[i], dialect.decimal)
                for column, i in zip(columns[:stub_length] if is_stub else columns, places)
                if i < len(cells)
            ]
        except ValueError as problem:
            table.findings.bad_row(line, str(problem))
            continue
        if is_stub:
            table.stubs.append(tuple(row))
            continue
        lines.append(line)
        row += ["" if column.kind is str else math.nan for column in columns[len(row) :]]
        for column, value in zip(columns, row):
            if column.kind is str:
                known = words[column.name]
                value = known.setdefault(value, len(known))
            values[column.name].append(value)
    dtypes = {float: np.float64, int: np.int64, str: np.int32}
    table.columns = {c.name: np.array(values[c.name], dtypes[c.kind]) for c in columns}
    table.words = {name: list(known) for name, known in words.items()}
    table._lines = lines
    return table


def _wrong_length(cells: list[str], columns: Sequence[Column]) -> str:
    """Say what is wrong with a row of too few or too many cells."""
    required = ",".join(column.name for column in columns if column.required)
    if len(columns) <= 2:  # short enough to be shown
        count = ("one column", "two columns")[len(columns) - 1]
        return f"{','.join(cells)[:80]!r}: expected {count}, {required}"
    optional = "".join(f"[,{column.name}]" for column in columns if not column.required)
    other = next((x for x in ";\t| " if len(cells) == 1 and x in cells[0]), "")
    separated = f", separated by {other!r}" if other else ""
    return f"{len(cells)} columns{separated}: expected {required}{optional}"
