"""Pictures of what a model looked at: chosen keyframes of a video, their maps and their memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..data.video import VideoReader
from ..formats.results import KeyframeResult, VideoResult, format_timestamp
from ..visualization.attention import (
    MAX_PERSONS,
    attention_map_sheet,
    attention_of,
    clip_attention_sheet,
)
from ..visualization.attention_chart import memory_attention_chart
from ..visualization.drawing import write_picture
from ..visualization.palette import identity_colours
from ..visualization.text import format_time

MIN_DISTANCE = 3.0  # seconds between keyframes that are chosen
_FILE = re.compile(r"attention_[0-9.]+_(clip\.jpg|maps\.jpg|memory\.png)")


class KeyframeChoice:
    """The most rewarding keyframes of a stream: those with the most persons and highest scores.

    They keep a distance in time, as neighbouring seconds look alike; only they are held.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._chosen: list[KeyframeResult] = []

    def add(self, keyframe: KeyframeResult) -> None:
        """Take the next keyframe, if it beats one that is held; without persons it never does."""
        if not keyframe.persons or keyframe.attention is None or self.count < 1:
            return
        time = keyframe.timestamp
        rivals = [x for x in self._chosen if abs(x.timestamp - time) < MIN_DISTANCE]
        if not rivals and len(self._chosen) >= self.count:
            rivals = [min(self._chosen, key=_rank)]
        if all(_rank(x) < _rank(keyframe) for x in rivals):
            self._chosen = [x for x in self._chosen if x not in rivals] + [keyframe]

    @property
    def chosen(self) -> list[KeyframeResult]:
        """In order of time."""
        return sorted(self._chosen, key=lambda x: x.timestamp)


def _rank(keyframe: KeyframeResult) -> tuple[int, float]:
    """How much there is to see: persons, then the sum of their best scores."""
    return len(keyframe.persons), sum(x.actions[0][1] for x in keyframe.persons if x.actions)


def write_attention_pictures(
    video: str | Path, folder: Path, keyframes: Sequence[KeyframeResult], result: VideoResult
) -> dict[str, Path]:
    """Draw the maps and the attention to persons and objects over the keyframes, and the attention
    to the memory over time, as attention_<time>_maps.jpg, _clip.jpg and _memory.png in `folder`.

    Returns:
        What each file shows -> the file, in order of time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    colours = identity_colours(result)
    files: dict[str, Path] = {}
    with VideoReader(video) as reader:
        for keyframe in keyframes:
            name = f"attention_{format_timestamp(keyframe.timestamp)}"
            shown = format_time(keyframe.timestamp)
            if len(keyframe.persons) > MAX_PERSONS:
                shown += f", {MAX_PERSONS} of {len(keyframe.persons)} persons"
            attention = attention_of(keyframe)
            picture = reader.pictures([keyframe.timestamp])[0]
            if attention.clip:
                sheet = clip_attention_sheet(picture, keyframe, colours)
                path = write_picture(folder / f"{name}_clip.jpg", sheet)
                files[f"Attention to persons and objects at {shown}"] = path
            if attention.maps:
                sheet = attention_map_sheet(picture, keyframe, colours)
                path = write_picture(folder / f"{name}_maps.jpg", sheet)
                files[f"Attention maps at {shown}"] = path
            if attention.memory:
                path = memory_attention_chart(folder / f"{name}_memory.png", keyframe, colours)
                files[f"Attention to the memory at {shown}"] = path
    return files


def remove_attention_pictures(folder: Path) -> None:
    """Remove what :func:`write_attention_pictures` left in a folder, and nothing else."""
    for path in folder.glob("attention_*"):
        if _FILE.fullmatch(path.name):
            path.unlink()
