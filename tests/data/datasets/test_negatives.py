"""Persons who do nothing of the list, and keyframes with nobody."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from alphaaction_d2.data import ActionDatasetMapper, register_folder
from alphaaction_d2.evaluation import AVAEvaluator
from alphaaction_d2.formats.ava import read_ava_csv
from alphaaction_d2.formats.tables import DataFileError

from ...helpers import build_trainer, small_cfg, write_dataset

BOX = "0.1,0.1,0.4,0.9"
ONE_CLASS = (
    *("MODEL.ROI_ACTION_HEAD.GROUP_NAMES", "('all',)", "MODEL.ROI_ACTION_HEAD.GROUP_SIZES", "(1,)"),
    *("MODEL.ROI_ACTION_HEAD.GROUP_LOSS_WEIGHTS", "(1.0,)"),
    *("MODEL.ROI_ACTION_HEAD.SOFTMAX_GROUPS", "()", "SOLVER.MAX_ITER", 2),
)


@pytest.fixture
def falls(tmp_path) -> Path:
    """A set with the one class "fall": persons who do not fall, and seconds without anybody."""
    folder = write_dataset(tmp_path / f"fall{uuid.uuid4().hex[:6]}")
    (folder / "label_map.pbtxt").unlink()
    (folder / "labels.txt").write_text("fall\n")
    for split in ("train", "val"):
        rows = (f"1,{BOX},1,1", f"2,{BOX},,1", f"3,{BOX},-1,1", "4")
        lines = [f"{split}_{v},{row}\n" for v in (0, 1) for row in rows]
        (folder / "annotations" / f"{split}.csv").write_text("".join(lines))
        for role in ("persons", "objects"):
            (folder / "boxes" / f"{split}_{role}.csv").unlink()
    (folder / "annotations" / "val_excluded.csv").unlink()
    return folder


@pytest.mark.parametrize("empty", ["v,5", "v,5,,,,,,", "v,5,,,,,,,"])
def test_rows_of_an_own_table(tmp_path, empty):
    path = tmp_path / "train.csv"
    path.write_text(f"v,1,{BOX},2,7\nv,2,{BOX},,8\nw,3,{BOX},-1,9\n{empty}\n")
    with pytest.raises(DataFileError):  # what AVA's evaluators read
        read_ava_csv(path, check_boxes=False)
    rows = read_ava_csv(path, allow_empty_frames=True)
    assert rows.labels.tolist() == [2, -1, -1] and rows.person_ids.tolist() == [7, 8, 9]
    assert rows.empty_frames == [("v", 5.0)]


@pytest.mark.parametrize("cell", ["0", "-2", "1.5", "x"])
def test_what_is_no_action_is_still_refused(tmp_path, cell):
    path = tmp_path / "train.csv"
    path.write_text(f"v,1,{BOX},{cell},1\n")
    with pytest.raises(DataFileError, match=r"train.csv:1: column action_id: "):
        read_ava_csv(path)


def test_negatives_are_persons_without_a_class(falls):
    name = register_folder(falls)[0]
    keyframes = {(x["video_id"], x["timestamp"]): x for x in DatasetCatalog.get(name)}
    kinds = [
        (
            len(keyframes["train_0", t]["annotations"]),
            len(keyframes["train_0", t].get("negatives", ())),
        )
        for t in (1, 2, 3, 4)
    ]
    assert kinds == [(1, 0), (0, 1), (0, 1), (0, 0)]
    assert [len(keyframes["train_0", t]["persons"]) for t in (1, 2, 3, 4)] == [1, 1, 1, 0]
    cfg = small_cfg(falls, *ONE_CLASS)
    mapped = ActionDatasetMapper(cfg, is_train=True)(keyframes["train_0", 2])
    assert mapped["instances"].gt_classes.tolist() == [[0.0]]
    assert mapped["proposals"].person_ids.tolist() == [1]


@pytest.mark.parametrize("sampler", ["TrainingSampler", "RepeatFactorTrainingSampler"])
def test_a_set_of_one_class_trains_and_is_scored(falls, tmp_path, sampler):
    cfg = small_cfg(falls, *ONE_CLASS, "DATALOADER.SAMPLER_TRAIN", sampler)
    cfg.DATALOADER.REPEAT_THRESHOLD = 0.1
    trainer = build_trainer(cfg, tmp_path / "out")
    times = [x["timestamp"] for x in trainer._trainer.data_loader.keyframes]
    assert sorted(times) == [1, 1, 2, 2, 3, 3]  # there is nothing to learn where nobody is
    trainer.train()
    result = trainer._last_eval_results
    assert 0 <= result["ava"]["mAP@0.5"] <= 100
    assert len(trainer.pool) > 0


def test_a_negative_lowers_the_score_of_who_finds_an_action_there(falls):
    name = register_folder(falls)[1]
    evaluator = AVAEvaluator(name, protocol="official2020")
    truth = evaluator._ground_truth
    assert truth.labels.tolist() == [1, -1, -1] * 2
    assert truth.empty_frames == [("val_0", 4.0), ("val_1", 4.0)]
    assert np.isfinite(truth.timestamps).all()
