"""Reading and writing AVA's files: what is accepted, what is refused, and how that is said."""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphaaction_d2.formats.ava import (
    AVARows,
    concatenate_rows,
    duplicates,
    read_ava_csv,
    read_exclusions,
    read_seconds,
    read_video_list,
    select_rows,
    write_ava_results,
)
from alphaaction_d2.formats.label_map import read_label_map
from alphaaction_d2.formats.tables import DataFileError

GOOD_ROW = "v,0902,0.1,0.2,0.5,0.6,3,1"


def write(tmp_path: Path, text: str | bytes, name: str = "file.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# ---------------------------------------------------------------------------------- label maps


def test_label_map_short_form(tmp_path):
    text = (
        'item {\n  name: "bend/bow (at the waist)"\n  id: 1\n}\nitem {\n  name: "run"\n  id: 3\n}\n'
    )
    label_map = read_label_map(write(tmp_path, text))
    assert label_map.names == {1: "bend/bow (at the waist)", 3: "run"}
    assert label_map.groups == {1: "", 3: ""}
    assert label_map.num_classes == 3


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_label_map_long_form(tmp_path, line_end):
    text = line_end.join(
        [
            "# classes",
            "label {",
            '  name: "say \\"hi\\""',
            "  label_id: 2",
            "  label_type: PERSON_INTERACTION",
            "}",
            "",
            'label { label_id: 1 name: "jump" label_type: PERSON_MOVEMENT }',
            "label { name: 'lift' label_id: 4 label_type: OBJECT_MANIPULATION }",
            'label { name: "glow" label_id: 5 label_type: Magic }',
        ]
    )
    label_map = read_label_map(write(tmp_path, text))
    assert label_map.names == {2: 'say "hi"', 1: "jump", 4: "lift", 5: "glow"}
    assert label_map.groups == {2: "person", 1: "pose", 4: "object", 5: "magic"}
    assert label_map.num_classes == 5


def test_plain_list_of_names_and_groups(tmp_path):
    text = "# mine\n[pose]\nstand\nbend/bow (at the waist)\n\n[Object use]\nlift, with both hands\n"
    label_map = read_label_map(write(tmp_path, text))
    assert label_map.names == {1: "stand", 2: "bend/bow (at the waist)", 3: "lift, with both hands"}
    assert label_map.groups == {1: "pose", 2: "pose", 3: "object use"}
    assert read_label_map(write(tmp_path, "\ufeffrun\r\nwalk")).names == {1: "run", 2: "walk"}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("run\nwalk\nrun\n", 3, "used twice"),
        ("run\n7\n", 2, "names only"),
        ("stand,1\nwalk,2\n", 1, "'stand,1': expected names only"),
        ("[pose]\n", 0, "no classes"),
        ('item {\n name: "a"\n id: 1000000\n}', 1, "65536 at most"),
        ('item {\n  name: "a"\n}\n', 1, "no id"),
        ("\nitem {\n  id: 1\n}\n", 2, "no name"),
        ('item {\n name: "a"\n id: 0\n}', 1, "from 1 on"),
        ('item {\n name: "a"\n id: one\n}', 1, "'one'"),
        ('item { name: "a" id: 1 }\nitem { name: "b" id: 1 }', 2, "taken by 'a'"),
        ('item { name: "a" id: 1 }\nitem { name: "a" id: 2 }', 2, "used twice"),
        ('item { name: "a" id: 1\n', 1, "not closed"),
        ('item { name: "a"\nitem { name: "b" id: 2 }', 2, "not closed"),
        ('name: "a"', 1, "outside"),
        ("1,run\nwalk\n", 1, "'1,run'"),
    ],
)
def test_label_map_errors_name_the_line(tmp_path, text, line, words):
    path = write(tmp_path, text)
    with pytest.raises(DataFileError, match=words) as error:
        read_label_map(path)
    assert str(error.value).startswith(f"{path}:{line}: " if line else f"{path}: ")


@pytest.mark.parametrize(
    "text",
    [
        "1: run\n2: walk fast\n",
        "1 run\n2 walk fast\n",
        "2,walk fast\n1,run\n",
        "id,name\n1,run\n2,walk fast\n",
        "name,id\nrun,1\nwalk fast,2\n",
        '["run", "walk fast"]',
        '{"1": "run", "2": "walk fast"}',
        '{"run": 1, "walk fast": 2}',
        '[{"id": 1, "name": "run"}, {"id": 2, "name": "walk fast"}]',
        "“run”\n‘walk fast’\n",
        "item { name: “run” id: 1 }\nitem { name: “walk fast” id: 2 }",
    ],
)
def test_label_lists_of_others(tmp_path, text):
    assert read_label_map(write(tmp_path, text)).names == {1: "run", 2: "walk fast"}


@pytest.mark.parametrize("text", ["\n" * 10**6 + "{", "," * 10**6 + "{", "a:\n" * 300_000])
def test_long_label_maps_cost_little(tmp_path, text):
    start = time.perf_counter()
    with contextlib.suppress(DataFileError):
        read_label_map(write(tmp_path, text))
    assert time.perf_counter() - start < 2


def test_empty_label_map_is_refused(tmp_path):
    with pytest.raises(DataFileError, match="no classes"):
        read_label_map(write(tmp_path, "\n"))


def test_official_label_maps(shared):
    folder = shared / "ava" / "official"
    full = read_label_map(folder / "ava_action_list_v2.2.pbtxt")
    assert sorted(full.names) == list(range(1, 81))
    counts = {group: list(full.groups.values()).count(group) for group in set(full.groups.values())}
    assert counts == {"pose": 14, "object": 49, "person": 17}
    short = read_label_map(folder / "ava_action_list_v2.2_for_activitynet_2019.pbtxt")
    assert len(short.names) == 60
    assert short.num_classes == 80
    assert all(full.names[i] == name for i, name in short.names.items())
    # v2.1 has the same classes, and counts the same of them
    assert read_label_map(folder / "ava_action_list_v2.1.pbtxt") == full
    assert read_label_map(folder / "ava_action_list_v2.1_for_activitynet_2018.pbtxt") == short


# ---------------------------------------------------------------------------------- exclusions


def test_exclusions(tmp_path):
    path = write(tmp_path, "a,0902\r\n\r\nb,902\r\na,902\r\n")
    assert read_exclusions(path) == {("a", 902), ("b", 902)}
    assert read_exclusions(write(tmp_path, "")) == set()


def test_exclusions_report_all_bad_rows(tmp_path):
    path = write(tmp_path, "a,902\na\nb,9x\n")
    with pytest.raises(DataFileError) as error:
        read_exclusions(path)
    first, second = str(error.value).splitlines()
    assert first.startswith(f"{path}:2: ")
    assert second.startswith(f"{path}:3: column timestamp: '9x'")


def test_lists_of_seconds_and_videos(tmp_path):
    assert read_seconds(write(tmp_path, "0903\n902\n\n902\n")) == [902, 903]
    path = write(tmp_path, "--205wugM18.mkv\n_145Aa_xkuE.mp4\nv.1\n")
    assert read_video_list(path) == ["--205wugM18", "_145Aa_xkuE", "v.1"]
    for reader, text in ((read_seconds, "902\n9o3\n-4\n"), (read_video_list, "a\na.mp4\nb,c\n")):
        path = write(tmp_path, text)
        with pytest.raises(DataFileError) as error:
            reader(path)
        assert [line.split(":")[1] for line in str(error.value).splitlines()] == ["2", "3"]


def test_official_lists(shared):
    folder = shared / "ava" / "official"
    seconds = read_seconds(folder / "ava_included_timestamps_v2.2.txt")
    assert seconds == list(range(902, 1799))
    test = read_video_list(folder / "ava_test_v2.2.txt")
    assert len(test) == 131
    assert test == read_video_list(folder / "ava_file_names_test_v2.1.txt")
    trainval = read_video_list(folder / "ava_file_names_trainval_v2.1.txt")
    assert len(trainval) == 299
    for split, number in (("train", 161), ("val", 37)):
        for version in ("2.1", "2.2"):
            excluded = read_exclusions(folder / f"ava_{split}_excluded_timestamps_v{version}.csv")
            assert len(excluded) == number
            assert {video for video, _ in excluded} <= set(trainval)


# ---------------------------------------------------------------------------------- good rows


def test_annotations(tmp_path):
    text = "a,0902,0.1,0.2,0.5,0.6,3,7\nb,903,0.077,0,1,1,80,1.0000\na,0902,0,0,1,1,1,\n"
    rows = read_ava_csv(write(tmp_path, text))
    assert len(rows) == 3
    assert rows.video_ids.tolist() == ["a", "b", "a"]
    assert rows.timestamps.tolist() == [902, 903, 902]
    assert rows.boxes.tolist() == [[0.1, 0.2, 0.5, 0.6], [0.077, 0, 1, 1], [0, 0, 1, 1]]
    assert rows.labels.tolist() == [3, 80, 1]
    assert rows.person_ids.tolist() == [7, 1, -1]
    assert rows.scores.tolist() == [7, 1, 1]
    dtypes = (rows.video_codes.dtype, rows.timestamps.dtype, rows.boxes.dtype, rows.labels.dtype)
    assert dtypes == (np.int32, np.float64, np.float64, np.int64)
    assert rows.person_ids.dtype == np.int64


def test_annotations_without_person_ids(tmp_path):
    rows = read_ava_csv(write(tmp_path, "a,0902,0.1,0.2,0.5,0.6,3\n"))
    assert rows.person_ids.tolist() == [-1]


def test_results(tmp_path):
    rows = read_ava_csv(write(tmp_path, "a,0902,0.1,0.2,0.5,0.6,3,1e-3\n"), "results")
    assert rows.scores.tolist() == [0.001]
    assert rows.person_ids.tolist() == [-1]
    assert rows.has_scores
    rows = read_ava_csv(write(tmp_path, "a,0902,0.1,0.2,0.5,0.6,3\n"), "results")
    assert rows.scores.tolist() == [1.0]
    assert not rows.has_scores


def test_boxes(tmp_path):
    text = "a,0902,0.1,0.2,0.5,0.6,,0.9\na,0902,0.1,0.2,0.5,0.6,cup,0.8\na,0902,0,0,1,1,ball,0.5\n"
    rows = read_ava_csv(write(tmp_path, text), "boxes")
    assert list(rows.class_names) == ["cup", "ball"]
    assert rows.labels.tolist() == [-1, 0, 1]
    assert rows.scores.tolist() == [0.9, 0.8, 0.5]
    assert rows.person_ids.tolist() == [-1, -1, -1]
    text = "a,0902,0.1,0.2,0.5,0.6,,0.9,4\na,0903,0.1,0.2,0.5,0.6,,0.9,\n"
    rows = read_ava_csv(write(tmp_path, text), "boxes")
    assert rows.person_ids.tolist() == [4, -1]
    assert rows.labels.tolist() == [-1, -1]


@pytest.mark.parametrize(
    "text",
    [
        GOOD_ROW,
        f"{GOOD_ROW}\n",
        f"\n{GOOD_ROW}\n\n   \n",
        f"{GOOD_ROW}\r\n",
        f"\ufeff{GOOD_ROW}\n",
        '"v",0902,0.1,0.2,0.5,0.6,3,1\n',
        "v, 902,0.1, 0.2,0.5,.6,3,+1\n",
    ],
)
def test_ways_to_write_the_same(tmp_path, text):
    rows = read_ava_csv(write(tmp_path, text))
    assert rows.video_ids.tolist() == ["v"]
    assert rows.timestamps.tolist() == [902]
    assert rows.boxes.tolist() == [[0.1, 0.2, 0.5, 0.6]]
    assert (rows.labels.tolist(), rows.person_ids.tolist()) == ([3], [1])


@pytest.mark.parametrize("kind", ["annotations", "results", "boxes"])
def test_empty_file(tmp_path, kind):
    rows = read_ava_csv(write(tmp_path, ""), kind)
    assert len(rows) == 0
    assert rows.boxes.shape == (0, 4)
    assert rows.video_ids.tolist() == []


def test_gzip(tmp_path):
    path = write(tmp_path, gzip.compress(f"{GOOD_ROW}\n".encode()), "file.csv.gz")
    assert read_ava_csv(path).labels.tolist() == [3]


def test_rows_of_7_and_8_columns_may_mix(tmp_path):
    text = "v,902,0.1,0.2,0.5,0.6,3\nv,902,0.1,0.2,0.5,0.6,4,0.5\n"
    rows = read_ava_csv(write(tmp_path, text), "results")
    assert rows.scores.tolist() == [1.0, 0.5]
    assert not rows.has_scores


@given(st.floats(0, 1))
def test_decimal_text_is_rounded_correctly(tmp_path_factory, value):
    path = write(tmp_path_factory.mktemp("csv"), f"v,902,0,0,1,1,1,{value:.17f}\n")
    assert read_ava_csv(path, "results").scores[0] == float(f"{value:.17f}")


def test_small_overshoot_is_clipped_and_counted(tmp_path, caplog):
    text = "v,902,-0.03,0.2,0.5,1.04,3,1\nv,902,0.1,0.2,0.5,0.6,3,1\nv,902,0,0,1.001,1,3,1\n"
    path = write(tmp_path, text)
    with caplog.at_level(logging.WARNING):
        rows = read_ava_csv(path)
    assert rows.boxes.tolist() == [[0, 0.2, 0.5, 1], [0.1, 0.2, 0.5, 0.6], [0, 0, 1, 1]]
    assert "clipped 2 boxes" in caplog.text
    rows = read_ava_csv(path, check_boxes=False)
    assert rows.boxes[0].tolist() == [-0.03, 0.2, 0.5, 1.04]


# ---------------------------------------------------------------------------------- bad rows


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("v,902,0.1,0.2,0.5", "5 columns: expected video_id,timestamp,x1,y1,x2,y2,action_id"),
        ("v,902,0.1,0.2,0.5,0.6,3,1,9", "9 columns"),
        (",902,0.1,0.2,0.5,0.6,3,1", "column video_id"),
        ("v,noon,0.1,0.2,0.5,0.6,3,1", "column timestamp: 'noon': expected a number"),
        ("v,,0.1,0.2,0.5,0.6,3,1", "column timestamp: ''"),
        ("v,-5,0.1,0.2,0.5,0.6,3,1", "column timestamp: -5"),
        ("v,inf,0.1,0.2,0.5,0.6,3,1", "column timestamp: inf"),
        ("v,1e300,0.1,0.2,0.5,0.6,3,1", "column timestamp: 1e+300: expected seconds"),
        ("v,902,0.1,zero,0.5,0.6,3,1", "column y1: 'zero'"),
        ("v,902,nan,0.2,0.5,0.6,3,1", "column x1: nan: expected a finite number"),
        ("v,902,0.1,0.2,inf,0.6,3,1", "column x2: inf"),
        ("v,902,0.1,0.2,,0.6,3,1", "column x2: ''"),
        ("v,902,0.5,0.2,0.1,0.6,3,1", "column x2: 0.1: expected more than x1 = 0.5"),
        ("v,902,0.1,0.6,0.5,0.6,3,1", "column y2: 0.6: expected more than y1 = 0.6"),
        ("v,902,1.01,0.2,1.04,0.6,3,1", "column x2: 1.04: expected more than x1"),
        ("v,902,100,0.2,250,0.6,3,1", "column x1: 100: expected a fraction"),
        ("v,902,0.1,0.2,0.5,0.6,run,1", "column action_id: 'run'"),
        ("v,902,0.1,0.2,0.5,0.6,1.5,1", "column action_id: '1.5': expected a whole number"),
        ("v,902,0.1,0.2,0.5,0.6,0x10,1", "column action_id: '0x10': expected a whole number"),
        ("v,902,0.1,0.2,0.5,0.6,0,1", "column action_id: 0: expected an action id from 1 on"),
        ("v,902,0.1,0.2,0.5,0.6,99999999999999999999,1", "column action_id"),
        ("v,902,0.1,0.2,0.5,0.6,3,nan", "column person_id: 'nan'"),
        ("v,902,0.1,0.2,0.5,0.6,3,1.5", "column person_id: '1.5': expected a whole number"),
    ],
)
def test_bad_annotation(tmp_path, row, words):
    path = write(tmp_path, f"{GOOD_ROW}\n\n{row}\n{GOOD_ROW}\n")
    with pytest.raises(DataFileError) as error:
        read_ava_csv(path)
    assert str(error.value).startswith(f"{path}:3: ")
    assert words in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("score", ["nan", "", "high"])
@pytest.mark.parametrize("check_boxes", [True, False])
def test_bad_score(tmp_path, score, check_boxes):
    path = write(tmp_path, f"v,902,0.1,0.2,0.5,0.6,3,{score}\n")
    with pytest.raises(DataFileError, match="column score"):
        read_ava_csv(path, "results", check_boxes=check_boxes)


def test_all_bad_rows_are_in_one_report(tmp_path):
    """Rows that can't be read and rows out of range, in the order of the file."""
    bad = ["v,902,0.1,0.2,0.1,0.6,3,1", "v,902,a,0.2,0.5,0.6,3,1"] * 15
    path = write(tmp_path, "\n".join([GOOD_ROW, *bad, GOOD_ROW]))
    with pytest.raises(DataFileError) as error:
        read_ava_csv(path)
    lines = str(error.value).splitlines()
    assert len(lines) == 21
    assert [line.split(":")[1] for line in lines[:20]] == [str(n) for n in range(2, 22)]
    assert lines[20] == "... and 10 more"


def test_what_only_the_evaluators_accept(tmp_path):
    text = "v,902,0.5,0.1,0.1,0.9,0,0.5\nv,902,-3,0,7,1,-4,-11\n"
    path = write(tmp_path, text)
    with pytest.raises(DataFileError):
        read_ava_csv(path, "results")
    rows = read_ava_csv(path, "results", check_boxes=False)
    assert rows.boxes.tolist() == [[0.5, 0.1, 0.1, 0.9], [-3, 0, 7, 1]]
    assert rows.labels.tolist() == [0, -4]
    with pytest.raises(DataFileError, match="x1: nan"):
        read_ava_csv(write(tmp_path, "v,902,nan,0,1,1,1,1\n"), "results", check_boxes=False)


def test_integer_timestamps(tmp_path):
    path = write(tmp_path, "v,902.0,0.1,0.2,0.5,0.6,3,1\n")
    assert read_ava_csv(path).timestamps.tolist() == [902]
    with pytest.raises(DataFileError, match="timestamp: '902.0': expected a whole number"):
        read_ava_csv(path, integer_timestamps=True)


def test_empty_frames(tmp_path):
    path = write(tmp_path, f"{GOOD_ROW}\nv,903\n")
    with pytest.raises(DataFileError, match="2: 2 columns"):
        read_ava_csv(path)
    rows = read_ava_csv(path, allow_empty_frames=True)
    assert len(rows) == 1
    assert list(rows.empty_frames) == [("v", 903.0)]


@pytest.mark.parametrize("reader", [read_ava_csv, read_exclusions, read_label_map])
def test_files_that_are_no_text(tmp_path, reader):
    with pytest.raises(DataFileError, match="not a text file"):
        reader(write(tmp_path, b"\xff\xd8\xff\xe0\x00\x10JFIF\n\x80\x81"))
    with pytest.raises(FileNotFoundError, match="missing.csv"):
        reader(tmp_path / "missing.csv")


@pytest.mark.parametrize("reader", [read_ava_csv, read_exclusions, read_label_map])
def test_damaged_gzip_files(tmp_path, reader):
    packed = gzip.compress(b"v,902,0.1,0.2,0.3,0.4,3,1\n" * 200)
    for name in ("file.csv.gz", "file.csv"):
        with pytest.raises(DataFileError, match="gzip"):
            reader(write(tmp_path, packed[:-12], name))
        with pytest.raises(DataFileError, match="gzip"):
            reader(write(tmp_path, packed[:30] + b"\x55" * 9 + packed[39:], name))
    with pytest.raises(DataFileError, match="not a gzip file"):
        reader(write(tmp_path, GOOD_ROW, "file.csv.gz"))


def test_unknown_kind(tmp_path):
    with pytest.raises(ValueError, match="annotations, results, boxes"):
        read_ava_csv(write(tmp_path, GOOD_ROW), "tracks")


def test_real_files(shared):
    folder = shared / "ava" / "official"
    rows = read_ava_csv(folder / "ava_val_v2.1_head27163.csv")
    assert len(rows) == 27163
    assert len(rows.videos) == 8
    excluded = read_exclusions(folder / "ava_val_excluded_timestamps_v2.2.csv")
    assert len(excluded) == 37
    assert ("5BDj0ow5hnA", 1038) in excluded


def table(tmp_path, text: str, kind: str = "annotations") -> AVARows:
    return read_ava_csv(write(tmp_path, text), kind)


def test_duplicates(tmp_path):
    lines = [GOOD_ROW, "v,0902,0.1,0.2,0.5,0.6,4,1", "w,0902,0.1,0.2,0.5,0.6,3,1", GOOD_ROW]
    lines += ["v,0902,0.1,0.2,0.5,0.6,3,2", "v,902.0,0.1,0.2,0.5,0.60,3,1", "v,0902,-0.0,0,1,1,3,"]
    lines += ["v,0902,0,0,1,1,3,"]
    found = duplicates(table(tmp_path, "\n".join(lines)))
    assert found.tolist() == [False, False, False, True, False, True, False, True]
    assert not duplicates(table(tmp_path, "")).any()


@given(st.lists(st.tuples(*[st.integers(0, 1)] * 4), max_size=30))
def test_duplicates_are_what_a_set_finds(tmp_path_factory, keys):
    lines = [f"v{a},90{b},0.{c + 1},0.2,0.5,0.6,{d + 1},1" for a, b, c, d in keys]
    rows = table(tmp_path_factory.mktemp("csv"), "\n".join(lines))
    assert duplicates(rows).tolist() == [key in keys[:i] for i, key in enumerate(keys)]


def test_rows_are_joined_by_name(tmp_path):
    first = table(tmp_path, "a,1,0,0,1,1,cup,0.5\nb,2,0,0,1,1,,0.6\n", "boxes")
    second = table(tmp_path, "b,3,0,0,1,1,ball,0.7,4\nc,4,0,0,1,1,cup,0.8\n", "boxes")
    rows = concatenate_rows([first, second, table(tmp_path, "", "boxes")])
    assert rows.video_ids.tolist() == ["a", "b", "b", "c"]
    assert rows.timestamps.tolist() == [1, 2, 3, 4]
    names = [rows.class_names[i] if i >= 0 else "" for i in rows.labels]
    assert names == ["cup", "", "ball", "cup"]
    assert rows.person_ids.tolist() == [-1, -1, 4, -1]
    actions = [table(tmp_path, f"{v},1,0,0,1,1,{i},1\n") for v, i in (("a", 7), ("b", 9))]
    assert concatenate_rows(actions).labels.tolist() == [7, 9]
    assert select_rows(rows, np.array([2, 0])).video_ids.tolist() == ["b", "a"]


# ---------------------------------------------------------------------------------- anything

good_cells = st.tuples(
    *(st.sampled_from(["v", "w w", "-x"]), st.integers(0, 2000)),
    *(st.floats(-0.04, 0.4), st.floats(0, 0.4), st.floats(0.5, 1.04), st.floats(0.5, 1)),
    *(st.integers(1, 80), st.one_of(st.just(""), st.integers(-1, 99))),
).map(lambda row: [str(cell) for cell in row])
bad_cells = st.sampled_from(["x", "nan", "", "inf", "-7", "9e99", "1.06", "2.5.1", "\x00"])


@given(st.lists(st.tuples(good_cells, st.sampled_from([None] * 7 + [2, 3, 4, 5]), bad_cells)))
def test_every_row_is_read_or_reported(tmp_path_factory, rows):
    lines, wrong = [], []
    for number, (cells, column, bad) in enumerate(rows, 1):
        if column is not None:
            cells = [*cells[:column], bad, *cells[column + 1 :]]
            wrong.append(number)
        lines.append(",".join(cells))
    path = write(tmp_path_factory.mktemp("csv"), "\n".join(lines))
    try:
        read = read_ava_csv(path)
    except DataFileError as error:
        report = str(error).splitlines()
        if report[0].endswith("rows alike"):  # the first stands for all
            assert len(report) == 1 and len(wrong) == len(rows) > 2
            wrong = wrong[:1]
        assert len(report) == min(len(wrong), 21)
        shown = [int(line[len(f"{path}:") :].split(":")[0]) for line in report[:20]]
        assert shown == wrong[:20]
    else:
        assert not wrong and len(read) == len(lines)
        assert read.video_ids.tolist() == [cells[0] for cells, *_ in rows]
        assert ((read.boxes >= 0) & (read.boxes <= 1)).all()


exclusion_rows = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["v", "w w", "-x"]), st.integers(0, 2000).map(str)),
        st.tuples(st.sampled_from(["v", '"a,b"']), st.sampled_from(["0902", " 7", "902"])),
        st.sampled_from([("v", "x"), ("v", "1.5"), ("v", "-1"), ("", "7"), ("v",), ("v", "7", "")]),
        st.just(()),
    ),
    max_size=40,
)


@given(exclusion_rows)
def test_every_exclusion_is_read_or_reported(tmp_path_factory, rows):
    wrong, right = [], set()
    for number, row in enumerate(rows, 1):
        if len(row) == 2 and row[0] and row[1].strip().isdigit():
            right.add((row[0].strip('"'), int(row[1])))
        elif row:
            wrong.append(number)
    text = "\n".join(",".join(row) for row in rows)
    path = write(tmp_path_factory.mktemp("csv"), text)
    try:
        assert read_exclusions(path) == right and not wrong
    except DataFileError as error:
        report = str(error).splitlines()
        shown = [int(line[len(f"{path}:") :].split(":")[0]) for line in report[:20]]
        if len(report) == 1 and len(wrong) > 1:  # all rows fail alike
            assert shown == wrong[:1] and not right and report[0].endswith("rows alike")
        else:
            assert shown == wrong[:20]
            assert len(report) == min(len(wrong), 21)


# name, id, group, what is wrong with the entry
label_entries = st.lists(
    st.tuples(
        st.sampled_from(["run", "sit down", "a/b", "é", "x y z", "{not a brace}", "#1", "it's"]),
        st.integers(-1, 12),
        st.sampled_from(["", "POSE", "PERSON_INTERACTION"]),
        st.sampled_from([None] * 12 + ["no name", "no id", "two names", "open", "stray"]),
    ),
    min_size=1,
    max_size=8,
)


@given(label_entries, st.sampled_from(["item", "label"]), st.sampled_from(["\n", "\r\n"]))
def test_every_class_is_read_or_the_first_bad_one_reported(tmp_path_factory, entries, word, end):
    id_word = "id" if word == "item" else "label_id"
    lines, names, groups, first_bad = [], {}, {}, None
    for number, (name, action, group, problem) in enumerate(entries):
        parts = [f'name: "{name}"', f"{id_word}: {action}"]
        parts += [f"label_type: {group}"] if group else []
        if problem == "no name":
            del parts[0]
        elif problem == "no id":
            del parts[1]
        elif problem == "two names":
            parts.append('name: "another"')
        entry = f"{word} {{ {'  '.join(parts)} }}"
        if problem == "open":
            entry = entry[:-1]
        elif problem == "stray":
            entry = f"id: 7 {entry}"
        lines.append(entry)
        is_good = problem is None and action >= 1
        is_good &= action not in names and name not in names.values()
        if first_bad is None and not is_good:
            first_bad = number + 1
        if is_good:
            names[action] = name
            groups[action] = {"": "", "POSE": "pose", "PERSON_INTERACTION": "person"}[group]
    path = write(tmp_path_factory.mktemp("map"), end.join(lines))
    try:
        label_map = read_label_map(path)
    except DataFileError as error:
        assert first_bad is not None and len(str(error).splitlines()) == 1
        where = int(str(error)[len(f"{path}:") :].split(":")[0])
        # An entry that is not closed is noticed where the next one begins.
        was_open = entries[first_bad - 1][3] == "open"
        assert where in ((first_bad, first_bad + 1) if was_open else (first_bad,))
    else:
        assert first_bad is None
        assert label_map.names == names and label_map.groups == groups
        assert list(label_map.names) == [action for _, action, *_ in entries]


plain_lines = st.lists(
    st.one_of(
        st.sampled_from(
            ["run", "sit down", "a, b", "x: y", "[pose]", "[ object ]", "# no", "", " "]
        ),
        st.sampled_from(["1 run", "2", "3, sit"]),
    ),
    max_size=12,
)


@given(plain_lines)
def test_every_line_of_a_plain_list_is_read_or_reported(tmp_path_factory, lines):
    names, groups, group, bad = [], [], "", None
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text.startswith("["):
            group = text[1:-1].strip()
        elif text and not text.startswith("#"):
            if bad is None and (text[0].isdigit() or text in names):
                bad = number
            names.append(text)
            groups.append(group)
    if names and all(re.match(r"\d+\W", name) for name in names):
        return  # a numbered list
    path = write(tmp_path_factory.mktemp("map"), "\n".join(lines))
    try:
        label_map = read_label_map(path)
    except DataFileError as error:
        assert f"{path}:{bad}: " in str(error) if bad else "no classes found" in str(error)
        assert bad or not names
    else:
        assert bad is None
        assert list(label_map.names.items()) == list(enumerate(names, 1))
        assert list(label_map.groups.values()) == groups


def refused_or_read(reader, path: Path) -> object | None:
    try:
        return reader(path)
    except DataFileError as error:
        lines = str(error).splitlines()
        assert 1 <= len(lines) <= 21
        assert all(line.startswith((str(path), "... and")) for line in lines)
        return None


READERS = [read_ava_csv, read_exclusions, read_label_map, read_seconds, read_video_list]


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    for reader in READERS:
        for name in ("file", "file.gz"):
            refused_or_read(reader, write(folder, data, name))


_words = [
    "v",
    "902",
    "0902",
    "0.5",
    ",",
    ",",
    "\n",
    "\n",
    "{",
    "}",
    "item",
    "label",
    "name:",
    "id:",
]
_words += [
    '"run"',
    "'",
    '"',
    " ",
    "label_type:",
    "1",
    "\r",
    "\x00",
    "[pose]",
    "#",
    "nan",
    "é",
    "\u2028",
]


@given(st.lists(st.sampled_from(_words), max_size=40))
def test_any_text_is_read_or_refused(tmp_path_factory, words):
    path = write(tmp_path_factory.mktemp("any"), "".join(words))
    for kind in ("annotations", "results", "boxes"):
        refused_or_read(lambda file, kind=kind: read_ava_csv(file, kind), path)
    excluded = refused_or_read(read_exclusions, path)
    if excluded is not None:
        assert all(isinstance(video, str) and second >= 0 for video, second in excluded)
    label_map = refused_or_read(read_label_map, path)
    if label_map is not None:
        assert min(label_map.names) >= 1 and all(label_map.names.values())
        assert list(label_map.names) == list(label_map.groups)
    refused_or_read(read_seconds, path)
    refused_or_read(read_video_list, path)


# ---------------------------------------------------------------------------------- writing


def some_rows(num_rows: int, scores_dtype=np.float32, videos=("b", "a")) -> AVARows:
    random = np.random.default_rng(0)
    return AVARows(
        videos=list(videos),
        video_codes=random.integers(0, len(videos), num_rows).astype(np.int32),
        timestamps=random.integers(1, 2000, num_rows).astype(np.float64),
        boxes=random.random((num_rows, 4)),
        labels=random.integers(1, 81, num_rows),
        scores=random.random(num_rows).astype(scores_dtype) ** 40,
        person_ids=np.full(num_rows, -1),
    )


@pytest.mark.parametrize("scores_dtype", [np.float32, np.float64])
@pytest.mark.parametrize("videos", [("b", "a"), ("b", 'a, the "best"')])
def test_written_results_read_back_the_same(tmp_path, scores_dtype, videos):
    rows = some_rows(300_000 if "a" in videos else 300, scores_dtype, videos)
    write_ava_results(tmp_path / "r.csv", rows)
    back = read_ava_csv(tmp_path / "r.csv", "results", check_boxes=False, integer_timestamps=True)
    assert (back.video_ids == rows.video_ids).all()
    for name in ("timestamps", "boxes", "labels"):
        np.testing.assert_array_equal(getattr(back, name), getattr(rows, name))
    np.testing.assert_array_equal(back.scores.astype(scores_dtype), rows.scores)
    assert os.listdir(tmp_path) == ["r.csv"]


def test_written_text(tmp_path):
    rows = AVARows(
        videos=["v"],
        video_codes=np.zeros(2, np.int32),
        timestamps=np.array([7.0, 1002.0]),
        boxes=np.array([[0.25, 0.5, 0.123456789, 1], [0, 0, 1, 1]]),
        labels=np.array([12, 80]),
        scores=np.array([0.1, 1e-7], np.float32),
        person_ids=np.full(2, -1),
    )
    write_ava_results(tmp_path / "r.csv", rows)
    lines = (tmp_path / "r.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines] == [["v", "0007"], ["v", "1002"]]
    numbers = [[float(number) for number in line.split(",")[2:]] for line in lines]
    assert numbers == [[0.25, 0.5, 0.123456789, 1, 12, 0.1], [0, 0, 1, 1, 80, 1e-7]]


def test_no_rows_make_an_empty_file(tmp_path):
    write_ava_results(tmp_path / "r.csv", some_rows(0))
    assert (tmp_path / "r.csv").read_text() == ""


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = write(tmp_path, "old", "r.csv")
    rows = some_rows(5)
    rows.video_codes[3] = 7  # no such video
    with pytest.raises(IndexError):
        write_ava_results(path, rows)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["r.csv"]


def test_module_needs_no_torch():
    root = Path(__file__).resolve().parents[2]
    code = (
        "import sys, types; package = types.ModuleType('alphaaction_d2');"
        f"package.__path__ = [{str(root / 'alphaaction_d2')!r}];"
        "sys.modules['alphaaction_d2'] = package;"
        "import alphaaction_d2.formats.ava, alphaaction_d2.evaluation;"
        "assert not {'torch', 'detectron2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
