"""Actions in a video: `DefaultPredictor` for films instead of pictures."""

from __future__ import annotations

import functools
import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.transforms import Transform
from detectron2.engine import DefaultPredictor
from torch import nn

from ..checkpoint.checkpointer import load_for_inference
from ..config import check_keys, class_groups, whole
from ..data.clip_sampling import iterate_clips
from ..data.dataset_mapper import ActionDatasetMapper
from ..data.datasets import register_datasets
from ..data.video import iterate_frames, video_name
from ..data.video.source import checked_stream
from ..formats.ava_classes import AVA_CLASSES
from ..formats.label_map import LABEL_MAP, names_from_file
from ..memory.file import state_checksum
from ..modeling.detector import configured_detector
from ..modeling.interaction.inspection import has_attention
from ..tracking.linking import first_new_id
from .box_sources import BoxesAt, BoxSource, DetectedBoxes, WholeFrame
from .classes import with_classes
from .inference import AttentiveInference, DelayedInference, build_delayed_inference
from .stopwatch import Stopwatch

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class CutClip:
    """A clip on its way to the network."""

    keyframe: dict  # `video_id`, `timestamp`, `height` and `width` of the video, `first_new_id`
    views: Sequence[np.ndarray]  # (T, H, W, 3) uint8 RGB, the clip as it is seen in each view
    transforms: list[Transform]  # what has been applied to the frames of each
    boxes: Callable[[], BoxesAt]  # gives the persons and objects of the keyframe


class VideoPredictor(DefaultPredictor):
    """Who does what, second by second.

    Example::

        predictor = VideoPredictor(cfg)
        for result in predictor("film.mp4", KeyframeBoxes.from_files(["boxes.csv"], "film")):
            print(result["timestamp"], result["instances"])
    """

    inference = DelayedInference

    def __init__(self, cfg: CfgNode) -> None:
        """Build the configured model and load `cfg.MODEL.WEIGHTS`, which must cover all of it."""
        cfg = with_classes(cfg, cfg.MODEL.WEIGHTS)
        without_weights = cfg.clone()
        without_weights.defrost()
        without_weights.MODEL.WEIGHTS = ""
        super().__init__(without_weights)
        self.cfg = cfg.clone()
        load_for_inference(self.model, cfg.MODEL.WEIGHTS)
        self.mapper = ActionDatasetMapper(cfg, is_train=False)
        check_keys(cfg, "MODEL.PERSON_DETECTOR", {"LOOKS_PER_SECOND": whole(1, 1000)})
        self.looks_per_second = cfg.MODEL.PERSON_DETECTOR.LOOKS_PER_SECOND
        self.detector = configured_detector(cfg)
        self.stopwatch = Stopwatch()  # of all that is done, by stage
        # Is told the seconds of every frame as it goes by: results come later.
        self.progress: Callable[[float], None] | None = None

    @functools.cached_property
    def checksum(self) -> str:
        """Checksum of the model's weights."""
        return state_checksum({name: x.cpu() for name, x in self.model.state_dict().items()})

    def __call__(
        self,
        video: str | Path | np.ndarray | Iterable[tuple[float, np.ndarray]],
        boxes: BoxSource | None = None,
        *,
        fps: float = 25.0,
        video_id: str | None = None,
    ) -> Iterator[dict]:
        """Yield one result per second, in order, as soon as its memory window is complete.

        Nothing is held but the frames of one clip and the features of one window, however long the
        video is.

        Args:
            video: a file, or a folder that holds a video; or frames (T, H, W, 3) uint8 RGB; or an
                iterator of (seconds, frame).
            boxes: where the persons are. Default: where the detector of
                `MODEL.PERSON_DETECTOR` finds them, else one person who fills the frame.
            fps: frame rate of an array of frames.
            video_id: name of the video in the results; default: see `video_name`.

        Yields:
            {"video_id", "timestamp", "height", "width", "instances"}; `Instances` in pixels of the
            video as `action_inference` describes them.

        Raises:
            VideoError: the file cannot be opened.
            ValueError: on the way, at a frame whose time is not finite or goes back.
        """
        if isinstance(video, (str, Path)):
            video_id = video_id or video_name(video)
            frames = iterate_frames(video)
        elif isinstance(video, np.ndarray):
            if not (math.isfinite(fps) and fps > 0):
                raise ValueError(f"fps is {fps}: give the frames per second, a number above 0")
            frames = ((i / fps, frame) for i, frame in enumerate(video))
        else:
            frames = checked_stream(video, video_id or "video")
        boxes = self.default_boxes() if boxes is None else boxes
        if self.progress is not None:
            frames = _told(frames, self.progress)
        return self._predict(boxes.watch(frames), boxes, video_id or "video")

    def default_boxes(self) -> BoxSource:
        """Where the persons of a video are, if nothing else says so."""
        if not self.detector:
            return WholeFrame()
        return DetectedBoxes(self.detector, self.looks_per_second, self.stopwatch)

    def several(
        self, videos: Iterable[tuple[T, str | Path, BoxSource | None]], number: int
    ) -> Iterator[tuple[T, dict | Exception | None]]:
        """Predict many videos, a number of them at a time: a clip of each goes through the networks
        in one batch. Results are those of each video alone.

        Args:
            videos: whose each one is, the video and its boxes; the next is asked for, and opened,
                when there is room for it.

        Yields:
            (whose, result) as when a video is called alone, (whose, None) at its end, or (whose,
            error) where it ends because it cannot be used: the others go on.
        """
        whole = build_delayed_inference(self.cfg, self.model, self.inference).eval()
        videos = iter(videos)
        running: list[tuple[T, Iterator[dict], DelayedInference]] = []
        while True:
            for whose, video, boxes in itertools.islice(videos, number - len(running)):
                running.append((whose, self._open(video, boxes), whole.another()))
            if not running:
                return
            batch, clips = [], []
            for whose, stream, delayed in running:
                try:
                    clip = next(stream, None)
                except RuntimeError:  # of a network or its device: no fault of the video's
                    raise
                except Exception as error:
                    yield whose, error
                    continue
                if clip is None:
                    yield from ((whose, x) for x in self._network(delayed, []))
                    yield whose, None
                else:
                    batch.append((whose, stream, delayed))
                    clips.append(clip)
            looks = self._network(whole.look, clips)
            for (whose, _, delayed), clip, look in zip(batch, clips, looks):
                yield from ((whose, x) for x in self._network(delayed.take, [clip], [look]))
            running = batch

    def _open(self, video: str | Path, boxes: BoxSource | None) -> Iterator[dict]:
        """Give the clips of a file or folder; what is wrong with it is raised at the first one."""
        boxes = self.default_boxes() if boxes is None else boxes
        yield from self._clips(boxes.watch(iterate_frames(video)), boxes, video_name(video))

    def _predict(
        self, frames: Iterator[tuple[float, np.ndarray]], boxes: BoxSource, video_id: str
    ) -> Iterator[dict]:
        delayed = build_delayed_inference(self.cfg, self.model, self.inference).eval()
        for clip in self._clips(frames, boxes, video_id):
            yield from self._network(delayed, [clip])
        yield from self._network(delayed, [])

    def _network(self, network: Callable[..., list[Any]], *arguments: object) -> list[Any]:
        # Not around a `yield`: the caller's code must not run without gradients.
        with self.stopwatch.stage("network"), torch.no_grad():
            return network(*arguments)

    def _clips(
        self, frames: Iterator[tuple[float, np.ndarray]], boxes: BoxSource, video_id: str
    ) -> Iterator[dict]:
        """Give the inputs of the model for the clips of a video."""
        for cut in self._cut(frames, boxes, video_id):
            found = cut.boxes()
            keyframe = {
                **cut.keyframe,
                "persons": found.persons,
                "objects": found.objects,
                "persons_between": found.between,
            }
            with self.stopwatch.stage("network"):
                clip = self.mapper.map_scaled_clip(keyframe, cut.views, cut.transforms)
            yield clip

    def _cut(
        self, frames: Iterator[tuple[float, np.ndarray]], boxes: BoxSource, video_id: str
    ) -> Iterator[CutClip]:
        """Cut the clips out of a video: all that is done before a network is asked."""
        first = next(frames, None)
        if first is None:
            return
        height, width = first[1].shape[:2]
        # Scaling each frame once, before the clips that share it are cut, saves most of the work.
        transforms = self.mapper.view_transforms(first[1])
        scaled = (
            (time, tuple(x.apply_image(frame) for x in transforms))
            for time, frame in itertools.chain([first], frames)
        )
        mapper, size = self.mapper, {"height": height, "width": width}
        first_id = first_new_id([boxes.largest_person_id])
        clips = iterate_clips(scaled, mapper.num_frames, mapper.sampling_rate, mapper.clip_fps)
        for timestamp, clip, _ in self.stopwatch.each("decoding", clips):
            keyframe = {"video_id": video_id, "timestamp": timestamp, **size}
            keyframe["first_new_id"] = first_id
            yield CutClip(keyframe, clip, transforms, boxes.later(timestamp))


class AttentionPredictor(VideoPredictor):
    """The same results, with what the model looked at: see :class:`AttentiveInference`."""

    inference = AttentiveInference

    @property
    def has_attention(self) -> bool:
        """Whether the model has attention to show."""
        return has_attention(self.model.roi_heads.interaction)


def _told(
    frames: Iterable[tuple[float, np.ndarray]], progress: Callable[[float], None]
) -> Iterator[tuple[float, np.ndarray]]:
    for seconds, frame in frames:
        progress(seconds)
        yield seconds, frame


def class_names(cfg: CfgNode, model: nn.Module | None = None, label_map: str = "") -> list[str]:
    """Name the action classes.

    The first that knows them counts: the file `label_map` (ValueError if it has another number of
    them than the model); the weights of `model`, or a label map beside them; the configured data
    sets. Without these 80 classes are AVA's, and others are called by their number.
    """
    num_classes = class_groups(with_classes(cfg, cfg.MODEL.WEIGHTS)).num_classes
    if label_map:
        names = names_from_file(label_map)
        if len(names) != num_classes:
            raise ValueError(f"{label_map}: {len(names)} classes, the model has {num_classes}")
        return names
    names = getattr(model, "class_names", None) or []
    beside = Path(cfg.MODEL.WEIGHTS).with_name(LABEL_MAP) if cfg.MODEL.WEIGHTS else None
    if not names and beside is not None and beside.is_file():
        names = names_from_file(beside)
    if len(names) == num_classes:
        return list(names)
    reason = ""
    try:
        register_datasets(cfg)
    except FileNotFoundError as error:
        reason = f"{error}; "
    for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        names = MetadataCatalog.get(name).get("thing_classes")
        if names and len(names) == num_classes:
            return list(names)
    is_ava = num_classes == len(AVA_CLASSES)
    if reason or not is_ava:
        called = "AVA's" if is_ava else "called by number"
        logger.warning(
            "Class names: %sthe weights carry none either: the %d classes are %s; --label-map FILE "
            "names them",
            *(reason, num_classes, called),
        )
    return list(AVA_CLASSES) if is_ava else [f"class {i + 1}" for i in range(num_classes)]
