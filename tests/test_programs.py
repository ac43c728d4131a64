"""The code of docs/programs.md runs as it stands, and its adapters say what the results say."""

from __future__ import annotations

import csv
import importlib
import json
import re
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from alphaaction_d2.apps.command_line import run_module
from alphaaction_d2.data.video import VideoWriter
from alphaaction_d2.formats.ava import read_ava_csv
from alphaaction_d2.formats.label_map import LabelMap
from alphaaction_d2.formats.people import people_table, write_people
from alphaaction_d2.formats.results import (
    KeyframeResult,
    PersonResult,
    VideoResult,
    write_results_json,
)

PAGE = Path(__file__).resolve().parents[1] / "docs" / "programs.md"
NAMES = ["walk", "", "open"]
FPS = 8


def person(x: float, scores: list[float], person_id: int) -> PersonResult:
    found = PersonResult.from_scores([x, 8, x + 16, 40], scores, NAMES, person_id)
    return replace(found, features=np.array([1, 0], np.float16))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """All names that the page's code has defined, beside a film whose results are known."""
    root = tmp_path_factory.mktemp("page")
    with VideoWriter(root / "film.mp4", FPS, 64, 48) as writer:
        for i in range(5 * FPS):
            writer.write(np.full((48, 64, 3), 5 * i, np.uint8))
    moments = {
        0.0: [person(0, [0.9, 0, 0.1], 1), person(32, [0.8, 0, 0.7], -1)],
        1.0: [person(8, [0.6, 0, 0.5], 1), person(32, [0.9, 0, 0.1], 2)],
        2.0: [person(32, [0.1, 0, 0.2], 2)],
        3.0: [],
        4.0: [person(16, [0.2, 0, 0.9], 1)],
    }
    keyframes = [KeyframeResult(second, persons) for second, persons in moments.items()]
    result = VideoResult("film", 64, 48, NAMES, keyframes)
    folder = root / "film_actions"
    write_results_json(folder / "results.json", result)
    write_people(folder / "people.arrow", people_table(result, root / "film.mp4", "abc"))
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    assert len(blocks) == 9
    names: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run_module("convert", ["--to", "coco", "film_actions/results.json", "actions.json"])
        for block in blocks:
            if "import supervision" in block and find_spec("supervision") is None:
                continue
            exec(compile(block, str(PAGE), "exec"), names)
    return SimpleNamespace(**names, root=root)


def test_coco_and_its_pictures(page):
    assert len(page.again.anns) == 2 * 6
    pictures = sorted(x.name for x in (page.root / "pictures" / "film").iterdir())
    assert pictures == [f"{second:04d}.jpg" for second in range(5)]


def test_supervision(page):
    pytest.importorskip("supervision")
    first, second, third, nobody, last = page.detections
    assert first.xyxy.tolist() == [[0, 8, 16, 40], [32, 8, 48, 40], [32, 8, 48, 40]]
    np.testing.assert_allclose(first.confidence, [0.9, 0.8, 0.7])
    assert first.class_id.tolist() == [0, 0, 2] and first.tracker_id.tolist() == [1, -1, -1]
    assert first.data["class_name"].tolist() == ["walk", "walk", "open"]
    assert [len(x) for x in (second, third, nobody, last)] == [3, 0, 0, 1]


def test_fiftyone(page, monkeypatch):
    """With the library itself where it is installed, else with what stands for its four classes."""
    try:
        importlib.import_module("fiftyone")
    except ImportError:
        values = SimpleNamespace
        parts = dict.fromkeys(("Detection", "Detections", "Frame"), values)
        parts["Sample"] = lambda filepath: values(filepath=filepath, frames={})
        monkeypatch.setitem(sys.modules, "fiftyone", values(**parts))
    sample = page.fiftyone_sample(page.result, "film.mp4", page.fps)
    assert sample.filepath.endswith("film.mp4")
    found = sample.frames[FPS + 1].actions.detections  # of second 1
    assert [(x.label, x.index) for x in found] == [("walk", 1), ("open", 1), ("walk", 2)]
    assert list(found[0].bounding_box) == pytest.approx([8 / 64, 8 / 48, 16 / 64, 32 / 48])
    assert len(sample.frames[4 * FPS + 1].actions.detections) == 1


def test_cvat_tracks_end_and_come_back(page):
    (label,) = json.loads((page.root / "label.json").read_text())
    assert [x["name"] for x in label["attributes"]] == ["walk", "open"]
    one, two = page.corrected.iter("track")
    boxes = [(int(x.get("frame")), x.get("outside")) for x in one.iter("box")]
    assert boxes == [(0, "0"), (8, "0"), (16, "1"), (32, "0"), (40, "1")]
    assert [x.get("frame") for x in two.iter("box")] == ["8", "16", "24"]
    does = {x.get("name"): x.text for x in one.find("box").iter("attribute")}
    assert does == {"walk": "true", "open": "false"}


def test_cvat_becomes_annotations(page):
    with open(page.root / "train.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert [(int(x[1]), int(x[6]), int(x[7])) for x in rows] == [
        *((0, 1, 1), (1, 1, 1), (1, 3, 1), (4, 3, 1)),
        *((1, 1, 2), (2, -1, 2)),
    ]
    assert [float(x) for x in rows[0][2:6]] == pytest.approx(
        [0, 8 / 48, 16 / 64, 40 / 48], abs=1e-4
    )
    labels = LabelMap({1: "walk", 3: "open"}, {})
    assert len(read_ava_csv(page.root / "train.csv", label_map=labels).boxes) == 6


def test_label_studio_has_a_region_for_every_action(page):
    (task,) = json.loads((page.root / "tasks.json").read_text())
    (prediction,) = task["predictions"]
    regions = {}
    for x in prediction["result"]:
        steps = [(step["frame"], step["enabled"]) for step in x["value"]["sequence"]]
        regions.setdefault(x["value"]["labels"][0], []).append(steps)
    # Who has no identity is not linked; what ends is switched off where it was last seen.
    assert regions == {
        "walk": [[(1, True), (9, False)], [(1, False)], [(9, False)]],
        "open": [[(1, False)], [(9, False)], [(33, True)]],
    }
    step = prediction["result"][0]["value"]["sequence"][1]
    assert [step[k] for k in ("x", "y", "width", "height")] == pytest.approx(
        [12.5, 100 / 6, 25, 200 / 3]
    )


def test_the_index_is_plain_arrow(page):
    assert page.features.shape == (6, 2) and len(page.most_alike) == 6
