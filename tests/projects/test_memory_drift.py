"""projects/AIA/memory_drift.py on a data set that takes seconds."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from alphaaction_d2.apps.experiment import PUPPETS_CONFIGS
from alphaaction_d2.data.datasets.puppets.generate import generate_puppets

SCRIPT = Path(__file__).resolve().parents[2] / "projects" / "AIA" / "memory_drift.py"
SMALL = (
    *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.WARMUP_ITERS", "0", "MODEL.DEVICE", "cpu"),
    *("DATALOADER.REPEAT_THRESHOLD", "0.0"),
)


@pytest.fixture(scope="module")
def script() -> SimpleNamespace:
    namespace = runpy.run_path(str(SCRIPT))
    namespace["measure"].__globals__["AGES"] = (1, 2, 8)
    namespace["measure"].__globals__["NUM_CLIPS"] = 4
    return SimpleNamespace(**namespace)


def test_what_stands_still_does_not_drift_and_slots_grow_old(script, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for name in ("puppets_train", "puppets_val"):  # other tests have such a set elsewhere
        for catalog in (DatasetCatalog, MetadataCatalog):
            monkeypatch.setitem(catalog.data, name, None)  # what was there comes back afterwards
            del catalog.data[name]
    generate_puppets(tmp_path / "puppets", num_train=1, num_val=1, seconds=12, num_workers=0)
    monkeypatch.setitem(script.main.__globals__, "generate_puppets", lambda _: tmp_path / "puppets")
    weights = ("--weights", str(PUPPETS_CONFIGS / "backbone.pth"))
    rates = ("--rates", "0.003", "0.0", "--start", "8", "--output", str(tmp_path / "drift"))
    script.main([*weights, *rates, *SMALL])
    result = json.loads((tmp_path / "drift" / "memory_drift.json").read_text())["rates"]
    moving, still = result["0.003"], result["0.0"]
    assert all(x == pytest.approx(0, abs=1e-6) for x in still["change"].values())
    assert 0 < moving["change"]["1"] < moving["change"]["8"] and moving["change_when_read"] > 0
    # Ten keyframes, two a step: each comes once in five steps.
    assert 2 <= moving["age"] <= 8 and moving["age"] == still["age"]
    assert moving["ages"] == sorted(moving["ages"]) and 1 <= moving["ages"][0]
    with Image.open(tmp_path / "drift" / "memory_drift.png") as picture:
        assert picture.width > picture.height > 300


def test_a_change_of_one_is_another_person(script):
    """Persons drawn anew from the same distribution differ by as much as two persons."""
    torch.manual_seed(0)
    before, now = torch.randn(2, 400, 32) * torch.rand(32) + torch.rand(32)
    assert script.change_of(before, now) == pytest.approx(1, abs=0.05)
    assert script.change_of(before, before + 1e-9) == pytest.approx(0, abs=1e-6)
