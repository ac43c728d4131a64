"""Pictures of what a model looked at: chosen keyframes of a video, their maps and their memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.video import VideoReader
from ..formats.results import KeyframeResult, PersonResult, VideoResult, format_timestamp
from ..modeling.interaction.inspection import ClipAttention, MemoryWeights
from ..visualization.attention import (
    AttendedMemory,
    KeyframeAttention,
    PersonAttention,
    attention_map_sheet,
)
from ..visualization.attention_chart import memory_attention_chart
from ..visualization.drawing import write_picture
from ..visualization.palette import RGB, IdentityColours, identity_colours
from ..visualization.text import format_time

MAX_PERSONS = 6  # in one picture
MIN_DISTANCE = 3.0  # seconds between keyframes that are chosen
_FILE = re.compile(r"attention_[0-9.]+_(maps\.jpg|memory\.png)")


@dataclass(frozen=True, eq=False)
class AttendedKeyframe:
    """A keyframe with what was looked at.

    Attributes:
        result: its persons.
        rows: of each of these persons, the row in `attention`.
    """

    result: KeyframeResult
    rows: Sequence[int]
    attention: ClipAttention

    @property
    def rank(self) -> tuple[int, float]:
        """How much there is to see: persons, then the sum of their best scores."""
        best = [person.actions[0][1] for person in self.result.persons if person.actions]
        return len(self.result.persons), sum(best)


def attended_keyframe(result: dict, keyframe: KeyframeResult) -> AttendedKeyframe:
    """From a result with `attention` (see `AttentionPredictor`) and the same as plain data."""
    rows = result["instances"].person_index.unique().tolist()  # as `keyframe_result` has them
    return AttendedKeyframe(keyframe, rows, result["attention"])


class KeyframeChoice:
    """The most rewarding keyframes of a stream: those with the most persons and highest scores.

    They keep a distance in time, as neighbouring seconds look alike; only they are held.
    """

    def __init__(self, count: int, min_distance: float = MIN_DISTANCE) -> None:
        """
        Args:
            count: how many.
            min_distance: seconds.
        """
        self.count, self.min_distance = count, min_distance
        self._chosen: list[AttendedKeyframe] = []

    def add(self, keyframe: AttendedKeyframe) -> None:
        """Take the next keyframe, if it beats one that is held; without persons it never does."""
        if not keyframe.result.persons or self.count < 1:
            return
        time = keyframe.result.timestamp
        rivals = [x for x in self._chosen if abs(x.result.timestamp - time) < self.min_distance]
        if not rivals and len(self._chosen) >= self.count:
            rivals = [min(self._chosen, key=lambda x: x.rank)]
        if all(x.rank < keyframe.rank for x in rivals):
            self._chosen = [x for x in self._chosen if x not in rivals] + [keyframe]

    @property
    def chosen(self) -> list[AttendedKeyframe]:
        """In order of time."""
        return sorted(self._chosen, key=lambda x: x.result.timestamp)


def keyframe_attention(
    keyframe: AttendedKeyframe, size: tuple[int, int], colours: IdentityColours
) -> KeyframeAttention:
    """The plain data to draw.

    Args:
        size: width and height of the video's picture.
        colours: of the video.
    """
    boxes = keyframe.attention.map_boxes.double().numpy() * (size * 2)
    rgb = colours.of([person.person_id for person in keyframe.result.persons])
    persons = [
        _person_attention(keyframe, row, person, colour, boxes[row])
        for row, person, colour in zip(keyframe.rows, keyframe.result.persons, rgb)
    ]
    return KeyframeAttention(keyframe.result.timestamp, persons)


def _person_attention(
    keyframe: AttendedKeyframe, row: int, person: PersonResult, rgb: RGB, box: np.ndarray
) -> PersonAttention:
    attention, time = keyframe.attention, keyframe.result.timestamp
    return PersonAttention(
        person=person,
        rgb=rgb,
        map_box=box,
        maps={name: x[row].double().numpy() for name, x in attention.maps.items()},
        memory=[_attended_memory(weights, row, time) for weights in attention.memory],
    )


def _attended_memory(weights: MemoryWeights, row: int, timestamp: float) -> AttendedMemory:
    seen = weights.seen[row].numpy()
    of_row = weights.weights[row].double().numpy()
    return AttendedMemory(
        name=weights.name,
        step=weights.step,
        times=timestamp + weights.offsets.numpy()[seen],
        person_ids=weights.person_ids.numpy()[seen],
        weights=of_row[seen],
        elsewhere=float(of_row[~seen].sum()),
    )


def write_attention_pictures(
    video: str | Path,
    folder: Path,
    keyframes: Sequence[AttendedKeyframe],
    result: VideoResult,
) -> dict[str, Path]:
    """Draw the maps over the keyframes, and the attention to the memory over time.

    Args:
        video: to take the pictures from.
        folder: where attention_<time>_maps.jpg and attention_<time>_memory.png go; made if needed.
        keyframes: in order of time.
        result: of the video.

    Returns:
        What each file shows -> the file, in order of time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    colours = identity_colours(result)
    files: dict[str, Path] = {}
    with VideoReader(video) as reader:
        for keyframe in keyframes:
            time = keyframe.result.timestamp
            size = (result.width, result.height)
            attention = keyframe_attention(keyframe, size, colours)
            name, shown = f"attention_{format_timestamp(time)}", format_time(time)
            if len(attention.persons) > MAX_PERSONS:
                shown += f", {MAX_PERSONS} of {len(attention.persons)} persons"
            if keyframe.attention.maps:
                picture = reader.pictures([time])[0]
                sheet = attention_map_sheet(picture, attention, max_persons=MAX_PERSONS)
                path = write_picture(folder / f"{name}_maps.jpg", sheet)
                files[f"Attention maps at {shown}"] = path
            if keyframe.attention.memory:
                path = folder / f"{name}_memory.png"
                memory_attention_chart(path, attention, colours, max_persons=MAX_PERSONS)
                files[f"Attention to the memory at {shown}"] = path
    return files


def remove_attention_pictures(folder: Path) -> None:
    """Remove what :func:`write_attention_pictures` left in a folder, and nothing else."""
    for path in folder.glob("attention_*"):
        if _FILE.fullmatch(path.name):
            path.unlink()
