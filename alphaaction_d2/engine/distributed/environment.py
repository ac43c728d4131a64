"""Processes that torchrun or srun has started: who they are, and how they meet."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import torch
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm
from torch import distributed as dist

# What torchrun sets, and torch.distributed and this module read.
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launcher_variables(environment: Mapping[str, str]) -> dict[str, str] | None:
    """Find torchrun's variables, or make them of SLURM's for a task of srun.

    None for a process that neither of them started as one of several: a plain shell, a shell or
    batch script in an allocation of SLURM, a job step with a single task. ValueError, in one line,
    where variables are missing, are no numbers, or describe processes that are not spread as
    detectron2's groups of a machine need it.
    """
    if "RANK" in environment or "LOCAL_RANK" in environment:
        variables = {name: environment.get(name, "") for name in VARIABLES}
    elif "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment:
        variables = _slurm_variables(environment)
    else:
        return None
    missing = [name for name, value in variables.items() if not value]
    if missing:
        raise ValueError(
            f"started as one of several processes, but {', '.join(missing)} can't be told: start "
            "with torchrun or srun, which say it, or unset RANK and LOCAL_RANK"
        )
    if variables["WORLD_SIZE"] == "1":
        return None
    _check(variables)
    return variables


def _slurm_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Find VARIABLES of a task of srun, empty where SLURM does not say.

    What describes the job step goes before what describes the whole job. MASTER_ADDR and
    MASTER_PORT, where they are set, replace the first host of the list and the port made of the
    job's id.
    """

    def first(*names: str) -> str:
        return next((environment[name] for name in names if environment.get(name)), "")

    job, step = environment.get("SLURM_JOB_ID", ""), environment["SLURM_STEP_ID"]
    port = ""
    if job.isdecimal() and step.isdecimal():
        # Below those that systems hand out, another one for every job step of a machine.
        port = str(10000 + (8 * int(job) + int(step)) % 20000)
    sizes = first("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE")
    # "4(x2)": four tasks on each of two nodes. Other numbers on other nodes, "4(x2),3", stay as
    # they are, and are refused as no number.
    same = re.fullmatch(r"(\d+)(\(x\d+\))?", sizes)
    hosts = first("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": first("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS"),
        "LOCAL_RANK": environment.get("SLURM_LOCALID", ""),
        "LOCAL_WORLD_SIZE": same[1] if same else sizes,
        "MASTER_ADDR": environment.get("MASTER_ADDR") or first_host(hosts),
        "MASTER_PORT": environment.get("MASTER_PORT") or port,
    }


def first_host(nodelist: str) -> str:
    """Name the first host of SLURM's short form: of "node[03-05,7],gpu1" it is "node03"."""
    match = re.match(r"(?:[^\[\],\s]|\[\d+[\d,-]*\])+(?=,|$)", nodelist.strip())
    return re.sub(r"\[(\d+)[\d,-]*\]", r"\1", match[0]) if match else ""


def _check(variables: Mapping[str, str]) -> None:
    """Refuse what `comm.create_local_process_group` would silently group wrongly."""
    said = ", ".join(f"{name}={variables[name]}" for name in VARIABLES)
    try:
        rank, size, local_rank, local_size = (int(variables[name]) for name in VARIABLES[:4])
        port = int(variables["MASTER_PORT"])
    except ValueError:
        raise ValueError(
            f"{said}: whole numbers are needed; and every machine needs the same number of "
            "processes (srun --ntasks-per-node)"
        ) from None
    if not (0 <= rank < size and 0 <= local_rank < local_size and 0 < port < 2**16):
        raise ValueError(f"{said}: processes count from 0, ports go from 1 to {2**16 - 1}")
    if size % local_size or rank % local_size != local_rank:
        raise ValueError(
            f"{said}: every machine needs the same number of processes, counted one machine after "
            "another (srun --ntasks-per-node, --distribution=block)"
        )


def join_group(variables: Mapping[str, str], device: str) -> None:
    """Meet the other processes; from here on detectron2's `comm` knows them. Where models are on
    "cuda" it is by NCCL, with a GPU for every process, else by GLOO."""
    os.environ.update(variables)  # for torch, which also asks them for torchrun's own store
    cuda = torch.device(device).type == "cuda"
    if cuda:
        gpu, available = int(variables["LOCAL_RANK"]), torch.cuda.device_count()
        if available == 1 and "SLURM_PROCID" in os.environ:
            gpu = 0  # srun may show every task a GPU of its own; NCCL refuses one that is shared
        check_gpus(gpu + 1, available)
        torch.cuda.set_device(gpu)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=DEFAULT_TIMEOUT)
    comm.create_local_process_group(int(variables["LOCAL_WORLD_SIZE"]))
    comm.synchronize()


def check_gpus(wanted: int, available: int) -> None:
    """Refuse more processes than the machine has GPUs."""
    if wanted > available:
        raise ValueError(
            f"{wanted} processes on this machine need a GPU each, but it has {available}: start "
            "fewer (--num-gpus), or set MODEL.DEVICE cpu"
        )
