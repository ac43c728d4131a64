"""The reader of tables: both its ways give the same, and every bad cell is told."""

from __future__ import annotations

import gzip
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphaaction_d2.formats import tables
from alphaaction_d2.formats.ava import scan_ava_csv
from alphaaction_d2.formats.dialects import Dialect
from alphaaction_d2.formats.tables import (
    Column,
    DataFileError,
    Finding,
    Findings,
    not_nan,
    read_table,
    strict,
)

COLUMNS = (
    Column("name", str, bool, "a name"),
    Column("count", int, lambda x: 0 <= x, "a whole number from 0 on"),
    Column("size", float, np.isfinite, "a finite number"),
    Column("id", float, not_nan, required=False, may_be_empty=True),
)
GOOD = "a,1,0.5,7\nb,2,1e-3,\na,0,-1,1.5\n"


def write(folder: Path, text: str, name: str = "t.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def rows_of(table: tables.Table) -> list[tuple]:
    """Rows with words in the place of codes; NaN, which is no equal, as None."""
    found = []
    for name, values in table.columns.items():
        cells = values.tolist()
        words = table.words.get(name)
        found.append([words[x] if words else None if math.isnan(x) else x for x in cells])
    return list(zip(*found))


def test_both_ways_read_the_same(tmp_path, monkeypatch):
    expected = [("a", 1, 0.5, 7), ("b", 2, 1e-3, None), ("a", 0, -1, 1.5)]
    (tmp_path / "t.gz").write_bytes(gzip.compress(GOOD.encode()))
    paths = write(tmp_path, GOOD), write(tmp_path, f"\ufeff\n{GOOD}", "bom.csv"), tmp_path / "t.gz"
    fast = [read_table(path, COLUMNS) for path in paths]
    monkeypatch.setattr(tables, "_read_fast", lambda *_: None)
    slow = [read_table(path, COLUMNS) for path in paths]
    for table in fast + slow:
        assert rows_of(table) == expected and not table.findings.wrong()
        dtypes = [table.columns[c.name].dtype for c in COLUMNS]
        assert dtypes == [np.int32, np.int64, np.float64, np.float64]
    lines = [table.lines(np.array([0, 2])) for table in (fast[0], fast[1], slow[0], slow[1])]
    assert lines == [[1, 3], [2, 4], [1, 3], [2, 4]]


def test_a_good_file_is_read_fast(tmp_path, monkeypatch):
    monkeypatch.delattr(tables, "_read_slow")
    assert len(rows_of(read_table(write(tmp_path, GOOD), COLUMNS))) == 3


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (",1,2,3", "column name: '': expected a name"),
        ("c,-1,2,3", "column count: '-1': expected a whole number from 0 on"),
        ("c,99999999999999999999,2,3", "column count"),
        ("c,1,inf,3", "column size: 'inf': expected a finite number"),
        ("c,1,,3", "column size: ''"),
        ("c,1,2,nan", "column id: 'nan': expected a number"),
        ("c,1,2,x" + 200 * "y", "column id: 'x" + 79 * "y" + "': expected a number"),
        ("c,1", "2 columns: expected name,count,size[,id]"),
        ("c,1,2,3,4", "5 columns"),
    ],
)
def test_bad_rows_are_told_and_left_out(tmp_path, row, what):
    path = write(tmp_path, f"a,1,2\n\n{row}\nb,1,2,3\n{row}\n")
    table = read_table(path, COLUMNS)
    first, second = table.findings.wrong()
    assert (first.wrong, first.where, second.where) == (True, f"{path}:3", f"{path}:5")
    assert first.what.startswith(what) and second.what == first.what
    assert rows_of(table) == [("a", 1, 2, None), ("b", 1, 2, 3)]
    with pytest.raises(DataFileError, match=":3: "):
        strict((table, table.findings))


def test_short_tables_show_the_row(tmp_path):
    found = read_table(write(tmp_path, "a,1,x\n"), COLUMNS[:2]).findings.wrong()
    assert found[0].what == "'a,1,x': expected two columns, name,count"


def test_headers(tmp_path):
    text = 'count,other,name\n3,"x, y",a\n4,"z",b\n'
    for content in (text, f"\n{text}"):  # the second only line by line
        table = read_table(write(tmp_path, content), COLUMNS[:2], has_header=True)
        assert rows_of(table) == [("a", 3), ("b", 4)]
    assert table.lines(np.array([1])) == [4]
    bad = read_table(write(tmp_path, text + "5,x\n"), COLUMNS[:2], has_header=True)
    assert bad.findings.wrong()[0].what == "2 columns: expected 3, as in the header"
    with pytest.raises(DataFileError, match="t.csv:1: no column 'size'"):
        read_table(write(tmp_path, text), COLUMNS, has_header=True)
    table = read_table(write(tmp_path, "name,count\na,1\n"), COLUMNS[:2])
    assert rows_of(table) == [("a", 1)]


def test_stubs(tmp_path):
    path = write(tmp_path, "a,1,2,3\nb,4\nb,x\n")
    table = read_table(path, COLUMNS, stub_length=2)
    assert table.stubs == [("b", 4)] and rows_of(table) == [("a", 1, 2, 3)]
    assert [x.where for x in table.findings.wrong()] == [f"{path}:3"]


def test_bad_rows_of_several_checks_come_in_the_order_of_the_file(tmp_path, monkeypatch):
    """Those that cannot be read and those out of range; what is too much is counted."""
    monkeypatch.setattr(tables, "MAX_KEPT", 30)
    bad = ["v,902,0.1,0.2,0.1,0.6,3,1", "v,902,a,0.2,0.5,0.6,3,1"] * 20
    path = write(tmp_path, "\n".join(["v,902,0.1,0.2,0.5,0.6,3,1", *bad]))
    rows, findings = scan_ava_csv(path)
    wrong = findings.wrong()
    assert [x.where for x in wrong[:-1]] == [f"{path}:{line}" for line in range(2, 32)]
    assert wrong[-1] == Finding(True, str(path), "10 more rows are wrong")
    assert len(rows) == 1
    with pytest.raises(DataFileError) as error:
        findings.raise_if_wrong()
    lines = str(error.value).splitlines()
    assert len(lines) == 21 and lines[20] == "... and 20 more"
    assert error.value.findings == tuple(wrong)


def test_notes_go_into_the_log_of_the_strict(caplog):
    findings = Findings("t.csv")
    findings.note("is odd")
    assert strict((3, findings)) == 3 and "t.csv: is odd" in caplog.text


def test_errors_travel_between_processes():
    error = DataFileError("t.csv:3", "is wrong")
    assert error.findings == (Finding(True, "t.csv:3", "is wrong"),)
    for again in (pickle.loads(pickle.dumps(error)), DataFileError("Traceback ...")):
        assert isinstance(again, DataFileError)
    assert str(pickle.loads(pickle.dumps(error))) == "t.csv:3: is wrong"


cells = st.sampled_from(["a", "b b", "", "1", "-1", "0.5", "1e3", "nan", "inf", " 2", '"q,r"', "é"])


@given(st.lists(st.lists(cells, min_size=1, max_size=5), max_size=12))
def test_the_fast_way_never_reads_what_the_slow_one_would_not(tmp_path_factory, rows):
    path = write(tmp_path_factory.mktemp("t"), "\n".join(",".join(row) for row in rows))
    fast = tables._read_fast(path, COLUMNS, Dialect())
    slow = tables._read_slow(path, COLUMNS, Dialect(), stub_length=0)
    if fast is not None:
        assert not slow.findings.wrong()
        assert [row[: len(fast.columns)] for row in rows_of(slow)] == rows_of(fast)
