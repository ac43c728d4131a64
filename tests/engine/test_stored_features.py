"""Training on stored features of a frozen backbone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from unittest import mock

import numpy as np
import pytest
import torch
from detectron2.engine import HookBase
from detectron2.structures import Boxes, Instances

from alphaaction_d2.data.train_loader import TrainLoader
from alphaaction_d2.engine import Trainer
from alphaaction_d2.engine.feature_files import FeatureFiles
from alphaaction_d2.engine.stored_features import (
    _BYTES_BESIDES,
    _expected_bytes,
    _fingerprint,
    store_features,
)
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


class Counted:
    """A mapper that remembers which keyframes it was asked for, and may be killed on the way."""

    def __init__(self, mapper, survives=10_000):
        self.mapper, self.survives, self.asked = mapper, survives, []

    def __call__(self, keyframe):
        if len(self.asked) == self.survives:
            raise KeyboardInterrupt
        self.asked.append((keyframe["video_id"], keyframe["timestamp"]))
        return self.mapper(keyframe)

    def __getattr__(self, name):
        return getattr(self.mapper, name)


def begin(folder, output, store, *opts, survives=10_000):
    """A trainer that keeps its features in `store`, and its mapper, before the first step."""
    trainer = make_trainer(folder, output, "DATALOADER.STORED_FOLDER", str(store), *opts)
    loader = trainer._trainer.data_loader
    loader.mapper = counted = Counted(loader.mapper, survives)
    trainer.resume_or_load(resume=False)
    return trainer, counted


def files(store):
    return {x: x.stat().st_mtime_ns for x in store.rglob("*.pth")}


def weights_of(output):
    return torch.load(output / "model_final.pth", weights_only=True)["model"]


def test_runs_share_a_folder(folder, tmp_path):
    """The second run computes nothing and learns the same; one without a memory shares, too."""
    first, counted = begin(folder, tmp_path / "first", tmp_path / "store")
    first.train()
    assert len(counted.asked) == VARIANTS * len(first._trainer.data_loader.keyframes)
    found = files(tmp_path / "store")
    assert found
    second, counted = begin(folder, tmp_path / "second", tmp_path / "store")
    second.train()
    assert not counted.asked and files(tmp_path / "store") == found
    assert_equal(weights_of(tmp_path / "first"), weights_of(tmp_path / "second"), "weights")
    others = ("SEED", 9, "MODEL.INTERACTION.NAME", "", "SOLVER.MAX_ITER", 1)
    third, counted = begin(folder, tmp_path / "third", tmp_path / "store", *others)
    third.train()
    assert not counted.asked


def test_a_resumed_run_ends_alike_with_a_folder(folder, tmp_path):
    whole, _ = begin(folder, tmp_path / "whole", tmp_path / "store")
    whole.train()
    first, _ = begin(folder, tmp_path / "parts", tmp_path / "store")
    first.register_hooks([Killed()])
    with pytest.raises(KeyboardInterrupt):
        first.train()
    option = ("DATALOADER.STORED_FOLDER", str(tmp_path / "store"))
    second = make_trainer(folder, tmp_path / "parts", *option)
    second.resume_or_load(resume=True)
    assert second.start_iter == 2
    second.train()
    assert_equal(weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts"), "weights")


def test_what_a_killed_run_has_stored_stays(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("alphaaction_d2.engine.stored_features.CLIPS_AT_ONCE", 3)
    store = tmp_path / "store"
    whole, _ = begin(folder, tmp_path / "whole", tmp_path / "other_store")
    whole.train()
    killed, counted = begin(folder, tmp_path / "killed", store, survives=5)
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    kept = files(store)
    assert len(kept) >= 1, "one file was written whole"
    done = next(iter(kept))
    done.with_name(f".{done.name}.partial").write_bytes(b"half a file")
    again, second = begin(folder, tmp_path / "killed", store)
    again.train()
    total = VARIANTS * len(again._trainer.data_loader.keyframes)
    saved = sum(len(torch_clips(path)) for path in kept)
    assert len(second.asked) == total - saved
    assert kept.items() <= files(store).items()
    assert_equal(weights_of(tmp_path / "whole"), weights_of(tmp_path / "killed"), "weights")


def torch_clips(path):
    kinds = [ClipFeatures, Instances, Boxes]
    with torch.serialization.safe_globals(kinds):
        return torch.load(path, weights_only=True)


@pytest.mark.slow
def test_processes_that_write_at_once(folder, tmp_path):
    """Two runs begin together, and both write the whole store: nothing is damaged, and what they
    leave is what one alone leaves, to the byte."""
    # so that no run skips what the other has done, both write every file, again and again
    script = """\
import sys, time
from pathlib import Path
from unittest import mock
from alphaaction_d2.engine.feature_files import FeatureFiles
from tests.engine.test_stored_features import begin
folder, output, store, go = map(Path, sys.argv[1:])
trainer, _ = begin(folder, output, store)
write = FeatureFiles.write
def often(self, name, clips):
    for _ in range(20):
        write(self, name, clips)
(go.parent / f"{output.name}.ready").touch()
while not go.exists():
    time.sleep(0.01)
with mock.patch.object(FeatureFiles, "write", often):
    trainer.train()
"""
    go, store = tmp_path / "go", tmp_path / "store"
    command = [sys.executable, "-c", script, str(folder)]
    outputs = [tmp_path / "one", tmp_path / "two"]
    runs = [
        subprocess.Popen([*command, str(x), str(store), str(go)], stderr=subprocess.PIPE)
        for x in outputs
    ]
    waiting = [go.parent / f"{x.name}.ready" for x in outputs]
    while not all(x.exists() for x in waiting) and not any(x.poll() for x in runs):
        time.sleep(0.05)
    go.touch()
    for run in runs:
        _, told = run.communicate(timeout=300)
        assert run.returncode == 0, told.decode()[-2000:]
    alone, _ = begin(folder, tmp_path / "alone", tmp_path / "other_store")
    alone.train()
    found, expected = (
        {x.relative_to(root): x.read_bytes() for x in root.rglob("*") if x.is_file()}
        for root in (store, tmp_path / "other_store")
    )
    assert found == expected and found
    for output in outputs:
        assert_equal(weights_of(output), weights_of(tmp_path / "alone"), "weights")


def test_a_spoilt_file_is_made_anew(folder, tmp_path, caplog):
    first, _ = begin(folder, tmp_path / "a", tmp_path / "store")
    first.train()
    path = next(iter(files(tmp_path / "store")))
    path.write_bytes(path.read_bytes()[:300])
    second, counted = begin(folder, tmp_path / "b", tmp_path / "store")
    second.train()
    assert 0 < len(counted.asked) < VARIANTS * len(second._trainer.data_loader.keyframes)
    assert_equal(weights_of(tmp_path / "a"), weights_of(tmp_path / "b"), "weights")


def test_labels_cost_nothing_and_boxes_their_own_video(folder, tmp_path):
    """What a clip shows is stored; what people do there, and who they are, is the data set's."""
    store = tmp_path / "store"
    before, counted = begin(folder, tmp_path / "a", store)
    before.before_train()
    own = tmp_path / "renamed_squares"
    shutil.copytree(folder, own)
    table = own / "annotations" / "train.csv"
    rows = table.read_text().splitlines()
    table.write_text("\n".join(re.sub(r",\d,1$", ",3,7", row) for row in rows) + "\n")
    after, counted = begin(own, tmp_path / "b", store, "SEED", 4)
    after.before_train()
    assert not counted.asked
    for x in stored_clips(after):
        persons, classes = x["features"].persons, x["instances"].gt_classes
        assert persons.person_ids.tolist() == [7] and classes.tolist() == [[0, 0, 1]]
    found = {str(x["file_name"]) for x in stored_clips(after)}
    assert all(name.startswith(str(own)) for name in found), "clips are those of this data set"
    table.write_text("\n".join(rows).replace("train_0,0002,0.", "train_0,0002,0.0") + "\n")
    moved, counted = begin(own, tmp_path / "c", store)
    moved.before_train()
    assert counted.asked and {video for video, _ in counted.asked} == {"train_0"}


def stored_clips(trainer):
    return [x for clips in trainer._trainer.data_loader.mapper.clips.values() for x in clips]


@pytest.mark.parametrize(
    "options",
    [
        ("INPUT.NUM_FRAMES", 32),
        ("INPUT.BOX_JITTER", "(0.1,0.1,0.1,0.1)"),
        ("MODEL.PIXEL_STD", "[50.0,50.0,50.0]"),
        ("MODEL.SLOWFAST.OUTPUT_STRIDE", 8),
        ("MODEL.INTERACTION.NAME", "NonLocalInteraction"),
        ("weights", 2),
    ],
)
def test_what_another_network_or_clip_says_has_another_folder(folder, tmp_path, options):
    option = ("DATALOADER.STORED_FOLDER", "store")
    first = make_trainer(folder, tmp_path, *option)
    second = make_trainer(folder, tmp_path, *option, *(() if "weights" in options else options))
    if "weights" in options:
        next(second.model.backbone.parameters()).data[0] += 1e-3
    files = [FeatureFiles.of(x.cfg, x.model) for x in (first, first, second)]
    names = [(x.folder, x.clips) for x in files]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize("is_folder", [False, True])
def test_other_times_are_other_pictures(tmp_path, is_folder):
    video = tmp_path / "videos" / "one"
    video.parent.mkdir()
    if is_folder:
        video.mkdir()
        (video / "1.jpg").write_bytes(b"picture")
    else:
        video.write_bytes(b"video")
    found = {_fingerprint(video)}
    for start in (900, 902):
        (video.parent / "frames.yaml").write_text(f"fps: 25\nstart: {start}\n")
        found.add(_fingerprint(video))
    assert len(found) == 3


def test_a_full_disk_is_told_before_work(folder, tmp_path, monkeypatch):
    trainer, counted = begin(folder, tmp_path / "a", tmp_path / "store")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: mock.Mock(free=70_000))
    with pytest.raises(ValueError, match=r"24 clips x 4\.\d kB = 0\.1 MB, the disk has 0\.1"):
        trainer.before_train()
    assert not counted.asked


@pytest.mark.parametrize("interaction", ["DenseSerialInteraction", "IGMN", "NonLocalInteraction"])
def test_the_size_is_told_beforehand(folder, tmp_path, interaction, caplog):
    options = ["MODEL.INTERACTION.NAME", interaction]
    if interaction == "IGMN":
        options += ["MODEL.INTERACTION.FUSION", "replace", "MODEL.INTERACTION.DIM_OUT", 16]
    trainer, _ = begin(folder, tmp_path / "a", tmp_path / "store", *options)
    loader, model = trainer._trainer.data_loader, trainer.model
    mapper = loader.mapper
    expected = sum(_expected_bytes(model, mapper, x) for x in loader.keyframes) * VARIANTS
    trainer.before_train()
    size = sum(x.stat().st_size for x in files(tmp_path / "store"))
    assert 0.6 * expected < size <= expected
    features = sum(x["features"].num_bytes for x in stored_clips(trainer))
    assert features == expected - VARIANTS * len(loader.keyframes) * _BYTES_BESIDES


def test_clips_of_testing_are_computed_once(folder, tmp_path, monkeypatch):
    """Evaluation with files gives what it gives without, and runs no backbone the second time."""
    test = ("DATASETS.TEST", f"('{folder.name}_val',)", "SOLVER.MAX_ITER", 1)
    detections = []
    for name, options in (("without", ()), ("first", ("store",)), ("second", ("store",))):
        option = [x for y in options for x in ("DATALOADER.STORED_FOLDER", str(tmp_path / y))]
        trainer = make_trainer(folder, tmp_path / name, *test, *option)
        if name == "second":
            monkeypatch.setattr(type(trainer.model), "_pool", None)
        Trainer.test(trainer.cfg, trainer.model)
        detections.append((tmp_path / name / "ava_detections.csv").read_bytes())
    assert detections[0] == detections[1] == detections[2]


def test_a_backbone_that_trains_keeps_no_features_of_testing(folder, tmp_path):
    options = ("MODEL.SLOWFAST.FROZEN", False, "DATALOADER.STORED_VARIANTS", 0)
    trainer = make_trainer(folder, tmp_path, *options, "DATALOADER.STORED_FOLDER", str(tmp_path))
    assert FeatureFiles.of(trainer.cfg, trainer.model) is None
