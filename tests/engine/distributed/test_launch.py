"""Where processes stand, by every launcher's variables; how they meet, and how they end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

import pytest
from detectron2.utils import comm

from alphaaction_d2.apps.command_line import run_tool
from alphaaction_d2.engine.distributed import launch
from alphaaction_d2.engine.distributed.launch import meet
from alphaaction_d2.engine.distributed.process_place import (
    LaunchError,
    ProcessPlace,
    check_arguments,
    check_gpus,
    choose_gpu,
    first_host,
    first_place_of_machine,
    place_from_environment,
    slurm_place,
    tasks_per_node,
)

ROOT = Path(__file__).resolve().parents[3]

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
}
SRUN = {
    "SLURM_JOB_ID": "4321",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_TASKS_PER_NODE": "4(x2)",
    "SLURM_JOB_NODELIST": "node[03-04]",
}
PLACE = ProcessPlace(5, 8, 1, 4, "node1", 29500)


def without(environment: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in names}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


# The environment.


def test_a_process_of_torchrun():
    assert place_from_environment(TORCHRUN) == PLACE
    assert PLACE.machine == 1


def test_torchrun_inside_a_job_step_counts():
    assert place_from_environment({**SRUN, "SLURM_PROCID": "1", **TORCHRUN}) == PLACE


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"WORLD_SIZE": None}, "RANK is set, but not WORLD_SIZE: start with torchrun, "),
        ({"RANK": None, "MASTER_PORT": None}, "LOCAL_RANK is set, but not RANK, MASTER_PORT: "),
        ({"MASTER_ADDR": ""}, "RANK is set, but not MASTER_ADDR: "),
        ({"RANK": "one"}, 'RANK is "one", which is no whole number'),
        ({"LOCAL_WORLD_SIZE": "4.0"}, 'LOCAL_WORLD_SIZE is "4.0", which is no whole number'),
        ({"WORLD_SIZE": "6"}, "6 processes can't be 4 on every machine"),
        ({"RANK": "8"}, "process 8 of 8 (they count from 0)"),
        ({"RANK": "-1"}, "RANK=-1, WORLD_SIZE=8, LOCAL_RANK=1, LOCAL_WORLD_SIZE=4, "),
        ({"LOCAL_RANK": "4"}, "process 4 of 4 on its machine"),
        ({"LOCAL_RANK": "2"}, "process 5 can't be number 2 of 4 on its machine"),
        ({"WORLD_SIZE": "0"}, "process 5 of 0"),
        ({"LOCAL_WORLD_SIZE": "0"}, "process 1 of 0 on its machine"),
        ({"MASTER_PORT": "70000"}, "port 70000 is not from 1 to 65535"),
        ({"RANK": None, "LOCAL_RANK": None}, "WORLD_SIZE is set, but not RANK: "),
    ],
)
def test_variables_of_torchrun_that_make_no_sense(changes, message):
    environment = {**TORCHRUN, **changes}
    with pytest.raises(LaunchError) as error:
        place_from_environment({k: v for k, v in environment.items() if v is not None})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_task_of_srun():
    place = place_from_environment(SRUN)
    assert place == ProcessPlace(5, 8, 1, 4, "node03", 10000 + 8 * 4321 % 20000)
    assert place_from_environment({**SRUN, "SLURM_STEP_ID": "1"}).master_port != place.master_port
    given = {**SRUN, "MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "1234", "WORLD_SIZE": "8"}
    assert place_from_environment(given) == ProcessPlace(5, 8, 1, 4, "10.0.0.7", 1234)


def test_the_number_of_tasks_of_every_node_that_was_asked_for():
    asked = {**without(SRUN, "SLURM_TASKS_PER_NODE", "SLURM_NODEID"), "SLURM_NTASKS_PER_NODE": "4"}
    assert slurm_place(asked) == slurm_place(SRUN)
    with pytest.raises(LaunchError, match="SLURM_NTASKS is 8 and SLURM_NTASKS_PER_NODE is 3: "):
        slurm_place({**asked, "SLURM_NTASKS_PER_NODE": "3"})


def test_the_job_step_goes_before_the_job():
    step = {
        **SRUN,
        "SLURM_STEP_NUM_TASKS": "6",
        "SLURM_STEP_TASKS_PER_NODE": "3(x2)",
        "SLURM_STEP_NODELIST": "node04,node[07-09]",
        "SLURM_PROCID": "4",
    }
    place = slurm_place(step)
    assert (place.world_size, place.local_size, place.master_address) == (6, 3, "node04")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"MASTER_ADDR": "node1", "MASTER_PORT": "29500", "OMP_NUM_THREADS": "1"},
        without(SRUN, "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_ID"),  # salloc
        {**SRUN, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},  # an interactive job step
        {**without(SRUN, "SLURM_STEP_ID"), "ENVIRONMENT": "BATCH", "SLURM_PROCID": "0"},  # sbatch
    ],
)
def test_a_process_that_nobody_started_as_one_of_several(environment):
    assert place_from_environment(environment) is None


def test_a_job_step_of_a_batch_script_is_one_of_several():
    assert place_from_environment({**SRUN, "ENVIRONMENT": "BATCH"}) is not None


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"SLURM_NTASKS": None}, "SLURM_NTASKS is not set"),
        ({"SLURM_LOCALID": None}, "SLURM_LOCALID is not set"),
        ({"SLURM_TASKS_PER_NODE": None}, "SLURM_NTASKS_PER_NODE is not set"),
        ({"SLURM_JOB_NODELIST": None}, "but not SLURM_JOB_NODELIST: set MASTER_ADDR"),
        ({"SLURM_JOB_ID": None}, "but not SLURM_JOB_ID: set MASTER_PORT"),
        ({"SLURM_PROCID": "x"}, 'SLURM_PROCID is "x", which is no whole number'),
        ({"SLURM_TASKS_PER_NODE": "4,4(y2)"}, 'SLURM_TASKS_PER_NODE: "4,4(y2)" is no list'),
        ({"SLURM_TASKS_PER_NODE": "3,5"}, "every node must have the same number of tasks"),
        ({"SLURM_TASKS_PER_NODE": "4(x3)"}, "SLURM_NTASKS is 8 and SLURM_TASKS_PER_NODE is 4(x3)"),
        ({"SLURM_NODEID": "0"}, "SLURM_NODEID 0 with 4 tasks a node"),
        ({"SLURM_PROCID": "9", "SLURM_NODEID": "2"}, "process 9 of 8"),
        ({"SLURM_LOCALID": "0", "SLURM_NODEID": "1"}, "process 5 can't be number 0 of 4"),
        ({"SLURM_JOB_NODELIST": "node[1-"}, 'SLURM_JOB_NODELIST: "node[1-" is no list of hosts'),
        ({"MASTER_PORT": "http"}, 'MASTER_PORT is "http"'),
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE is 4, but srun started 8 tasks"),
    ],
)
def test_variables_of_srun_that_make_no_sense(changes, message):
    environment = {**SRUN, **changes}
    with pytest.raises(LaunchError) as error:
        place_from_environment({k: v for k, v in environment.items() if v is not None})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "nodelist, host",
    [
        ("gpu1", "gpu1"),
        ("gpu1,gpu2", "gpu1"),
        ("node[03-05,7],gpu1", "node03"),
        ("node[7,03-05]", "node7"),
        ("rack[2-3]-node[010-012].cluster,x", "rack2-node010.cluster"),
        ("n-1.example.org", "n-1.example.org"),
    ],
)
def test_first_host(nodelist, host):
    assert first_host(nodelist) == host


@pytest.mark.parametrize("nodelist", ["", ",a", "node[", "node]", "node[a-b]", "a b", "node[]"])
def test_no_list_of_hosts(nodelist):
    with pytest.raises(LaunchError, match="is no list of hosts"):
        first_host(nodelist)


def test_tasks_per_node():
    assert tasks_per_node("4") == [4]
    assert tasks_per_node("4(x2),3") == [4, 4, 3]
    for text in ("", "4(x2", "4x2", "4,,3", "-1", "0(x2)"):
        with pytest.raises(LaunchError, match="is no list of tasks per node"):
            tasks_per_node(text)


# The command line.


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((2, 1, 0, "auto"), "--num-gpus 2, but the launcher has started 8 processes, 4 on each"),
        ((1, 4, 0, "auto"), "--num-machines 4, but .* each of 2 machines"),
        ((1, 1, 3, "auto"), "--machine-rank 3, but the launcher calls this machine 1"),
        ((1, 1, 0, "tcp://a:1"), "--dist-url tcp://a:1, but .* MASTER_ADDR and MASTER_PORT"),
    ],
)
def test_arguments_that_contradict_a_launcher(arguments, message):
    check_arguments(PLACE, 1, 1, 0, "auto")
    check_arguments(PLACE, 4, 2, 1, "auto")
    with pytest.raises(LaunchError, match=message):
        check_arguments(PLACE, *arguments)


def test_the_first_place_of_a_machine():
    place = first_place_of_machine(4, 3, 2, "tcp://[fe80::1]:29500")
    assert place == ProcessPlace(8, 12, 0, 4, "fe80::1", 29500)
    place = first_place_of_machine(2, 1, 0, "auto")
    assert (place.world_size, place.master_address) == (2, "127.0.0.1")
    assert place.master_port > 1024


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0, 1, 0, "auto"), "--num-gpus and --num-machines must be at least 1"),
        ((1, 2, 2, "tcp://a:1"), "--machine-rank 2 is not from 0 to 1"),
        ((1, 2, 0, "auto"), "--num-machines 2 needs --dist-url tcp://ADDRESS:PORT"),
        ((1, 2, 0, "tcp://a"), "--dist-url tcp://a is neither tcp://ADDRESS:PORT nor auto"),
        ((1, 2, 0, "tcp://a:b"), "--dist-url tcp://a:b is neither"),
        ((1, 2, 0, "file:///tmp/x"), "--dist-url file:///tmp/x is neither"),
        ((1, 2, 0, "10.0.0.1:29500"), "--dist-url 10.0.0.1:29500 is neither"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message):
    with pytest.raises(LaunchError) as error:
        first_place_of_machine(*arguments)
    assert message in str(error.value)


def test_which_gpu():
    assert choose_gpu(PLACE, 4, task_of_srun=False) == 1
    assert choose_gpu(PLACE, 8, task_of_srun=True) == 1
    assert choose_gpu(PLACE, 1, task_of_srun=True) == 0  # every task sees its own one only
    with pytest.raises(LaunchError, match="4 processes on this machine .* it has 1 GPU: "):
        choose_gpu(PLACE, 1, task_of_srun=False)
    with pytest.raises(LaunchError, match="8 processes on this machine .* it has 2 GPUs: "):
        check_gpus(8, 2)


def test_too_few_gpus_are_refused_before_anything_starts(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(LaunchError, match="2 processes on this machine need a GPU each"):
        launch.launch(print, device="cuda", num_gpus=2)


# Meeting.


def test_one_process_needs_no_group(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    calls = []
    assert launch.launch(calls.append, ("main",), device="cpu") == 0
    assert calls == ["main"]


def test_nobody_at_the_address():
    place = ProcessPlace(1, 2, 0, 1, "127.0.0.1", free_port())
    with pytest.raises(LaunchError, match=r"process 1 can't reach process 0 at .* for 0\.5 s"):
        meet(place, hosts_store=False, timeout=0.5)


def test_an_address_that_does_not_exist():
    place = ProcessPlace(1, 2, 0, 1, "no-such-host.invalid", 29500)
    with pytest.raises(LaunchError, match="can't reach process 0 at no-such-host.invalid:29500"):
        meet(place, hosts_store=False, timeout=0.2)


def test_the_others_do_not_come():
    place = ProcessPlace(0, 2, 0, 1, "127.0.0.1", free_port())
    with pytest.raises(LaunchError, match=r"1 of 2 processes have come to .* in 0\.5 s"):
        meet(place, hosts_store=True, timeout=0.5)


def test_a_port_in_use():
    with socket.socket() as sock:
        sock.bind(("", 0))
        sock.listen()
        place = ProcessPlace(0, 2, 0, 1, "127.0.0.1", sock.getsockname()[1])
        with pytest.raises(LaunchError, match="this machine can't use port .* another run"):
            meet(place, hosts_store=True, timeout=0.5)


def test_something_else_at_the_address():
    def hang_up() -> None:
        try:
            while True:
                server.accept()[0].close()
        except OSError:
            pass  # the test is over

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=hang_up, daemon=True).start()
        place = ProcessPlace(1, 2, 0, 1, "127.0.0.1", server.getsockname()[1])
        with pytest.raises(LaunchError, match="is not process 0 of this run"):
            meet(place, hosts_store=False, timeout=0.5)
        server.shutdown(socket.SHUT_RDWR)


# Several processes.


def work(what: str) -> None:
    """What every one of them runs."""
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
    if what == "mistakes" or (what == "mistake of the first" and comm.get_rank() == 0):
        raise ValueError("clip.mp4: no such file")
    comm.synchronize()
    if what == "late" and comm.get_rank() == 1:
        time.sleep(1)  # the process with the store must not leave before


def tasks_of_srun(folder: Path, what: str, nodes: int) -> list[tuple[int, str, str]]:
    """Run two tasks on that many nodes; exit code, standard output and error of each.

    They are forked from this process, which saves them the imports.
    """
    size = 2 // nodes
    variables = {
        "SLURM_JOB_ID": 1,
        "SLURM_NTASKS": 2,
        "SLURM_TASKS_PER_NODE": f"{size}(x{nodes})",
        "SLURM_JOB_NODELIST": "localhost",
        "MASTER_PORT": free_port(),
    }
    tasks = []
    for rank in range(2):
        place = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank % size, "SLURM_NODEID": rank // size}
        pid = os.fork()
        if pid == 0:
            run_task(folder / str(rank), what, {**variables, **place})
        tasks.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in tasks]
    return [
        (code, *((folder / f"{rank}.{kind}").read_text() for kind in ("out", "err")))
        for rank, code in enumerate(codes)
    ]


def run_task(output: Path, what: str, variables: dict[str, object]) -> NoReturn:
    code = 99
    try:
        for number, suffix in ((1, ".out"), (2, ".err")):
            os.dup2(os.open(output.with_suffix(suffix), os.O_CREAT | os.O_WRONLY), number)
        sys.stdout = open(1, "w", buffering=1, closefd=False)
        sys.stderr = open(2, "w", buffering=1, closefd=False)
        os.environ.clear()
        os.environ.update({name: str(value) for name, value in variables.items()})
        launch.GRACE, launch.LAST_WORDS, launch.POLL = 1.0, 2.0, 0.1
        signal.alarm(60)  # whatever happens, the test ends
        code = run_tool(lambda: launch.launch(work, (what,), device="cpu"))
    finally:
        os._exit(code)


def errors(text: str) -> list[str]:
    assert "Traceback" not in text, text
    return [line for line in text.splitlines() if line.startswith("error")]


def test_two_tasks_of_srun_on_two_nodes(tmp_path):
    (code0, output0, error0), (code1, output1, error1) = tasks_of_srun(tmp_path, "late", nodes=2)
    assert (code0, code1) == (0, 0), error0 + error1
    assert output0.strip() == "places [(0, 0, 1), (1, 0, 1)]"
    assert output1 == ""
    assert errors(error0) == errors(error1) == []


def test_two_tasks_of_srun_on_one_node(tmp_path):
    (code0, output, error0), (code1, _, error1) = tasks_of_srun(tmp_path, "nothing", nodes=1)
    assert (code0, code1) == (0, 0), error0 + error1
    assert output.strip() == "places [(0, 0, 2), (1, 1, 2)]"


def test_a_mistake_in_one_process_ends_the_others(tmp_path):
    (code0, _, error0), (code1, _, error1) = tasks_of_srun(tmp_path, "mistake", nodes=1)
    assert (code0, code1) == (1, 2)
    assert errors(error0) == []
    assert errors(error1) == ["error: clip.mp4: no such file"]


@pytest.mark.parametrize("what, rank", [("mistake", 1), ("mistake of the first", 0)])
def test_a_mistake_is_told_on_every_machine(tmp_path, what, rank):
    done = tasks_of_srun(tmp_path, what, nodes=2)
    assert (done[rank][0], done[1 - rank][0]) == (2, 1)
    assert errors(done[rank][2]) == ["error: clip.mp4: no such file"]
    assert errors(done[1 - rank][2]) == [
        f"error: process {rank}, on another machine: clip.mp4: no such file"
    ]


def test_a_mistake_of_all_processes_is_reported_once(tmp_path):
    done = tasks_of_srun(tmp_path, "mistakes", nodes=1)
    assert sorted(code for code, _, _ in done) == [1, 2]
    assert errors(done[0][2] + done[1][2]) == ["error: clip.mp4: no such file"]


def test_a_task_that_is_killed_ends_the_others(tmp_path):
    (code0, _, error0), (code1, _, _) = tasks_of_srun(tmp_path, "killed", nodes=2)
    assert (code0, code1) == (2, -signal.SIGKILL)
    (line,) = errors(error0)
    assert line.startswith("error: lost the connection to another process, which has ended")


PROGRAM = """
import sys

from alphaaction_d2.engine.distributed import launch
from alphaaction_d2.apps.command_line import run_tool
from tests.engine.distributed.test_launch import work

if __name__ == "__main__":
    sys.exit(run_tool(lambda: launch.launch(work, (sys.argv[1],), device="cpu", num_gpus=2)))
"""


def start_two_processes(folder: Path, what: str) -> subprocess.CompletedProcess:
    program = folder / "program.py"
    program.write_text(PROGRAM)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ALPHAACTION")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, program, what]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "what, line",
    [
        ("mistake", "error: clip.mp4: no such file"),
        ("killed", "error: process 1 was ended by SIGKILL (did the memory run out?)"),
    ],
)
def test_an_error_in_a_process_started_here(tmp_path, what, line):
    done = start_two_processes(tmp_path, what)
    assert done.returncode == 2
    assert errors(done.stderr) == [line]


@pytest.mark.slow
def test_a_bug_in_a_process_keeps_its_traceback(tmp_path):
    done = start_two_processes(tmp_path, "bug")
    assert done.returncode == 1
    assert done.stderr.count("Traceback (most recent call last)") == 1, done.stderr
    assert "IndexError: a bug" in done.stderr
