"""Files of UCF101-24: the corrected annotations and CSV files of detections.

The annotations (`pyannot.pkl` of gurkirt/corrected-UCF101-Annots) are a pickle; it is read
without running anything that it says. A CSV of detections has no header and the columns ::

    video,frame,x1,y1,x2,y2,class,score

with frames from 1 on, boxes in pixels of the 320x240 video and classes from 0 on, in the
annotations' order (that of the classes' names).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .pickles import UnsafePickleError, loads_numbers
from .tables import Column, DataFileError, read_table, strict

_MAX_LABEL = 1 << 16  # a class takes a place in every table of results
_BOX = ("x1", "y1", "x2", "y2")
_COLUMNS = (
    Column("video", str, bool, "a video's name"),
    Column("frame", int, lambda x: (1 <= x) & (x < 2**31), "a whole number from 1 on"),
    *(Column(name, float, np.isfinite, "a finite number") for name in _BOX),
    Column("class", int, lambda x: (0 <= x) & (x < 2**31), "a whole number from 0 on"),
    Column("score", float, np.isfinite, "a finite number"),
)


@dataclass(frozen=True)
class UCFAnnotations:
    """Annotated boxes of some videos (V), a row a box (G).

    Attributes:
        videos: names such as `Basketball/v_Basketball_g01_c01`, in the order of the list.
        num_frames: (V,) int64.
        class_names: by number.
        video_codes: (G,) index into `videos`.
        frames: (G,) int64, from 1 on.
        boxes: (G, 4) float64, x1 y1 x2 y2 in pixels, x2 = x1 + width.
        labels: (G,) int64, from 0 on.
    """

    videos: list[str]
    num_frames: np.ndarray
    class_names: list[str]
    video_codes: np.ndarray
    frames: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class UCFDetections:
    """Detected boxes (D), in the order of the file.

    Attributes:
        videos: the distinct names.
        video_codes: (D,) index into `videos`.
        frames: (D,) int64, from 1 on.
        boxes: (D, 4) float64, x1 y1 x2 y2 in pixels.
        labels: (D,) int64, from 0 on.
        scores: (D,) float64.
        source: the file's name for messages.
    """

    videos: list[str]
    video_codes: np.ndarray
    frames: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    source: str = ""


# ------------------------------------------------------------------------------------- annotations


def read_ucf_annotations(path: str | os.PathLike, videos: Sequence[str]) -> UCFAnnotations:
    """Read the annotations of some videos.

    Args:
        path: `pyannot.pkl`.
        videos: which ones, by name; see `formats.ava.read_video_list`.

    Raises:
        DataFileError: the file is something else, or lacks a video; in one line.
        FileNotFoundError: there is no such file.
    """
    try:
        entries = loads_numbers(Path(path).read_bytes())
    except UnsafePickleError as error:
        raise DataFileError(path, str(error)) from None
    if not isinstance(entries, dict) or not entries:
        raise DataFileError(path, f"expected a dict of videos, got {type(entries).__name__}")
    missing = [video for video in videos if video not in entries]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataFileError(path, f"has no video {missing[0]!r}{more}; it has {len(entries)}")
    num_frames, codes, frames, boxes, labels = [], [], [], [], []
    for code, video in enumerate(videos):
        try:
            length, tubes = _video(entries[video])
        except ValueError as error:
            raise DataFileError(path, f"video {video!r}: {error}") from None
        num_frames.append(length)
        for label, first, tube in tubes:
            codes.append(np.full(len(tube), code))
            frames.append(first + 1 + np.arange(len(tube)))
            boxes.append(tube)
            labels.append(np.full(len(tube), label))
    return UCFAnnotations(
        videos=list(videos),
        num_frames=np.array(num_frames, dtype=np.int64),
        class_names=_class_names(entries),
        video_codes=np.concatenate([np.zeros(0, np.int64), *codes]),
        frames=np.concatenate([np.zeros(0, np.int64), *frames]),
        boxes=np.concatenate([np.zeros((0, 4)), *boxes]),
        labels=np.concatenate([np.zeros(0, np.int64), *labels]),
    )


def _video(entry: object) -> tuple[int, list[tuple[int, int, np.ndarray]]]:
    """Length of a video, and its tubes as (label, first frame from 0 on, boxes (n, 4))."""
    if not isinstance(entry, dict) or not isinstance(entry.get("annotations"), list):
        raise ValueError("expected numf and a list of annotations")
    length = _whole(entry, "numf")
    tubes = []
    for tube in entry["annotations"]:
        if not isinstance(tube, dict):
            raise ValueError("expected annotations with label, sf, ef and boxes")
        label, first, end = (_whole(tube, key) for key in ("label", "sf", "ef"))
        if label > _MAX_LABEL:
            raise ValueError(f"label is {label}; expected {_MAX_LABEL} at most")
        if end > length:
            raise ValueError(f"annotated up to frame {end} of {length}")
        boxes = np.asarray(tube.get("boxes"))
        if boxes.dtype.kind not in "iuf" or boxes.shape != (end - first, 4):
            raise ValueError(
                f"boxes of the shape {boxes.shape}; frames {first} to {end} need "
                f"({end - first}, 4) of x, y, width, height"
            )
        # NOTE: they are stored in one or two bytes; in these, x + width runs over
        boxes = boxes.astype(np.float64)
        boxes[:, 2:] += boxes[:, :2]
        tubes.append((label, first, boxes))
    return length, tubes


def _whole(entry: Mapping, key: str) -> int:
    """Read a number from 0 on, whatever type it is stored in."""
    value = np.asarray(entry.get(key))
    if value.shape != () or value.dtype.kind not in "iu" or value < 0:
        raise ValueError(f"{key} is {entry.get(key)!r}; expected a whole number from 0 on")
    return int(value)


def _class_names(entries: Mapping) -> list[str]:
    """Find the names of the classes, which are the folders of their videos."""
    names: dict[int, str] = {}
    for video, entry in entries.items():
        tubes = entry.get("annotations", ()) if isinstance(entry, dict) else ()
        for tube in tubes:
            try:
                label = _whole(tube if isinstance(tube, dict) else {}, "label")
            except ValueError:
                continue  # told where its video is asked for
            if label > _MAX_LABEL:
                continue
            names.setdefault(label, str(video).partition("/")[0])
    return [names.get(i, str(i)) for i in range(1 + max(names, default=-1))]


# -------------------------------------------------------------------------------------- detections


def read_ucf_detections(path: str | os.PathLike) -> UCFDetections:
    """Read a CSV of detections; `.gz` files are unpacked.

    Raises:
        DataFileError: one line per bad row, at most 20 and the number of the others.
        FileNotFoundError: there is no such file.
    """
    table = read_table(path, _COLUMNS)
    columns = strict((table.columns, table.findings))
    return UCFDetections(
        videos=table.words["video"],
        video_codes=columns["video"],
        frames=columns["frame"],
        boxes=np.stack([columns[name] for name in _BOX], axis=1),
        labels=columns["class"],
        scores=columns["score"],
        source=str(path),
    )


def match_videos(detections: UCFDetections, videos: Sequence[str]) -> np.ndarray:
    """Find the place (D,) of each detection's video in `videos`.

    Names may come without their folder or with the file's extension.

    Raises:
        DataFileError: a video is not among them.
    """
    short = Counter(video.rpartition("/")[2] for video in videos)
    places = {video: i for i, video in enumerate(videos)}
    places |= {
        name: i for i, video in enumerate(videos) if short[name := video.rpartition("/")[2]] == 1
    }
    found = [places.get(video.removesuffix(".avi"), -1) for video in detections.videos]
    strange = [video for video, place in zip(detections.videos, found) if place < 0]
    if strange:
        example = f"; names are such as {videos[0]!r}" if len(videos) else ""
        more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
        raise DataFileError(
            detections.source or "detections",
            f"video {strange[0]!r}{more} is not in the list of test videos{example}",
        )
    return np.array(found, dtype=np.int64)[detections.video_codes]
