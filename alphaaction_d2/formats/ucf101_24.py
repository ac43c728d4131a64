"""Files of UCF101-24: the corrected annotations and CSV files of detections.

The annotations (``pyannot.pkl`` of gurkirt/corrected-UCF101-Annots) are a pickle; it is read
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
import pyarrow as pa
import pyarrow.csv as pa_csv

from .ava import AVAFileError, BadRows, numbered_rows
from .pickles import UnsafePickleError, loads_numbers

__all__ = ["UCFAnnotations", "UCFDetections", "read_ucf_annotations", "read_ucf_detections"]

_COLUMNS = ("video", "frame", "x1", "y1", "x2", "y2", "class", "score")
_WHOLE = {"frame", "class"}
_MAX_WHOLE = 2**31


@dataclass(frozen=True)
class UCFAnnotations:
    """Annotated boxes of some videos (V), a row a box (G).

    Attributes:
        videos: names such as ``Basketball/v_Basketball_g01_c01``, in the order of the list.
        num_frames: (V,) int64.
        class_names: by number.
        video_codes: (G,) index into ``videos``.
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
        video_codes: (D,) index into ``videos``.
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
    """Reads the annotations of some videos.

    Args:
        path: ``pyannot.pkl``.
        videos: which ones, by name; see :func:`~alphaaction_d2.formats.ava.read_video_list`.

    Raises:
        AVAFileError: the file is something else, or lacks a video; in one line.
        FileNotFoundError: there is no such file.
    """
    try:
        entries = loads_numbers(Path(path).read_bytes())
    except UnsafePickleError as error:
        raise AVAFileError(f"{path}: {error}") from None
    if not isinstance(entries, dict) or not entries:
        raise AVAFileError(f"{path}: expected a dict of videos, got {type(entries).__name__}")
    missing = [video for video in videos if video not in entries]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise AVAFileError(f"{path}: has no video {missing[0]!r}{more}; it has {len(entries)}")
    num_frames, codes, frames, boxes, labels = [], [], [], [], []
    for code, video in enumerate(videos):
        try:
            length, tubes = _video(entries[video])
        except ValueError as error:
            raise AVAFileError(f"{path}: video {video!r}: {error}") from None
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
    """A number from 0 on, whatever type it is stored in."""
    value = np.asarray(entry.get(key))
    if value.shape != () or value.dtype.kind not in "iu" or value < 0:
        raise ValueError(f"{key} is {entry.get(key)!r}; expected a whole number from 0 on")
    return int(value)


def _class_names(entries: Mapping) -> list[str]:
    """The names of the classes, which are the folders of their videos."""
    names: dict[int, str] = {}
    for video, entry in entries.items():
        tubes = entry.get("annotations", ()) if isinstance(entry, dict) else ()
        for tube in tubes:
            try:
                label = _whole(tube if isinstance(tube, dict) else {}, "label")
            except ValueError:
                continue  # told where its video is asked for
            names.setdefault(label, str(video).partition("/")[0])
    return [names.get(i, str(i)) for i in range(1 + max(names, default=-1))]


# -------------------------------------------------------------------------------------- detections


def read_ucf_detections(path: str | os.PathLike) -> UCFDetections:
    """Reads a CSV of detections; ``.gz`` files are unpacked.

    Raises:
        AVAFileError: one line per bad row, at most 20 and the number of the others.
        FileNotFoundError: there is no such file.
    """
    found = _read_fast(path)
    if found is None or not _is_sound(found):
        found = _read_slow(path)
    return found


def _is_sound(rows: UCFDetections) -> bool:
    whole = (rows.frames >= 1) & (rows.labels >= 0)
    whole &= (rows.frames < _MAX_WHOLE) & (rows.labels < _MAX_WHOLE)
    finite = all(np.isfinite(x).all() for x in (rows.boxes, rows.scores))
    return finite and bool(whole.all()) and "" not in rows.videos


def _read_fast(path: str | os.PathLike) -> UCFDetections | None:
    """Reads with pyarrow; None if it can't, whatever the reason: the slow pass will find it."""
    types = dict.fromkeys(_COLUMNS, pa.float64())
    types |= {"video": pa.dictionary(pa.int32(), pa.string())}
    types |= dict.fromkeys(_WHOLE, pa.int64())
    try:
        table = pa_csv.read_csv(
            str(path),
            read_options=pa_csv.ReadOptions(column_names=_COLUMNS),
            convert_options=pa_csv.ConvertOptions(column_types=types, null_values=[]),
        )
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError):
        return None
    if not table.num_rows:
        return None
    videos = table["video"].combine_chunks()
    if isinstance(videos, pa.ChunkedArray):
        videos = videos.unify_dictionaries().chunk(0)
    columns = {name: table[name].to_numpy() for name in _COLUMNS[1:]}
    return UCFDetections(
        videos=videos.dictionary.to_pylist(),
        video_codes=videos.indices.to_numpy(),
        frames=columns["frame"],
        boxes=np.stack([columns[name] for name in _COLUMNS[2:6]], axis=1),
        labels=columns["class"],
        scores=columns["score"],
        source=str(path),
    )


def _read_slow(path: str | os.PathLike) -> UCFDetections:
    """Reads line by line, and reports all lines that can't be read."""
    bad_rows = BadRows(path)
    videos: dict[str, int] = {}
    codes: list[int] = []
    rows: list[list[float]] = []
    for line, cells in numbered_rows(path):
        if len(cells) != len(_COLUMNS):
            bad_rows.add(line, f"{len(cells)} columns: expected {','.join(_COLUMNS)}")
            continue
        problem, numbers = _numbers(cells)
        if problem:
            hint = " (the file should have no header)" if line == 1 else ""
            bad_rows.add(line, problem + hint)
            continue
        codes.append(videos.setdefault(cells[0], len(videos)))
        rows.append(numbers)
    bad_rows.raise_if_any()
    table = np.array(rows, dtype=np.float64).reshape(-1, len(_COLUMNS) - 1)
    return UCFDetections(
        videos=list(videos),
        video_codes=np.array(codes, dtype=np.int64),
        frames=table[:, 0].astype(np.int64),
        boxes=table[:, 1:5],
        labels=table[:, 5].astype(np.int64),
        scores=table[:, 6],
        source=str(path),
    )


def _numbers(cells: list[str]) -> tuple[str, list[float]]:
    """The numbers of a row, or what is wrong with it."""
    numbers = []
    for name, text in zip(_COLUMNS[1:], cells[1:]):
        whole, least = name in _WHOLE, 1 if name == "frame" else 0
        try:
            number = int(text) if whole else float(text)
            good = least <= number < _MAX_WHOLE if whole else np.isfinite(number)
        except (ValueError, OverflowError):
            good = False
        if not good:
            kind = f"a whole number from {least} on" if whole else "a finite number"
            return f"column {name}: {text[:80]!r}: expected {kind}", []
        numbers.append(number)
    return "" if cells[0] else "column video: '': expected a video's name", numbers


def match_videos(detections: UCFDetections, videos: Sequence[str]) -> np.ndarray:
    """(D,) the place of each detection's video in ``videos``.

    Names may come without their folder or with the file's extension.

    Raises:
        AVAFileError: a video is not among them.
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
        raise AVAFileError(
            f"{detections.source or 'detections'}: video {strange[0]!r}{more} is not in the list "
            f"of test videos{example}"
        )
    return np.array(found, dtype=np.int64)[detections.video_codes]
