"""Ids of videos: as names of files, which stay where they are put, and as others write them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping

MAX_BYTES = 200  # with the endings of its files a longer name is too much for file systems
_KEPT = 50  # characters of a name that is changed
_HASHED = re.compile(r"\.[0-9a-f]{16}")  # how a changed name ends
_SEPARATORS = "/\\:"  # of any system


def file_name(video_id: str, reserved: Collection[str] = ()) -> str:
    """Make the name of a file or folder out of a video's id.

    Most ids are that name. One that could lead elsewhere, be hidden or not be stored (separators,
    dots and spaces at an end, control characters, bytes that are no UTF-8, too long, empty) is
    cleaned, and gets a checksum, so that two ids never have one name.

    Args:
        reserved: names that something else has in the folder.
    """
    clean = "".join("_" if c in _SEPARATORS or not c.isprintable() else c for c in video_id)
    clean = clean.strip(". ")
    data = video_id.encode("utf-8", errors="surrogatepass")
    is_free = clean not in reserved and not _HASHED.fullmatch(clean[-17:])
    if clean == video_id and clean and len(data) <= MAX_BYTES and is_free:
        return clean
    return f"{clean[:_KEPT].strip('. ') or 'video'}.{hashlib.sha256(data).hexdigest()[:16]}"


def meant_video(name: str, files: Mapping[str, Collection]) -> str:
    """Find the id that a name with a folder or an extension stands for: `clips/a.mp4` for `a`.

    It is the name, unless one id alone is meant and has one of the `files` (by id).
    """
    if name in files:
        return name
    last = re.split(r"[/\\]", name)[-1]
    fitting = {x for x in (last, last.rpartition(".")[0]) if x in files}
    video = fitting.pop() if len(fitting) == 1 else name
    return video if len(files.get(video, ())) == 1 else name
