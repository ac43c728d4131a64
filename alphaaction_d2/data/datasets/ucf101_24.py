"""UCF101-24: from annotations, videos and boxes to one dataset dict per frame."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from ...formats.ava import AVARows
from ...formats.boxes import at_keyframes, read_boxes
from ...formats.ucf101_24 import FRAME_RATE, PICTURE_SIZE, UCFAnnotations, read_ucf_split
from ...structures import AnnotatedPersons
from ..box_tables import KeyframeTable
from ..video import VideoInfo, find_videos
from .ava import without_garbage_collection
from .catalog import register
from .videos import demand_files, probe_videos

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UCFFiles:
    """Where the parts of a split lie."""

    annotations: Path  # `pyannot.pkl` or `UCF101v2-GT.pkl`
    split: str  # "train" or "test"
    # Folder of `<class>/<video>.avi`, in any container, or of folders `<class>/<video>` of
    # pictures; None: dicts are made from the annotations alone.
    videos: Path | None
    video_list: Path | None = None  # the test videos' names, see `read_ucf_split`
    # Detected ones, in any form that `read_boxes` knows, with the seconds of frames (k / 25 for
    # frame k); None: testing uses the annotated boxes, and no objects.
    persons: Path | None = None
    objects: Path | None = None

    @property
    def label_map(self) -> Path:
        """What names the classes."""
        return self.annotations

    def check(self, name: str) -> None:
        """Raise FileNotFoundError for a part that is not there."""
        parts = ("annotations", "videos", "video_list", "persons", "objects")
        paths = ((part.replace("_", " "), getattr(self, part)) for part in parts)
        demand_files(name, ((part, path) for part, path in paths if path is not None))

    def read(self) -> UCFAnnotations:
        """Read the annotations of the split."""
        return read_ucf_split(self.annotations, self.split, self.video_list)

    def find_videos(self, annotations: UCFAnnotations) -> dict[str, list[Path]]:
        """Find what may be the videos that are annotated, by name."""
        assert self.videos is not None
        found: dict[str, list[Path]] = {}
        for folder in sorted({video.rpartition("/")[0] for video in annotations.videos}):
            if (self.videos / folder).is_dir():
                inside = find_videos(self.videos / folder).items()
                found |= {f"{folder}/{video}".lstrip("/"): paths for video, paths in inside}
        return found

    def keyframes(self, annotations: UCFAnnotations) -> dict[int, list[int]]:
        """Find the frames of every video, by its number, that are looked at, from 0 on: the
        annotated ones, or all for testing."""
        if self.split == "test":
            return {code: list(range(n)) for code, n in enumerate(annotations.num_frames.tolist())}
        pairs = np.stack([annotations.video_codes, annotations.frames - 1], axis=1)
        found = defaultdict(list)
        for code, k in np.unique(pairs, axis=0).tolist():
            found[code].append(k)
        return dict(found)

    def tables(
        self, annotations: UCFAnnotations, sizes: Mapping[str, tuple[int, int]]
    ) -> list[KeyframeTable]:
        """Read the persons and the objects of all frames; empty tables where there is no file.

        The seconds of their keyframes count frames from 0 on; videos are called as annotated.
        """
        short = {video.rpartition("/")[2]: video for video in annotations.videos}
        tables: dict[str, list[AVARows]] = {"persons": [], "objects": []}
        for role, rows_of in tables.items():
            if (path := getattr(self, role)) is not None:
                file = read_boxes(path, role)
                videos = [short.get(video.rpartition("/")[2], video) for video in file.rows.videos]
                times = file.rows.timestamps * FRAME_RATE
                rows = replace(file.rows, videos=videos, timestamps=times)
                rows_of.append(at_keyframes(replace(file, rows=rows).as_fractions(sizes.get).rows))
        return [KeyframeTable(rows) for rows in tables.values()]


def register_ucf101_24(name: str, files: UCFFiles) -> None:
    """Register a split under `name` in detectron2's catalogs. Files are read when it is first used.

    The metadata `evaluator_type` ("ucf101_24"), `files`, `thing_classes` and `annotations` (of all
    videos of the split, on disk or not) are what the evaluator looks for.
    """

    def read() -> dict[str, Any]:
        files.check(name)
        annotations = files.read()
        return {"thing_classes": annotations.class_names, "annotations": annotations}

    on_demand = ("thing_classes", "annotations")
    known = {"evaluator_type": "ucf101_24", "files": files}
    register(name, lambda: load_ucf101_24(name, files), read, on_demand, **known)


def load_ucf101_24(name: str, files: UCFFiles) -> list[dict]:
    """Read a split: one dict per frame, ordered by video and time.

    For training these are the annotated frames, for testing all frames of the test videos. Videos
    that are missing or cannot be opened are left out, with a warning.

    Returns:
        Dicts as those of :func:`load_ava`, of the keyframes at k / 25 s for frame k = 0, 1, 2, ...,
        and `frame_rate`: the frame is counted, not timed. `person_id` is the number of the tube.
    """
    files.check(name)
    annotations = files.read()
    frames = files.keyframes(annotations)
    infos: dict[str, VideoInfo] = {}
    if files.videos is not None:
        keys = [(annotations.videos[code], k) for code, ks in frames.items() for k in ks]
        found = files.find_videos(annotations)
        infos = probe_videos(name, found, files.videos, keys, frame_rate=FRAME_RATE)
        frames = {code: ks for code, ks in frames.items() if annotations.videos[code] in infos}
        _compare_lengths(name, annotations, infos)
    sizes = dict.fromkeys(annotations.videos, PICTURE_SIZE)
    sizes |= {video: (info.width, info.height) for video, info in infos.items()}
    persons, objects = files.tables(annotations, sizes)
    from_annotations = files.persons is None and files.split == "test"
    if from_annotations:
        logger.warning("%s: no detected persons; testing uses the annotated boxes", name)
    with without_garbage_collection():
        dicts = list(_build(annotations, frames, infos, sizes, persons, objects, from_annotations))
    logger.info("%s: %d frames of %d videos", name, len(dicts), len(frames))
    return dicts


def _compare_lengths(name: str, annotations: UCFAnnotations, infos: dict[str, VideoInfo]) -> None:
    """Warn of videos with fewer frames than their annotations count: frames would be others."""
    lengths = {video: x.duration for video, x in infos.items() if x.duration is not None}
    numbers = {video: round(seconds * FRAME_RATE) for video, seconds in lengths.items()}
    counts = zip(annotations.videos, annotations.num_frames.tolist())
    short = [f"{x} has {numbers[x]} of {n}" for x, n in counts if numbers.get(x, n) < n]
    if short:
        logger.warning(
            "%s: %d of %d videos have fewer frames than annotated: are these the original videos, "
            "and all of their frames? The last one is shown for those that are missing: %s%s",
            *(name, len(short), len(infos), "; ".join(short[:3]), "; ..." * (len(short) > 3)),
        )


def _build(
    annotations: UCFAnnotations,
    frames: dict[int, list[int]],
    infos: dict[str, VideoInfo],
    sizes: Mapping[str, tuple[int, int]],
    persons: KeyframeTable,
    objects: KeyframeTable,
    from_annotations: bool,
) -> Iterator[dict]:
    annotated = defaultdict(list)
    columns = (annotations.video_codes, annotations.frames - 1, annotations.boxes)
    rows = zip(*(x.tolist() for x in (*columns, annotations.labels, annotations.tubes)))
    for code, k, box, label, tube in rows:
        mode = BoxMode.XYXY_ABS
        person = {"bbox": box, "bbox_mode": mode, "category_id": label, "person_id": tube}
        annotated[code, k].append(person)
    order = sorted(frames, key=lambda code: annotations.videos[code])
    for code in order:
        video = annotations.videos[code]
        info = infos.get(video)
        width, height = sizes[video]
        for k in frames[code]:
            keyframe = {
                "file_name": f"{video}.avi" if info is None else str(info.path),
                "video_id": video,
                "timestamp": k / FRAME_RATE,
                "frame_rate": FRAME_RATE,
                "image_id": f"{video},{k:05d}",
                "height": height,
                "width": width,
                "annotations": annotated.get((code, k), []),
                "persons": persons[video, k],
                "objects": objects[video, k],
            }
            if from_annotations:
                keyframe["persons"] = AnnotatedPersons.of(keyframe).found(width, height)
            yield keyframe
