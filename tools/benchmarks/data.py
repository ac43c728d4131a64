"""From a video file to the model's input, on one core: clips a second beside decoding alone."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.structures import BoxMode
from PIL import Image

from alphaaction_d2 import setup_cfg
from alphaaction_d2.data import ActionDatasetMapper
from alphaaction_d2.data.video import VideoWriter, iterate_frames
from alphaaction_d2.structures import FoundBoxes
from benchmarks.measure import Row, interleaved_medians, num_threads

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "AVA" / "aia_dense_R50_4x16.yaml"
FPS = 25


def rows(quick: bool) -> Iterator[Row]:
    """In order (testing) and at random (training), without and with scaling."""
    seconds, clips, repeats = (3, 2, 1) if quick else (60, 24, 5)
    cfg = setup_cfg(str(CONFIG), ["MODEL.DEVICE", "cpu"])
    with tempfile.TemporaryDirectory() as folder, num_threads(1), single_opencv_thread():
        small = write_moving_video(Path(folder) / "small.mp4", 340, 256, seconds)
        large = write_moving_video(Path(folder) / "large.mp4", 640, 360, seconds)
        for video in (small, large):
            yield in_order_speed(cfg, video, repeats)
            yield from random_speed(cfg, video, clips, repeats)
        yield in_order_decoding(cfg, small)
        yield pictures_at_random(cfg, small, clips, repeats)


@contextlib.contextmanager
def single_opencv_thread() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


@dataclass(frozen=True)
class Video:
    """A generated file, `FPS` frames a second."""

    path: Path
    width: int
    height: int
    seconds: int

    @property
    def num_frames(self) -> int:
        return self.seconds * FPS

    def keyframe(self, timestamp: int) -> dict:
        """A dataset dict: one person, who is annotated and detected, and one object."""
        box = [0.2 * self.width, 0.1 * self.height, 0.5 * self.width, 0.9 * self.height]
        found = FoundBoxes.of(box, 0.9, 1, (self.width, self.height))
        person = {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "person_id": 1}
        return {
            "file_name": str(self.path),
            "video_id": self.path.stem,
            "image_id": f"{self.path.stem},{timestamp:04d}",
            "timestamp": timestamp,
            "height": self.height,
            "width": self.width,
            "annotations": [person],
            "persons": found,
            "objects": found,
        }


def write_moving_video(path: Path, width: int, height: int, seconds: int) -> Video:
    """A camera that pans over a textured scene, a ball that crosses it; H.264, usual key frames."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2 * height, 2 * width, 3)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 2)
    scene = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    with VideoWriter(path, FPS, width, height) as writer:
        for i in range(seconds * FPS):
            x = round((0.5 + 0.5 * np.cos(i / 53)) * width)
            y = round((0.5 + 0.5 * np.sin(i / 40)) * height)
            frame = scene[y : y + height, x : x + width].copy()
            ball = (round((0.5 + 0.4 * np.sin(i / 15)) * width), height // 2)
            cv2.circle(frame, ball, height // 6, (250, 40, 30), thickness=-1)
            writer.write(frame)
    return Video(path, width, height, seconds)


def decode(video: Video) -> Callable[[], None]:
    """The yardstick: all frames, once, to RGB."""

    def run() -> None:
        for _ in iterate_frames(video.path):
            pass

    return run


def map_keyframes(
    cfg: CfgNode, video: Video, timestamps: np.ndarray, is_train: bool
) -> Callable[[], ActionDatasetMapper]:
    """A new mapper's work on these keyframes, the opening of the video included."""

    def run() -> ActionDatasetMapper:
        np.random.seed(0)  # noqa: NPY002 - detectron2's augmentations draw from it
        mapper = ActionDatasetMapper(cfg, is_train=is_train)
        for timestamp in timestamps:
            mapper(video.keyframe(int(timestamp)))
        return mapper

    return run


def describe(cfg: CfgNode, video: Video) -> str:
    return f"{video.width}x{video.height}, {cfg.INPUT.NUM_FRAMES} frames"


def in_order_speed(cfg: CfgNode, video: Video, repeats: int) -> Row:
    """Testing: every second of a video."""
    timestamps = np.arange(video.seconds)
    taken, decoding = interleaved_medians(
        [map_keyframes(cfg, video, timestamps, is_train=False), decode(video)], repeats
    )
    return Row(
        name=f"clips in order, {describe(cfg, video)}",
        value=len(timestamps) / taken,
        unit="clips/s",
        yardstick=len(timestamps) / decoding,
        yardstick_name="decoding alone",
        limit=0.45,
        at_least=True,
        note="one core, testing",
    )


def random_speed(cfg: CfgNode, video: Video, clips: int, repeats: int) -> Iterator[Row]:
    """Training: keyframes in random order, so that each clip seeks."""
    timestamps = np.random.default_rng(0).permutation(video.seconds)[:clips]
    work = map_keyframes(cfg, video, timestamps, is_train=True)
    taken, decoding = interleaved_medians([work, decode(video)], repeats)
    decoded = work().frames_decoded
    yield Row(
        name=f"clips at random, {describe(cfg, video)}",
        value=clips / taken,
        unit="clips/s",
        yardstick=clips / (decoding * decoded / video.num_frames),
        yardstick_name="decoding as many frames",
        note="one core, training with flips",
    )
    yield Row(
        name=f"decoded for a clip at random, {describe(cfg, video)}",
        value=decoded / clips,
        unit="frames",
        note="from the key frame before it on",
    )


def write_pictures(video: Video) -> Video:
    """The same video as a folder of JPEG pictures."""
    folder = video.path.with_name("pictures")
    folder.mkdir()
    for number, (_, frame) in enumerate(iterate_frames(video.path), 1):
        Image.fromarray(frame).save(folder / f"img_{number:05d}.jpg", quality=90)
    (folder / "frames.yaml").write_text(f"fps: {FPS}\n")
    return replace(video, path=folder)


def pictures_at_random(cfg: CfgNode, video: Video, clips: int, repeats: int) -> Row:
    """Training from a folder of pictures, beside training from the file."""
    timestamps = np.random.default_rng(0).permutation(video.seconds)[:clips]
    forms = (write_pictures(video), video)
    work = [map_keyframes(cfg, form, timestamps, is_train=True) for form in forms]
    pictures, file = interleaved_medians(work, repeats)
    return Row(
        name=f"from a folder of pictures at random, {describe(cfg, video)}",
        value=clips / pictures,
        unit="clips/s",
        yardstick=clips / file,
        yardstick_name="from the video file",
        note=f"{work[0]().frames_decoded / clips:.1f} pictures read for a clip",
    )


def in_order_decoding(cfg: CfgNode, video: Video) -> Row:
    """How often testing decodes a frame, through the loader that testing uses."""
    mapper = ActionDatasetMapper(cfg, is_train=False)
    keyframes = [video.keyframe(t) for t in range(video.seconds)]
    for _ in build_detection_test_loader(keyframes, mapper=mapper, num_workers=0):
        pass
    return Row(
        name="testing in order, frames decoded for one of the video",
        value=mapper.frames_decoded / video.num_frames,
        unit="",
        limit=1.001,
        note=f"{video.num_frames} frames, a keyframe each second",
    )
