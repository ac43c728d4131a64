"""Which files of a data set are there, which videos can be used, which keyframes are in them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ..video import VideoInfo, first_that_opens

logger = logging.getLogger(__name__)

_SHOWN = 5  # names listed in a warning
_PROBES = 8  # videos looked at at a time: on a disk far away that is mostly waiting

Key = TypeVar("Key", bound=tuple[str, float])  # video and second


def demand_files(name: str, paths: Iterable[tuple[str, Path]]) -> None:
    """Raise FileNotFoundError for a part (what it is, and its path) that a data set lacks."""
    for part, path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{name}: no {part} at {path}")


def inside_videos(
    name: str, keys: Sequence[Key], infos: Mapping[str, VideoInfo], what: str
) -> list[Key]:
    """Take the keyframes that lie in a usable video; warn of those that lie outside of one.

    Args:
        what: to call these.
    """
    usable = [key for key in keys if key[0] in infos]
    inside = [key for key in usable if infos[key[0]].spans(key[1])]
    if len(inside) < len(usable):
        video, second = next(key for key in usable if not infos[key[0]].spans(key[1]))
        logger.warning(
            "%s: dropped %d of %d %s, such as %s at %g s; the video has %s",
            *(name, len(usable) - len(inside), len(usable), what),
            *(video, second, infos[video].span_text()),
        )
    return inside


def probe_videos(
    name: str,
    files: Mapping[str, list[Path]],
    folder: Path,
    keys: Sequence[tuple[str, float]],
    frame_rate: float | None = None,
) -> dict[str, VideoInfo]:
    """Look into every video that some keyframes (video and second) need; those that can be opened.

    By a video's name `files` has what may be it, found in `folder`. If none can be used there is a
    FileNotFoundError.
    """
    wanted = list(dict.fromkeys(video for video, _ in keys))
    infos, problems = {}, []
    with ThreadPoolExecutor(_PROBES) as pool:
        found = pool.map(lambda x: first_that_opens(files.get(x, []), frame_rate), wanted)
        for video, (info, reasons) in zip(wanted, found):
            if info is None:
                problems.append(reasons[-1] if reasons else f"{video}: not found")
            else:
                infos[video] = info
    if problems:
        lost = sum(video not in infos for video, _ in keys)
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        text = "; ".join([*problems[:_SHOWN], *more])
        if not infos:
            raise FileNotFoundError(f"{name}: none of {len(wanted)} videos is in {folder}: {text}")
        logger.warning(
            "%s: %d of %d videos cannot be used, which drops %d of %d keyframes: %s",
            *(name, len(problems), len(wanted), lost, len(keys), text),
        )
    return infos
