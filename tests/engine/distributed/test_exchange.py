"""Memory writes on their way to other processes."""

from __future__ import annotations

import pickle

import pytest
import torch

from alphaaction_d2.engine.distributed.exchange import pack_writes, unpack_writes
from alphaaction_d2.memory.pool import MemoryWrite


def write(video: str, slot: int, persons: int, channels: int, dtype: torch.dtype) -> MemoryWrite:
    return MemoryWrite(
        video_id=video,
        slot=slot,
        features=torch.randn(persons, channels).to(dtype),
        boxes=torch.rand(persons, 4),
        person_ids=torch.arange(persons) - 1,
        scores=torch.rand(persons),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("persons", [[], [0], [3], [2, 0, 1, 5]])
def test_round_trip(dtype, persons):
    writes = [write("ab"[i % 2], i - 7, n, 5, dtype) for i, n in enumerate(persons)]
    again = unpack_writes(pickle.loads(pickle.dumps(pack_writes(writes))), dtype)
    assert len(again) == len(writes)
    for one, two in zip(writes, again):
        assert (one.video_id, one.slot) == (two.video_id, two.slot)
        for field in ("features", "boxes", "person_ids", "scores"):
            assert torch.equal(getattr(one, field), getattr(two, field))
            assert getattr(one, field).dtype == getattr(two, field).dtype


def test_a_step_of_four_clips_with_four_persons_is_small():
    writes = [write("a", i, 4, 2304, torch.float16) for i in range(4)]
    assert len(pickle.dumps(pack_writes(writes))) <= 80_000
