"""Person and object boxes of a video's keyframes, from a file or made up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..ava_files import AVARows, read_ava_csv
from .datasets.ava import at_keyframes, is_person, select_rows


class KeyframeBoxes:
    """Where persons and objects are at each keyframe of one video, from one or more files.

    Call it with a keyframe's time and the picture's size; it returns the `persons` and `objects`
    of a dataset dict (see :func:`load_ava`), empty where the file says nothing.
    """

    def __init__(self, tables: Sequence[AVARows]) -> None:
        """
        Args:
            tables: boxes of one video; class "" or "person" is a person, anything else an object.
                A row belongs to the nearest whole second.
        """
        tables = [at_keyframes(rows) for rows in tables]
        self._boxes = np.concatenate([rows.boxes for rows in tables])
        self._scores = np.concatenate([rows.scores for rows in tables]).astype(np.float32)
        self._person_ids = np.concatenate([rows.person_ids for rows in tables])
        self._is_person = np.concatenate([is_person(rows) for rows in tables])
        times = np.concatenate([rows.timestamps for rows in tables])
        self._keyframe = np.floor(times + 0.5).astype(np.int64)

    @classmethod
    def from_files(cls, paths: Sequence[str | Path], video_id: str) -> KeyframeBoxes:
        """Read CSVs of boxes (README, "Boxes").

        Args:
            paths: files of rows video_id,timestamp,x1,y1,x2,y2,class,score[,person_id].
            video_id: whose rows to take; a file about a single video is taken whole.

        Raises:
            ValueError: a file knows several videos, but not this one.
        """
        return cls([_rows_of_video(path, video_id) for path in paths])

    def __call__(self, timestamp: float, height: int, width: int) -> dict[str, dict]:
        here = self._keyframe == round(timestamp)
        size = np.array([width, height, width, height])
        return {
            "persons": self._arrays(here & self._is_person, size),
            "objects": self._arrays(here & ~self._is_person, size),
        }

    def _arrays(self, mask: np.ndarray, size: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "boxes": (self._boxes[mask] * size).astype(np.float32),
            "scores": self._scores[mask],
            "person_ids": self._person_ids[mask],
        }


def whole_frame_boxes(timestamp: float, height: int, width: int) -> dict[str, dict]:
    """One person who fills the picture, and no objects: for videos without any boxes."""
    box = np.array([[0, 0, width, height]], dtype=np.float32)
    persons = {"boxes": box, "scores": np.ones(1, np.float32), "person_ids": np.array([-1])}
    return {"persons": persons, "objects": {key: value[:0] for key, value in persons.items()}}


def _rows_of_video(path: str | Path, video_id: str) -> AVARows:
    rows = read_ava_csv(path, "boxes")
    if len(rows.videos) <= 1:
        return rows
    if video_id not in rows.videos:
        known = ", ".join(sorted(rows.videos)[:5])
        raise ValueError(f"{path}: no boxes of video {video_id!r}; it has {known} ...")
    return select_rows(rows, rows.video_codes == rows.videos.index(video_id))
