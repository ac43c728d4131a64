"""Reading, exchanging and holding the memory pool."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from detectron2.engine import launch
from detectron2.utils import comm

from alphaaction_d2.engine.distributed.exchange import pack_writes, wait_for_all
from alphaaction_d2.engine.distributed.shared_tensors import shared_zeros
from alphaaction_d2.memory.pool import MemoryPool, MemoryWrite
from benchmarks.measure import Row, interleaved_medians, num_threads

CHANNELS = 2304


def keyframes(videos: int, seconds: int) -> list[tuple[str, int, int]]:
    """Alternately two and three persons a second."""
    return [
        (f"video {v}", second, 2 + second % 2) for v in range(videos) for second in range(seconds)
    ]


def rows(quick: bool) -> Iterator[Row]:
    """Time of a read; bytes of a step; size of a whole pool, alone and shared by processes."""
    yield read_row(2 if quick else 200, 90 if quick else 900, repeats=5 if quick else 101)
    yield Row(
        "memory: what one worker sends a step",
        len(pickle.dumps(pack_writes([random_write(f"video {i}", 4) for i in range(4)]))) / 1e3,
        "kB",
        limit=80,
        note="4 clips x 4 persons",
    )
    videos, seconds = (2, 30) if quick else (235, 902)
    pool = MemoryPool(num_channels=CHANNELS, keyframes=keyframes(videos, seconds))
    yield Row(
        "memory: pool of AVA's training set",
        pool.num_bytes / 1e9,
        "GB",
        limit=2.6,
        note=f"{videos} x {seconds} s, 2.5 persons each",
    )
    del pool
    yield Row(
        "memory: the same, held by two processes together",
        bytes_of_two_processes(videos, seconds) / 1e9,
        "GB",
        limit=2.6,
        note="proportional set size of both, shared memory only",
    )


def random_write(video: str, persons: int) -> MemoryWrite:
    return MemoryWrite(
        video_id=video,
        slot=0,
        features=torch.randn(persons, CHANNELS).half(),
        boxes=torch.rand(persons, 4),
        person_ids=torch.arange(persons),
        scores=torch.ones(persons),
    )


def read_row(videos: int, seconds: int, repeats: int) -> Row:
    """Windows of 4 clips at random places of a full pool, beside a copy of as many bytes."""
    places = keyframes(videos, seconds)
    pool = MemoryPool(num_channels=CHANNELS, keyframes=places)
    pool._features.fill_(1.0)  # pages that were never written would be read for nothing
    pool._counts.fill_(2)
    pool._tags.fill_(1.0)
    pool.err = 1.0
    torch.manual_seed(0)
    chosen = torch.randint(len(places), (4 * (repeats + 1),)).tolist()
    batches = iter([chosen[i : i + 4] for i in range(0, len(chosen), 4)])

    def read() -> None:
        batch = [{"video_id": places[i][0], "timestamp": places[i][1]} for i in next(batches)]
        pool.attach(batch, training=True)

    window = pool.read(*places[0][:2], training=True)
    size = sum(
        getattr(window, name).nbytes for name in ("features", "valid", "person_ids", "boxes")
    )
    sources = [torch.ones(4, size, dtype=torch.uint8) for _ in range(8)]  # not from the cache
    turn = iter(range(repeats + 1))

    def copy() -> None:
        sources[next(turn) % 8].clone()

    with num_threads(1):
        taken, yardstick = interleaved_medians([read, copy], repeats)
    return Row(
        "memory: read, batch of 4",
        taken * 1e3,
        "ms",
        yardstick=yardstick * 1e3,
        yardstick_name="copying as many bytes",
        limit=1.5,
        note=f"pool of {videos} videos x {seconds} s, {4 * size / 1e6:.1f} MB",
    )


def bytes_of_two_processes(videos: int, seconds: int) -> float:
    """Memory of a pool that two processes share, each page counted once."""
    with tempfile.TemporaryDirectory() as folder:
        launch(_hold_pool, 2, dist_url="auto", args=(videos, seconds, folder))
        return sum(float(path.read_text()) for path in Path(folder).iterdir())


def _hold_pool(videos: int, seconds: int, folder: str) -> None:
    pool = MemoryPool(
        num_channels=CHANNELS,
        keyframes=keyframes(videos, seconds),
        allocate=shared_zeros,
        writes=comm.get_rank() == 0,
    )
    if pool.writes:
        pool._features.fill_(1.0)
    wait_for_all()
    pool._features.sum(dtype=torch.float32)  # every process touches all of it
    wait_for_all()
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        shared = next(line for line in file if line.startswith("Pss_Shmem:"))
    Path(folder, str(comm.get_rank())).write_text(str(int(shared.split()[1]) * 1024))
    wait_for_all()
