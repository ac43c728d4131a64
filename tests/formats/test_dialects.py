"""Tables as others write them: separators, headers, encodings, ids; each reads as the clean one."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import numpy as np
import pytest

from alphaaction_d2.formats import tables
from alphaaction_d2.formats.ava import read_ava_csv, read_exclusions, scan_ava_csv
from alphaaction_d2.formats.label_map import LabelMap
from alphaaction_d2.formats.results import CSV_HEADER
from alphaaction_d2.formats.tables import DataFileError

NAMES = "video_id,timestamp,x1,y1,x2,y2,action_id,person_id".split(",")
ROWS = [
    "a,0001,0.15,0.3,0.29,0.9,2,1".split(","),
    "a,0002,0.62,0.15,0.8,0.8,1,2".split(","),
    "b,0002,0.62,0.15,0.8,0.8,3,2".split(","),
]
LABELS = LabelMap({1: "stand", 2: "Walk", 3: "hold"}, {1: "", 2: "", 3: ""})


def write(folder: Path, rows: list[list[str]], separator: str = ",", end: str = "\n") -> Path:
    (folder / "t.csv").write_bytes("".join(separator.join(row) + end for row in rows).encode())
    return folder / "t.csv"


def same(path: Path, label_map: LabelMap | None = None) -> None:
    """The file reads as `ROWS` do, without a fault."""
    rows, findings = scan_ava_csv(path, label_map=label_map)
    assert not findings.wrong(), findings.wrong()
    assert rows.video_ids.tolist() == ["a", "a", "b"]
    assert rows.timestamps.tolist() == [1, 2, 2]
    assert rows.boxes.tolist() == [[float(x) for x in row[2:6]] for row in ROWS]
    assert rows.labels.tolist() == [2, 1, 3]
    assert rows.person_ids.tolist() == [1, 2, 2]


@pytest.fixture(params=["fast", "slow"])
def way(request, monkeypatch):
    if request.param == "slow":
        monkeypatch.setattr(tables, "_read_fast", lambda *_: None)
    else:
        monkeypatch.delattr(tables, "_read_slow")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("header", [True, False])
def test_separators(tmp_path, way, separator, end, header):
    same(write(tmp_path, [NAMES, *ROWS] if header else ROWS, separator, end))


@pytest.mark.parametrize("separator", [";", "\t"])
def test_decimal_commas(tmp_path, way, separator):
    rows = [[cell.replace(".", ",") for cell in row] for row in ROWS]
    same(write(tmp_path, rows, separator))
    same(write(tmp_path, [[f"{x},0" if i == 1 else x for i, x in enumerate(r)] for r in rows], ";"))


def test_quotes(tmp_path, way):
    same(write(tmp_path, [[f'"{cell}"' for cell in row] for row in ROWS]))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings(tmp_path, way, encoding):
    path = write(tmp_path, ROWS)
    path.write_bytes(path.read_text().encode(encoding))
    same(path)


@pytest.mark.parametrize("before", [0, 100_000])
def test_old_encodings_are_told(tmp_path, before):
    """Also where the first letter beyond ASCII comes late."""
    text = before * "b,1,0.1,0.1,0.2,0.2,1\n" + "caf\u00e9,1,0.1,0.1,0.2,0.2,1\n"
    (tmp_path / "t.csv").write_bytes(text.encode("latin-1"))
    rows, findings = scan_ava_csv(tmp_path / "t.csv")
    assert rows.videos[-1] == "caf\u00e9" and len(rows) == before + 1
    assert [note.what[:12] for note in findings.notes] == ["is not UTF-8"]


@pytest.mark.parametrize(
    "names",
    [
        "video_id,second,x1,y1,x2,y2,action_id,person_id",
        "Video,Frame_Timestamp,xmin,ymin,xmax,ymax,class_id,track_id",
        "video,time,left,top,right,bottom,label,entity_id",
        "video_id,frame_timestamp,entity_box_x1,entity_box_y1,entity_box_x2,entity_box_y2,label_id,"
        "entity_id",
    ],
)
def test_headers_order_the_columns(tmp_path, way, names):
    order = [7, 2, 3, 0, 6, 5, 4, 1]
    table = [[*(row[i] for i in order), "more"] for row in [names.split(","), *ROWS]]
    path = write(tmp_path, table)
    same(path)
    _, findings = scan_ava_csv(path)
    assert [note.what for note in findings.notes] == ["columns that are not read: more"]


def test_a_header_of_unknown_words_is_told(tmp_path, way):
    names = "film,moment,a,b,c,d,what,who".split(",")
    same(write(tmp_path, [names, *ROWS]))
    (note,) = scan_ava_csv(tmp_path / "t.csv")[1].notes
    assert note.what.startswith("line 1 is taken for a header (film,moment")


def test_a_header_of_other_columns_is_refused(tmp_path):
    for names in ("film,time,x,y,w,h,what,who", "film,x1,y1,time,c,d,what,who"):
        path = write(tmp_path, [names.split(","), *ROWS])
        with pytest.raises(DataFileError, match=r"t.csv:1: column .* in the header, which lacks"):
            read_ava_csv(path)


def test_a_bad_first_row_is_no_header(tmp_path):
    path = write(tmp_path, [["a", "1", "x", "0.1", "0.2", "0.2", "1"], *ROWS])
    with pytest.raises(DataFileError, match="t.csv:1: column x1: 'x'"):
        read_ava_csv(path)


def test_our_own_results_are_annotations_and_boxes(tmp_path):
    lines = [["a", "0001", "0.1", "0.2", "0.3", "0.4", str(k), f"c{k}", "0.5", "7"] for k in (1, 2)]
    path = write(tmp_path, [list(CSV_HEADER), *lines])
    rows = read_ava_csv(path)
    assert rows.labels.tolist() == [1, 2] and rows.person_ids.tolist() == [7, 7]
    boxes = read_ava_csv(path, "boxes")
    assert boxes.scores.tolist() == [1, 1] and boxes.labels.tolist() == [-1, -1]
    assert read_ava_csv(path, "results").scores.tolist() == [0.5, 0.5]


def test_names_and_decimals_for_action_ids(tmp_path, way):
    decimals = [[f"{x}.0" if i in (1, 6) else x for i, x in enumerate(row)] for row in ROWS]
    same(write(tmp_path, decimals))
    names = [[*row[:6], LABELS.names[int(row[6])].upper(), row[7]] for row in ROWS]
    same(write(tmp_path, names), LABELS)


def test_unknown_names_are_told_once(tmp_path):
    path = write(tmp_path, [[*row[:6], name] for row, name in zip(ROWS, ("run", "fly", "it's"))])
    for label_map, hint in ((LABELS, "or a name of the label map"), (None, "a whole number")):
        (finding,) = scan_ava_csv(path, label_map=label_map)[1].wrong()
        assert finding.where == f"{path}:1" and hint in finding.what
        assert finding.what.endswith("all 3 rows alike")


def test_text_and_long_numbers_are_identities(tmp_path):
    words = ["20240105123456789012", "20240105123456789011", "b:1", "7", "", "7.0", "-1", "1e30"]
    rows = [["v", "1", "0.1", "0.1", "0.2", "0.2", "1", word] for word in words]
    expected = [10, 9, 11, 7, -1, 7, -1, 8]
    for order in itertools.islice(itertools.permutations(range(8)), 0, None, 4999):
        path = write(tmp_path, [rows[i] for i in order])
        assert read_ava_csv(path).person_ids.tolist() == [expected[i] for i in order]
    rows.append(["w", *rows[0][1:]])  # each video counts for itself
    assert read_ava_csv(write(tmp_path, rows)).person_ids.tolist() == [*expected, 1]
    assert read_ava_csv(write(tmp_path, rows)).person_ids.dtype == np.int64


def test_what_the_evaluators_refuse_stays_refused(tmp_path):
    for row in ("a,1,0.1,0.1,0.2,0.2,2.0,1", "a,1,0.1,0.1,0.2,0.2,2,bob", "a,1,0,0,1,1,0x10,1"):
        path = write(tmp_path, [row.split(",")])
        with pytest.raises(DataFileError):
            read_ava_csv(path, check_boxes=False, integer_timestamps=True)


def test_hexadecimal_numbers_are_none(tmp_path, shared):
    for path in (
        write(tmp_path, ["v,0x10".split(",")]),
        shared / "cases/hostile/hex_action_id.csv",
    ):
        with pytest.raises(DataFileError, match="'0x10': expected"):
            read_exclusions(path) if path.parent == tmp_path else read_ava_csv(path)


def test_what_cannot_be_read_names_its_separator_once(tmp_path):
    path = write(tmp_path, [["a", "b", "c"]] * 9, ";")
    with pytest.raises(DataFileError) as error:
        read_ava_csv(path)
    assert "separated by ';': expected" in str(error.value) and "all 9 rows" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_gzip_bombs_are_refused(tmp_path):
    path = tmp_path / "t.csv.gz"
    for content in (bytes(1 << 25), b"v,1,0.1,0.1,0.2,0.2,1\n" * (1 << 20)):
        path.write_bytes(gzip.compress(content))
        with pytest.raises(DataFileError, match="unpacks to more than 50 times|not a text file"):
            read_ava_csv(path)


@pytest.mark.parametrize("case", ["06", "07", "09"])
def test_cases(shared, case):
    annotations = sorted((shared / "cases" / case / "data" / "annotations").glob("*.csv"))
    labels = LabelMap({1: "stand", 2: "walk", 3: "hold"}, {1: "", 2: "", 3: ""})
    for path in annotations:
        rows, findings = scan_ava_csv(path, label_map=labels)
        assert not findings.wrong() and not findings.notes, path
        assert sorted(set(rows.labels.tolist())) == [1, 2, 3]
        assert sorted(set(rows.person_ids.tolist())) == [1, 2]
