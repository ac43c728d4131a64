"""Processes that work together: where each one stands, how they meet, how they end.

There are three ways to get them: detectron2's arguments (`--num-gpus`, `--num-machines` ...), with
which this module starts the processes of its machine; torchrun; and srun with a task per process.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from urllib.parse import urlsplit

import torch
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm
from torch import distributed as dist
from torch import multiprocessing

from .command_line import report_error, user_error_line

logger = logging.getLogger(__name__)

TORCHRUN_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")

# Seconds. A process that learns of another one's failure waits to be ended by whatever started it:
# the one that failed is to exit first, for its exit code is the one that counts.
GRACE = 10.0
POLL = 0.5
LAST_WORDS = 10.0  # how long the process with the store waits for the others before it exits


class LaunchError(ValueError):
    """Processes can't be started, or don't find each other; the message is one line."""


@dataclass(frozen=True)
class ProcessPlace:
    """Where a process stands among all that work together.

    Machines have equal numbers of processes and ranks go through them one machine after another,
    as `comm.create_local_process_group` needs it.

    Attributes:
        rank: number of this process among all, from 0.
        world_size: number of all processes.
        local_rank: number of this process on its machine, from 0.
        local_size: number of processes on each machine.
        master_address: host on which the process with rank 0 runs.
        master_port: port of that host at which the processes meet.
    """

    rank: int
    world_size: int
    local_rank: int
    local_size: int
    master_address: str
    master_port: int

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise LaunchError(f"process {self.rank} of {self.world_size} (they count from 0)")
        if not 0 <= self.local_rank < self.local_size:
            raise LaunchError(
                f"process {self.local_rank} of {self.local_size} on its machine (they count from 0)"
            )
        if self.world_size % self.local_size:
            raise LaunchError(
                f"{self.world_size} processes can't be {self.local_size} on every machine; "
                "machines with equal numbers of processes are needed"
            )
        if self.rank % self.local_size != self.local_rank:
            raise LaunchError(
                f"process {self.rank} can't be number {self.local_rank} of {self.local_size} on "
                "its machine; ranks must go through the machines one after another"
            )
        if not 0 < self.master_port < 2**16:
            raise LaunchError(f"port {self.master_port} is not from 1 to {2**16 - 1}")

    @property
    def machine(self) -> int:
        """Number of the machine, from 0."""
        return self.rank // self.local_size


# The environment.


def place_from_environment(environment: Mapping[str, str]) -> ProcessPlace | None:
    """The place that torchrun or srun gave to this process; torchrun's counts inside a job step.

    Returns:
        None for a process that neither of them started as one of several: a plain shell, a shell or
        batch script in an allocation of SLURM, a job step with a single task.

    Raises:
        LaunchError: variables are missing, contradict each other or are no numbers.
    """
    place = torchrun_place(environment)
    if place is not None:
        return place
    place = slurm_place(environment)
    if "WORLD_SIZE" in environment:
        world_size = _number(environment, "WORLD_SIZE")
        if place is None:
            raise LaunchError(
                "WORLD_SIZE is set, but not RANK: start with torchrun, or unset WORLD_SIZE"
            )
        if place.world_size != world_size:
            raise LaunchError(
                f"WORLD_SIZE is {world_size}, but srun started {place.world_size} tasks: "
                "unset WORLD_SIZE"
            )
    return place


def torchrun_place(environment: Mapping[str, str]) -> ProcessPlace | None:
    """The place from torchrun's variables; None where neither RANK nor LOCAL_RANK is set."""
    found = [name for name in ("RANK", "LOCAL_RANK") if name in environment]
    if not found:
        return None
    names = (*TORCHRUN_NUMBERS, "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in names if not environment.get(name)]
    if missing:
        raise LaunchError(
            f"{found[0]} is set, but not {', '.join(missing)}: start with torchrun, which sets all "
            f"of them, or unset {' and '.join(found)}"
        )
    numbers = [_number(environment, name) for name in TORCHRUN_NUMBERS]
    port = _number(environment, "MASTER_PORT")
    with _saying(environment, *TORCHRUN_NUMBERS, "MASTER_PORT"):
        return ProcessPlace(*numbers, environment["MASTER_ADDR"], port)


def slurm_place(environment: Mapping[str, str]) -> ProcessPlace | None:
    """The place of a task of srun; None outside of job steps and in those with a single task.

    What describes the job step goes before what describes the whole job. MASTER_ADDR and
    MASTER_PORT, where they are set, replace the first host of the list and the port made of the
    job's id.
    """
    # A batch script runs outside of all job steps, although SLURM calls it process 0 of the job.
    in_batch_script = (
        environment.get("ENVIRONMENT") == "BATCH" and "SLURM_STEP_ID" not in environment
    )
    if "SLURM_PROCID" not in environment or in_batch_script:
        return None
    tasks_name = _first_set(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS")
    tasks = _number(environment, tasks_name or "SLURM_NTASKS")
    if tasks == 1:
        return None
    rank = _number(environment, "SLURM_PROCID")
    local_rank = _number(environment, "SLURM_LOCALID")
    sizes_name, sizes = _tasks_of_nodes(environment, tasks)
    if len(set(sizes)) > 1 or sum(sizes) != tasks:
        raise LaunchError(
            f"{tasks_name} is {tasks} and {sizes_name} is {environment[sizes_name]}: every node "
            "must have the same number of tasks (srun --ntasks-per-node)"
        )
    node = _number(environment, "SLURM_NODEID") if "SLURM_NODEID" in environment else None
    if node not in (None, rank // sizes[0]):
        raise LaunchError(
            f"SLURM_PROCID is {rank} and SLURM_NODEID {node} with {sizes[0]} tasks a node: "
            "tasks must go through the nodes one after another (srun --distribution=block)"
        )
    address, port = environment.get("MASTER_ADDR"), environment.get("MASTER_PORT")
    names = [tasks_name, "SLURM_PROCID", "SLURM_LOCALID", sizes_name]
    with _saying(environment, *names, *(["MASTER_PORT"] if port else [])):
        return ProcessPlace(
            rank=rank,
            world_size=tasks,
            local_rank=local_rank,
            local_size=sizes[0],
            master_address=address or _first_node(environment),
            master_port=_number(environment, "MASTER_PORT") if port else _job_port(environment),
        )


def tasks_per_node(text: str) -> list[int]:
    """Expand SLURM's short form: "4(x2),3" is [4, 4, 3]."""
    sizes = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match is None or int(match[1]) < 1:
            raise LaunchError(f'"{text}" is no list of tasks per node such as 4(x2),3')
        sizes += [int(match[1])] * int(match[2] or 1)
    return sizes


def first_host(nodelist: str) -> str:
    """The first host of SLURM's short form: of "node[03-05,7],gpu1" it is "node03"."""
    match = re.match(r"(?:[^\[\],\s]|\[\d+[\d,-]*\])+(?=,|$)", nodelist.strip())
    if match is None:
        raise LaunchError(f'"{nodelist}" is no list of hosts such as node[03-05,7],gpu1')
    return re.sub(r"\[(\d+)[\d,-]*\]", r"\1", match[0])


def _tasks_of_nodes(environment: Mapping[str, str], tasks: int) -> tuple[str, list[int]]:
    """The variable that says how many tasks the nodes have, and these numbers."""
    name = _first_set(environment, "SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
    if name is not None:
        try:
            return name, tasks_per_node(environment[name])
        except LaunchError as error:
            raise LaunchError(f"{name}: {error}") from None
    name = "SLURM_NTASKS_PER_NODE"
    size = _number(environment, name)
    return name, [size] * (tasks // size if size > 0 else 0)


def _first_node(environment: Mapping[str, str]) -> str:
    names = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
    name = _first_set(environment, *names)
    if name is None:
        raise LaunchError("SLURM_PROCID is set, but not SLURM_JOB_NODELIST: set MASTER_ADDR")
    try:
        return first_host(environment[name])
    except LaunchError as error:
        raise LaunchError(f"{name}: {error}; or set MASTER_ADDR") from None


def _job_port(environment: Mapping[str, str]) -> int:
    """A port below those that systems hand out, another one for every job step of a machine."""
    if "SLURM_JOB_ID" not in environment:
        raise LaunchError("SLURM_PROCID is set, but not SLURM_JOB_ID: set MASTER_PORT")
    step = _number(environment, "SLURM_STEP_ID") if "SLURM_STEP_ID" in environment else 0
    return 10000 + (8 * _number(environment, "SLURM_JOB_ID") + step) % 20000


def _first_set(environment: Mapping[str, str], *names: str) -> str | None:
    return next((name for name in names if environment.get(name)), None)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name)
    if text is None:
        raise LaunchError(f"{name} is not set, which the other variables of the launcher need")
    try:
        return int(text)
    except ValueError:
        raise LaunchError(f'{name} is "{text}", which is no whole number') from None


@contextmanager
def _saying(environment: Mapping[str, str], *names: str) -> Iterator[None]:
    """Put the variables before the message of an error about their values."""
    try:
        yield
    except LaunchError as error:
        values = ", ".join(f"{name}={environment[name]}" for name in names)
        raise LaunchError(f"{values}: {error}") from None


# The command line.


def check_arguments(
    place: ProcessPlace, num_gpus: int, num_machines: int, rank: int, dist_url: str
) -> None:
    """Refuse `--num-gpus` and its like that contradict who started the processes.

    Args:
        place: as torchrun or srun gave it.
        num_gpus: `--num-gpus`; 1, its default, says nothing.
        num_machines: `--num-machines`, likewise.
        rank: `--machine-rank`; 0 says nothing.
        dist_url: `--dist-url`; auto says nothing.
    """
    machines = place.world_size // place.local_size
    started = f"the launcher has started {place.world_size} processes, {place.local_size} on each"
    if num_gpus not in (1, place.local_size):
        raise LaunchError(f"--num-gpus {num_gpus}, but {started} machine: leave --num-gpus out")
    if num_machines not in (1, machines):
        raise LaunchError(
            f"--num-machines {num_machines}, but {started} of {machines} machines: "
            "leave --num-machines out"
        )
    if rank not in (0, place.machine):
        raise LaunchError(
            f"--machine-rank {rank}, but the launcher calls this machine {place.machine}: "
            "leave --machine-rank out"
        )
    if dist_url != "auto":
        raise LaunchError(
            f"--dist-url {dist_url}, but {started} machine: MASTER_ADDR and MASTER_PORT say where "
            "they meet"
        )


def first_place_of_machine(
    num_gpus: int, num_machines: int, machine_rank: int, dist_url: str
) -> ProcessPlace:
    """The place of the first process on this machine, from detectron2's arguments."""
    if num_gpus < 1 or num_machines < 1:
        raise LaunchError("--num-gpus and --num-machines must be at least 1")
    if not 0 <= machine_rank < num_machines:
        raise LaunchError(
            f"--machine-rank {machine_rank} is not from 0 to {num_machines - 1} "
            f"(--num-machines {num_machines})"
        )
    if dist_url == "auto":
        if num_machines > 1:
            raise LaunchError(
                f"--num-machines {num_machines} needs --dist-url tcp://ADDRESS:PORT, the same on "
                "all machines: an address of machine 0 and a free port there"
            )
        address, port = "127.0.0.1", _free_port()
    else:
        address, port = _address_and_port(dist_url)
    return ProcessPlace(
        rank=machine_rank * num_gpus,
        world_size=num_machines * num_gpus,
        local_rank=0,
        local_size=num_gpus,
        master_address=address,
        master_port=port,
    )


def choose_gpu(place: ProcessPlace, available: int, task_of_srun: bool) -> int:
    """The GPU of a process: that of its number on the machine, or the only one that it is shown.

    Args:
        place: of the process.
        available: number of GPUs that the process sees.
        task_of_srun: srun started it, and may have given every task a GPU of its own, the only one
            that it sees. NCCL refuses if they turn out to be the same one.
    """
    if available == 1 and task_of_srun:
        return 0
    check_gpus(place.local_size, available)
    return place.local_rank


def check_gpus(wanted: int, available: int) -> None:
    """Refuse more processes than the machine has GPUs."""
    if wanted > available:
        gpus = "1 GPU" if available == 1 else f"{available} GPUs"
        raise LaunchError(
            f"{wanted} processes on this machine need a GPU each, but it has {gpus}: start fewer "
            "(--num-gpus), or set MODEL.DEVICE cpu"
        )


def _address_and_port(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        address, port = parts.hostname, parts.port
    except ValueError:
        address = port = None
    if not address or not port or parts.scheme != "tcp":
        raise LaunchError(f"--dist-url {url} is neither tcp://ADDRESS:PORT nor auto")
    return address, port


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


# Launching.


def launch(
    main: Callable[..., object],
    args: tuple = (),
    *,
    device: str,
    num_gpus: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    connect_timeout: float = 300.0,
) -> int:
    """Run a function in every process: those of torchrun or srun, else those asked for here.

    An error in one process ends all of them. It is reported once, by the process it happened in,
    and in one line on every other machine.

    Args:
        main: called as `main(*args)`, in the group of processes where there are several. It must
            be importable from its module: processes started here are new ones.
        args: the arguments of main.
        device: where the models are: "cuda" or "cpu". It decides between NCCL and GLOO.
        num_gpus: processes on this machine, each with a GPU if `device` is "cuda".
        num_machines: number of machines; above 1, these arguments count and srun's variables
            don't: a task of srun may well be a whole machine.
        machine_rank: number of this machine.
        dist_url: tcp://ADDRESS:PORT of machine 0, or "auto" with one machine.
        connect_timeout: seconds to wait until all processes have met.

    Returns:
        The exit code: 0, or that of the failed process, which has said what happened.

    Raises:
        LaunchError: before any process works: the variables or arguments make no sense.
    """
    find = torchrun_place if num_machines > 1 else place_from_environment
    place = find(os.environ)
    if place is not None:
        check_arguments(place, num_gpus, num_machines, machine_rank, dist_url)
        if place.world_size > 1:
            return run_process(main, args, place, device, connect_timeout)
    if place is not None or num_gpus == num_machines == 1:
        main(*args)
        return 0
    place = first_place_of_machine(num_gpus, num_machines, machine_rank, dist_url)
    if torch.device(device).type == "cuda":
        check_gpus(num_gpus, torch.cuda.device_count())
    if num_gpus == 1:
        return run_process(main, args, place, device, connect_timeout)
    try:
        multiprocessing.start_processes(
            _spawned, (main, args, place, device, connect_timeout), nprocs=num_gpus
        )
    except multiprocessing.ProcessExitedException as error:
        if error.exit_code > 0:  # it has said why
            return error.exit_code
        hint = " (did the memory run out?)" if error.signal_name == "SIGKILL" else ""
        raise LaunchError(
            f"process {place.rank + error.error_index} was ended by {error.signal_name}{hint}"
        ) from None
    return 0


def _spawned(
    local_rank: int,
    main: Callable[..., object],
    args: tuple,
    first: ProcessPlace,
    device: str,
    connect_timeout: float,
) -> None:
    place = replace(first, rank=first.rank + local_rank, local_rank=local_rank)
    try:
        code = run_process(main, args, place, device, connect_timeout)
    except LaunchError as error:
        code = report_error(error)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def run_process(
    main: Callable[..., object],
    args: tuple,
    place: ProcessPlace,
    device: str,
    connect_timeout: float,
) -> int:
    """Meet the other processes, run the function among them, leave; see :func:`launch`."""
    try:
        # torchrun's agent already serves a store at this address.
        hosts_store = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        store = meet(place, hosts_store, connect_timeout)
    except LaunchError:
        # All processes of a machine fail here alike. The first says so, and with it the others are
        # ended by whatever started them; where that is nobody, they say it themselves.
        if place.local_rank:
            time.sleep(GRACE)
        raise
    watch = FailureWatch(store, place, hosts_store)
    try:
        _join_group(place, device, store)
        main(*args)
        comm.synchronize()
    except Exception as error:
        lost = _lost_connection(error)
        if lost is not None:
            time.sleep(GRACE)  # the one that ended first, or what started us, knows better
            error = lost
        line = user_error_line(error) or f"{type(error).__name__}: {error}"
        if not watch.is_first_failure(line):
            time.sleep(GRACE)
            return 1
        code = report_error(error)
        watch.wait_for_others()
        return code
    watch.stop()
    dist.destroy_process_group()
    watch.wait_for_others()
    return 0


def meet(place: ProcessPlace, hosts_store: bool, timeout: float) -> dist.Store:
    """Open the store at which all processes meet and wait until all are there.

    Raises:
        LaunchError: its address can't be reached or used, or processes are missing after
            `timeout` seconds.
    """
    where = f"{place.master_address}:{place.master_port}"
    deadline = time.monotonic() + timeout
    if not hosts_store:
        # torch's store would fill the screen while it tries.
        _wait_for_server(place, deadline, timeout)
    try:
        store = _open_store(place, hosts_store, serve=hosts_store, timeout=timeout)
        _wait_for_all(store, place, deadline, timeout)
        # From here on it serves collective operations, which may wait for an evaluation.
        store.set_timeout(DEFAULT_TIMEOUT)
        return store
    except dist.DistError as error:
        if hosts_store:
            why = f"this machine can't use port {place.master_port}; is another run using it?"
        else:
            why = f"what answers at {where} is not process 0 of this run"
        raise LaunchError(f"{why} ({_first_line(error)})") from None


def _open_store(place: ProcessPlace, hosts_store: bool, serve: bool, timeout: float) -> dist.Store:
    """A connection to the store; with `serve`, the store itself."""
    store = dist.TCPStore(
        "127.0.0.1" if hosts_store else place.master_address,
        place.master_port,
        place.world_size,
        is_master=serve,
        timeout=timedelta(seconds=max(timeout, 1)),
        wait_for_workers=False,
    )
    # Processes that torchrun starts again must not find what those before them left.
    return dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)


def _wait_for_server(place: ProcessPlace, deadline: float, timeout: float) -> None:
    address = (place.master_address, place.master_port)
    where = f"{place.master_address}:{place.master_port}"
    patience = _Patience(deadline)
    while True:
        try:
            socket.create_connection(address, timeout=min(patience.left(at_least=1), 10)).close()
            return
        except OSError as error:
            reason = error.strerror or str(error)
        if not patience.wait(f"waiting for process 0 at {where}: {reason}"):
            raise LaunchError(
                f"process {place.rank} can't reach process 0 at {where}: {reason}, for {timeout:g} "
                "s (is the address right? --connect-timeout sets the seconds)"
            )


def _wait_for_all(store: dist.Store, place: ProcessPlace, deadline: float, timeout: float) -> None:
    patience = _Patience(deadline)
    arrived = store.add("arrived", 1)
    while arrived < place.world_size:
        if not patience.wait(f"{arrived} of {place.world_size} processes have come so far"):
            raise LaunchError(
                f"{arrived} of {place.world_size} processes have come to {place.master_address}:"
                f"{place.master_port} in {timeout:g} s (are the others running, with this address? "
                "--connect-timeout sets the seconds)"
            )
        arrived = store.add("arrived", 0)


class _Patience:
    """Wait in small steps until a deadline, and say now and then what for."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.say_at = time.monotonic() + 15

    def left(self, at_least: float = 0) -> float:
        return max(self.deadline - time.monotonic(), at_least)

    def wait(self, reason: str) -> bool:
        """Sleep a little; False when the deadline has passed."""
        if not self.left():
            return False
        if time.monotonic() > self.say_at:
            logger.warning(reason)
            self.say_at += 60
        time.sleep(min(0.2, self.left()))
        return True


def _join_group(place: ProcessPlace, device: str, store: dist.Store) -> None:
    cuda = torch.device(device).type == "cuda"
    if torch.device(device).index is not None:
        raise LaunchError(f"MODEL.DEVICE {device} is one GPU for all processes: write cuda")
    if cuda:
        task_of_srun = slurm_place(os.environ) == place
        torch.cuda.set_device(choose_gpu(place, torch.cuda.device_count(), task_of_srun))
    try:
        dist.init_process_group(
            "nccl" if cuda and dist.is_nccl_available() else "gloo",
            store=dist.PrefixStore("group", store),
            rank=place.rank,
            world_size=place.world_size,
            timeout=DEFAULT_TIMEOUT,
        )
        comm.create_local_process_group(place.local_size)
        comm.synchronize()
    except RuntimeError as error:
        raise LaunchError(
            f"the {place.world_size} processes have met but can't talk: {_first_line(error)} "
            "(GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME names the network interface to use)"
        ) from error


class FailureWatch:
    """Tells all processes of the first failure of one, and ends those that wait for it in vain.

    A collective operation waits up to half an hour for a process that has failed. A thread asks the
    store meanwhile, which the failed process tells.
    """

    def __init__(self, store: dist.Store, place: ProcessPlace, hosts_store: bool) -> None:
        self.store = store
        self.place = place
        self.hosts_store = hosts_store
        self._stopped = threading.Event()
        self._told = threading.Event()  # of the failure of another process
        # A connection serves one thread at a time, and the other one waits in it.
        mine = _open_store(place, hosts_store, serve=False, timeout=60)
        self._thread = threading.Thread(target=self._poll, args=(mine,), daemon=True)
        self._thread.start()

    def is_first_failure(self, line: str) -> bool:
        """Report a failure of this process to all others, unless another one was first.

        Args:
            line: what happened.
        """
        try:
            if self._told.is_set() or self.store.add("failures", 1) > 1:
                return False
            self._stopped.set()
            self.store.set("reason", f"{self.place.rank} {line}")
        except RuntimeError:  # the store is gone: nobody can know better
            self._stopped.set()
        return True

    def stop(self) -> None:
        """All processes have come to the end: whoever is gone from now on has not failed."""
        self._stopped.set()
        self._thread.join(POLL + GRACE)

    def wait_for_others(self) -> None:
        """Say goodbye; the process with the store waits until all others have."""
        deadline = time.monotonic() + LAST_WORDS
        try:
            gone = self.store.add("gone", 1)
            while self.hosts_store and gone < self.place.world_size:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.05)
                gone = self.store.add("gone", 0)
        except RuntimeError:
            pass  # the store has gone first: there is nothing to wait for

    def _poll(self, store: dist.Store) -> None:
        while not self._stopped.wait(POLL):
            try:
                if store.check(["reason"]):
                    rank, line = store.get("reason").decode().split(" ", 1)
                    self._told.set()
                    store.add("gone", 1)  # from here on the process with the store may leave
                    break
            except RuntimeError:
                rank = line = None
                break
        else:
            return
        first_here = self.place.local_rank == 0
        if first_here and rank and int(rank) // self.place.local_size != self.place.machine:
            sys.stderr.write(f"error: process {rank}, on another machine: {line}\n")
            sys.stderr.flush()
        if self._stopped.wait(GRACE):  # all have come to the end, and process 0 has left already
            return
        if first_here and not rank:
            sys.stderr.write("error: lost the connection to process 0\n")
        sys.stdout.flush()
        sys.stderr.flush()
        # The main thread may wait inside a collective operation, which no exception ends.
        os._exit(1)


def _lost_connection(error: Exception) -> LaunchError | None:
    """A line for the error of a collective operation whose partner is gone, or None."""
    text = str(error)
    if "gloo/transport" in text and re.search("closed by peer|reset by peer|Broken pipe", text):
        line = "lost the connection to another process, which has ended without saying why"
    elif isinstance(error, dist.DistError) or "gloo/transport" in text:
        line = f"lost the connection to another process: {_first_line(error)}"
    else:
        return None
    lost = LaunchError(line)
    lost.__cause__ = error
    return lost


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
