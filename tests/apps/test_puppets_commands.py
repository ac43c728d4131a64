"""`make demo` and `make compare` on a data set that takes seconds: every part of them runs."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from unittest import mock

import cv2
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model

from alphaaction_d2.apps import compare, make_demo
from alphaaction_d2.apps.experiment import PUPPETS_CONFIGS
from alphaaction_d2.checkpoint.checkpointer import load_for_inference
from alphaaction_d2.data.datasets.puppets.generate import generate_puppets
from alphaaction_d2.data.datasets.puppets.scripts import PUPPET_CLASSES
from alphaaction_d2.engine import Trainer
from alphaaction_d2.engine.stopwatch import TimeLeft
from alphaaction_d2.formats.config_files import setup_cfg
from tests.helpers import loaded_tool

TOOLS = Path(__file__).resolve().parents[2] / "tools"
SHORT = (
    *("SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2, "MODEL.DEVICE", "cpu"),
    *("DATALOADER.NUM_WORKERS", 0, "DATALOADER.STORED_VARIANTS", 0),
)


@pytest.fixture(scope="module")
def puppets(tmp_path_factory):
    """A few videos. After `make demo` the checkout has such a data set itself, which other tests
    find: it makes room here, and comes back."""
    root = tmp_path_factory.mktemp("datasets") / "puppets"
    with (
        mock.patch.dict(DatasetCatalog.data) as sets,
        mock.patch.dict(MetadataCatalog.data) as metadata,
    ):
        for name in ("puppets_train", "puppets_val"):
            sets.pop(name, None)
            metadata.pop(name, None)
        yield generate_puppets(root, num_train=2, num_val=1, seconds=12, num_workers=0)


@pytest.mark.parametrize("options", [(), ("--from-nothing",)], ids=["backbone", "from nothing"])
def test_the_demo_leaves_a_report_with_everything(puppets, tmp_path, options):
    with (
        mock.patch.object(make_demo, "generate_puppets", return_value=puppets),
        loaded_tool(TOOLS / "make_demo.py") as run,
    ):
        assert run("--output", tmp_path, "--num-videos", 1, *options, *SHORT) == 0
    page = (tmp_path / "report.html").read_text()
    for part in ("val_000", "mAP, official2018", "Average precision per class", "results.csv"):
        assert part in page
    assert cv2.imread(str(tmp_path / "class_ap.png")) is not None
    assert (tmp_path / "val_000" / "annotated.mp4").is_file()
    assert cv2.imread(str(tmp_path / "sample.png")) is not None
    assert (tmp_path / "backbone" / "model_final.pth").is_file() == bool(options)


def test_the_backbone_that_is_kept_in_the_repository_fits():
    cfg = setup_cfg(str(PUPPETS_CONFIGS / "none.yaml"), ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    load_for_inference(model, str(PUPPETS_CONFIGS / "backbone.pth"))  # whole, or it raises
    names = [c.name for c in PUPPET_CLASSES]
    assert model.class_names == names


def test_methods_are_compared_per_group(puppets, tmp_path):
    with (
        mock.patch.object(compare, "generate_puppets", return_value=puppets),
        loaded_tool(TOOLS / "compare.py") as run,
    ):
        options = ("--methods", "AIA", "IGMN tracked", "--seeds", 1, 2, "--output", tmp_path)
        assert run(*options, *SHORT) == 0
        with mock.patch.object(compare, "run_experiment", side_effect=finished) as again:
            assert run(*options, *SHORT) == 0
    assert len(again.call_args_list) == 6
    table = json.loads((tmp_path / "compare.json").read_text())
    assert list(table) == ["AIA", "IGMN", "IGMN tracked"]  # whose networks it tests
    assert all(len(aps) == 2 for groups in table.values() for aps in groups.values())
    text = (tmp_path / "compare.md").read_text()
    assert "| AIA " in text
    assert text.splitlines()[-1].split("|")[-2].strip() == "-"  # of "tracked" no step was taken
    assert cv2.imread(str(tmp_path / "compare.png")) is not None
    for seed in (1, 2):
        cfg = (tmp_path / f"aia_seed{seed}" / "config.yaml").read_text()
        assert str(PUPPETS_CONFIGS / "backbone.pth") in cfg
        cfg = (tmp_path / f"igmn_tracked_seed{seed}" / "config.yaml").read_text()
        assert str(tmp_path / f"igmn_seed{seed}" / "model_final.pth") in cfg
    assert not list(tmp_path.glob("igmn_tracked_seed*/*.pth"))


def finished(cfg, train):
    """Run nothing: it must have been there before."""
    path = Path(cfg.OUTPUT_DIR)
    assert (path / "config.yaml").read_text() == cfg.dump()
    assert train == ("tracked" not in path.name)
    return path / "ava_results.json"


def test_ways_to_keep_the_memory_are_compared(puppets, tmp_path):
    with (
        mock.patch.object(compare, "generate_puppets", return_value=puppets),
        loaded_tool(TOOLS / "compare.py") as run,
    ):
        options = ("--table", "update", "--methods", "frozen memory", "--seeds", 2, 3)
        assert run(*options, "--output", tmp_path, *SHORT) == 0
        with pytest.raises(SystemExit):
            run("--table", "update", "--methods", "IGMN", "--output", tmp_path)
    table = json.loads((tmp_path / "compare.json").read_text())
    assert list(table) == ["frozen memory"]  # not the run that it starts from
    assert set(table["frozen memory"]) > {"memory", "s a step"}
    start = tmp_path / "update_start_seed1" / "model_final.pth"
    for seed in (2, 3):
        cfg = (tmp_path / f"update_frozen_seed{seed}" / "config.yaml").read_text()
        assert cfg.count(str(start)) == 2  # the model and its memory begin with the same weights


def test_what_is_left_is_that_of_the_whole(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(make_demo.time, "monotonic", lambda: now[0])
    whole = make_demo.Whole([x for x in make_demo.STAGES if x != "backbone"])

    def shown(left: float, by: str = "x") -> str:
        record = logging.LogRecord(by, logging.INFO, "", 0, "a %s", (TimeLeft(left),), None)
        assert whole.filter(record) and whole.filter(record)  # of two handlers
        return record.getMessage()

    assert shown(whole.begin("videos")) == "a 5:32 min left"  # 20 + 55 + 230 + 21 + 6 s
    now[0] = 40
    assert shown(whole.begin("features")) == "a 5:12 min left"
    assert shown(30) == "a 4:47 min left"  # a part of the features, and all that follows
    now[0] = 70
    assert shown(60, "engine.hooks") == "a 1:27 min left"  # who tells of steps has all features
    now[0] = 71
    assert shown(whole.begin("drawing")) == "a 0:06 min left"
    now[0] = 85
    whole.begin()
    assert whole.seconds == {"videos": 40, "features": 30, "training": 1, "drawing": 14}


@pytest.mark.parametrize("where", ["training", "drawing"])
def test_after_ctrl_c_the_demo_goes_on(puppets, tmp_path, where):
    """What was saved before is used; the same report comes out."""
    original_step = Trainer.run_step

    def stop(*args, **options):
        if where == "drawing" or args[0].iter == 3:
            raise KeyboardInterrupt
        return original_step(*args, **options)

    options = ("--output", tmp_path, "--num-videos", 1, *SHORT, "SOLVER.MAX_ITER", 4)
    options += ("SOLVER.CHECKPOINT_PERIOD", 2)
    target = Trainer if where == "training" else make_demo
    name = "run_step" if where == "training" else "process_video"
    with (
        mock.patch.object(make_demo, "generate_puppets", return_value=puppets),
        loaded_tool(TOOLS / "make_demo.py") as run,
    ):
        with mock.patch.object(target, name, stop):
            assert run(*options) == 130
        final = tmp_path / "training" / "model_final.pth"
        assert final.exists() == (where == "drawing") and not (tmp_path / "report.html").exists()
        before = final.stat().st_mtime_ns if final.exists() else 0
        with mock.patch.object(
            Trainer, "run_step", autospec=True, side_effect=original_step
        ) as step:
            assert run(*options) == 0
    assert step.call_count == (2 if where == "training" else 0)
    assert not before or final.stat().st_mtime_ns == before
    assert (tmp_path / "report.html").is_file()
