"""Files of UCF101-24: the corrected annotations and CSV files of detections.

The annotations are a pickle, which is read without running anything that it says: `pyannot.pkl` of
gurkirt/corrected-UCF101-Annots, or `UCF101v2-GT.pkl`, in which ACT and MOC have the same tubes.

A CSV of detections has no header and the columns ::

    video,frame,x1,y1,x2,y2,class,score[,person_id]

with frames from 1 on, boxes in pixels of the 320x240 video and classes from 0 on, in the
annotations' order (that of the classes' names). Rows of a person with an id are a track.
"""

from __future__ import annotations

import contextlib
import gzip
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
from pyarrow import csv as pa_csv

from .ava import read_video_list
from .pickles import read_numbers
from .tables import Column, DataFileError, read_table, strict
from .writing import write_atomically

FRAME_RATE = 25.0  # frames a second, by which annotations and memory count
PICTURE_SIZE = (320, 240)  # of all its videos
SPLITS = ("train", "test")
TRAIN_FRAME_STRIDE = 5  # of the frames that boxes are made for; the configuration's default
_MAX_LABEL = 1 << 16  # a class takes a place in every table of results
_BOX = ("x1", "y1", "x2", "y2")
_COLUMNS = (
    Column("video", str, bool, "a video's name"),
    Column("frame", int, lambda x: (1 <= x) & (x < 2**31), "a whole number from 1 on"),
    *(Column(name, float, np.isfinite, "a finite number") for name in _BOX),
    Column("class", int, lambda x: (0 <= x) & (x < 2**31), "a whole number from 0 on"),
    Column("score", float, np.isfinite, "a finite number"),
    Column("person_id", float, required=False, may_be_empty=True),
)
_Tube = tuple[int, int, np.ndarray]  # label, first frame from 0 on, boxes (n, 4)


@dataclass(frozen=True, eq=False)
class UCFAnnotations:
    """Annotated boxes of some videos (V), a row a box (G)."""

    videos: list[str]  # such as `Basketball/v_Basketball_g01_c01`, in the order of the list
    num_frames: np.ndarray  # (V,) int64
    class_names: list[str]  # by number
    video_codes: np.ndarray  # (G,) index into `videos`
    frames: np.ndarray  # (G,) int64, from 1 on
    boxes: np.ndarray  # (G, 4) float64, x1 y1 x2 y2 in pixels, x2 = x1 + width
    labels: np.ndarray  # (G,) int64, from 0 on
    # (G,) int64, which tube of its video a box belongs to, from 0 on; the rows of a tube follow
    # each other, frame by frame.
    tubes: np.ndarray


@dataclass(frozen=True)
class UCFDetections:
    """Detected boxes (D), in the order of the file; the columns as in `UCFAnnotations`."""

    videos: list[str]  # the distinct names
    video_codes: np.ndarray
    frames: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray  # (D,) float64
    source: str = ""  # the file's name for messages
    # (D,) int64 identities in a video, -1 where nobody knows; None: nobody does
    person_ids: np.ndarray | None = None


# ------------------------------------------------------------------------------------- annotations


def read_ucf_annotations(path: str | os.PathLike, videos: Sequence[str]) -> UCFAnnotations:
    """Read the annotations of some videos from `pyannot.pkl` or `UCF101v2-GT.pkl`.

    Raises:
        DataFileError: the file is something else, or lacks a video; in one line.
    """
    return _annotations(path, _open(path), videos)


def read_ucf_split(
    path: str | os.PathLike, split: str, video_list: str | os.PathLike | None = None
) -> UCFAnnotations:
    """Read the annotations of a split ("train" or "test"), see `read_ucf_annotations`.

    Args:
        video_list: names of the test videos, `testlist01.txt`; all others are for training. None:
            what `UCF101v2-GT.pkl` says of the first split; `pyannot.pkl` says nothing.
    """
    file = _open(path)
    if video_list is not None:
        chosen = read_video_list(video_list)
        if split == "train":
            test = set(chosen)
            chosen = [video for video in file.videos if video not in test]
    elif file.splits is None:
        raise DataFileError(
            path, "does not say which videos are for testing: put testlist01.txt beside it"
        )
    else:
        chosen = file.splits[split]
    return _annotations(path, file, chosen)


@dataclass(frozen=True)
class _File:
    """An annotation file of either kind: length and tubes of a video, which may raise ValueError;
    names of classes; the videos of a split where the file says so."""

    videos: list[str]
    tubes_of: Callable[[str], tuple[int, list[_Tube]]]
    class_names: list[str]
    splits: dict[str, list[str]] | None = None


def _open(path: str | os.PathLike) -> _File:
    entries = read_numbers(path)
    if not isinstance(entries, dict) or not entries:
        raise DataFileError(path, f"expected a dict of videos, got {type(entries).__name__}")
    if "gttubes" not in entries:
        return _File(list(entries), lambda video: _video(entries[video]), _class_names(entries))
    lists = dict.fromkeys(("labels", *(f"{split}_videos" for split in SPLITS)), list)
    for key, kind in {"gttubes": dict, "nframes": dict, **lists}.items():
        if not isinstance(entries.get(key), kind):
            raise DataFileError(path, f"expected {key} to be a {kind.__name__} (UCF101v2-GT.pkl)")
    parts = {split: entries[f"{split}_videos"] for split in SPLITS}
    if not all(part and isinstance(part[0], list) for part in parts.values()):
        raise DataFileError(path, "expected train_videos and test_videos to be lists of lists")
    return _File(
        list(entries["gttubes"]),
        lambda video: _act_video(entries["gttubes"][video], entries["nframes"].get(video)),
        [str(name) for name in entries["labels"]],
        {split: [str(video) for video in part[0]] for split, part in parts.items()},
    )


def _annotations(path: str | os.PathLike, file: _File, videos: Sequence[str]) -> UCFAnnotations:
    known = set(file.videos)
    missing = [video for video in videos if video not in known]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataFileError(path, f"has no video {missing[0]!r}{more}; it has {len(known)}")
    num_frames, boxes = [], [np.zeros((0, 4))]
    columns = [np.zeros((0, 4), np.int64)]  # code of the video, frame, label, number of the tube
    for code, video in enumerate(videos):
        try:
            length, tubes = file.tubes_of(video)
        except ValueError as error:
            raise DataFileError(path, f"video {video!r}: {error}") from None
        num_frames.append(length)
        for number, (label, first, tube) in enumerate(tubes):
            boxes.append(tube)
            columns.append(np.full((len(tube), 4), (code, first + 1, label, number)))
            columns[-1][:, 1] += np.arange(len(tube))
    codes, frames, labels, numbers = np.ascontiguousarray(np.concatenate(columns).T)
    return UCFAnnotations(
        videos=list(videos),
        num_frames=np.array(num_frames, dtype=np.int64),
        class_names=file.class_names,
        video_codes=codes,
        frames=frames,
        boxes=np.concatenate(boxes),
        labels=labels,
        tubes=numbers,
    )


def _video(entry: object) -> tuple[int, list[_Tube]]:
    """Length of a video of `pyannot.pkl`, and its tubes."""
    if not isinstance(entry, dict) or not isinstance(entry.get("annotations"), list):
        raise ValueError("expected numf and a list of annotations")
    length = _whole(entry, "numf")
    tubes = []
    for tube in entry["annotations"]:
        if not isinstance(tube, dict):
            raise ValueError("expected annotations with label, sf, ef and boxes")
        label, first, end = (_whole(tube, key) for key in ("label", "sf", "ef"))
        boxes = np.asarray(tube.get("boxes"))
        if boxes.dtype.kind not in "iuf" or boxes.shape != (end - first, 4):
            raise ValueError(
                f"boxes of the shape {boxes.shape}; frames {first} to {end} need "
                f"({end - first}, 4) of x, y, width, height"
            )
        # NOTE: they are stored in one or two bytes; in these, x + width runs over
        boxes = boxes.astype(np.float64)
        boxes[:, 2:] += boxes[:, :2]
        tubes.append(_checked(label, first, boxes, length))
    return length, tubes


def _act_video(by_label: object, length: object) -> tuple[int, list[_Tube]]:
    """Length of a video of `UCF101v2-GT.pkl`, and its tubes: (n, 5) of frame from 1 on and box."""
    if not isinstance(by_label, dict):
        raise ValueError("expected gttubes to be a dict of labels")
    num_frames, tubes = _whole({"nframes": length}, "nframes"), []
    for label, rows in by_label.items():
        number = _whole({"label": label}, "label")
        for table in rows if isinstance(rows, list) else [None]:
            tube = np.asarray(table)
            if tube.dtype.kind not in "iuf" or tube.ndim != 2 or tube.shape[1] != 5:
                raise ValueError(f"a tube of the shape {tube.shape}, expected (n, 5)")
            frames = tube[:, 0].astype(np.int64)
            if len(frames) == 0 or frames[0] < 1 or (np.diff(frames) != 1).any():
                raise ValueError("expected the frames of a tube to follow each other, from 1 on")
            boxes = tube[:, 1:].astype(np.float64)
            tubes.append(_checked(number, int(frames[0]) - 1, boxes, num_frames))
    return num_frames, tubes


def _checked(label: int, first: int, boxes: np.ndarray, length: int) -> _Tube:
    """A tube, unless its label or its end is none."""
    if label > _MAX_LABEL:
        raise ValueError(f"label is {label}; expected {_MAX_LABEL} at most")
    if first + len(boxes) > length:
        raise ValueError(f"annotated up to frame {first + len(boxes)} of {length}")
    return label, first, boxes


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
            with contextlib.suppress(ValueError):  # told where its video is asked for
                label = _whole(tube if isinstance(tube, dict) else {}, "label")
                if label <= _MAX_LABEL:
                    names.setdefault(label, str(video).partition("/")[0])
    return [names.get(i, str(i)) for i in range(1 + max(names, default=-1))]


# -------------------------------------------------------------------------------------- detections


def read_ucf_detections(path: str | os.PathLike) -> UCFDetections:
    """Read a CSV of detections; DataFileError with one line per bad row."""
    table = read_table(path, _COLUMNS)
    columns = strict((table.columns, table.findings))
    ids = columns.get("person_id", np.full(len(columns["frame"]), np.nan))
    return UCFDetections(
        videos=table.words["video"],
        video_codes=columns["video"],
        frames=columns["frame"],
        boxes=np.stack([columns[name] for name in _BOX], axis=1),
        labels=columns["class"],
        scores=columns["score"],
        source=str(path),
        person_ids=None if np.isnan(ids).all() else np.where(np.isnan(ids), -1, ids).astype(int),
    )


def write_ucf_detections(path: str | os.PathLike, detections: UCFDetections) -> None:
    """Write a CSV of detections with all digits of scores, and ids of persons; ".gz" packs it."""
    names = pa.array(detections.videos, pa.string())
    ids = detections.person_ids
    table = pa.table(
        {
            "video": names.take(pa.array(detections.video_codes)),
            "frame": detections.frames,
            **{name: detections.boxes[:, i].round(2) for i, name in enumerate(_BOX)},
            "class": detections.labels,
            "score": detections.scores,
            "person_id": np.full(len(detections.labels), -1) if ids is None else ids,
        }
    )
    options = pa_csv.WriteOptions(include_header=False, quoting_style="needed")

    def write(file: IO[bytes]) -> None:
        packed = str(path).endswith(".gz")
        with gzip.GzipFile("", "wb", 1, file, mtime=0) if packed else nullcontext(file) as stream:
            pa_csv.write_csv(table, stream, options)

    write_atomically(path, write)


def match_videos(detections: UCFDetections, videos: Sequence[str]) -> np.ndarray:
    """Find the place (D,) of each detection's video in `videos`, DataFileError for any other.

    Names may come without their folder or with the file's extension.
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
        what = f"video {strange[0]!r}{more} is not in the list of test videos{example}"
        raise DataFileError(detections.source or "detections", what)
    return np.array(found, dtype=np.int64)[detections.video_codes]
