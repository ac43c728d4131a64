"""Where a process stands among those that work together: from the environment or the arguments."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

TORCHRUN_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


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
