"""detectron2's evaluator of UCF101-24, by hand (on a trained model: tests/projects)."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances

from alphaaction_d2.evaluation import UCFEvaluator
from alphaaction_d2.formats.ucf101_24 import UCFAnnotations


@pytest.fixture
def data_set():
    """A tube of ten frames in one video, another class, and a video that nobody tests."""
    name = "ucf101_24_by_hand"
    frames = np.arange(1, 11)
    annotations = UCFAnnotations(
        videos=["Dive/a", "Run/b"],
        num_frames=np.array([20, 20]),
        class_names=["Dive", "Run"],
        video_codes=np.repeat([0, 1], 10),
        frames=np.tile(frames, 2),
        boxes=np.tile([10.0, 10, 50, 90], (20, 1)),
        labels=np.repeat([0, 1], 10),
        tubes=np.zeros(20, np.int64),
    )
    MetadataCatalog.get(name).set(evaluator_type="ucf101_24", annotations=annotations)
    yield name
    MetadataCatalog.remove(name)


def output(frame: int, scores: tuple[float, float], ids: int | None = 3) -> dict:
    instances = Instances((240, 320), pred_boxes=Boxes(torch.tensor([[10.0, 10, 50, 90]] * 2)))
    instances.scores, instances.pred_classes = torch.tensor(scores), torch.arange(2)
    if ids is not None:
        instances.person_ids = torch.full((2,), ids)
    return {"video_id": "Dive/a", "timestamp": (frame - 1) / 25, "instances": instances}


def test_frames_and_tubes(data_set, tmp_path):
    evaluator = UCFEvaluator(data_set, tmp_path)
    for _ in range(2):  # what comes again counts once
        evaluator.process([], [output(t, (0.9, 0.2)) for t in range(1, 11)])
    numbers = evaluator.evaluate()["ucf101_24"]
    assert (numbers["AP/Dive"], numbers["AP/Run"]) == (100, 0), "a video that is missing counts"
    for prefix in ("", "linked_"):
        assert numbers[f"{prefix}video_mAP@0.5:0.95"] == 50
    assert numbers["frame_mAP@0.5"] == 50
    results = json.loads((tmp_path / "ucf101_24_results.json").read_text())
    assert results["num_detections_per_class"] == {"Dive": 10, "Run": 10}
    assert results["video_AP_per_class"]["identities"] == {"Dive": 1.0, "Run": 0.0}
    evaluator.reset()
    numbers = evaluator.evaluate()["ucf101_24"]
    assert numbers["frame_mAP@0.5"] == 0


def test_who_is_who_may_be_unknown(data_set):
    evaluator = UCFEvaluator(data_set)
    evaluator.process([], [output(t, (0.9, 0.2), ids=None) for t in range(1, 11)])
    numbers = evaluator.evaluate()["ucf101_24"]
    assert numbers["linked_video_mAP@0.5"] == 50 and "video_mAP@0.5" not in numbers


def test_what_is_refused(data_set):
    evaluator = UCFEvaluator(data_set)
    with pytest.raises(ValueError, match="frame 2 of Dive/a: the model's boxes or scores"):
        evaluator.process([], [output(3, (float("nan"), 0.2))])
    with pytest.raises(ValueError, match="unknown protocol 'coco'"):
        UCFEvaluator(data_set, protocol="coco")
    MetadataCatalog.get("ava_by_hand").evaluator_type = "ava"
    with pytest.raises(ValueError, match="UCFEvaluator needs 'ucf101_24'"):
        UCFEvaluator("ava_by_hand")
    MetadataCatalog.remove("ava_by_hand")
