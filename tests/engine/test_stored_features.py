"""Training on stored features of a frozen backbone."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from detectron2.engine import HookBase
from detectron2.structures import Instances

from alphaaction_d2.data.train_loader import TrainLoader
from alphaaction_d2.engine.stored_features import store_features
from alphaaction_d2.structures import ClipFeatures
from tests.engine.test_resume import assert_equal
from tests.helpers import build_trainer, small_cfg, write_dataset

VARIANTS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "stored_squares")


def make_trainer(folder, output, *opts):
    cfg = small_cfg(
        folder,
        *("SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.MAX_ITER", 4, "DATASETS.TEST", "()", "SEED", 1),
        *("MODEL.SLOWFAST.FROZEN", True, "DATALOADER.STORED_VARIANTS", VARIANTS, *opts),
    )
    return build_trainer(cfg, output)


@pytest.mark.parametrize("interaction", ["DenseSerialInteraction", "IGMN", "NonLocalInteraction"])
def test_a_step_learns_the_same_from_stored_features(folder, tmp_path, interaction):
    """Losses of clips whose videos are read, and of the same clips' stored features."""
    options = ["MODEL.INTERACTION.NAME", interaction]
    if interaction == "IGMN":
        options += ["MODEL.INTERACTION.FUSION", "replace", "MODEL.INTERACTION.DIM_OUT", 16]
    trainer = make_trainer(folder, tmp_path, *options)
    model, loader = trainer.model, trainer._trainer.data_loader
    seen = []

    def record(keyframe, mapper=loader.mapper):
        seen.append(mapper(keyframe))
        return seen[-1]

    loader.mapper = record
    store_features(model, loader, VARIANTS)
    assert len(seen) == VARIANTS * len(loader.keyframes), "every variant is made once"
    stored = [x for clips in loader.mapper.clips.values() for x in clips]
    assert all("video" not in x for x in stored)
    for x, y in list(zip(seen, stored))[:6]:
        assert (x["video_id"], x["timestamp"]) == (y["video_id"], y["timestamp"])
        torch.manual_seed(2)
        expected = model([x])
        torch.manual_seed(2)
        found = model([y])
        assert expected.keys() == found.keys()
        for name in expected:  # half precision in between
            torch.testing.assert_close(found[name], expected[name], rtol=5e-3, atol=5e-3)


def test_batches_come_from_the_store(folder, tmp_path):
    trainer = make_trainer(folder, tmp_path)
    loader = trainer._trainer.data_loader
    store_features(trainer.model, loader, VARIANTS)
    keyframes = len(loader.keyframes)
    variants = {id(x["features"]) for clips in loader.mapper.clips.values() for x in clips}
    assert len(variants) == VARIANTS * keyframes
    drawn = set()
    for batch, _ in zip(loader, range(40)):
        drawn |= {id(x["features"]) for x in batch}
        batch[0]["memory"] = "a window"  # what others add does not stay
    assert drawn <= variants and len(drawn) > keyframes, "several variants of a keyframe are drawn"
    assert not any("memory" in x for clips in loader.mapper.clips.values() for x in clips)
    boxes = [
        x["features"].persons.proposal_boxes.tensor
        for x in next(iter(loader.mapper.clips.values()))
    ]
    assert not torch.equal(boxes[0], boxes[1]), "variants are augmented differently"


def test_loading_processes_leave_no_files_open(folder, tmp_path):
    """Tensors of another process each hold one open for as long as they live."""
    trainer = make_trainer(folder, tmp_path, "DATALOADER.NUM_WORKERS", 1)
    before = len(os.listdir("/proc/self/fd"))
    store_features(trainer.model, trainer._trainer.data_loader, VARIANTS)
    assert len(os.listdir("/proc/self/fd")) < before + 10
    assert trainer._trainer.data_loader.num_workers == 0


def test_sets_that_share_keyframes_are_refused(folder, tmp_path):
    loader = make_trainer(folder, tmp_path)._trainer.data_loader
    loader.keyframes = [*loader.keyframes, loader.keyframes[0]]
    with pytest.raises(ValueError, match="the training sets share keyframes"):
        store_features(None, loader, VARIANTS)


def test_training_writes_the_memory_and_leaves_the_backbone(folder, tmp_path):
    trainer = make_trainer(folder, tmp_path)
    trainer.resume_or_load(resume=False)
    backbone = {k: v.clone() for k, v in trainer.model.backbone.state_dict().items()}
    head = trainer.model.roi_heads.predictor.cls_score.weight.detach().clone()
    trainer.train()
    assert len(trainer.pool) > 0
    assert_equal(backbone, dict(trainer.model.backbone.state_dict()), "backbone")
    assert not torch.equal(head, trainer.model.roi_heads.predictor.cls_score.weight)


class Killed(HookBase):
    """Ends a run in its third step; the last checkpoint is of the second."""

    def after_step(self):
        if self.trainer.iter == 2:
            raise KeyboardInterrupt


def test_a_resumed_run_ends_alike(folder, tmp_path):
    whole = make_trainer(folder, tmp_path / "whole")
    whole.resume_or_load(resume=False)
    whole.train()
    first = make_trainer(folder, tmp_path / "parts")
    first.register_hooks([Killed()])
    first.resume_or_load(resume=False)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    second = make_trainer(folder, tmp_path / "parts")
    second.resume_or_load(resume=True)
    assert second.start_iter == 2
    second.train()
    ends = [
        torch.load(tmp_path / name / "model_final.pth", weights_only=True)["model"]
        for name in ("whole", "parts")
    ]
    assert_equal(*ends, "weights")


def test_a_moving_backbone_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="STORED_VARIANTS needs a backbone that stands still"):
        make_trainer(folder, tmp_path, "MODEL.SLOWFAST.FROZEN", False)


class DrawnFeatures(torch.nn.Module):
    """Stands for a network whose features are what the augmentation has drawn."""

    def extract(self, clips):
        size = (1, 1)
        return [
            ClipFeatures(
                Instances(size, roi_features=x["video"]),
                Instances(size, roi_features=torch.zeros(0, 1)),
            )
            for x in clips
        ]


def test_variants_are_not_the_clips_of_the_steps():
    """Both are counted from 0; with one seed the first steps would show the stored variants."""
    keyframes = [
        {"file_name": "v", "timestamp": float(t), "width": 2, "height": 1} for t in range(4)
    ]

    def draw(keyframe):
        return {**keyframe, "video": torch.rand(1, 1)}

    def loader():
        options = {"repeats": np.ones(4), "batch_size": 1, "seed": 3}
        return TrainLoader(keyframes, draw, **options)

    steps = {x[0]["video"].half().item() for x, _ in zip(loader(), range(8))}
    stored = loader()
    store_features(DrawnFeatures(), stored, 2)
    variants = {
        x["features"].persons.roi_features.item()
        for clips in stored.mapper.clips.values()
        for x in clips
    }
    assert len(steps) == len(variants) == 8
    assert not steps & variants
