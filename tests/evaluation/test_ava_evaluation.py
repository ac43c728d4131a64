"""AVAEvaluator on small hand-made cases: what a model may answer, and when."""

from __future__ import annotations

import json
import logging
import math
import pickle
import uuid

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm

from alphaaction_d2 import add_alphaaction_config
from alphaaction_d2.engine import Trainer
from alphaaction_d2.evaluation import AVAEvaluator, evaluate_ava_files
from alphaaction_d2.evaluation.average_precision import AVA_PROTOCOLS
from alphaaction_d2.formats.ava import read_ava_csv
from alphaaction_d2.formats.ava_scores import read_ava_scores
from alphaaction_d2.formats.label_map import LabelMap
from alphaaction_d2.formats.tables import DataFileError

HEIGHT, WIDTH = 200, 400
LABEL_MAP = LabelMap(
    {1: "jump", 2: "lift", 3: "talk", 4: "sit"},
    {1: "pose", 2: "object", 3: "person", 4: "pose"},
)
GROUND_TRUTH = """\
a,0001,0.1,0.1,0.5,0.9,1,1
a,0001,0.1,0.1,0.5,0.9,2,1
a,0002,0.1,0.1,0.5,0.9,1,1
b,0001,0.55,0.1,0.95,0.9,1,1
b,0002,0.55,0.1,0.95,0.9,4,1
"""
PERSON, OTHER, NOBODY = (0.1, 0.1, 0.5, 0.9), (0.55, 0.1, 0.95, 0.9), (0.0, 0.0, 0.05, 0.1)


def output(video_id: str, timestamp: int, *rows: tuple, **extra) -> dict:
    """A model's output; ``rows`` are (relative box, action id, score)."""
    boxes = torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4)
    instances = Instances((HEIGHT, WIDTH))
    instances.pred_boxes = Boxes(boxes * torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT]))
    instances.pred_classes = torch.tensor([row[1] - 1 for row in rows], dtype=torch.int64)
    instances.scores = torch.tensor([row[2] for row in rows], dtype=torch.float32)
    keys = {"video_id": video_id, "timestamp": timestamp, "height": HEIGHT, "width": WIDTH}
    return {"instances": instances, **keys, **extra}


def outputs() -> list[dict]:
    return [
        output("a", 1, (PERSON, 1, 0.9), (PERSON, 2, 0.2), (NOBODY, 2, 0.8)),
        output("a", 2, (NOBODY, 1, 0.7), (PERSON, 1, 0.6)),
        output("b", 1, (PERSON, 1, 0.5), (OTHER, 1, 0.4)),
        output("b", 2),
    ]


@pytest.fixture
def dataset(tmp_path):
    """Registers the data set under a name of its own."""
    name = f"ava_{uuid.uuid4().hex}"
    annotation_file = tmp_path / "gt.csv"
    annotation_file.write_text(GROUND_TRUTH)
    MetadataCatalog.get(name).set(
        evaluator_type="ava",
        label_map=LABEL_MAP,
        annotation_file=str(annotation_file),
        excluded=set(),
    )
    yield name
    MetadataCatalog.remove(name)


def evaluate(evaluator: AVAEvaluator, *batches: list[dict]) -> dict[str, float]:
    evaluator.reset()
    for batch in batches:
        evaluator.process([], batch)
    return evaluator.evaluate()["ava"]


# class 1, by score: hit (1/1), miss, hit (2/3), miss, hit (3/5) of 3; class 2: miss, hit of 1
AP = {"jump": (1 + 2 / 3 + 3 / 5) / 3, "lift": 1 / 2, "sit": 0.0}


def test_numbers(dataset, caplog):
    with caplog.at_level(logging.INFO, logger="alphaaction_d2"):
        results = evaluate(AVAEvaluator(dataset), outputs())
    for name, ap in AP.items():
        assert results[f"AP/{name}"] == pytest.approx(100 * ap)
    assert math.isnan(results["AP/talk"])
    assert results["mAP@0.5"] == pytest.approx(100 * sum(AP.values()) / 3)
    assert results["AP-pose"] == pytest.approx(100 * (AP["jump"] + AP["sit"]) / 2)
    assert results["AP-object"] == pytest.approx(100 * AP["lift"])
    assert math.isnan(results["AP-person"])
    assert all(type(value) is float for value in results.values())
    assert "official2018" in caplog.text
    assert ["1", "jump", "pose", "3", "75.56"] in [line.split() for line in caplog.text.split("\n")]


def test_batches_and_order_do_not_matter(dataset):
    expected = evaluate(AVAEvaluator(dataset), outputs())
    a1, a2, b1, b2 = outputs()
    for batches in ([[a1], [a2], [b1], [b2]], [[b2, a2], [b1, a1]], [[], [b1], [a2, b2], [a1]]):
        evaluator = AVAEvaluator(dataset)
        assert evaluate(evaluator, *batches) == pytest.approx(expected, abs=0, nan_ok=True)


@pytest.mark.parametrize("protocol", AVA_PROTOCOLS)
def test_ties_do_not_depend_on_the_order_of_arrival(dataset, protocol):
    tied = [
        output(v, t, (NOBODY, 1, 0.5), (box, 1, 0.5))
        for v, t, box in (("a", 1, PERSON), ("a", 2, NOBODY), ("b", 1, OTHER), ("b", 2, OTHER))
    ]
    evaluator = AVAEvaluator(dataset, protocol=protocol)
    expected = evaluate(evaluator, tied)
    assert evaluate(evaluator, tied[::-1]) == pytest.approx(expected, abs=0, nan_ok=True)


def test_delayed_outputs(dataset):
    """Outputs describe themselves; the inputs that come with them are of other keyframes."""
    inputs = [{"video_id": "x", "timestamp": 99, "height": 1, "width": 1}] * 2
    evaluator = AVAEvaluator(dataset)
    a1, a2, b1, b2 = outputs()
    evaluator.reset()
    evaluator.process(inputs, [])
    evaluator.process(inputs, [a1])
    evaluator.process(inputs, [a2, b1, b2])
    expected = evaluate(AVAEvaluator(dataset), outputs())
    assert evaluator.evaluate()["ava"] == pytest.approx(expected, abs=0, nan_ok=True)


def test_outputs_that_leave_it_to_the_inputs(dataset):
    keys = ("video_id", "timestamp", "height", "width")
    inputs = [{key: out[key] for key in keys} for out in outputs()]
    bare = [{"instances": out["instances"]} for out in outputs()]
    evaluator = AVAEvaluator(dataset)
    evaluator.reset()
    evaluator.process(inputs, bare)
    expected = evaluate(AVAEvaluator(dataset), outputs())
    assert evaluator.evaluate()["ava"] == pytest.approx(expected, abs=0, nan_ok=True)
    with pytest.raises(ValueError, match="no 'video_id'"):
        evaluator.process([], bare)


def test_a_repeated_keyframe_counts_once(dataset):
    expected = evaluate(AVAEvaluator(dataset), outputs())
    repeated = [*outputs(), *outputs()[:2]]
    assert evaluate(AVAEvaluator(dataset), repeated) == pytest.approx(expected, abs=0, nan_ok=True)


def test_reset_forgets(dataset):
    evaluator = AVAEvaluator(dataset)
    evaluate(evaluator, [output("a", 1, (PERSON, 1, 1.0))])
    expected = evaluate(AVAEvaluator(dataset), outputs())
    assert evaluate(evaluator, outputs()) == pytest.approx(expected, abs=0, nan_ok=True)


@pytest.mark.parametrize("batch", [[], [output("a", 1), output("b", 2)]])
def test_no_predictions(dataset, tmp_path, caplog, batch):
    results = evaluate(AVAEvaluator(dataset, tmp_path / "out"), batch)
    assert "no predictions" in caplog.text
    assert results["mAP@0.5"] == 0.0
    assert results["AP/jump"] == 0.0
    assert math.isnan(results["AP/talk"])
    assert (tmp_path / "out" / "ava_detections.csv").read_text() == ""


@pytest.mark.parametrize("protocol", AVA_PROTOCOLS)
def test_files(dataset, tmp_path, protocol):
    """The written detections evaluate to the very number that was reported."""
    evaluator = AVAEvaluator(dataset, tmp_path / "out", protocol=protocol)
    results = evaluate(evaluator, outputs())
    csv_file = tmp_path / "out" / "ava_detections.csv"
    rows = read_ava_csv(csv_file, "results")
    assert rows.video_ids.tolist() == ["a"] * 5 + ["b"] * 2
    assert rows.boxes[0].tolist() == list(PERSON)
    again = evaluate_ava_files(tmp_path / "gt.csv", csv_file, LABEL_MAP, protocol=protocol)
    assert 100 * again.mean_ap == results["mAP@0.5"]
    numbers = json.loads((tmp_path / "out" / "ava_results.json").read_text())
    assert numbers["mAP@0.5"] == again.mean_ap
    assert numbers["protocol"] == protocol
    assert numbers["AP_per_class"]["3"] is None
    assert set(numbers["AP_per_group"]) == {"pose", "object", "person"}


@pytest.mark.parametrize("key", ["TEST.AVA_PROTOCOL", "TEST.AVA_DIALECT"])
def test_the_protocol_of_a_configuration(dataset, tmp_path, key):
    cfg = get_cfg()
    add_alphaaction_config(cfg)
    (tmp_path / "own.yaml").write_text(f"TEST:\n  {key.partition('.')[2]}: slowfast\n")
    cfg.merge_from_file(str(tmp_path / "own.yaml"))
    assert Trainer.build_evaluator(cfg, dataset)._protocol == "slowfast"


def test_excluded_keyframes(dataset):
    MetadataCatalog.get(dataset).excluded.update({("a", 2), ("b", 1), ("b", 2)})
    results = evaluate(AVAEvaluator(dataset), outputs())
    assert results["AP/jump"] == 100.0
    assert math.isnan(results["AP/sit"])


def test_boxes_are_clipped_to_the_frame(dataset, tmp_path):
    out = output("a", 1, ((-0.5, 0.1, 0.5, 1.5), 1, 0.5))
    evaluate(AVAEvaluator(dataset, tmp_path), [out])
    rows = read_ava_csv(tmp_path / "ava_detections.csv", "results")
    assert rows.boxes.tolist() == [[0, 0.1, 0.5, 1]]


class GatherOfTwo:
    """Stands for ``comm.gather`` of two workers that run one after the other, the first last."""

    def __init__(self):
        self.sent = []

    def __call__(self, data, dst):
        self.sent.insert(0, pickle.dumps(data))
        return [pickle.loads(data) for data in self.sent]


def test_results_of_workers_are_joined(dataset, monkeypatch):
    """Whoever has which keyframes: the same numbers, on the first worker only."""
    expected = evaluate(AVAEvaluator(dataset), outputs())
    a1, a2, b1, b2 = outputs()
    for first, second in (([b2, a1], [a2, b1]), ([], [a1, a2, b1, b2]), ([b1], [b2, a2, a1, b1])):
        workers = [AVAEvaluator(dataset), AVAEvaluator(dataset)]
        workers[0].process([], first)
        workers[1].process([], second)
        gather = GatherOfTwo()
        monkeypatch.setattr(comm, "gather", gather)
        monkeypatch.setattr(comm, "is_main_process", lambda: False)
        assert workers[1].evaluate() == {}
        monkeypatch.setattr(comm, "is_main_process", lambda: True)
        assert workers[0].evaluate()["ava"] == pytest.approx(expected, abs=0, nan_ok=True)


def test_half_precision_outputs(dataset):
    batch = outputs()
    for out in batch:
        out["instances"].scores = out["instances"].scores.bfloat16()
        out["instances"].pred_boxes.tensor = out["instances"].pred_boxes.tensor.bfloat16()
    assert evaluate(AVAEvaluator(dataset), batch)["AP/jump"] == pytest.approx(100 * AP["jump"])


def test_predictions_that_are_refused(dataset):
    evaluator = AVAEvaluator(dataset)
    with pytest.raises(ValueError, match="a at 1 s: .*not finite"):
        evaluator.process([], [output("a", 1, (PERSON, 1, float("nan")))])
    with pytest.raises(ValueError, match="action ids 5 to 5, the label map of .* 1 to 4"):
        evaluator.process([], [output("a", 1, (PERSON, 5, 0.5))])


def test_what_is_registered_is_checked_at_once(dataset, tmp_path):
    metadata = MetadataCatalog.get(dataset)
    (tmp_path / "gt.csv").write_text("a,0001,0.1,0.1,0.5,high,1,1\n")
    with pytest.raises(DataFileError, match="column y2: 'high'"):
        AVAEvaluator(dataset)
    (tmp_path / "gt.csv").unlink()
    with pytest.raises(FileNotFoundError, match="gt.csv"):
        AVAEvaluator(dataset)
    with pytest.raises(ValueError, match="unknown protocol"):
        AVAEvaluator(dataset, protocol="coco")
    del metadata.annotation_file
    with pytest.raises(ValueError, match="no 'annotation_file'"):
        AVAEvaluator(dataset)
    with pytest.raises(ValueError, match="is the data set registered"):
        AVAEvaluator("ava_never_registered")
    MetadataCatalog.remove("ava_never_registered")


def test_without_ground_truth_the_file_for_the_server_is_written(dataset, tmp_path):
    scored = AVAEvaluator(dataset, tmp_path / "scored")
    evaluate(scored, outputs())
    name = f"test_{uuid.uuid4().hex}"
    MetadataCatalog.get(name).set(
        evaluator_type="ava", label_map=LABEL_MAP, annotation_file=None, excluded=set()
    )
    evaluator = AVAEvaluator(name, tmp_path / "test")
    evaluator.reset()
    evaluator.process([], outputs())
    assert evaluator.evaluate() == {}
    MetadataCatalog.remove(name)
    written = (tmp_path / "test" / "ava_detections.csv").read_text()
    assert written == (tmp_path / "scored" / "ava_detections.csv").read_text()
    names = sorted(path.name for path in (tmp_path / "test").iterdir())
    assert names == ["ava_detections.csv", "ava_detections.npz"]
    unrounded = read_ava_scores(tmp_path / "test" / "ava_detections.npz")
    scores = [x["instances"].scores.numpy() for x in outputs()]
    assert np.array_equal(np.sort(unrounded.scores), np.sort(np.concatenate(scores)))
