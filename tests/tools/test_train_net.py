"""tools/train_net.py as a user calls it: several processes, bad input in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import write_dataset

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "Puppets" / "aia.yaml"
SMALL = [
    *("MODEL.DEVICE", "cpu", "MODEL.SLOWFAST.STEM_CHANNELS", 4, "MODEL.INTERACTION.DIM", 16),
    *("MODEL.ROI_ACTION_HEAD.GROUP_NAMES", "('pose','object')"),
    *("MODEL.ROI_ACTION_HEAD.GROUP_SIZES", "(2,1)"),
    *("MODEL.ROI_ACTION_HEAD.GROUP_LOSS_WEIGHTS", "(1.0,1.0)"),
    *("DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 3),
    *("MODEL.MEMORY.WINDOW", "(2,2)", "MODEL.WEIGHTS", "", "MODEL.SLOWFAST.FROZEN", False),
]


def train_net(cwd: Path, *arguments: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, ROOT / "tools" / "train_net.py", *arguments]
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True
    )


def data(folder: Path) -> list[object]:
    name = folder.name
    return [
        *("DATASETS.FOLDERS", f"('{folder}',)", "DATASETS.TRAIN", f"('{name}_train',)"),
        *("DATASETS.TEST", f"('{name}_val',)"),
    ]


@pytest.mark.slow
def test_two_processes_evaluate_like_one(tmp_path):
    folder = write_dataset(tmp_path / "toy", videos=3)
    common = ["--config-file", CONFIG]
    trained = train_net(
        tmp_path,
        *(*common, "--num-gpus", 2, *SMALL, *data(folder), "OUTPUT_DIR", tmp_path / "two"),
    )
    assert trained.returncode == 0, trained.stdout + trained.stderr
    weights = tmp_path / "two" / "model_final.pth"
    assert weights.with_suffix(".memory").is_file()
    single = train_net(
        tmp_path,
        *(*common, "--eval-only", *SMALL, *data(folder), "OUTPUT_DIR", tmp_path / "one"),
        *("MODEL.WEIGHTS", weights),
    )
    assert single.returncode == 0, single.stdout + single.stderr
    assert "official2018" in single.stdout and "bright" in single.stdout
    two, one = (
        json.loads((tmp_path / run / "ava_results.json").read_text()) for run in ("two", "one")
    )
    assert one == two


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["MODEL.NONSENSE", "1"], "error: configuration: Non-existent key: MODEL.NONSENSE"),
        (["MODEL.WEIGHTS", "nothing.pth"], "error: nothing.pth: no such weights"),
        (["DATASETS.FOLDERS", "('nowhere',)"], "error: data set folder nowhere"),
        ([], "error: --eval-only needs MODEL.WEIGHTS"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, message):
    folder = write_dataset(tmp_path / "toy", seconds=2, videos=1)
    done = train_net(
        tmp_path, *("--config-file", CONFIG, "--eval-only", *SMALL, *data(folder), *arguments)
    )
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert len(lines) == 1 and lines[0].startswith(message), done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_video_in_a_loading_worker_is_one_line(tmp_path):
    folder = write_dataset(tmp_path / "toy", seconds=3, videos=1)
    options = [*SMALL, *data(folder), "DATALOADER.NUM_WORKERS", 1, "SOLVER.MAX_ITER", 1]
    done = train_net(tmp_path, "--config-file", CONFIG, *options, "INPUT.CLIP_FPS", -1.0, "SEED", 1)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: fps is -1.0"), done.stderr[-500:]


def test_missing_weights_to_start_from(tmp_path):
    folder = write_dataset(tmp_path / "toy", seconds=2, videos=1)
    options = [*SMALL, *data(folder), "MODEL.WEIGHTS", "nothing.pth"]
    done = train_net(tmp_path, "--config-file", CONFIG, *options)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: nothing.pth: no such weights")


def test_missing_configuration_file(tmp_path):
    done = train_net(tmp_path, "--config-file", "nothing.yaml")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: nothing.yaml: no such configuration file"
