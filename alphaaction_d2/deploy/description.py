"""The file in an exported folder that says what its graphs are to be fed with."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "model.json"
VERSION = 1  # of the folder: what graphs and description mean
FEATURES, SCORES, INT8 = "features.onnx", "scores.onnx", "features_int8.onnx"


@dataclass(frozen=True)
class MemoryDescription:
    """How a memory window is made; configuration keys of MODEL.MEMORY with the same names."""

    window: Sequence[int]  # slots before and after the clip
    stride: int
    max_persons: int  # of a slot
    channels: int
    dtype: str  # in which features are remembered: float32, float16, bfloat16
    slots_per_second: float
    delay: int  # slots after the clip that are waited for
    fresh_centre: bool  # the window's centre holds the clip's own features, else the memory's
    own_tracks_first: bool


@dataclass(frozen=True)
class Description:
    """What a model is fed with, and what its scores mean."""

    class_names: Sequence[str]
    # clips: frames, their distance in frames of a video of so many frames a second
    num_frames: int
    sampling_rate: float
    clip_fps: float
    # pictures: scaled to a short side (0: as they are), normalised by channel (RGB, 0-255), padded
    # with zeros to a multiple
    short_side: int
    max_long_side: int
    mean: Sequence[float]
    std: Sequence[float]
    multiple: int
    # boxes
    min_person_score: float
    min_object_score: float
    max_objects: int
    extend: Sequence[float]  # share of width and height by which boxes of persons are enlarged
    # actions
    min_score: float  # lowest that is listed
    multiply_person_score: bool
    memory: MemoryDescription | None
    tracking: dict[str, float] | None  # options of `Tracks`; None: ids stay as they are given
    keep_given_ids: bool

    def write(self, folder: Path, made_by: str) -> None:
        """Write it into the folder of its graphs."""
        head = {"format": "alphaaction_d2", "version": VERSION, "made_by": made_by}
        text = json.dumps({**head, **dataclasses.asdict(self)}, indent=1)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: str | Path) -> Description:
        """Read that of an exported folder; ValueError for a folder that is none, or of another
        version."""
        path = Path(folder) / FILE
        if not path.is_file():
            raise ValueError(f"{folder}: no {FILE}: this is no folder of `alphaaction export`")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            made_by = values.pop("made_by", "?")
            is_ours, version = values.pop("format") == "alphaaction_d2", values.pop("version")
        except (ValueError, KeyError, AttributeError, TypeError):
            raise ValueError(f"{path}: no description of an exported model") from None
        if not is_ours or version != VERSION:
            raise ValueError(
                f"{path}: version {version} of alphaaction_d2 {made_by}, this one reads {VERSION}: "
                "export the model again, or use that release"
            )
        missing = [x for x in (FEATURES, SCORES) if not (Path(folder) / x).is_file()]
        if missing:
            raise ValueError(f"{folder}: {' and '.join(missing)} missing: export the model again")
        try:
            memory: dict[str, Any] | None = values.pop("memory")
            known = None if memory is None else MemoryDescription(**memory)
            return cls(memory=known, **values)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: {error}: export the model again") from None


def is_exported(path: str | Path) -> bool:
    """Tell whether a path is an exported folder."""
    return bool(str(path)) and (Path(path) / FILE).is_file()
