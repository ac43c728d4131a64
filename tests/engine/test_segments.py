"""Training and testing on segments: both memories, exact resume, files of logits, both models."""

from __future__ import annotations

import pickle
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode

from alphaaction_d2.apps.command_line import run_tool
from alphaaction_d2.apps.evaluate import main, parse_args
from alphaaction_d2.data.video import VideoWriter
from alphaaction_d2.engine import Trainer, build_delayed_inference
from alphaaction_d2.engine.memory_fill import attach_memory
from alphaaction_d2.formats.epic55 import read_detected_features
from tests.engine.test_resume import assert_equal, assert_same_end, run
from tests.helpers import build_trainer, loaded_tool
from tests.kitchens import CHANNELS, UIDS, kitchen_cfg, picture, write_kitchen

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    return write_kitchen(tmp_path_factory.mktemp("epic") / "kitchen_engine")


def trained(cfg: CfgNode, output: Path) -> Trainer:
    trainer = build_trainer(cfg, output)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def runs(kitchen, tmp_path_factory) -> dict[str, Trainer]:
    output = tmp_path_factory.mktemp("runs")
    return {k: trained(kitchen_cfg(kitchen, k, "SEED", 1), output / k) for k in ("verb", "noun")}


def test_segments_are_remembered_side_by_side(runs):
    pool = runs["verb"].pool
    assert 4 <= len(pool) <= 8, "what four steps of two have written"
    model = Trainer.build_model(runs["verb"].cfg)
    cfg = runs["verb"].cfg.clone()
    cfg.defrost()
    cfg.MODEL.MEMORY.DTYPE = "float32"
    pool = attach_memory(cfg, model)
    loader = Trainer.build_train_loader(cfg)
    batches = iter(loader)
    model.train()
    for _ in range(16):
        model(next(batches))
    window = pool.read("P01_01", 3, training=False)
    first, second = UIDS["P01_01"][:2]
    slot = window.offsets.tolist().index(-2)  # second 1, the middle of both
    assert sorted(window.person_ids[slot].tolist())[-2:] == [first, second]
    assert window.valid[slot].sum() == 2


def test_each_model_writes_its_logits(runs, kitchen):
    for kind, trainer in runs.items():
        results = trainer._last_eval_results["epic"]
        assert set(results) == {f"{kind} top1", f"{kind} top5"}
        with np.load(Path(trainer.cfg.OUTPUT_DIR, f"epic_{kind}s.npz")) as file:
            assert sorted(file["uids"]) == UIDS["P26_01"]
            scores, uids = np.exp(file["logits"]), file["uids"]
        np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
        labels = dict(zip(UIDS["P26_01"], ((0, 1), (1, 0), (1, 2), (0, 2))))
        truth = [labels[uid][kind == "noun"] for uid in uids.tolist()]
        top1 = 100 * np.mean(scores.argmax(axis=1) == truth)
        assert results[f"{kind} top1"] == pytest.approx(top1)
        assert results[f"{kind} top5"] == 100


def test_both_models_make_actions(runs, kitchen, capsys):
    files = [Path(r.cfg.OUTPUT_DIR, f"epic_{kind}s.npz") for kind, r in runs.items()]
    labels = kitchen / "annotations" / "EPIC_train_action_labels.csv"
    given = ["epic-kitchens-55", "--labels", labels, "--verbs", files[0], "--nouns", files[1]]
    assert run_tool(lambda: main(parse_args(list(map(str, given))))) == 0
    shown = capsys.readouterr().out
    assert "action without prior" in shown and "4 segments" in shown


def test_testing_again_gives_the_same(runs, tmp_path):
    for kind, trainer in runs.items():
        cfg = trainer.cfg.clone()
        cfg.defrost()
        cfg.OUTPUT_DIR = str(tmp_path / kind)
        cfg.MODEL.WEIGHTS = str(Path(trainer.cfg.OUTPUT_DIR, "model_final.pth"))
        with loaded_tool(TOOLS / "train_net.py") as tool:
            path = tmp_path / f"{kind}.yaml"
            path.write_text(cfg.dump())
            assert tool("--config-file", path, "--eval-only") in (0, None)
        files = [
            Path(folder, f"epic_{kind}s.npz") for folder in (cfg.OUTPUT_DIR, trainer.cfg.OUTPUT_DIR)
        ]
        one, other = (dict(np.load(file)) for file in files)
        assert_equal(*({k: x.tolist() for k, x in part.items()} for part in (one, other)), kind)


def test_the_memory_of_nouns_is_the_file(runs, kitchen):
    trainer = runs["noun"]
    found = read_detected_features(kitchen / "noun_lfb" / "train_lfb.pkl")
    pool = trainer.pool
    assert len(pool) == sum(len(x) for frames in found.values() for x in frames.values())
    window = pool.read("P02_03", 3, training=True)
    assert window.features.shape == (7, 10, CHANNELS) and not window.fresh_centre
    centre = torch.tensor(found["P02_03"][90]).half()
    assert torch.equal(window.features[3, :2], centre), "the best first, also at the clip's second"
    assert not window.valid[4].any(), "second 4 has none"
    delayed = build_delayed_inference(trainer.cfg, trainer.model)
    assert delayed.after == 0, "nothing to wait for"
    assert "P26_01" in delayed.pool.slots.videos


def test_what_is_wrong_with_the_memory_of_nouns(kitchen, tmp_path):
    wide = kitchen_cfg(kitchen, "noun", "MODEL.MEMORY.DETECTOR_CHANNELS", 7)
    with pytest.raises(ValueError, match="features of 6 channels, .*DETECTOR_CHANNELS says 7"):
        build_trainer(wide, tmp_path)
    root = tmp_path / "another"
    shutil.copytree(kitchen, root)
    (root / "noun_lfb" / "train_lfb.pkl").unlink()
    with pytest.raises(FileNotFoundError, match="no features of detected objects at .*train_lfb"):
        build_trainer(kitchen_cfg(root, "noun"), tmp_path)
    file = str(kitchen / "noun_lfb" / "train_lfb.pkl")
    named = kitchen_cfg(root, "noun", "MODEL.MEMORY.DETECTOR_FILES", f"('{file}',)")
    assert len(build_trainer(named, tmp_path).pool) > 0


def killed_and_resumed(cfg: CfgNode, tmp_path: Path) -> tuple[Path, Path]:
    folders = []
    for name in ("whole", "killed"):
        folders.append(tmp_path / name)
        cfg.OUTPUT_DIR = str(folders[-1])
        folders[-1].mkdir()
        config = tmp_path / f"{name}.yaml"
        config.write_text(cfg.dump())
        if name == "killed":
            assert run(config, "--after-step", 2) == -signal.SIGKILL
        assert run(config, "--resume") == 0
    return folders[0], folders[1]


def test_a_killed_run_ends_the_same(kitchen, tmp_path):
    assert_same_end(*killed_and_resumed(kitchen_cfg(kitchen, "verb", "SEED", 2), tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["verb", "noun"])
def test_two_processes_end_as_one(kitchen, tmp_path, kind):
    """One of them reads the detector's file and writes the shared tables."""
    weights = []
    for number in (1, 2):
        cfg = kitchen_cfg(kitchen, kind, "SEED", 2, "MODEL.INTERACTION.DROPOUT", 0.0)
        cfg.MODEL.SLOWFAST.NORM = "FrozenBN"  # statistics of a share of a batch would differ
        cfg.OUTPUT_DIR = str(tmp_path / str(number))
        Path(cfg.OUTPUT_DIR).mkdir()
        config = tmp_path / f"{number}.yaml"
        config.write_text(cfg.dump())
        assert run(config, "--processes", number) == 0
        weights.append(torch.load(tmp_path / str(number) / "model_final.pth", weights_only=True))
    for name, one in weights[0]["model"].items():
        torch.testing.assert_close(one, weights[1]["model"][name], rtol=1e-3, atol=1e-4)
    found = [dict(np.load(tmp_path / str(n) / f"epic_{kind}s.npz")) for n in (1, 2)]
    np.testing.assert_allclose(found[0]["logits"], found[1]["logits"], rtol=1e-2, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["verb", "noun"])
def test_real_annotations_with_small_videos(shared, tmp_path, kind):
    """Train, kill, resume, evaluate: the official tables, 12 s of some of their videos."""
    root = tmp_path / "real"
    shutil.copytree(shared / "ava" / "epic55", root / "annotations")
    features = {}
    for video in ("P01_01", "P02_01", "P26_01", "P31_01"):
        folder = root / "videos" / video[:3]
        folder.mkdir(parents=True)
        with VideoWriter(folder / f"{video}.mp4", 30, 64, 48, gop=30) as writer:
            for i in range(12 * 30):
                writer.write(picture(i))
        features[video] = {30 * s: np.random.rand(2, CHANNELS).astype("f") for s in range(12)}
    (root / "noun_lfb").mkdir()
    for split in ("train", "val"):
        (root / "noun_lfb" / f"{split}_lfb.pkl").write_bytes(pickle.dumps(features))
    sizes = ("MODEL.ROI_ACTION_HEAD.GROUP_SIZES", f"({125 if kind == 'verb' else 352},)")
    cfg = kitchen_cfg(root, kind, "SEED", 2, *sizes, "INPUT.CLIP_FPS", 30.0)
    whole, killed = killed_and_resumed(cfg, tmp_path)
    ends = [torch.load(x / "model_final.pth", weights_only=True) for x in (whole, killed)]
    assert_equal(*ends, "checkpoint")
    one, other = (dict(np.load(x / f"epic_{kind}s.npz")) for x in (whole, killed))
    assert len(one["uids"]) > 2 and (one["logits"] == other["logits"]).all()
