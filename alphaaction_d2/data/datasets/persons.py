"""Annotated persons as plain detection data: what a detector of persons is fine-tuned on.

Every data set NAME has a NAME_persons beside it, in detectron2's own format: a picture, its boxes,
one class. The pictures are keyframes, which are named by an address that detectron2 opens as it
opens any file; so its own mapper, trainer and evaluator take these data sets as they are.
"""

from __future__ import annotations

import functools
import io
import os
from typing import IO, Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathHandler, PathManager
from PIL import Image

from ...structures import AnnotatedPersons
from ..video import VideoReader

_PREFIX = "keyframe://"
_OPEN_VIDEOS = 4  # of a loading worker: training goes from one to any other


def register_persons(name: str) -> None:
    """Register the annotated persons of data set `name` as `<name>_persons`."""
    DatasetCatalog.register(f"{name}_persons", functools.partial(load_persons, name))
    MetadataCatalog.get(f"{name}_persons").set(thing_classes=["person"], evaluator_type="coco")


def load_persons(name: str) -> list[dict]:
    """Read the keyframes of data set `name`, each with a box for every annotated person."""
    return [_record(i, keyframe) for i, keyframe in enumerate(DatasetCatalog.get(name))]


def _record(number: int, keyframe: dict) -> dict:
    box = {"bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": 0}
    moment = (keyframe["file_name"], keyframe["timestamp"], keyframe.get("frame_rate"))
    boxes = AnnotatedPersons.of(keyframe).boxes.tolist()
    return {
        "file_name": keyframe_address(*moment),
        "image_id": number,
        "height": keyframe["height"],
        "width": keyframe["width"],
        "annotations": [{**box, "bbox": bbox} for bbox in boxes],
    }


def keyframe_address(video: str, seconds: float, frame_rate: float | None = None) -> str:
    """Name what a video shows at a moment, so that detectron2 can read it as a picture."""
    return f"{_PREFIX}{seconds},{frame_rate or 0},{video}"


class KeyframeHandler(PathHandler):
    """Opens the addresses of :func:`keyframe_address`: a file with the picture, not compressed."""

    def _get_supported_prefixes(self) -> list[str]:
        return [_PREFIX]

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[bytes]:
        if mode != "rb":
            raise ValueError(f"{path}: opened with mode {mode!r}; expected 'rb'")
        seconds, frame_rate, video = path.removeprefix(_PREFIX).split(",", 2)
        reader = _reader(video, float(frame_rate) or None, os.getpid())
        file = io.BytesIO()
        Image.fromarray(reader.pictures([float(seconds)])[0]).save(file, "BMP")
        file.seek(0)
        return file

    def _exists(self, path: str, **kwargs: Any) -> bool:
        return os.path.exists(path.removeprefix(_PREFIX).split(",", 2)[-1])

    _isfile = _exists


@functools.lru_cache(maxsize=_OPEN_VIDEOS)
def _reader(video: str, frame_rate: float | None, process: int) -> VideoReader:
    # By process: a worker must not read on from where its parent has a file open.
    return VideoReader(video, frame_rate=frame_rate)


PathManager.register_handler(KeyframeHandler(), allow_override=True)
