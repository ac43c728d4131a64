"""What processes tell each other in a step: over GLOO, on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor

from ...memory.pool import MemoryPool, MemoryWrite


@functools.lru_cache
def _gloo() -> Any:
    """Make a group of all processes that moves CPU tensors; None where the usual one does."""
    return None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")


def wait_for_all() -> None:
    """Return when every process has come here."""
    if comm.get_world_size() > 1:
        dist.barrier(_gloo())


def gather_numbers(values: Sequence[float]) -> Tensor:
    """Turn (n,) numbers of this process into (processes, n) float64 of all, on the CPU."""
    mine = torch.tensor(values, dtype=torch.float64)
    if comm.get_world_size() == 1:
        return mine[None]
    gathered = [torch.empty_like(mine) for _ in range(comm.get_world_size())]
    dist.all_gather(gathered, mine, group=_gloo())
    return torch.stack(gathered)


def store_everywhere(pool: MemoryPool, writes: list[MemoryWrite], loss: float) -> None:
    """Store what all processes have computed; all of them call this together.

    When it returns, everything can be read, also where another process did the writing.
    """
    if comm.get_world_size() == 1:
        pool.update(writes, loss)
        return
    for packed in comm.all_gather(pack_writes(writes)):
        pool.update(unpack_writes(packed, pool.dtype), loss)
    wait_for_all()


def pack_writes(writes: list[MemoryWrite]) -> list[tuple]:
    """Take memory writes apart, to be pickled and sent.

    As arrays: to pickle tensors takes ten times as long. The features go as bytes, for numpy knows
    no bfloat16. 4 clips of 4 persons of 2304 half-precision channels are 75 kB.
    """
    return [
        (
            *(write.video_id, write.slot),
            write.features.contiguous().view(torch.uint8).numpy(),
            *(x.numpy() for x in (write.boxes, write.person_ids, write.scores)),
        )
        for write in writes
    ]


def unpack_writes(packed: list[tuple], dtype: torch.dtype) -> list[MemoryWrite]:
    """Put together what :func:`pack_writes` took apart; the features are of `dtype`."""
    return [
        MemoryWrite(
            video, slot, torch.from_numpy(features).view(dtype), *map(torch.from_numpy, others)
        )
        for video, slot, features, *others in packed
    ]
