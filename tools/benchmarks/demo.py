"""From a video with boxes to its annotated video, as tools/demo.py does it: time and memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.modeling import build_model

from alphaaction_d2 import setup_cfg
from alphaaction_d2.apps.video_results import process_video
from alphaaction_d2.data.video import VideoWriter
from alphaaction_d2.engine import AttentionPredictor
from alphaaction_d2.engine.box_sources import BoxesAt, BoxSource
from alphaaction_d2.engine.predictor import class_names
from alphaaction_d2.structures import FoundBoxes, TimedBoxes
from benchmarks.data import write_moving_video
from benchmarks.measure import Row

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RELEASED = "AVA/aia_dense_R50_4x16.yaml"
SMALL = "Small/aia.yaml"
CORES = 2
FAST = ["MODEL.CHANNELS_LAST", True, "TEST.DTYPE", "bfloat16"]
# Shares of the whole at which memory is compared: of a video of ten minutes, after two and ten.
EARLY, LATE = (0.15, 0.25), (0.9, 1.0)


def rows(quick: bool) -> Iterator[Row]:
    """Random weights; two persons and an object a second; one keyframe a second."""
    config = SMALL if quick else RELEASED
    with tempfile.TemporaryDirectory() as folder:
        for name, options, seconds, limit in (
            ("bfloat16, channels last", FAST, 3 if quick else 60, 1.0),
            ("float32", [], 2 if quick else 20, None),
        ):
            video = Path(folder, "video.mp4")
            write_moving_video(video, 340, 256, seconds)
            run = in_a_process(run_demo, config, options, video)
            for part, taken in (("", run.seconds), (", prediction alone", run.prediction_seconds)):
                yield Row(
                    name=f"demo, {name}{part}",
                    value=taken / seconds,
                    unit="s for 1 s of video",
                    limit=None if part else limit,
                    note=f"{CORES} cores, {Path(config).stem}, {seconds} s of 340x256",
                )
        seconds = 20 if quick else 600
        video = Path(folder, "long.mp4")
        write_plain_video(video, seconds)
        run = in_a_process(run_demo, SMALL, [], video)
        for part, samples in (("predicting", run.predicting), ("drawing", run.drawing)):
            if samples:  # where the system tells
                yield Row(
                    name=f"demo, memory at the end of {part}",
                    value=peak(samples, LATE),
                    unit="MB",
                    yardstick=peak(samples, EARLY),
                    yardstick_name="after a fifth",
                    limit=1.1,
                    note=f"{Path(SMALL).stem}, video of {seconds} s",
                )


@dataclass
class DemoRun:
    """What one call of `process_video` took.

    Attributes:
        seconds: of the whole.
        prediction_seconds: until the last keyframe's clip went into the network.
        predicting: memory in MB at every keyframe; empty where the system does not tell.
        drawing: memory in MB, at equal distances in time, after that.
    """

    seconds: float = 0.0
    prediction_seconds: float = 0.0
    predicting: list[float] = field(default_factory=list)
    drawing: list[float] = field(default_factory=list)


def in_a_process(function: Callable, *arguments: object) -> DemoRun:
    """Call it in a new process on `CORES` cores, so that no earlier work counts as its memory."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=take_cores) as pool:
        return pool.submit(function, *arguments).result()


def take_cores() -> None:
    """Before anything starts threads: they stay on the cores that this thread has."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    torch.set_num_threads(CORES)
    cv2.setNumThreads(CORES)


def run_demo(config: str, options: list, video: Path) -> DemoRun:
    """Build a predictor with random weights, then measure it from the video to all files."""
    torch.manual_seed(0)
    cfg = setup_cfg(str(CONFIGS / config), ["MODEL.DEVICE", "cpu", *options])
    with tempfile.TemporaryDirectory() as folder:
        cfg.MODEL.WEIGHTS = str(Path(folder, "random.pth"))
        torch.save({"model": build_model(cfg).state_dict()}, cfg.MODEL.WEIGHTS)
        predictor = AttentionPredictor(cfg)  # as tools/demo.py
        run = DemoRun()
        clock = time.perf_counter
        start = clock()

        class Measured(MovingBoxes):
            def at(self, seconds: float) -> BoxesAt:
                run.prediction_seconds = clock() - start
                run.predicting += resident_megabytes()
                return super().at(seconds)

        with sampling(resident_megabytes) as samples:
            process_video(predictor, video, Measured(), Path(folder, "out"), class_names(cfg))
        run.seconds = clock() - start
        run.drawing = [m for at, m in samples if at - start > run.prediction_seconds]
    return run


@contextlib.contextmanager
def sampling(measure: Callable[[], list[float]]) -> Iterator[list[tuple[float, float]]]:
    """In the background, four times a second: (time, value) of what `measure` gives."""
    samples: list[tuple[float, float]] = []
    done = threading.Event()

    def run() -> None:
        while not done.wait(0.25):
            samples.extend((time.perf_counter(), value) for value in measure())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def resident_megabytes() -> list[float]:
    """Memory of this process as the system tells it; empty where it does not."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return []
    return [pages * os.sysconf("SC_PAGE_SIZE") / 1e6]


def peak(samples: list[float], share: tuple[float, float]) -> float:
    """The most between two shares of the samples."""
    first, last = (round(x * len(samples)) for x in share)
    return max(samples[min(first, len(samples) - 1) : max(last, first + 1)])


class MovingBoxes(BoxSource):
    """Two persons, one of them walking, and an object."""

    def at(self, seconds: float) -> BoxesAt:
        """See the class."""
        x = 0.5 + 0.1 * np.sin(seconds / 3)
        persons = [[0.1, 0.1, 0.4, 0.9], [x, 0.2, x + 0.3, 0.95]]
        return BoxesAt(
            persons=FoundBoxes.of(persons, 0.9, [1, 2]),
            objects=FoundBoxes.of([0.4, 0.6, 0.6, 0.8], 0.9),
            between=TimedBoxes.join({}),
        )


def write_plain_video(path: Path, seconds: int) -> None:
    """Small pictures at a low rate: it is the length that matters."""
    with VideoWriter(path, 8, 128, 96, preset="ultrafast") as writer:
        for i in range(seconds * 8):
            frame = np.full((96, 128, 3), 90, np.uint8)
            frame[30:60, i % 98 : i % 98 + 30] = 220
            writer.write(frame)
