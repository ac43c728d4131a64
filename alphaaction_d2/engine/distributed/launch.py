"""Processes that work together: how they start, meet and end.

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
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import torch
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm
from torch import distributed as dist
from torch import multiprocessing

from ...apps.command_line import report_error, user_error_line
from .process_place import (
    LaunchError,
    ProcessPlace,
    check_arguments,
    check_gpus,
    choose_gpu,
    first_place_of_machine,
    place_from_environment,
    slurm_place,
    torchrun_place,
)

logger = logging.getLogger(__name__)

# Seconds. A process that learns of another one's failure waits to be ended by whatever started it:
# the one that failed is to exit first, for its exit code is the one that counts.
GRACE = 10.0
POLL = 0.5
LAST_WORDS = 10.0  # how long the process with the store waits for the others before it exits


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
