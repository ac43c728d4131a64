"""A run that was killed and resumed ends with the very numbers of one that was not."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alphaaction_d2.memory.file import read_memory_file
from tests.helpers import small_cfg, write_dataset

ROOT = Path(__file__).resolve().parents[2]
STEPS, PERIOD = 10, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "resumed_squares")


def write_config(folder: Path, output: Path, workers: int) -> Path:
    """Everything random that there is: dropout, jitter, flips, slow jitter, crowded slots."""
    cfg = small_cfg(
        folder,
        *("SOLVER.MAX_ITER", STEPS, "SOLVER.CHECKPOINT_PERIOD", PERIOD, "SEED", 3),
        *("SOLVER.STEPS", "(4,7)", "DATALOADER.NUM_WORKERS", workers, "DATASETS.TEST", "()"),
        *("MODEL.SLOWFAST.SLOW_JITTER", True, "MODEL.INTERACTION.DROPOUT", 0.3),
        *("INPUT.MIN_SIZE_TRAIN", "(40,48)", "INPUT.COLOR_JITTER", "(5,5,5)"),
    )
    cfg.OUTPUT_DIR = str(output)
    output.mkdir(parents=True)
    path = output.parent / f"{output.name}.yaml"
    path.write_text(cfg.dump())
    return path


def run(config: Path, *options: object) -> int:
    """One process; its exit code."""
    command = [sys.executable, "-m", "tests.engine.run_training", config, *options]
    result = subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    killed = "--after-step" in options or "--in-save" in options
    assert killed or result.returncode == 0, result.stderr[-3000:]
    return result.returncode


def assert_same_end(one: Path, two: Path) -> None:
    """Weights, optimiser, schedule, place in the data and memory are equal, bit by bit."""
    ends = [torch.load(folder / "model_final.pth", weights_only=True) for folder in (one, two)]
    assert_equal(*ends, "checkpoint")
    assert_equal(
        *(read_memory_file(folder / "model_final.memory") for folder in (one, two)), "pool"
    )


def assert_equal(a: object, b: object, where: str) -> None:
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)):
            assert_equal(x, y, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


@pytest.fixture(scope="module")
def whole_run(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "run"
    assert run(write_config(folder, output, workers=0)) == 0
    return output


def test_killed_three_times(folder, tmp_path, whole_run):
    output = tmp_path / "run"
    config = write_config(folder, output, workers=0)
    for step in (1, 4, 7):  # before the first checkpoint, between two, shortly after one
        assert run(config, "--resume", "--after-step", step) == -signal.SIGKILL
    assert run(config, "--resume") == 0
    assert_same_end(whole_run, output)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_steps_with_loading_workers(folder, tmp_path, whole_run, seed):
    output = tmp_path / "run"
    config = write_config(folder, output, workers=2)
    rng = random.Random(seed)
    for step in sorted(rng.sample(range(STEPS), 3)):
        run(config, "--resume", "--after-step", step)
    assert run(config, "--resume") == 0
    assert_same_end(whole_run, output)


@pytest.mark.slow
def test_two_processes_killed_and_resumed(folder, tmp_path):
    whole, output = tmp_path / "whole", tmp_path / "run"
    two = ("--processes", 2)
    assert run(write_config(folder, whole, workers=0), *two) == 0
    config = write_config(folder, output, workers=1)
    assert run(config, *two, "--after-step", 4) != 0
    assert run(config, *two, "--resume", "--after-step", 7) != 0
    assert run(config, *two, "--resume") == 0
    assert_same_end(whole, output)


@pytest.mark.parametrize(
    "event", [3, *(pytest.param(i, marks=pytest.mark.slow) for i in (0, 1, 2, 5, 7, 8))]
)
def test_killed_in_the_middle_of_a_save(folder, tmp_path, whole_run, event):
    output = tmp_path / "run"
    config = write_config(folder, output, workers=0)
    assert run(config, "--after-step", 4) == -signal.SIGKILL  # leaves the checkpoint of step 2
    assert run(config, "--resume", "--in-save", event) == -signal.SIGKILL
    assert run(config, "--resume") == 0
    assert_same_end(whole_run, output)
    assert not list(output.glob(".*.partial"))
    assert [path.name for path in output.glob("*.memory")] == ["model_final.memory"]
