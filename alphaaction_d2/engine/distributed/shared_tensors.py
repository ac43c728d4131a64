"""Tensors that all processes of a machine see: one copy however many workers there are."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor

from .exchange import wait_for_all

logger = logging.getLogger(__name__)


def shared_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Allocate a tensor of zeros in memory that the processes of this machine share.

    All processes call this together and in the same order. The first one of every machine makes a
    file in memory, all map it, and its name is removed at once: nothing stays behind, even when
    processes are killed. Room is reserved here, not found missing in the middle of a run: OSError
    in all processes of the machine.
    """
    if comm.get_world_size() == 1:
        return torch.zeros(shape, dtype=dtype)
    size = max(torch.Size(shape).numel(), 1)
    name, problem = None, None
    if comm.get_local_rank() == 0:
        try:
            name = _reserve_file(size * dtype.itemsize)
        except OSError as error:
            problem = str(error)
    places = comm.all_gather((comm.get_rank(), name, problem))
    problems = [problem for _, _, problem in places if problem]
    if problems:
        raise OSError(problems[0])
    first = dist.get_global_rank(comm.get_local_process_group(), 0)
    name = next(name for rank, name, _ in places if rank == first)
    tensor = torch.from_file(name, shared=True, size=size, dtype=dtype)
    wait_for_all()
    if comm.get_local_rank() == 0:
        os.unlink(name)
    return tensor[: torch.Size(shape).numel()].view(shape)


def _reserve_file(num_bytes: int) -> str:
    """Make a file of zeros, in memory if there is room, else in the temporary folder."""
    for folder in (Path("/dev/shm"), Path(tempfile.gettempdir())):
        if not folder.is_dir():
            continue
        handle, name = tempfile.mkstemp(prefix="alphaaction_d2_", dir=folder)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, num_bytes)
            else:
                os.truncate(handle, num_bytes)
            return name
        except OSError as error:
            os.unlink(name)
            logger.warning("%s: no room for %d MB (%s)", folder, num_bytes >> 20, error.strerror)
        finally:
            os.close(handle)
    raise OSError(
        f"no room for {num_bytes >> 20} MB that the processes share, neither in /dev/shm nor in "
        f"{tempfile.gettempdir()}: make /dev/shm larger (docker: --shm-size) or set TMPDIR"
    )
