"""Which videos of a data set can be used."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..video import VideoInfo, first_that_opens

logger = logging.getLogger(__name__)

_SHOWN = 5  # names listed in a warning
_PROBES = 8  # videos looked at at a time: on a disk far away that is mostly waiting


def probe_videos(
    name: str,
    files: Mapping[str, list[Path]],
    folder: Path,
    keys: Sequence[tuple[str, float]],
    frame_rate: float | None = None,
) -> dict[str, VideoInfo]:
    """Look into every video that some keyframes need; those that can be opened.

    Args:
        name: of the data set, for messages.
        files: by video's name what may be it.
        folder: where these are, for messages.
        keys: video and second of each keyframe.
        frame_rate: see `VideoReader`.

    Raises:
        FileNotFoundError: none can be used.
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
        text = "; ".join(problems[:_SHOWN])
        if len(problems) > _SHOWN:
            text += f"; and {len(problems) - _SHOWN} more"
        if not infos:
            raise FileNotFoundError(f"{name}: none of {len(wanted)} videos is in {folder}: {text}")
        logger.warning(
            "%s: %d of %d videos cannot be used, which drops %d of %d keyframes: %s",
            *(name, len(problems), len(wanted), lost, len(keys), text),
        )
    return infos
