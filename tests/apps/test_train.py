"""How processes start together and end together, whoever starts them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.utils import comm

from alphaaction_d2.apps import train

ROOT = Path(__file__).resolve().parents[2]

# Stands for training in every process: a spawned one imports this file again.
PROGRAM = """
import sys

from alphaaction_d2.apps import train
from alphaaction_d2.apps.command_line import run_tool
from tests.apps.test_train import work

train.train_or_test = work
train.GRACE = 1.0

if __name__ == "__main__":
    sys.exit(run_tool(lambda: train.main(train.parse_args())))
"""


def work(args) -> None:
    what = args.config_file
    places = comm.all_gather((comm.get_rank(), comm.get_local_rank(), comm.get_local_size()))
    if comm.get_rank() == 0:
        print("places", places)
    if comm.get_rank() == 1:
        if what == "mistake":
            raise ValueError("clip.mp4: no such file")
        if what == "bug":
            raise IndexError("a bug")
        if what == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
    if what == "mistakes":
        raise ValueError("clip.mp4: no such file")
    comm.synchronize()


def command(folder: Path, what: str, *launcher: object) -> list[str]:
    (folder / "program.py").write_text(PROGRAM)
    call = [sys.executable, *launcher, folder / "program.py", "--config-file", what]
    return list(map(str, call))


def start(command: list[str], **variables: object) -> subprocess.Popen:
    # Tests may themselves run in a job of SLURM.
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "ALPHAACTION"))}
    outside |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    outside |= {name: str(value) for name, value in variables.items()}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=outside, text=True, **pipes)


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def error_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error")]


def by_arguments(folder: Path, what: str) -> tuple[int, str, str]:
    return finish(start([*command(folder, what), "--num-gpus", "2"]))


def by_torchrun(folder: Path, what: str) -> tuple[int, str, str]:
    run = ("-m", "torch.distributed.run", "--nproc-per-node", 2, "--master-port", free_port())
    return finish(start(command(folder, what, *run)))


@pytest.mark.parametrize(
    "launcher", [pytest.param(by_arguments, marks=pytest.mark.slow), by_torchrun]
)
def test_two_processes_of_one_machine(tmp_path, launcher):
    code, output, errors = launcher(tmp_path, "nothing")
    assert code == 0, errors
    assert output.strip() == "places [(0, 0, 2), (1, 1, 2)]"
    assert error_lines(errors) == []


@pytest.mark.slow
def test_two_tasks_of_srun_on_two_nodes(tmp_path):
    job = {
        "SLURM_JOB_ID": 1,
        "SLURM_STEP_ID": 0,
        "SLURM_NTASKS": 2,
        "SLURM_TASKS_PER_NODE": "1(x2)",
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_LOCALID": 0,
        "MASTER_PORT": free_port(),
    }
    tasks = [start(command(tmp_path, "nothing"), **job, SLURM_PROCID=i) for i in range(2)]
    (code0, output0, errors0), (code1, output1, errors1) = map(finish, tasks)
    assert (code0, code1) == (0, 0), errors0 + errors1
    assert output0.strip() == "places [(0, 0, 1), (1, 0, 1)]"
    assert output1 == "" and error_lines(errors0 + errors1) == []


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [by_arguments, by_torchrun])
@pytest.mark.parametrize("what", ["mistake", "mistakes"])
def test_a_mistake_is_one_line_and_ends_all_processes(tmp_path, launcher, what):
    code, _, errors = launcher(tmp_path, what)
    assert code == (2 if launcher is by_arguments else 1)  # torchrun has a code of its own
    assert error_lines(errors) == ["error: clip.mp4: no such file"]
    assert launcher is by_torchrun or "Traceback" not in errors  # torchrun adds its own


@pytest.mark.slow
def test_a_bug_keeps_its_traceback(tmp_path):
    code, _, errors = by_arguments(tmp_path, "bug")
    assert code == 1
    assert errors.count("Traceback (most recent call last)") == 1, errors
    assert "IndexError: a bug" in errors


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_others(tmp_path):
    code, _, errors = by_arguments(tmp_path, "killed")
    assert code == 2
    message = "process 1 of this machine was ended by SIGKILL (did the memory run out?)"
    assert error_lines(errors) == [f"error: {message}"]


@pytest.mark.slow
def test_a_machine_whose_partner_failed_says_so(tmp_path):
    machines = ("--num-machines", "2", "--dist-url", f"tcp://127.0.0.1:{free_port()}")
    calls = [[*command(tmp_path, "mistake"), *machines, "--machine-rank", str(i)] for i in (0, 1)]
    (code0, _, errors0), (code1, _, errors1) = map(finish, [start(call) for call in calls])
    assert (code0, code1) == (2, 2)
    assert error_lines(errors1) == ["error: clip.mp4: no such file"]
    (line,) = error_lines(errors0)
    assert line.startswith("error: lost the connection to another process: ")


OF_TORCHRUN = {
    "RANK": "0",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "0",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "1",
}


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        ("--num-machines 2", {}, "--num-machines 2 needs --dist-url tcp://ADDRESS:PORT"),
        ("--num-gpus 3 MODEL.DEVICE cuda", {}, "3 processes on this machine need a GPU each"),
        ("--num-gpus 2 MODEL.DEVICE cuda:1", {}, "MODEL.DEVICE cuda:1 is one GPU"),
        ("", {"RANK": "0"}, "but WORLD_SIZE, LOCAL_RANK, .* can't be told"),
        ("--num-gpus 3", OF_TORCHRUN, "--num-gpus 3 .*has started 2 .*leave these arguments out"),
    ],
)
def test_arguments_and_variables_that_make_no_sense(monkeypatch, arguments, variables, message):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = str(ROOT / "configs" / "Puppets" / "none.yaml")
    with pytest.raises(ValueError, match=message):
        train.main(train.parse_args(["--config-file", config, *arguments.split()]))
