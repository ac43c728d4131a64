"""`make demo` and `make compare` on a data set that takes seconds: every part of them runs."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import cv2
import pytest

from alphaaction_d2.apps import compare, make_demo
from alphaaction_d2.data.datasets.puppets.generate import generate_puppets
from tests.helpers import loaded_tool

TOOLS = Path(__file__).resolve().parents[2] / "tools"
SHORT = (
    *("SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2, "MODEL.DEVICE", "cpu"),
    *("DATALOADER.NUM_WORKERS", 0, "DATALOADER.STORED_VARIANTS", 0),
)


@pytest.fixture(scope="module")
def puppets(tmp_path_factory):
    root = tmp_path_factory.mktemp("datasets") / "puppets"
    return generate_puppets(root, num_train=2, num_val=1, seconds=12, num_workers=0)


def test_the_demo_leaves_a_report_with_everything(puppets, tmp_path):
    with (
        mock.patch.object(make_demo, "generate_puppets", return_value=puppets),
        loaded_tool(TOOLS / "make_demo.py") as run,
    ):
        assert run("--output", tmp_path, "--num-videos", 1, *SHORT) == 0
    page = (tmp_path / "report.html").read_text()
    for part in ("val_000", "mAP, official2018", "Average precision per class", "results.csv"):
        assert part in page
    assert cv2.imread(str(tmp_path / "class_ap.png")) is not None
    assert (tmp_path / "val_000" / "annotated.mp4").is_file()


def test_methods_are_compared_per_group(puppets, tmp_path):
    with (
        mock.patch.object(compare, "generate_puppets", return_value=puppets),
        loaded_tool(TOOLS / "compare.py") as run,
    ):
        assert run("--methods", "AIA", "--seeds", 1, 2, "--output", tmp_path, *SHORT) == 0
    table = json.loads((tmp_path / "compare.json").read_text())
    assert list(table) == ["none", "AIA"]
    assert all(len(aps) == 2 for groups in table.values() for aps in groups.values())
    assert "| AIA " in (tmp_path / "compare.md").read_text()
    assert cv2.imread(str(tmp_path / "compare.png")) is not None
