"""Live prediction: as in testing, newest first, bounded in time and memory."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc

import numpy as np
import pytest
import torch

from alphaaction_d2.data.video.live import LiveStream
from alphaaction_d2.engine import Trainer, VideoPredictor
from alphaaction_d2.engine.box_sources import KeyframeBoxes
from alphaaction_d2.engine.live import LivePredictor, Newest, _LaterDetectedBoxes
from alphaaction_d2.modeling.detector import PictureBoxes
from alphaaction_d2.structures import FoundBoxes
from tests.helpers import small_cfg, write_dataset

FPS = 8


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small configuration with weights, and its folder of data."""
    folder = write_dataset(tmp_path_factory.mktemp("live") / "live_shapes")
    cfg = small_cfg(folder)
    torch.manual_seed(0)
    model = Trainer.build_model(cfg)
    for name, parameter in model.named_parameters():
        if ".out." in name:
            torch.nn.init.normal_(parameter, std=0.5)
    weights = folder / "weights.pth"
    torch.save({"model": model.state_dict()}, weights)
    cfg.MODEL.WEIGHTS = str(weights)
    return cfg, folder


def pictures(seconds: int, seed: int = 0, pause: float = 0.0):
    """Frames of noise, whose first pixel is their number."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 255, (16, 48, 64, 3), np.uint8)
    for number in range(seconds * FPS + 1):
        frame = noise[number % 16].copy()
        frame[0, 0] = number % 256
        time.sleep(pause)
        yield number / FPS, frame


# ------------------------------------------------------------------------------------ the newest


def test_all_are_taken_by_who_is_fast_enough():
    def items():
        for number in range(5):
            time.sleep(0.02)
            yield number

    newest = Newest(items())
    assert list(newest) == [0, 1, 2, 3, 4] and newest.dropped == 0


def test_the_oldest_are_dropped():
    taken = threading.Event()

    def items():
        yield 0
        taken.wait(5)
        yield from (1, 2, 3)

    newest, seen = Newest(items()), []
    for number in newest:
        seen.append(number)
        taken.set()
        time.sleep(0.2)
    assert seen == [0, 3] and newest.dropped == 2


def test_errors_come_out_where_the_items_do():
    def items():
        yield 1
        raise ValueError("broken")

    newest = iter(Newest(items()))
    assert next(newest) == 1
    with pytest.raises(ValueError, match="broken"):
        next(newest)


def test_the_thread_ends_with_who_reads():
    ended = threading.Event()

    def items():
        try:
            while True:
                time.sleep(0.01)
                yield 0
        finally:
            ended.set()

    newest = iter(Newest(items()))
    next(newest)
    newest.close()
    gc.collect()
    assert ended.wait(2)


# --------------------------------------------------------------------------------- the predictor


def test_the_same_as_testing_without_delay(trained):
    cfg, folder = trained
    cfg = cfg.clone()
    video = folder / "videos" / "val_1.mp4"
    boxes = KeyframeBoxes.from_files([folder / "boxes" / "val_persons.csv"], "val_1")
    live = LivePredictor(cfg)
    assert cfg.MODEL.MEMORY.DELAY != 0 == live.cfg.MODEL.MEMORY.DELAY
    found = list(live(LiveStream(str(video)), boxes, video_id="val_1"))
    cfg.MODEL.MEMORY.DELAY = 0
    known = list(VideoPredictor(cfg)(video, boxes))
    assert live.dropped == 0 and len(found) == len(known) >= 4
    for one, other in zip(found, known):
        assert one["timestamp"] == other["timestamp"] and one["video_id"] == other["video_id"]
        torch.testing.assert_close(one["instances"].scores, other["instances"].scores)
        assert torch.equal(one["instances"].person_ids, other["instances"].person_ids)
        assert 0 < one["latency"] < 5


def slow_down(predictor: LivePredictor, seconds: float) -> list[float]:
    """Make the network slower; the timestamps that it sees, and whether its clips have holes."""
    seen, extract = [], predictor.model.extract

    def slowly(clips):
        for clip in clips:
            numbers = clip["video"][0, :, 0, 0].int()
            whole = (numbers.diff() >= 0).all() and numbers.diff().max() <= 1
            assert whole or len(numbers) > 8, "a clip has a hole"
            seen.append(clip["timestamp"])
        time.sleep(seconds)
        return extract(clips)

    predictor.model.extract = slowly
    return seen


def test_a_slow_network_skips_whole_keyframes_and_stays_in_the_present(trained):
    """A second of the stream lasts 0.2 s here, so a keyframe interval does."""
    cfg = trained[0].clone()
    cfg.INPUT.NUM_FRAMES, cfg.INPUT.SAMPLING_RATE, cfg.INPUT.CLIP_FPS = 8, 1, float(FPS)
    cfg.INPUT.MIN_SIZE_TEST = 0  # so that pictures arrive as they are
    predictor = LivePredictor(cfg)
    interval, inference = 0.2, 0.5
    seen = slow_down(predictor, inference)
    results = list(predictor(pictures(30, pause=interval / FPS)))
    assert [x["timestamp"] for x in results] == seen == sorted(seen)
    assert predictor.keyframes + predictor.dropped == 31
    assert predictor.dropped > 10  # more than half of them
    took = inference + 0.25  # what the network itself needs, on a busy machine
    assert np.percentile(predictor.latencies, 95) < 2 * interval + took


def test_generated_pictures_that_are_faster_than_the_network(trained):
    predictor = LivePredictor(trained[0])
    predictor.model.extract, extract = (
        lambda clips: (time.sleep(1.3), extract(clips))[1],
        predictor.model.extract,
    )
    stream = LiveStream("lavfi:testsrc2=size=64x48:rate=25:duration=6")
    results = list(predictor(stream, video_id=stream.name))
    assert predictor.dropped >= 1 and len(results) + predictor.dropped == 6
    assert np.percentile(predictor.latencies, 95) < 2 * 1.0 + 1.3 + 0.3


class Detector:
    """One person in a place that the picture tells."""

    def __init__(self):
        self.looks = []

    def __call__(self, frames):
        self.looks += [int(frame[0, 0, 0]) for frame in frames]
        found = FoundBoxes.of([[0.1, 0.1, 0.6, 0.9]], 0.99)
        return [PictureBoxes(found, [""]) for _ in frames]


def test_the_detector_works_for_taken_keyframes_alone(trained):
    predictor, detector = LivePredictor(trained[0]), Detector()
    predictor.detector, predictor.looks_per_second = detector, 2
    slow_down(predictor, 0.4)
    results = list(predictor(pictures(12, pause=0.1 / FPS)))
    assert predictor.dropped > 3
    assert len(detector.looks) <= 2 * len(results)
    assert all(len(x["instances"].person_ids.unique()) == 1 for x in results)


def test_nobody_is_looked_for_in_dropped_keyframes():
    detector = Detector()
    boxes = _LaterDetectedBoxes(detector, looks_per_second=2)
    list(boxes.watch(pictures(4)))
    at = {second: boxes.later(second) for second in range(5)}
    assert detector.looks == []
    found = at[3]()
    assert detector.looks == [2.5 * FPS, 3 * FPS]  # in between, and at the keyframe
    assert len(found.persons) == 1
    assert [seconds for seconds, _ in found.between.moments()] == [2.5]
    assert not boxes._pictures


@pytest.mark.parametrize("keyframes", [60, pytest.param(10_000, marks=pytest.mark.slow)])
def test_memory_stays_flat(trained, keyframes):
    cfg = trained[0].clone()
    cfg.INPUT.NUM_FRAMES, cfg.INPUT.SAMPLING_RATE, cfg.INPUT.CLIP_FPS = 8, 1, float(FPS)
    cfg.INPUT.MIN_SIZE_TEST = 32
    predictor, held = LivePredictor(cfg), []
    # What has a state that could grow is not the backbone: it computes one clip for all.
    extract, features = predictor.model.extract, []
    predictor.model.extract = lambda clips: features or features.extend(extract(clips)) or features

    def as_fast_as_it_goes():
        for seconds, frame in pictures(keyframes):
            while seconds > predictor.keyframes + predictor.dropped + 1:
                time.sleep(1e-3)
            yield seconds, frame

    tracemalloc.start()
    try:
        for number, _ in enumerate(predictor(as_fast_as_it_goes())):
            if number % (keyframes // 6) == keyframes // 6 - 1:
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert predictor.keyframes > 0.9 * keyframes
    # A clip is 100 kB here, a latency a hundred bytes.
    assert max(held[1:]) - held[0] < 200_000 + 100 * keyframes
