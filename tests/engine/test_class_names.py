"""What a model's classes are called, where its data set is gone."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import pytest
import torch

from alphaaction_d2 import setup_cfg
from alphaaction_d2.checkpoint.checkpointer import load_for_inference
from alphaaction_d2.engine import Trainer
from alphaaction_d2.engine.predictor import class_names
from alphaaction_d2.formats.ava_classes import AVA_CLASSES
from alphaaction_d2.formats.label_map import LabelMap, read_label_map, write_label_map
from tests.helpers import CONFIGS, build_trainer, loaded_tool, small_cfg, write_dataset

NAMES = ["left", "right", "bright"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A data set and the folder of a finished training on it."""
    root = tmp_path_factory.mktemp("names")
    folder = write_dataset(root / "sides")
    cfg = small_cfg(folder, "SOLVER.MAX_ITER", 1)
    trainer = build_trainer(cfg, root / "run")
    trainer.resume_or_load(resume=False)
    trainer.train()
    return folder, root / "run"


@pytest.fixture
def alone(run):
    """The configuration of the model and its weights, without any data set."""
    return small_cfg(None, "MODEL.WEIGHTS", str(run[1] / "model_final.pth"), *NO_DATA)


NO_DATA = ("DATASETS.TRAIN", (), "DATASETS.TEST", ())


def load(cfg):
    model = Trainer.build_model(cfg)
    load_for_inference(model, cfg.MODEL.WEIGHTS)
    return model


def test_the_weights_carry_them(run, alone, caplog):
    content = torch.load(alone.MODEL.WEIGHTS, weights_only=True)
    assert content["class_names"] == NAMES
    alone.DATASETS.FOLDERS = ("gone",)
    assert class_names(alone, load(alone)) == NAMES
    assert "Class names" not in caplog.text


def test_the_folder_of_the_run_names_them(run, tmp_path):
    label_map = read_label_map(run[1] / "label_map.pbtxt")
    assert label_map.names == dict(enumerate(NAMES, 1))
    assert list(label_map.groups.values()) == ["pose", "pose", "object"]
    # Weights that another loop has saved, in the same folder.
    state = torch.load(run[1] / "model_final.pth", weights_only=True)["model"]
    torch.save({"model": state}, run[1] / "other.pth")
    cfg = small_cfg(None, "MODEL.WEIGHTS", str(run[1] / "other.pth"), *NO_DATA)
    assert class_names(cfg, load(cfg)) == NAMES


def test_a_label_map_goes_first_and_must_fit(alone, tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    assert class_names(alone, load(alone), str(tmp_path / "names.txt")) == ["a", "b", "c"]
    (tmp_path / "names.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"names.txt: 2 classes, the model has 3"):
        class_names(alone, None, str(tmp_path / "names.txt"))


def test_without_any_the_reason_is_told(tmp_path, caplog):
    cfg = small_cfg(None, "DATASETS.FOLDERS", ("base/own",), *NO_DATA)
    assert class_names(cfg) == ["class 1", "class 2", "class 3"]
    (record,) = [r for r in caplog.records if "Class names" in r.message]
    assert record.levelno == logging.WARNING
    assert "data set folder base/own: there is no such folder" in record.message
    assert "--label-map FILE" in record.message and "label_map.pbtxt" not in record.message


def test_eighty_classes_are_avas(caplog):
    cfg = setup_cfg(str(CONFIGS / "AVA" / "aia_dense_R50_4x16.yaml"))
    assert class_names(cfg) == list(AVA_CLASSES)
    assert "Class names" not in caplog.text


def test_other_names_in_testing_are_told(run, alone, caplog):
    folder, _ = run
    cfg = small_cfg(folder, "MODEL.WEIGHTS", alone.MODEL.WEIGHTS, "OUTPUT_DIR", str(run[1]))
    model = load(cfg)
    Trainer.test(cfg, model)
    assert "the weights were trained on" not in caplog.text
    model.class_names = ["right", "left", "bright"]
    Trainer.test(cfg, model)
    assert "class 1 is called 'left' there, the weights were trained on 'right'" in caplog.text


def test_a_label_map_of_somebody_else_is_left_alone(tmp_path):
    path = tmp_path / "label_map.pbtxt"
    first = LabelMap({1: 'say "a\\b"', 2: "go"}, {1: "pose", 2: ""})
    write_label_map(path, first, "ours")
    assert read_label_map(path) == first
    write_label_map(path, LabelMap({1: "run"}, {1: ""}), "ours")
    assert read_label_map(path).names == {1: "run"}
    path.write_text('item { name: "theirs" id: 1 }\n')
    write_label_map(path, first, "ours")
    assert read_label_map(path).names == {1: "theirs"}


def test_a_model_without_names(shared, tmp_path, monkeypatch, caplog):
    """Weights from before names were kept: numbers with a warning, or the names of a file."""
    case = shared / "cases" / "23"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.txt").write_text("open\nclose\nwave\n")
    opts = [
        *("MODEL.DEVICE", "cpu", "DATASETS.TEST", "()", "DATASETS.TRAIN", "()"),
        *("MODEL.ROI_ACTION_HEAD.GROUP_NAMES", "('all',)"),
        *("MODEL.ROI_ACTION_HEAD.GROUP_SIZES", "(3,)", "MODEL.MEMORY.WINDOW", "(2,2)"),
        *("MODEL.ROI_ACTION_HEAD.GROUP_LOSS_WEIGHTS", "(1.0,)", "INPUT.MIN_SIZE_TEST", 64),
        *("MODEL.ROI_ACTION_HEAD.SOFTMAX_GROUPS", "()", "INPUT.MAX_SIZE_TEST", 96),
    ]
    with loaded_tool(CONFIGS.parent / "tools" / "demo.py") as run:
        for more, name in (((), "class 1"), (("--label-map", "labels.txt"), "open")):
            arguments = [
                *("--config-file", CONFIGS / "Small" / "aia.yaml", "--input", case / "clip_c.mp4"),
                *("--weights", case.parent / "base_model" / "model_final.pth"),
                *("--boxes", "whole-frame", "--output", "results", *more, "--opts", *opts),
            ]
            assert run(*arguments) == 0
            rows = list(csv.DictReader(Path("results", "results.csv").open()))
            assert name in {row["action_name"] for row in rows}
            assert ("--label-map FILE names them" in caplog.text) == (name == "class 1")
            caplog.clear()
