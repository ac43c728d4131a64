"""Found boxes by video and time: at the keyframes, and of persons between them.

Persons between keyframes are not classified, but they tell who of two keyframes is who.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..formats.ava import AVARows, concatenate_rows, select_rows
from ..formats.boxes import BoxFile, at_keyframes, between_keyframes, is_person, keyframe_seconds
from ..structures import FoundBoxes, TimedBoxes

Keyframe = tuple[str, int]  # video id, second

_SECONDS = 10**8  # more than a timestamp may have
_NOTHING = slice(0, 0)


def split_at_keyframes(file: BoxFile) -> tuple[BoxFile, BoxFile]:
    """Split a file into boxes at keyframes (:func:`at_keyframes`) and persons between them."""
    between = between_keyframes(file.rows)
    between = select_rows(between, is_person(between))
    return replace(file, rows=at_keyframes(file.rows)), replace(file, rows=between)


def keyframes_in(rows: AVARows) -> set[Keyframe]:
    """Give the keyframes that rows are about."""
    numbers = _keyframe_numbers(rows)
    # rows of a keyframe mostly stand together, which leaves little to sort
    changed = np.diff(numbers, prepend=-1) != 0
    empty = {(video, int(keyframe_seconds(np.array(time)))) for video, time in rows.empty_frames}
    return empty.union(_keyframes_from(rows, np.unique(numbers[changed])))


def _keyframe_numbers(rows: AVARows) -> np.ndarray:
    """(N,) int64: one number for video and second, in the order of both."""
    return rows.video_codes.astype(np.int64) * _SECONDS + keyframe_seconds(rows.timestamps)


def _keyframes_from(rows: AVARows, numbers: np.ndarray) -> list[Keyframe]:
    codes, seconds = np.divmod(numbers, _SECONDS)
    return [(rows.videos[code], s) for code, s in zip(codes.tolist(), seconds.tolist())]


def _runs(numbers: np.ndarray) -> list[slice]:
    """Where equal numbers (N,), from 0 on, stand together."""
    starts = np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()
    return [slice(*x) for x in zip(starts, [*starts[1:], len(numbers)])]


def _found(rows: AVARows) -> FoundBoxes:
    return FoundBoxes(rows.boxes, rows.scores.astype(np.float32), rows.person_ids)


class KeyframeTable:
    """Boxes of any number of videos, looked up by keyframe.

    `rows` has all of them by video and second, those of a keyframe in the order of the file;
    `places` says where.
    """

    def __init__(self, tables: Sequence[AVARows]) -> None:
        """Take boxes as fractions, one time per second of a video."""
        rows = concatenate_rows(tables)
        numbers = _keyframe_numbers(rows)
        order = np.argsort(numbers, kind="stable")
        numbers, self.rows = numbers[order], select_rows(rows, order)
        runs = _runs(numbers)
        keys = _keyframes_from(rows, numbers[[run.start for run in runs]])
        self.places = dict(zip(keys, runs))
        self._found = _found(self.rows)

    def place(self, key: Keyframe) -> slice:
        """Say where in `rows` a keyframe is."""
        return self.places.get(key, _NOTHING)

    def __getitem__(self, key: Keyframe) -> FoundBoxes:
        """Give the boxes of a keyframe, which may be none."""
        return self._found.at(self.place(key))

    def within(self, keys: set[Keyframe]) -> AVARows:
        """Give the rows at some keyframes, each at the whole second that it counts for."""
        lengths = [place.stop - place.start for place in self.places.values()]
        rows = select_rows(self.rows, np.repeat([key in keys for key in self.places], lengths))
        empty = [(video, float(keyframe_seconds(np.array(t)))) for video, t in rows.empty_frames]
        empty = [(video, second) for video, second in empty if (video, int(second)) in keys]
        return replace(rows, timestamps=keyframe_seconds(rows.timestamps) + 0.0, empty_frames=empty)

    def counts(self) -> dict[Keyframe, int]:
        """Count the rows of every keyframe that has any."""
        return {key: place.stop - place.start for key, place in self.places.items()}


class DenseBoxes:
    """Boxes of any number of videos, looked up by video and time."""

    def __init__(self, tables: Sequence[AVARows]) -> None:
        """Take boxes at any times, as fractions."""
        rows = concatenate_rows(tables)
        rows = select_rows(rows, np.lexsort((rows.timestamps, rows.video_codes)))
        codes = rows.video_codes
        self._places = {rows.videos[codes[run.start]]: run for run in _runs(codes)}
        self._times, self._found = rows.timestamps, _found(rows)

    def __len__(self) -> int:
        return len(self._times)

    def between(self, video: str, start: float, stop: float) -> TimedBoxes:
        """Give the boxes of a video after `start` and before `stop`, in seconds."""
        place = self._places.get(video, _NOTHING)
        times = self._times[place]
        first = place.start + int(np.searchsorted(times, start, side="right"))
        last = place.start + int(np.searchsorted(times, stop, side="left"))
        return TimedBoxes(self._times[first:last], self._found.at(slice(first, last)))
