"""`frames.yaml`: when the frames are shown of videos that do not say it themselves.

It lies beside the videos, or for folders of pictures in the folder or in one of the two above it::

    fps: 30        # frames a second, also 30000/1001; of pictures, and of files without times
    start: 900     # optional: second of the first frame (AVA's usual frames begin there); 0
    first: 1       # optional: number of the picture that is shown at `start`; the smallest there is
"""

from __future__ import annotations

import contextlib
import os
import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ...formats.yaml_files import YAMLFileError, read_yaml
from .source import VideoError

TIMING_FILE = "frames.yaml"
_KEYS = {"fps", "start", "first"}
_MAX_FPS = 1000
# Short enough that nothing large can be meant: 1e400000000 as a fraction is 160 MB of digits.
_NUMBER = re.compile(r"[-+]?([0-9]{1,15}/[0-9]{1,15}|[0-9]{0,15}\.?[0-9]{0,20}(e[-+]?[0-9]{1,2})?)")


@dataclass(frozen=True)
class Timing:
    """How frames are counted, see the top of this file."""

    fps: Fraction | None = None  # where it is not said
    start: float = 0.0
    first: int | None = None
    path: Path | None = None  # of the file that says so


NOT_SAID = Timing()


def timing_of_file(video: Path) -> Timing:
    """Read the `frames.yaml` beside a video file; VideoError if it says what it should not."""
    return _first_of([video.parent])


def timing_of_folder(folder: Path) -> Timing:
    """Read the nearest `frames.yaml` of a folder: in it, or in the two above it."""
    place = Path(os.path.abspath(folder))
    return _first_of([place, *place.parents[:2]])


def _first_of(folders: list[Path]) -> Timing:
    paths = [folder / TIMING_FILE for folder in folders]
    path = next(filter(os.path.isfile, paths), None)
    return NOT_SAID if path is None else _read(path)


def _read(path: Path) -> Timing:
    try:
        content = read_yaml(path)
    except YAMLFileError as error:
        raise VideoError(f"{error}: write lines like 'fps: 25'") from None
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror}): check the file") from None
    if not isinstance(content, dict) or not content or not content.keys() <= _KEYS:
        raise VideoError(
            f"{path}: expected 'fps: NUMBER', and if wanted 'start: SECOND' and 'first: NUMBER', "
            f"got {reprlib.repr(content)}"
        )
    fps = _number(path, "fps", content, lambda x: 0 < x <= _MAX_FPS, "a number up to 1000")
    start = _number(path, "start", content, lambda x: abs(x) < 1e8, "a second")
    first = _number(path, "first", content, lambda x: x >= 0 and x == int(x), "from 0 on")
    return Timing(fps, float(start or 0), None if first is None else int(first), path)


def _number(
    path: Path,
    key: str,
    content: dict[Any, Any],
    is_right: Callable[[Fraction], bool],
    expected: str,
) -> Fraction | None:
    """A number of the file, exactly as it was written; None where the key is not there."""
    value = content.get(key)
    if value is None and (key != "fps" or key not in content):
        return None
    said = "a number of thousands of digits"
    with contextlib.suppress(ValueError, ZeroDivisionError):  # Python does not write these
        said = reprlib.repr(value)
        # As text, so that 29.97 is what was written; a rate may be a fraction.
        text = str(value).replace(" ", "").lower()
        if isinstance(value, (int, float, str)) and _NUMBER.fullmatch(text):
            number = Fraction(text)
            if is_right(number):
                return number
    raise VideoError(f"{path}: {key} is {said}, expected {expected}")
