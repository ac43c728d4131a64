"""Own data without a word about classes in the configuration: the label file knows them."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from alphaaction_d2 import register_datasets, setup_cfg
from alphaaction_d2.checkpoint.checkpointer import saved_groups
from alphaaction_d2.config import Groups, class_groups
from alphaaction_d2.engine import Trainer, VideoPredictor
from alphaaction_d2.engine.classes import with_classes
from alphaaction_d2.formats.ava_classes import AVA_CLASSES
from alphaaction_d2.formats.label_map import read_label_map
from tests.helpers import CONFIGS, build_trainer, loaded_tool, write_dataset

HEAD = "MODEL.ROI_ACTION_HEAD."
SIDES = Groups(("pose", "object"), (2, 1), ("pose",), (1.0, 1.0))


def silent_cfg(folder: Path | None, *opts: object):
    """A small model whose configuration says nothing of classes."""
    cfg = setup_cfg(
        str(CONFIGS / "Puppets" / "aia.yaml"),
        [
            *(
                x
                for key in ("NAMES", "SIZES", "LOSS_WEIGHTS")
                for x in (f"{HEAD}GROUP_{key}", None)
            ),
            *(f"{HEAD}SOFTMAX_GROUPS", None, "MODEL.DEVICE", "cpu"),
            *("MODEL.SLOWFAST.STEM_CHANNELS", 4, "MODEL.SLOWFAST.FROZEN", False),
            *("MODEL.WEIGHTS", "", "DATALOADER.STORED_VARIANTS", 0, "MODEL.INTERACTION.DIM", 16),
            *("MODEL.ROI_ACTION_HEAD.FC_DIM", 16, "INPUT.MIN_SIZE_TRAIN", "(48,)"),
            *("INPUT.MIN_SIZE_TEST", 48, "DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 2),
            *("MODEL.MEMORY.WINDOW", "(2,2)", "SOLVER.MAX_ITER", 1, "TEST.EVAL_PERIOD", 0),
            *("DATASETS.FOLDERS", () if folder is None else (str(folder),)),
            *("DATASETS.TRAIN", () if folder is None else (f"{folder.name}_train",)),
            *("DATASETS.TEST", () if folder is None else (f"{folder.name}_val",)),
        ],
    )
    cfg.merge_from_list(list(opts))
    return cfg


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A data set, and the folder of a training on it that was told nothing of its classes."""
    root = tmp_path_factory.mktemp("silent")
    folder = write_dataset(root / "silent")
    trainer = build_trainer(silent_cfg(folder), root / "run")
    trainer.resume_or_load(resume=False)
    trainer.train()
    return folder, root / "run"


def test_training_takes_them_from_the_data(run):
    folder, output = run
    cfg = silent_cfg(folder)
    assert class_groups(cfg).num_classes == len(AVA_CLASSES)  # as long as nobody has looked
    register_datasets(cfg)
    assert class_groups(cfg) == SIDES
    content = torch.load(output / "model_final.pth", weights_only=True)
    assert content["class_names"] == ["left", "right", "bright"]
    assert saved_groups(str(output / "model_final.pth")) == SIDES._replace(loss_weights=())
    assert read_label_map(output / "label_map.pbtxt").exclusive == ("pose",)


def test_a_frozen_configuration_gets_them_too(run):
    cfg = silent_cfg(run[0])
    cfg.freeze()
    register_datasets(cfg)
    assert class_groups(cfg) == SIDES and cfg.is_frozen()


@pytest.mark.parametrize(
    "labels, expected",
    [
        (
            "[pose, exclusive]\nleft\nright\n[light]\nbright\n",
            Groups(("pose", "light"), (2, 1), ("pose",)),
        ),
        (
            "[side]\nleft\nright\n[light, Exclusive]\nbright\n",
            Groups(("side", "light"), (2, 1), ("light",)),
        ),
        ("left\nright\nbright\n", Groups(("all",), (3,), ())),
        # annotations show that nobody is on both sides
        ("[side]\nleft\nright\n[light]\nbright\n", Groups(("side", "light"), (2, 1), ("side",))),
        (
            'item { name: "left" id: 1 label_type: "A" exclusive: false }\n'
            'item { name: "right" id: 2 label_type: "A" }\nitem { name: "bright" id: 3 }\n',
            Groups(("a", "all"), (2, 1), ()),
        ),
    ],
)
def test_label_files_say_it(run, tmp_path, labels, expected):
    folder = tmp_path / tmp_path.name  # no other data set has this name
    folder.mkdir()
    for name in ("videos", "annotations"):
        (folder / name).symlink_to(run[0] / name)
    (folder / "labels.txt").write_text(labels)
    cfg = silent_cfg(folder)
    register_datasets(cfg)
    assert class_groups(cfg)._replace(loss_weights=()) == expected
    # what the configuration says counts more
    cfg = silent_cfg(folder, f"{HEAD}SOFTMAX_GROUPS", "()")
    register_datasets(cfg)
    assert class_groups(cfg).exclusive == ()
    cfg = silent_cfg(folder, f"{HEAD}GROUP_NAMES", "('x',)", f"{HEAD}GROUP_SIZES", "(3,)")
    register_datasets(cfg)
    assert class_groups(cfg) == Groups(("x",), (3,), (), (1.0,))


@pytest.mark.parametrize(
    "labels, expected",
    [
        ("[pose, often]\nleft\n", r"labels.txt:1: '\[pose, often\]': expected a group like"),
        ('item { name: "a" id: 1 exclusive: 7 }\n', "labels.txt:1: exclusive '7': expected true"),
    ],
)
def test_bad_label_files(tmp_path, labels, expected):
    (tmp_path / "labels.txt").write_text(labels)
    with pytest.raises(ValueError, match=expected):
        read_label_map(tmp_path / "labels.txt")


def test_names_or_sizes_alone(run):
    with pytest.raises(ValueError, match="GROUP_NAMES None and GROUP_SIZES .2, 1.: set both"):
        class_groups(silent_cfg(None, f"{HEAD}GROUP_SIZES", "(2,1)"))


def test_inference_takes_them_from_the_weights(run):
    weights = str(run[1] / "model_final.pth")
    cfg = silent_cfg(None, "MODEL.WEIGHTS", weights)
    assert class_groups(with_classes(cfg, weights)) == SIDES
    assert class_groups(cfg).num_classes == 80  # the copy was changed
    predictor = VideoPredictor(cfg)
    results = list(predictor(run[0] / "videos" / "val_0.mp4"))
    assert results[0]["instances"].action_scores.shape[1] == 3
    assert predictor.model.class_names == ["left", "right", "bright"]
    # the predictor of weights that know nothing asks the data
    torch.save({"model": predictor.model.state_dict()}, run[1] / "bare.pth")
    assert saved_groups(str(run[1] / "bare.pth")) is None
    cfg = silent_cfg(run[0], "MODEL.WEIGHTS", str(run[1] / "bare.pth"))
    assert len(class_groups(VideoPredictor(cfg).cfg).names) == 2


def test_without_weights_and_data_classes_are_avas():
    cfg = setup_cfg("AVA/slowfast_R50_4x16")
    groups = class_groups(with_classes(cfg, ""))
    assert groups == Groups(("pose", "object", "person"), (14, 49, 17), ("pose",), (1.0,) * 3)


def test_commands_show_names(run, tmp_path, monkeypatch, caplog):
    """Demo and evaluation with a configuration that is silent, and --label-map over all."""
    folder, output = run
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "silent.yaml"
    cfg = silent_cfg(None)
    config.write_text(cfg.dump())
    tools = CONFIGS.parent / "tools"
    (tmp_path / "mine.txt").write_text("a\nb\nc\n")
    common = ("--config-file", config, "--input", folder / "videos" / "val_0.mp4")
    common += ("--weights", output / "model_final.pth", "--boxes", "whole-frame")
    common += ("--output", "shown", "--min-score", 0)
    with loaded_tool(tools / "demo.py") as demo:
        for more, names in (
            ((), {"left", "right", "bright"}),
            (("--label-map", "mine.txt"), set("abc")),
        ):
            assert demo(*common, *more) == 0
            rows = list(csv.DictReader(Path("shown", "results.csv").open()))
            assert {row["action_name"] for row in rows} <= names and rows
    with loaded_tool(tools / "train_net.py") as train, caplog.at_level(logging.INFO):
        data = ("DATASETS.FOLDERS", f"('{folder}',)", "DATASETS.TEST", "('silent_val',)")
        weights = ("MODEL.WEIGHTS", output / "model_final.pth", "OUTPUT_DIR", "evaluated")
        assert train("--config-file", config, "--eval-only", *weights, *data) == 0
    found = json.loads(Path("evaluated", "ava_results.json").read_text())
    assert list(found["class_names"].values()) == ["left", "right", "bright"]
    assert "(2, 1)" in Path("evaluated", "config.yaml").read_text().replace("- 2\n", "(2, 1)")


def test_a_model_of_other_classes_is_refused(run, tmp_path):
    folder = write_dataset(tmp_path / "other")
    (folder / "label_map.pbtxt").write_text(
        "".join(f'item {{ name: "c{i}" id: {i} }}\n' for i in (1, 2, 3, 4))
    )
    cfg = silent_cfg(folder, "MODEL.WEIGHTS", str(run[1] / "model_final.pth"))
    cfg = with_classes(cfg, cfg.MODEL.WEIGHTS)
    register_datasets(cfg)
    with pytest.raises(ValueError, match=r"other_val has 4 classes .* add up to 3"):
        Trainer.test(cfg, build_model(cfg))
