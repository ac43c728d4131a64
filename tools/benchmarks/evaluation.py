"""Scoring AVA's detections: the whole command at two sizes, and the evaluation alone.

The limits are those of a machine with two cores of its own. `CPU time` is what other programs on
the machine hardly change; of it, reading the file runs on all cores.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alphaaction_d2.evaluation import AVA_PROTOCOLS, DEFAULT_AVA_PROTOCOL, evaluate_ava
from alphaaction_d2.formats.ava import AVARows, write_ava_results
from alphaaction_d2.formats.label_map import LabelMap
from benchmarks.measure import Row, interleaved_medians

TOOL = Path(__file__).resolve().parents[1] / "evaluate_ava.py"
NUM_CLASSES, NUM_SCORED = 80, 60  # 20 classes of AVA are not evaluated
FIRST_SECOND, SECONDS = 902, 897  # that AVA annotates of each video
NOTES = {7_190_000: "official code: 290 s and 3.2 GB", 900_000: "official code: 34.9 s"}


def rows(quick: bool) -> Iterator[Row]:
    """The validation set of AVA with 64 videos, and an eighth of it."""
    sizes = {20_000: None} if quick else {7_190_000: 8.0, 900_000: 1.5}
    repeats = 1 if quick else 3
    with tempfile.TemporaryDirectory() as name:
        for size, limit in sizes.items():
            data = semi_real(size)
            files = write_files(Path(name), data)
            yield from whole_command(files, size, limit, repeats)
            if size == max(sizes):
                yield from in_memory(data, size, repeats)


@dataclass(frozen=True)
class Data:
    """Annotations, detections and the classes that count."""

    annotations: AVARows
    detections: AVARows
    label_map: LabelMap


def semi_real(num_rows: int) -> Data:
    """Data with the proportions of AVA's validation set and of a detector's output for it.

    2.3 detected persons a frame, each scored for all 60 classes, one in 40 for all 80; nine in ten
    belong to an annotated person, whose box they miss by a few per cent; one or two actions a
    person; no two scores are equal.
    """
    rng = np.random.default_rng(0)
    scored = np.sort(rng.permutation(NUM_CLASSES)[:NUM_SCORED]) + 1
    num_persons = round(num_rows / (NUM_SCORED + (NUM_CLASSES - NUM_SCORED) / 40))
    frame = np.sort(rng.integers(0, max(round(num_persons / 2.3), 1), num_persons))
    corner, size = rng.uniform(0, 0.6, (num_persons, 2)), rng.uniform(0.05, 0.4, (num_persons, 2))
    boxes = np.concatenate([corner, corner + size], axis=1)
    is_person = rng.random(num_persons) < 0.9
    actions = scored[rng.integers(0, NUM_SCORED, (num_persons, 2))]

    annotated = np.flatnonzero(is_person)
    persons = np.concatenate([annotated, annotated[rng.random(len(annotated)) < 0.9]])
    second = np.zeros(len(persons), dtype=int)
    second[len(annotated) :] = 1
    order = np.argsort(persons, kind="stable")
    persons, labels = persons[order], actions[persons, second][order]
    annotations = _table(frame[persons], boxes[persons].round(3), labels, persons.astype(float))

    counts = np.where(np.arange(num_persons) % 40 == 0, NUM_CLASSES, NUM_SCORED)
    persons = np.repeat(np.arange(num_persons), counts)
    place = np.arange(len(persons)) - np.repeat(np.cumsum(counts) - counts, counts)
    labels = np.where(counts[persons] == NUM_CLASSES, place + 1, scored[place % NUM_SCORED])
    is_true = is_person[persons] & (labels[:, None] == actions[persons]).any(axis=1)
    is_found = is_true & (rng.random(len(persons)) < 0.55)
    chance = rng.random((3, len(persons))).prod(axis=0)
    scores = np.where(is_found, 1 - chance, chance)
    scores = (np.argsort(np.argsort(scores)) + rng.random()) / len(scores)  # all are different
    jitter = rng.normal(0, 0.04, boxes.shape) * np.tile(size, 2)
    found = (boxes + jitter).clip(0, 1).round(3)
    detections = _table(frame[persons], found[persons], labels, (scores**4).round(12))
    names = {i: f"class {i}" for i in scored.tolist()}
    return Data(annotations, detections, LabelMap(names, dict.fromkeys(names, "")))


def _table(frame: np.ndarray, boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> AVARows:
    codes, seconds = np.divmod(frame, SECONDS)
    num_videos = int(codes.max()) + 1
    return AVARows(
        videos=[f"video_{i:06d}" for i in range(num_videos)],
        video_codes=codes.astype(np.int32),
        timestamps=(FIRST_SECOND + seconds).astype(np.float64),
        boxes=boxes,
        labels=labels.astype(np.int64),
        scores=scores,
        person_ids=np.full(len(labels), -1),
    )


def write_files(folder: Path, data: Data) -> list[str]:
    """Writes the files; returns the command's arguments for them."""
    paths = [folder / name for name in ("gt.csv", "det.csv", "map.pbtxt")]
    write_ava_results(paths[0], data.annotations)
    write_ava_results(paths[1], data.detections)
    entries = [f'item {{\n  name: "{n}"\n  id: {i}\n}}\n' for i, n in data.label_map.names.items()]
    paths[2].write_text("".join(entries))
    options = ("--ground-truth", "--detections", "--label-map")
    return [text for pair in zip(options, map(str, paths)) for text in pair]


def whole_command(files: list[str], size: int, limit: float | None, repeats: int) -> Iterator[Row]:
    """Time and memory of a process of its own, the start of Python included."""
    runs = [_run([sys.executable, str(TOOL), *files]) for _ in range(repeats + 1)][1:]
    wall, cpu, memory = (statistics.median(values) for values in zip(*runs))
    name, note = f"scoring {size / 1e6:g} million rows, whole command", NOTES.get(size, "")
    yield Row(name=name, value=wall, unit="s", limit=limit, note=note)
    yield Row(name=f"{name}: CPU time", value=cpu, unit="s")
    yield Row(name=f"{name}: memory", value=memory / 1e9, unit="GB", limit=2.5)


# A process counts the memory of the one that started it until it has a program of its own, so a
# small one stands between this and what is measured.
_LAUNCHER = """
import os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def _run(command: list[str]) -> tuple[float, float, float]:
    """Seconds, CPU seconds of all threads, and the peak in bytes of one process."""
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, *command]
    done = subprocess.run(launcher, stdout=subprocess.PIPE, text=True, check=True)
    taken, cpu, memory = map(float, done.stdout.split())
    return taken, cpu, memory * (1 if sys.platform == "darwin" else 1024)


def in_memory(data: Data, size: int, repeats: int) -> Iterator[Row]:
    """The evaluation alone, by every protocol; one core."""
    tables = (data.annotations, data.detections, data.label_map)
    for protocol in AVA_PROTOCOLS:
        cpu: list[float] = []

        def evaluate(protocol: str = protocol, cpu: list[float] = cpu) -> None:
            start = time.process_time()
            evaluate_ava(*tables, protocol=protocol)
            cpu.append(time.process_time() - start)

        (wall,) = interleaved_medians([evaluate], repeats)
        yield Row(
            name=f"evaluating {size / 1e6:g} million rows in memory, {protocol}",
            value=wall,
            unit="s",
            limit=3.0,
            note=f"CPU time {statistics.median(cpu):.2f} s"
            + (", default" if protocol == DEFAULT_AVA_PROTOCOL else ""),
        )
