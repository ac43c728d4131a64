"""Reading files of weights: what is loaded, what is refused, what a user is told."""

from __future__ import annotations

import logging
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from alphaaction_d2.checkpoint import ActionCheckpointer, CheckpointMismatch, load_for_inference
from alphaaction_d2.checkpoint.reading import TRUST_PICKLE, read_checkpoint

LOGGER = "alphaaction_d2.checkpoint.checkpointer"


class TwoParts(nn.Module):
    """The names of a model, and little else."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.roi_heads = nn.ModuleDict(
            {
                "head": nn.Linear(2, 4),
                "predictor": nn.ModuleDict({"cls_score": nn.Linear(4, classes)}),
            }
        )


class Suspicious:
    """Leaves a trace when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture(autouse=True)
def trust_nobody(monkeypatch):
    monkeypatch.delenv(TRUST_PICKLE, raising=False)


def test_nothing_is_unpickled_unasked(tmp_path):
    trace = tmp_path / "trace"
    for name, save in (("a.pth", torch.save), ("b.pkl", _pickle)):
        save({"model": {"x": torch.zeros(1)}, "extra": Suspicious(trace)}, tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name}.*--trust-pickle.*{TRUST_PICKLE}=1") as error:
            read_checkpoint(tmp_path / name)
        assert not trace.exists() and "\n" not in str(error.value)
        read_checkpoint(tmp_path / name, trust_pickle=True)
        assert trace.exists()
        trace.unlink()


def _pickle(data: object, path) -> None:
    path.write_bytes(pickle.dumps(data, protocol=2))


def test_trusted_arrays_become_tensors(tmp_path, monkeypatch):
    path = tmp_path / "detectron.pkl"
    blobs = {"conv1_w": np.ones((2, 3), np.float32), "conv1_w_momentum": np.zeros(1), "lr": 0.1}
    path.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    monkeypatch.setenv(TRUST_PICKLE, "1")
    data = read_checkpoint(path)
    assert torch.equal(data["model"]["conv1_w"], torch.ones(2, 3))
    assert data["matching_heuristics"] and list(data["model"]) == ["conv1_w"]


@pytest.mark.parametrize("content", [b"", b"a text", b"PK\x03\x04 no archive", b"version https://"])
def test_other_files_are_no_checkpoints(tmp_path, content):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="x.pth: not a checkpoint") as error:
        load_for_inference(TwoParts(), str(path))
    assert "\n" not in str(error.value)


def test_a_truncated_file_is_damaged(tmp_path):
    torch.save({"model": TwoParts().state_dict()}, tmp_path / "whole.pth")
    data = (tmp_path / "whole.pth").read_bytes()
    path = tmp_path / "half.pth"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="half.pth: not a checkpoint, or a damaged one"):
        read_checkpoint(path)


@pytest.mark.parametrize("data", [[1, 2], {"model": {}}, {"epoch": 3}])
def test_files_without_weights(tmp_path, data):
    torch.save(data, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="not a checkpoint"):
        read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize("key", ["model", "model_state", "state_dict", None])
def test_where_weights_are(tmp_path, key):
    weights = {f"module.{name}": x for name, x in TwoParts().state_dict().items()}
    path = tmp_path / "x.pth"
    torch.save(weights if key is None else {key: weights, "epoch": 3}, path)
    model = TwoParts()
    load_for_inference(model, str(path))
    assert torch.equal(model.backbone.weight, weights["module.backbone.weight"])


def save_part(path, *parts: str, classes: int = 3) -> str:
    state = TwoParts(classes).state_dict()
    torch.save({"model": {n: x for n, x in state.items() if n.startswith(parts)}}, path)
    return str(path)


def test_heads_that_start_fresh_are_logged_in_training_and_refused_in_testing(tmp_path, caplog):
    path = save_part(tmp_path / "backbone.pth", "backbone")
    with caplog.at_level(logging.INFO, LOGGER):
        ActionCheckpointer(TwoParts()).resume_or_load(path)
    assert "has no roi_heads.head: its 2 tensors start fresh" in caplog.text
    assert "has no roi_heads.predictor: its 2 tensors start fresh" in caplog.text
    assert not [x for x in caplog.records if x.levelno > logging.INFO]  # it was meant
    with pytest.raises(CheckpointMismatch, match="roi_heads.head.weight is missing"):
        load_for_inference(TwoParts(), path)


def test_other_classes_start_fresh_in_training(tmp_path, caplog):
    path = save_part(tmp_path / "whole.pth", "backbone", "roi_heads", classes=80)
    model = TwoParts()
    before = model.roi_heads["predictor"]["cls_score"].weight.clone()
    ActionCheckpointer(model).resume_or_load(path)
    assert torch.equal(model.roi_heads["predictor"]["cls_score"].weight, before)
    (record,) = [x for x in caplog.records if "fits roi_heads.predictor in part" in x.message]
    assert record.levelno == logging.WARNING
    assert "the sum of MODEL.ROI_ACTION_HEAD.GROUP_SIZES must be 80, not 3" in caplog.text
    with pytest.raises(CheckpointMismatch, match="GROUP_SIZES must be 80, not 3"):
        load_for_inference(TwoParts(), path)


def test_a_backbone_never_starts_fresh(tmp_path):
    path = save_part(tmp_path / "heads.pth", "roi_heads")
    with pytest.raises(CheckpointMismatch, match="backbone.weight is missing"):
        ActionCheckpointer(TwoParts()).resume_or_load(path)


def test_what_is_left_over_is_logged(tmp_path, caplog):
    state = {**TwoParts().state_dict(), "backbone.extra": torch.zeros(1)}
    torch.save({"model": state}, tmp_path / "x.pth")
    with caplog.at_level(logging.INFO, LOGGER):
        load_for_inference(TwoParts(), str(tmp_path / "x.pth"))
    assert "Left over, the model has no such part: backbone.extra" in caplog.text
