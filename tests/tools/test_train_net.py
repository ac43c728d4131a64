"""tools/train_net.py as a user calls it: several processes, bad input in one line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from alphaaction_d2 import setup_cfg
from alphaaction_d2.apps import train
from alphaaction_d2.apps.command_line import run_tool
from alphaaction_d2.formats.writing import only_writer
from tests.helpers import small_cfg, write_dataset

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "Puppets" / "aia.yaml"
SMALL = [
    *("MODEL.DEVICE", "cpu", "MODEL.SLOWFAST.STEM_CHANNELS", 4, "MODEL.INTERACTION.DIM", 16),
    *("MODEL.ROI_ACTION_HEAD.GROUP_NAMES", "('pose','object')"),
    *("MODEL.ROI_ACTION_HEAD.GROUP_SIZES", "(2,1)"),
    *("MODEL.ROI_ACTION_HEAD.GROUP_LOSS_WEIGHTS", "(1.0,1.0)"),
    *("DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 3),
    *("MODEL.MEMORY.WINDOW", "(2,2)", "MODEL.WEIGHTS", "", "MODEL.SLOWFAST.FROZEN", False),
    *("DATALOADER.STORED_VARIANTS", 0),
]


TOOL = ROOT / "tools" / "train_net.py"
# Tests may themselves run in a job of SLURM.
OUTSIDE = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}


def start(cwd: Path, *command: object, **variables: object) -> subprocess.Popen:
    environment = {**OUTSIDE, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=environment | {name: str(value) for name, value in variables.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> subprocess.CompletedProcess:
    output, error = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, output, error)


def train_net(cwd: Path, *arguments: object, **variables: object) -> subprocess.CompletedProcess:
    return finish(start(cwd, TOOL, *arguments, **variables))


def error_lines(done: subprocess.CompletedProcess) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("error")]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


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


@pytest.fixture
def train_here(tmp_path, monkeypatch, capsys):
    """Runs the tool in this process, without logs; returns its exit code and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "begin_run", lambda cfg, args: None)
    for name in [name for name in os.environ if name not in OUTSIDE]:
        monkeypatch.delenv(name)

    def run(*arguments: object) -> tuple[int, str]:
        args = train.parse_args(list(map(str, arguments)))
        return run_tool(lambda: train.main(args)), capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--eval-only", "MODEL.NONSENSE", "1"], "override: there is no key MODEL.NONSENSE"),
        (["--eval-only", "MODEL.WEIGHTS", "nothing.pth"], "nothing.pth: no such weights"),
        (["MODEL.WEIGHTS", "nothing.pth"], "nothing.pth: no such weights"),
        (["DATASETS.FOLDERS", "('nowhere',)"], "DATASETS.FOLDERS: data set folder nowhere"),
        (["--eval-only"], "--eval-only needs MODEL.WEIGHTS"),
    ],
)
def test_bad_input_is_one_line(tmp_path, train_here, arguments, message):
    folder = write_dataset(tmp_path / tmp_path.name, seconds=2, videos=1)
    flags = [x for x in arguments if x.startswith("--")]
    options = [*SMALL, *data(folder), *arguments[len(flags) :]]
    code, errors = train_here("--config-file", CONFIG, *flags, *options)
    assert code == 2
    assert errors.startswith(f"error: {message}") and errors.count("\n") == 1, errors


def test_a_broken_video_in_a_loading_worker_is_one_line(tmp_path):
    folder = write_dataset(tmp_path / "toy", seconds=3, videos=1)
    (folder / "videos" / "train_0.mp4").unlink()
    (folder / "videos" / "train_0").mkdir()
    for i in range(24):  # one in the middle, which nobody looks at before it is needed, is smaller
        picture = np.zeros((20, 30, 3) if i == 12 else (48, 64, 3), np.uint8)
        cv2.imwrite(str(folder / "videos" / "train_0" / f"{i:03d}.png"), picture)
    (folder / "videos" / "frames.yaml").write_text("fps: 8\n")
    options = [*SMALL, *data(folder), "DATALOADER.NUM_WORKERS", 1, "SOLVER.MAX_ITER", 4, "SEED", 1]
    done = train_net(tmp_path, "--config-file", CONFIG, *options)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "012.png is 30x20" in last, done.stderr[-500:]


def test_missing_configuration_file(train_here):
    missing = (
        "error: nothing.yaml: no such configuration file, and none of this name in the model zoo\n"
    )
    code, errors = train_here("--config-file", "nothing.yaml")
    assert (code, errors) == (2, missing)


def run_two(
    launcher: str, cwd: Path, config: Path, *options: object
) -> list[subprocess.CompletedProcess]:
    """Run the tool in two processes, started in one of four ways; what every command printed."""
    call = (TOOL, "--config-file", config)
    port = free_port()
    if launcher == "arguments":
        return [train_net(cwd, *call[1:], "--num-gpus", 2, *options)]
    if launcher == "torchrun":
        run = ("-m", "torch.distributed.run", "--nproc-per-node", 2, "--master-port", port)
        return [finish(start(cwd, *run, *call, *options))]
    if launcher == "machines":
        machines = ("--num-machines", 2, "--dist-url", f"tcp://127.0.0.1:{port}")
        processes = [
            start(cwd, *call, *machines, "--machine-rank", rank, *options) for rank in range(2)
        ]
    else:
        job = {
            "SLURM_JOB_ID": 1,
            "SLURM_STEP_ID": 0,
            "SLURM_NTASKS": 2,
            "SLURM_TASKS_PER_NODE": 2,
            "SLURM_JOB_NODELIST": "localhost",
            "MASTER_PORT": port,
        }
        processes = [
            start(cwd, *call, *options, **job, SLURM_PROCID=rank, SLURM_LOCALID=rank)
            for rank in range(2)
        ]
    return [finish(process) for process in processes]


@pytest.fixture
def two_steps(tmp_path) -> Path:
    """A configuration file of a tiny model: two steps and an evaluation."""
    folder = write_dataset(tmp_path / "toy", seconds=3)
    config = tmp_path / "config.yaml"
    options = ("SOLVER.MAX_ITER", 2, "SEED", 1, "OUTPUT_DIR", str(tmp_path / "output"))
    config.write_text(small_cfg(folder, *options).dump())
    return config


@pytest.mark.slow
def test_every_launcher_trains_alike(tmp_path, two_steps):
    results, models = [], []
    for launcher in ("arguments", "torchrun", "machines", "srun"):
        output = tmp_path / launcher
        for done in run_two(launcher, tmp_path, two_steps, "OUTPUT_DIR", output):
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr
            assert error_lines(done) == []
        log = (output / "log.txt").read_text()
        assert "Process 0 of 2; " in log
        results.append(json.loads((output / "ava_results.json").read_text()))
        models.append(torch.load(output / "model_final.pth", weights_only=True)["model"])
    assert all(result == results[0] for result in results)
    for model in models:
        assert model.keys() == models[0].keys()
        assert all(torch.equal(model[name], models[0][name]) for name in model)


@pytest.mark.slow
def test_bad_input_is_one_line_on_every_machine(tmp_path, two_steps):
    commands = run_two("machines", tmp_path, two_steps, "DATASETS.FOLDERS", "('nowhere',)")
    message = "error: DATASETS.FOLDERS: data set folder nowhere: there is no such folder"
    for done in commands:  # each has a screen of its own
        assert done.returncode == 2 and error_lines(done) == [message]
        assert "Traceback" not in done.stderr


def test_variables_of_a_launcher_that_make_no_sense(train_here, two_steps, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    code, errors = train_here("--config-file", two_steps)
    assert code == 2
    assert errors.startswith("error: started as one of several processes, "), errors


@pytest.mark.slow
def test_ctrl_c_ends_two_processes_and_their_workers(tmp_path):
    """Wherever they are: a terminal sends it to all of them."""
    folder = write_dataset(tmp_path / "toy")
    long = (*SMALL, "SOLVER.MAX_ITER", 10_000, "SOLVER.STEPS", "()", "DATALOADER.NUM_WORKERS", 1)
    command = ("--config-file", CONFIG, "--num-gpus", 2, *data(folder), *long, "OUTPUT_DIR", "out")
    environment = {**OUTSIDE, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, str(TOOL), *map(str, command)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log = tmp_path / "out" / "log.txt"
    deadline = time.monotonic() + 240
    while not (log.is_file() and "Starting training" in log.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    start = time.monotonic()
    _, errors = process.communicate(timeout=60)  # all that have its end of the pipe are gone
    assert process.returncode == 130 and time.monotonic() - start < 20
    assert [x for x in errors.splitlines() if "warn" not in x.lower()] == ["interrupted"]
    with pytest.raises(ProcessLookupError):
        for _ in range(30):
            os.killpg(process.pid, 0)
            time.sleep(0.2)


def test_a_configuration_is_that_of_the_run(tmp_path, monkeypatch):
    """A second run, which is refused, and an evaluation leave it as it is."""
    cfg = setup_cfg("Small/aia", ["OUTPUT_DIR", str(tmp_path / "out")])
    monkeypatch.setattr(train, "setup", lambda args: cfg)
    monkeypatch.setattr(train.Trainer, "build_model", lambda cfg: None)
    monkeypatch.setattr(train, "load_for_inference", lambda model, path: None)
    monkeypatch.setattr(train.Trainer, "test", lambda cfg, model: {})
    config = tmp_path / "out" / "config.yaml"
    config.parent.mkdir()
    evaluation = train.parse_args(["--config-file", "x", "--eval-only", "MODEL.WEIGHTS", "x"])
    cfg.MODEL.WEIGHTS = "x"
    assert train.train_or_test(evaluation) == {} and config.read_text() == cfg.dump()
    config.write_text("of a training")
    assert train.train_or_test(evaluation) == {} and config.read_text() == "of a training"
    with only_writer(config.parent), pytest.raises(ValueError, match="another run"):
        train.train_or_test(train.parse_args(["--config-file", "x"]))
    assert config.read_text() == "of a training"
