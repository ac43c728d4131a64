"""Detections of actions with their scores as they are, and the mean of several models' scores.

Every evaluation leaves such a file (`.npz`, plain numpy arrays) beside its CSV.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .arrays import read_arrays
from .ava import AVARows, read_ava_csv
from .writing import write_atomically

_ARRAYS = ("videos", "video_codes", "timestamps", "boxes", "labels", "scores")
_SAME_BOX = 1e-4  # of the picture: what rounding leaves of one box in pictures of several sizes


def write_ava_scores(path: str | os.PathLike, rows: AVARows) -> None:
    """Write detections as arrays, in the order of the rows."""
    arrays = {name: getattr(rows, name) for name in _ARRAYS if name != "videos"}
    videos = np.array(rows.videos, dtype=np.str_)
    write_atomically(path, lambda file: np.savez_compressed(file, videos=videos, **arrays))


def read_ava_scores(path: str | os.PathLike) -> AVARows:
    """Read a file of :func:`write_ava_scores`, or else a CSV of results; ValueError for others."""
    if not str(path).endswith(".npz"):
        return read_ava_csv(path, "results", check_boxes=False)
    arrays = read_arrays(path)
    if missing := sorted(set(_ARRAYS) - arrays.keys()):
        raise ValueError(f"{path}: no ava_detections.npz of an evaluation: no {missing[0]} in it")
    arrays = {name: arrays[name] for name in _ARRAYS}
    videos, codes = arrays.pop("videos"), arrays["video_codes"]
    shapes = {"boxes": (len(codes), 4)}
    for name, array in arrays.items():
        wanted = shapes.get(name, (len(codes),))
        if array.shape != wanted or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
            expected = f"expected {wanted} finite numbers"
            raise ValueError(f"{path}: {name} {array.shape} of {array.dtype}: {expected}")
    if len(codes) and not 0 <= codes.min() <= codes.max() < len(videos):
        raise ValueError(f"{path}: video_codes: expected places in the {len(videos)} videos")
    unknown = np.full(len(codes), -1)
    return AVARows(videos=videos.tolist(), person_ids=unknown, source=str(path), **arrays)


def average_scores(tables: Sequence[AVARows]) -> AVARows:
    """Give the first of tables with the means of all their scores, float64.

    Raises:
        ValueError: rows are not of the same persons and actions, in one order; names the first.
    """
    first, *others = tables
    for other in others:
        _compare(first, other)
    scores = np.mean([table.scores.astype(np.float64) for table in tables], axis=0)
    return replace(first, scores=scores)


def _compare(a: AVARows, b: AVARows) -> None:
    both = slice(0, min(len(a), len(b)))
    differ = np.abs(a.boxes[both] - b.boxes[both]).max(axis=1, initial=0) > _SAME_BOX
    for name in ("video_ids", "timestamps", "labels"):
        differ |= getattr(a, name)[both] != getattr(b, name)[both]
    if not differ.any() and len(a) == len(b):
        return
    row = int(differ.argmax()) if differ.any() else len(differ)
    raise ValueError(
        f"{a.source} and {b.source}: {len(a)} and {len(b)} rows, which differ from row {row + 1} "
        f"on: {_text(a, row)}, and {_text(b, row)}; expected results of the same persons, with "
        "all their actions (MODEL.ROI_ACTION_HEAD.SCORE_THRESH_TEST 0)"
    )


def _text(rows: AVARows, row: int) -> str:
    if row >= len(rows):
        return "nothing"
    video, box = rows.videos[rows.video_codes[row]], rows.boxes[row].round(4).tolist()
    return f"{video} at {rows.timestamps[row]:g} s, action {rows.labels[row]}, box {box}"
