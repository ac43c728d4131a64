"""Annotations of AVA's size: reading them, and what they cost in every loading process."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from benchmarks.measure import Row

VIDEOS, SECONDS, FIRST_SECOND = 235, 897, 902  # AVA's training split
ACTIONS_PER_PERSON = 3
WORKERS = 8
BATCHES = 1000  # of 16 clips, before the processes are measured


def rows(quick: bool) -> Iterator[Row]:
    videos, seconds, workers = (2, 10, 2) if quick else (VIDEOS, SECONDS, WORKERS)
    with tempfile.TemporaryDirectory() as folder:
        root, small = Path(folder) / "generated", Path(folder) / "small"
        num_rows = _write_dataset(root, videos, seconds)
        _write_dataset(small, 1, 8)
        # a process of its own: what other rows have left in this one's memory does not count
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            load, serialise, memory = pool.submit(_measure, root, small, workers).result()
    size = f"{num_rows} annotations, {videos * seconds} keyframes, {videos} videos"
    yield Row("read a data set of AVA's size", load, "s", limit=20.0, note=size)
    yield Row("put it into the loader's buffer", serialise, "s", note=size)
    if memory is not None:
        full, empty = memory
        yield Row(
            f"what it adds to each of {workers} loading processes",
            (full - empty) / 1e6,
            "MB",
            limit=100.0,
            note=f"to {empty / 1e6:.0f} MB with 8 keyframes; shared pages in equal parts",
        )


def _write_dataset(root: Path, videos: int, seconds: int) -> int:
    """A folder data set: one tiny video under many names, 1 to 4 persons a keyframe.

    Returns:
        The number of annotations.
    """
    from alphaaction_d2.data.video import VideoWriter

    for name in ("videos", "annotations", "boxes"):
        (root / name).mkdir(parents=True)
    names = [f"video_{i:03d}.x" for i in range(videos)]
    original = root / "videos" / f"{names[0]}.mp4"
    with VideoWriter(original, 1, 64, 48, gop=50) as writer:
        for _ in range(FIRST_SECOND + seconds + 1):
            writer.write(np.zeros((48, 64, 3), np.uint8))
    for name in names[1:]:
        os.link(original, root / "videos" / f"{name}.mp4")
    label_map = "".join(f'item {{ name: "class {i}" id: {i} }}\n' for i in range(1, 81))
    (root / "label_map.pbtxt").write_text(label_map)

    rng = np.random.default_rng(0)
    counts = rng.integers(1, 5, videos * seconds)
    keyframes = np.repeat(np.arange(videos * seconds), counts)
    corners = rng.random((2, len(keyframes), 2)).round(3)
    low, high = corners.min(axis=0) * 0.9, corners.max(axis=0) * 0.9 + 0.1
    persons = {
        "video_id": pa.array(names).take(pa.array(keyframes // seconds)),
        "timestamp": pa.array([f"{FIRST_SECOND + i:04d}" for i in range(seconds)]).take(
            pa.array(keyframes % seconds)
        ),
        **{f"x{i}": pa.array(c.round(3)) for i, c in enumerate((*low.T, *high.T))},
    }
    scores = pa.array(rng.random(len(keyframes)).round(6))
    for role, word in (("persons", ""), ("objects", "cup")):
        words = pa.array([word]).take(pa.array(np.zeros(len(keyframes), np.int64)))
        _write_csv(root / "boxes" / f"train_{role}.csv", {**persons, "class": words, "s": scores})
    repeated = pa.array(np.repeat(np.arange(len(keyframes)), ACTIONS_PER_PERSON))
    actions = rng.integers(0, 26, len(repeated)) * ACTIONS_PER_PERSON + 1
    actions += np.tile(np.arange(ACTIONS_PER_PERSON), len(keyframes))
    annotations = {name: column.take(repeated) for name, column in persons.items()}
    annotations["action_id"] = pa.array(actions)
    annotations["person_id"] = pa.array(np.arange(len(keyframes)) % 50).take(repeated)
    _write_csv(root / "annotations" / "train.csv", annotations)
    return len(repeated)


def _write_csv(path: Path, columns: dict[str, pa.Array]) -> None:
    options = pa_csv.WriteOptions(include_header=False, quoting_style="none")
    pa_csv.write_csv(pa.table(columns), path, options)


def _measure(
    root: Path, small: Path, workers: int
) -> tuple[float, float, tuple[float, float] | None]:
    """Seconds to read, seconds to make the loader, bytes of a worker with all and few keyframes.

    The last is None where the system does not tell how much memory processes share.
    """
    from detectron2.data import DatasetCatalog

    from alphaaction_d2.data.datasets import register_folder

    if "fork" in multiprocessing.get_all_start_methods():
        # what loaders use by default on Linux; a spawned process hands its own way down
        multiprocessing.set_start_method("fork", force=True)
    logging.disable(logging.INFO)
    tells_memory = Path("/proc/self/smaps_rollup").exists()
    names = [*register_folder(small), *register_folder(root)]
    batches = BATCHES if workers == WORKERS else workers
    sizes = []
    for name in names:  # the small one first: later the other is in all processes' memory
        start = time.perf_counter()
        keyframes = DatasetCatalog.get(name)
        load = time.perf_counter() - start
        start = time.perf_counter()
        loader = _loader(keyframes, workers)
        serialise = time.perf_counter() - start
        del keyframes
        gc.collect()
        if tells_memory:
            sizes.append(_bytes_per_worker(loader, batches))
    return load, serialise, (sizes[1], sizes[0]) if tells_memory else None


def _loader(keyframes: list[dict], workers: int):
    from alphaaction_d2.data.train_loader import TrainLoader

    return TrainLoader(
        keyframes,
        _count_annotations,
        repeats=np.ones(len(keyframes)),
        batch_size=16,
        seed=0,
        num_workers=workers,
    )


def _count_annotations(keyframe: dict) -> dict:
    """A mapper that touches what a real one touches, the video aside."""
    boxes = np.array([annotation["bbox"] for annotation in keyframe["annotations"]])
    return {"annotations": len(boxes), "persons": len(keyframe["persons"])}


def _bytes_per_worker(loader, num_batches: int) -> float:
    """Memory of a worker after so many batches of all of them, shared pages in equal parts."""
    batches = iter(loader)
    for _ in range(num_batches):
        next(batches)
    workers = [process.pid for process in multiprocessing.active_children()]
    sizes = [_proportional_bytes(pid) for pid in workers]
    batches.close()
    return float(np.mean(sizes))


def _proportional_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/{pid}/smaps_rollup has no Pss")
