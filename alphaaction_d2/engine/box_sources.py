"""Person and object boxes of a video's keyframes, from a file or made up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data.dense_boxes import DensePersons, persons_between
from ..formats.ava import AVARows, select_rows
from ..formats.boxes import BoxFile, at_keyframes, is_person, keyframe_seconds, read_boxes


class KeyframeBoxes:
    """Where persons and objects are at each keyframe of one video, from one or more files.

    Call it with a keyframe's time and the picture's size; it returns the `persons` and `objects`
    of a dataset dict (see :func:`load_ava`), empty where the file says nothing. Files with boxes
    for more moments than keyframes also give `persons_between`, those of the second before.
    """

    def __init__(self, tables: Sequence[AVARows | BoxFile]) -> None:
        """
        Args:
            tables: boxes of one video, as fractions where they are plain rows; class "" or "person"
                is a person, anything else an object. A row belongs to the nearest whole second.
        """
        files = [table if isinstance(table, BoxFile) else BoxFile(table) for table in tables]
        self._between = [persons_between(file) for file in files]
        self._files = [replace(file, rows=at_keyframes(file.rows)) for file in files]
        rows = [file.rows for file in self._files]
        self._scores = np.concatenate([x.scores for x in rows]).astype(np.float32)
        self._person_ids = np.concatenate([x.person_ids for x in rows])
        self._is_person = np.concatenate([is_person(x) for x in rows])
        self._keyframe = np.concatenate([keyframe_seconds(x.timestamps) for x in rows])
        self._fractions: dict[tuple[int, int], np.ndarray] = {}  # by picture size
        self._dense: dict[tuple[int, int], DensePersons] = {}
        self._asked: set[int] = set()  # keyframes

    @classmethod
    def from_files(cls, paths: Sequence[str | Path], video_id: str) -> KeyframeBoxes:
        """Read files of boxes (README, "Boxes").

        Args:
            paths: files in any form that :func:`read_boxes` knows.
            video_id: whose rows to take; a file about a single video is taken whole.

        Raises:
            AVAFileError: a file is not what it should be.
            ValueError: a file knows several videos, but not this one.
        """
        return cls([_boxes_of_video(path, video_id) for path in paths])

    @property
    def largest_person_id(self) -> int:
        """Of all moments; -1 when no person has an id."""
        between = [x.rows.person_ids.max(initial=-1) for x in self._between]
        return int(max(self._person_ids.max(initial=-1), *between))

    def __call__(self, timestamp: float, height: int, width: int) -> dict[str, dict]:
        """See the class. Raises AVAFileError when boxes in pixels do not fit into the picture."""
        if (width, height) not in self._fractions:
            boxes = [x.as_fractions(lambda _: (width, height)).rows.boxes for x in self._files]
            self._fractions[width, height] = np.concatenate(boxes)
            between = [x.as_fractions(lambda _: (width, height)).rows for x in self._between]
            self._dense[width, height] = DensePersons([_of_one_video(x) for x in between])
        boxes = self._fractions[width, height] * [width, height, width, height]
        here = self._keyframe == round(timestamp)
        self._asked.add(round(timestamp))
        found = {
            "persons": self._arrays(here & self._is_person, boxes),
            "objects": self._arrays(here & ~self._is_person, boxes),
        }
        dense = self._dense[width, height]
        if len(dense):
            size = (width, height)
            found["persons_between"] = dense.between("", timestamp - 1, timestamp, size)
        return found

    def unused_seconds(self) -> dict[int, int]:
        """Rows by second, of the seconds that nobody has asked for: the video has no such time."""
        seconds, counts = np.unique(self._keyframe, return_counts=True)
        pairs = zip(seconds.tolist(), counts.tolist())
        return {second: count for second, count in pairs if second not in self._asked}

    def _arrays(self, mask: np.ndarray, boxes: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "boxes": boxes[mask].astype(np.float32),
            "scores": self._scores[mask],
            "person_ids": self._person_ids[mask],
        }


def whole_frame_boxes(timestamp: float, height: int, width: int) -> dict[str, dict]:
    """One person who fills the picture, and no objects: for videos without any boxes."""
    box = np.array([[0, 0, width, height]], dtype=np.float32)
    persons = {"boxes": box, "scores": np.ones(1, np.float32), "person_ids": np.array([-1])}
    return {"persons": persons, "objects": {key: value[:0] for key, value in persons.items()}}


def _of_one_video(rows: AVARows) -> AVARows:
    """The same rows, of the video "" whatever the file calls it."""
    return replace(rows, videos=[""], video_codes=np.zeros_like(rows.video_codes))


def _boxes_of_video(path: str | Path, video_id: str) -> BoxFile:
    file = read_boxes(path)
    rows = file.rows
    if len(rows.videos) <= 1:
        return file
    if video_id not in rows.videos:
        known = ", ".join(sorted(rows.videos)[:5])
        raise ValueError(f"{path}: no boxes of video {video_id!r}; it has {known} ...")
    return replace(file, rows=select_rows(rows, rows.video_codes == rows.videos.index(video_id)))
