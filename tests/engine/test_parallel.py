"""Several processes train and test as one does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alphaaction_d2 import register_datasets, setup_cfg
from alphaaction_d2.checkpoint.checkpointer import load_for_inference
from alphaaction_d2.engine import Trainer
from tests.helpers import small_cfg, write_dataset

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three test videos for two processes; seconds without persons, without objects."""
    folder = write_dataset(tmp_path_factory.mktemp("data") / "parallel_squares", videos=3)
    annotations = folder / "annotations" / "train.csv"
    rows = annotations.read_text().splitlines()
    annotations.write_text(
        "\n".join(r for r in rows if not r.startswith(("train_0,0002", "train_1,0003")))
    )
    for split in ("train", "val"):
        objects = folder / "boxes" / f"{split}_objects.csv"
        rows = objects.read_text().splitlines()
        objects.write_text("\n".join(r for r in rows if ",0001," not in r and "_1," not in r))
    return folder


def run(
    folder: Path, output: Path, processes: int, *options: object, flags: tuple[str, ...] = ()
) -> Path:
    """Train six steps and test; nothing depends on how clips are shared out but the order of
    sums."""
    cfg = small_cfg(
        folder,
        *("SOLVER.MAX_ITER", 6, "SOLVER.IMS_PER_BATCH", 4, "SEED", 3, "TEST.EVAL_PERIOD", 0),
        *("MODEL.SLOWFAST.NORM", "FrozenBN", "DATALOADER.FILTER_EMPTY_ANNOTATIONS", False),
        *("MODEL.INTERACTION.BLOCKS", "('P','O','M')", "SOLVER.WARMUP_ITERS", 0),
        *("SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", 0.01, "MODEL.INTERACTION.DROPOUT", 0.0),
        *options,
    )
    cfg.OUTPUT_DIR = str(output)
    output.mkdir(parents=True, exist_ok=True)
    path = output.parent / f"{output.name}.yaml"
    path.write_text(cfg.dump())
    command = [sys.executable, "-m", "tests.engine.run_training", str(path)]
    result = subprocess.run(
        [*command, "--processes", str(processes), *flags], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return output


@pytest.fixture(scope="module")
def one(folder, tmp_path_factory):
    return run(folder, tmp_path_factory.mktemp("one") / "run", 1)


@pytest.fixture(scope="module")
def two(folder, tmp_path_factory):
    return run(folder, tmp_path_factory.mktemp("two") / "run", 2)


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def assert_same_training(one: Path, two: Path) -> None:
    a, b = load(one / "model_final.pth"), load(two / "model_final.pth")
    assert a["model"]["roi_heads.predictor.cls_score.bias"].abs().min() > 0, "it has learned"
    for name, value in a["model"].items():
        torch.testing.assert_close(b["model"][name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert b["trainer"]["_trainer"]["err"] == pytest.approx(a["trainer"]["_trainer"]["err"], 1e-5)


def test_two_processes_train_like_one(one, two):
    assert_same_training(one, two)


def test_both_processes_see_the_same_memory(one, two):
    alone, first, second = (
        load(path) for path in (one / "worker_0.pth", two / "worker_0.pth", two / "worker_1.pth")
    )
    assert first["err"] == second["err"]
    for name in ("features", "boxes", "ids_plus_one", "counts", "tags"):
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], alone[name], rtol=2e-3, atol=1e-4, msg=name)
    assert (first["counts"] > 0).sum() > 5


def test_parts_of_a_batch_train_like_the_whole(folder, one, tmp_path):
    """Gradient accumulation, with parts that hold different numbers of persons."""
    assert_same_training(one, run(folder, tmp_path / "run", 1, "SOLVER.ACCUMULATION_STEPS", 2))


@pytest.mark.slow
def test_two_processes_store_features_together(folder, tmp_path):
    stored = ("MODEL.SLOWFAST.FROZEN", True, "DATALOADER.STORED_VARIANTS", 2)
    runs = [run(folder, tmp_path / str(n), n, *stored, "DATASETS.TEST", "()") for n in (1, 2)]
    assert_same_training(*runs)


def detections_of(run: Path, output: Path, *options: object) -> bytes:
    """What the final weights of a run find, computed in this process."""
    cfg = setup_cfg(
        str(run.parent / f"{run.name}.yaml"), ["OUTPUT_DIR", str(output), *map(str, options)]
    )
    register_datasets(cfg)
    model = Trainer.build_model(cfg)
    load_for_inference(model, str(run / "model_final.pth"))
    Trainer.test(cfg, model)
    return (output / "ava_detections.csv").read_bytes()


def test_results_are_identical_however_they_are_computed(two, tmp_path):
    found_by_two = (two / "ava_detections.csv").read_bytes()
    assert len(found_by_two.splitlines()) > 20
    assert detections_of(two, tmp_path / "1") == found_by_two
    options = ("TEST.IMS_PER_BATCH", 5, "DATALOADER.NUM_WORKERS", 2)
    assert detections_of(two, tmp_path / "2", *options) == found_by_two


@pytest.mark.slow
def test_more_processes_than_videos(folder, two, tmp_path):
    """One of four processes has nothing to test."""
    still = ("SOLVER.BASE_LR", 0.0, "SOLVER.WEIGHT_DECAY", 0.0, "SOLVER.MAX_ITER", 1)
    weights = ("MODEL.WEIGHTS", str(two / "model_final.pth"))
    four = run(folder, tmp_path / "four", 4, *still, *weights)
    expected = (two / "ava_detections.csv").read_bytes()
    assert (four / "ava_detections.csv").read_bytes() == expected


@pytest.mark.slow
def test_several_processes_fill_a_memory_together(folder, two, tmp_path):
    """Whole videos each, of different length: one has finished while others go on."""
    filled = []
    for processes in (1, 2):
        output = tmp_path / str(processes)
        shutil.copytree(two, output)
        options = ("SOLVER.MAX_ITER", 6, "DATASETS.TEST", "()")
        flags = ("--resume", "--rebuild-memory")
        run(folder, output, processes, *options, flags=flags)
        filled.append(load(output / f"worker_{processes - 1}.pth"))
    for name in ("features", "boxes", "ids_plus_one", "counts", "tags"):
        torch.testing.assert_close(filled[1][name], filled[0][name], msg=name)
    assert filled[0]["counts"].sum() > 8
