from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from alphaaction_d2.formats.results import (
    CSV_HEADER,
    ClassAP,
    KeyframeResult,
    PersonResult,
    VideoResult,
    coco_content,
    format_timestamp,
    group_classes,
    mean_ap,
    read_results_json,
    write_results_csv,
    write_results_json,
)

ROOT = Path(__file__).resolve().parents[2]
NAMES = ['say "hi", loud', "", "走る"]


def some_result():
    first = PersonResult.from_scores([10.5, 20, 110, 200.25], [0.25, 0.9, 0.75], NAMES, 3)
    second = PersonResult.from_scores([-5, 0, 700, 360], [0.0, 0.0, 1.0], NAMES)
    keyframes = [
        KeyframeResult(2.0, [first, second]),
        KeyframeResult(3.0, []),
        KeyframeResult(4.5, [second]),
    ]
    return VideoResult("naïve, video", 640, 360, NAMES, keyframes)


def test_csv_has_names_normalised_boxes_and_no_gaps_of_the_label_map(tmp_path):
    path = write_results_csv(tmp_path / "new" / "results.csv", some_result())
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CSV_HEADER
    assert len(rows) == 6
    assert rows[0] == {
        "video_id": "naïve, video",
        "timestamp": "0002",
        "x1": "0.0164",
        "y1": "0.0556",
        "x2": "0.1719",
        "y2": "0.5563",
        "action_id": "1",
        "action_name": 'say "hi", loud',
        "score": "0.250000",
        "person_id": "3",
    }
    assert rows[1]["action_id"] == "3"
    boxes = np.array([[float(row[k]) for k in ("x1", "y1", "x2", "y2")] for row in rows])
    assert boxes.min() == 0 and boxes.max() == 1
    assert rows[-1]["timestamp"] == "0004.500" and rows[-1]["person_id"] == "-1"


def test_timestamps():
    assert [format_timestamp(t) for t in (0.0, 902.0, 1.9999999, 12.25)] == [
        "0000",
        "0902",
        "0002",
        "0012.250",
    ]


def test_json_holds_everything(tmp_path):
    written = some_result()
    content = json.loads(write_results_json(tmp_path / "results.json", written).read_text("utf-8"))
    assert (content["format"], content["version"]) == ("alphaaction_d2.video_result", 1)
    assert [content[k] for k in ("video_id", "width", "height")] == ["naïve, video", 640, 360]
    assert content["class_names"] == NAMES
    assert [k["timestamp"] for k in content["keyframes"]] == [2.0, 3.0, 4.5]
    for old, new in zip(written.keyframes, content["keyframes"]):
        assert len(old.persons) == len(new["persons"])
        for a, b in zip(old.persons, new["persons"]):
            np.testing.assert_allclose(a.box, b["box"], atol=1e-3)
            np.testing.assert_allclose(a.scores, b["scores"], atol=1e-6)
            assert a.person_id == b["person_id"]
            assert [name for name, _ in a.actions] == [action["name"] for action in b["actions"]]
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"], "no scratch files stay"


def test_nan_scores_are_not_written(tmp_path):
    person = PersonResult([0, 0, 1, 1], -1, [], [math.nan])
    result = VideoResult("v", 9, 9, ["a"], [KeyframeResult(0.0, [person])])
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="not numbers"):
        write_results_json(path, result)
    assert path.read_text() == "old"


def test_ranking_leaves_out_gaps_and_low_scores():
    person = PersonResult.from_scores([0, 0, 1, 1], np.array([0.1, 0.9, 0.5]), NAMES)
    assert person.actions == [("走る", 0.5), ('say "hi", loud', pytest.approx(0.1))]
    assert person.best_actions(2, 0.2) == person.best_actions(1, 0.0) == [("走る", 0.5)]
    assert person.best_actions(2, 0.6) == []
    with pytest.raises(ValueError, match="2 scores for 3 class names"):
        PersonResult.from_scores([0, 0, 1, 1], np.zeros(2), NAMES)


def test_bad_results_are_refused():
    good = PersonResult.from_scores([0, 0, 1, 1], [0.5] * 3, NAMES)
    for box in ([0, 0, 1], [0, 0, math.nan, 1]):
        with pytest.raises(ValueError, match="box"):
            PersonResult.from_scores(box, [0.5] * 3, NAMES)
    with pytest.raises(ValueError, match="order of time"):
        VideoResult("v", 9, 9, NAMES, [KeyframeResult(1.0, [good]), KeyframeResult(1.0, [])])
    with pytest.raises(ValueError, match="for 2 classes"):
        VideoResult("v", 9, 9, NAMES[:2], [KeyframeResult(1.0, [good])])
    with pytest.raises(ValueError, match="no area"):
        VideoResult("v", 0, 9, NAMES, [])


def test_period_is_the_usual_distance():
    keyframes = [KeyframeResult(t, []) for t in (0.0, 0.5, 1.0, 9.0)]
    assert VideoResult("v", 9, 9, NAMES, keyframes).period == 0.5
    assert VideoResult("v", 9, 9, NAMES, keyframes[:1]).period == 1.0


def test_class_groups_are_sorted_and_averaged():
    classes = [
        ClassAP("a", 10.0, "x"),
        ClassAP("b", math.nan, "y"),
        ClassAP("c", 30.0, "x"),
        ClassAP("d", 0.0, "y"),
    ]
    groups = group_classes(classes)
    assert {g: [c.name for c in members] for g, members in groups.items()} == {
        "x": ["c", "a"],
        "y": ["d", "b"],
    }
    assert mean_ap(classes) == pytest.approx(40 / 3)
    assert math.isnan(mean_ap([classes[1]])) and math.isnan(mean_ap([]))


def test_json_is_read_as_it_was_written(tmp_path):
    path = write_results_json(tmp_path / "results.json", some_result())
    found = read_results_json(path)
    assert (found.video_id, found.width, found.height) == ("naïve, video", 640, 360)
    assert write_results_json(tmp_path / "again.json", found).read_bytes() == path.read_bytes()
    later = {**json.loads(path.read_text("utf-8")), "something": "new"}
    path.write_text(json.dumps(later))
    assert [len(x.persons) for x in read_results_json(path).keyframes] == [2, 0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "of version 2, expected alphaaction_d2.video_result of version 1"),
        ({"format": "else"}, "else of version 1"),
        ({"keyframes": [{"timestamp": 1}]}, "no 'persons'"),
        ({"keyframes": None}, "NoneType"),
        ({"class_names": ["a"]}, "3 scores for 1 class names"),
        ({"width": 0}, "has no area"),
        ({"width": math.nan}, "NaN is no number"),
        ({"keyframes": [{"timestamp": t, "persons": []} for t in (2, 1)]}, "in order of time"),
    ],
)
def test_other_json_is_refused_in_one_line(tmp_path, change, message):
    path = write_results_json(tmp_path / "results.json", some_result())
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **change}))
    with pytest.raises(ValueError, match="results.json: not a results.json of a video") as error:
        read_results_json(path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_texts_that_are_no_json_are_refused(tmp_path):
    for content in (b"", b"[]", b"{}", b"[" * 100_000, b"\xff\xfe", b'{"format": '):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(ValueError, match="x.json: not a results.json of a video"):
            read_results_json(tmp_path / "x.json")
    with pytest.raises(FileNotFoundError):
        read_results_json(tmp_path / "y.json")


def test_the_schema_describes_what_is_written(tmp_path):
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    schema = json.loads((ROOT / "docs" / "results.schema.json").read_text())
    validator.check_schema(schema)
    written = write_results_json(tmp_path / "results.json", some_result()).read_text("utf-8")
    validator(schema).validate(json.loads(written))
    wrong = [
        {"version": 2},
        {"width": 0},
        {"class_names": [1]},
        {"keyframes": [{"timestamp": "2", "persons": []}]},
        {"keyframes": [{"timestamp": 2, "persons": [{"box": [1, 2, 3], "person_id": 1}]}]},
    ]
    for change in wrong:
        assert not validator(schema).is_valid({**json.loads(written), **change})
    for missing in schema["required"]:
        content = json.loads(written)
        del content[missing]
        assert not validator(schema).is_valid(content)


def test_coco_is_what_pycocotools_reads(tmp_path):
    content = coco_content([some_result(), replace(some_result(), video_id="second")], 0.5)
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    coco = COCO(str(path))
    assert [x["file_name"] for x in coco.loadImgs([1, 3, 4])] == [
        "naïve, video/0002.jpg",
        "naïve, video/0004.500.jpg",
        "second/0002.jpg",
    ]
    assert {x["id"]: x["name"] for x in coco.loadCats(coco.getCatIds())} == {1: NAMES[0], 3: "走る"}
    found = coco.loadAnns(coco.getAnnIds(imgIds=1))
    assert [(x["category_id"], x["score"], x["person_id"]) for x in found] == [
        (3, 0.75, 3),
        (3, 1.0, -1),
    ]
    assert found[0]["bbox"] == [10.5, 20, 99.5, 180.25]
    assert found[0]["area"] == pytest.approx(99.5 * 180.25)
    assert len(coco.loadRes(content["annotations"]).anns) == len(coco.anns) == 6
    with pytest.raises(ValueError, match="second: other classes than naïve, video"):
        other = VideoResult("second", 9, 9, ["a"], [])
        coco_content([some_result(), other])
