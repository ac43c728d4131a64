"""An index of people: who was seen where and when, what they did, and a vector to find others by.

A file of Arrow's IPC format (Feather) with a row per person and keyframe, mapped when it is read.
The vector is what the actions are told of, after the interaction; what a memory stores, before it,
does not know what was seen earlier (docs/programs.md has both measured).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.feather import read_table as read_feather
from pyarrow.feather import write_feather

from .names import meant_video
from .results import VideoResult
from .tables import listed
from .writing import write_atomically

PEOPLE_FILE = "people.arrow"
VERSION = 1
_KEY = b"alphaaction_d2.people"  # of the metadata
_ROWS = 4096  # that are made float32 at a time
_NEAR = 0.5  # seconds within which a keyframe is meant


def people_table(result: VideoResult, file: str | os.PathLike, network: str) -> pa.Table:
    """Make the rows of one video, whose persons have `features`; `file` is where it lies, and
    `network` the checksum of the weights, as only what one network has made can be compared."""
    names = list(result.class_names)
    persons = [(x.timestamp, person) for x in result.keyframes for person in x.persons]
    channels = max((len(x.features) for _, x in persons if x.features is not None), default=0)
    columns = {
        "video": pa.string(),
        "file": pa.string(),
        "second": pa.float64(),
        "person_id": pa.int64(),  # -1 where unknown
        "box": pa.list_(pa.float32(), 4),  # XYXY, fractions of the picture
        "scores": pa.list_(pa.float16(), len(names)),
        "features": pa.list_(pa.float16(), channels),  # of length 1: products are cosines
    }
    about = {"version": VERSION, "network": network, "class_names": names}
    size = np.array([result.width, result.height] * 2)
    # what UTF-8 cannot hold becomes "?", as in the other files
    place = [x.encode("utf-8", "replace") for x in (result.video_id, os.path.abspath(file))]
    rows = [
        (*place, second, x.person_id, np.float32(x.box / size), np.float16(x.scores), x.features)
        for second, x in persons
    ]
    return pa.Table.from_pylist(
        [dict(zip(columns, row)) for row in rows], pa.schema(columns, {_KEY: json.dumps(about)})
    )


def write_people(path: str | os.PathLike, table: pa.Table) -> Path:
    """Write an index; it may have been read from this very file, and others."""
    return write_atomically(path, lambda file: write_feather(table, file, "uncompressed"))


def read_people(paths: Sequence[str | os.PathLike]) -> pa.Table:
    """Map files, and all people.arrow in folders, as one index; ValueError of one line for one that
    is damaged, one of another network than the first, or if nobody is in any."""
    files: list[Path] = []
    for path in map(Path, paths):
        files += sorted(path.rglob(PEOPLE_FILE)) if path.is_dir() else [path]
    tables = {file: table for file in files if len(table := _read(file))}
    if not tables:
        what = f"nobody is in its {len(files)} files {PEOPLE_FILE}"
        raise ValueError(
            f"{listed(paths)}: an empty index, {what} (`alphaaction demo` writes them)"
        )
    first = next(iter(tables))
    for file, table in tables.items():
        if not table.schema.equals(tables[first].schema, check_metadata=True):
            raise ValueError(
                f"{file}: from another network, or with other names of classes, than {first}: "
                "they cannot be compared; search them apart"
            )
    return pa.concat_tables(tables.values())


def _read(file: Path) -> pa.Table:
    try:
        table = read_feather(file, memory_map=True)
        table.validate()
        if (version := json.loads(table.schema.metadata[_KEY])["version"]) != VERSION:
            raise ValueError(f"version {version}, expected {VERSION}")
        return table
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, OSError) as error:  # Arrow's are ValueErrors, too
        reason = " ".join(str(error).split())
        raise ValueError(f"{file}: not an index of people ({reason})") from None


def class_names_of(table: pa.Table) -> list[str]:
    """The K names of the classes, "" for a gap."""
    return json.loads(table.schema.metadata[_KEY])["class_names"]


def find_person(table: pa.Table, text: str) -> int:
    """Find the row that `VIDEO@SECONDS#PERSON` means; ValueError says who is there instead.

    The video may be named with folder and extension, and the person left out where one is alone.
    """
    parts = re.fullmatch(r"(.+)@(\d+(?:\.\d*)?)(?:#(-?\d+))?", text.strip())
    if parts is None:
        raise ValueError(f"{text!r}: expected VIDEO@SECONDS#PERSON, such as film.mp4@12.0#3")
    videos = {x: (x,) for x in pc.unique(table["video"]).to_pylist()}
    video, second = meant_video(parts[1], videos), float(parts[2])
    if video not in videos:
        raise ValueError(f"no video {parts[1]} in this index; it has {listed(sorted(videos), 9)}")
    rows = np.flatnonzero(pc.equal(table["video"], video).to_numpy())
    seconds, ids = (table[name].to_numpy()[rows] for name in ("second", "person_id"))
    nearest = seconds[np.abs(seconds - second).argmin()]
    there = seconds == nearest
    known = f"at {nearest:g} s there is " + ", ".join(f"#{x}" for x in sorted(ids[there]))
    if abs(nearest - second) > _NEAR:
        raise ValueError(f"{video}: nobody at {second:g} s; the nearest: {known}")
    rows = rows[there if parts[3] is None else there & (ids == int(parts[3]))]
    if len(rows) != 1:
        what = "which one? Add #PERSON" if len(rows) else f"no person #{parts[3]}"
        raise ValueError(f"{video}: {what}; {known}")
    return int(rows[0])


def similarities(table: pa.Table, row: int) -> np.ndarray:
    """Cosine, (n,) float32, of everybody's vector with that of a row; ValueError without any."""
    if not table.schema.field("features").type.list_size:
        raise ValueError("an index of an exported model has no vectors: ask for --action")
    query = np.array(table["features"][row].as_py(), np.float32)
    cosines = [block @ query for block in _blocks(table["features"])]
    return np.concatenate(cosines).clip(-1, 1)  # lengths are rounded


def action_scores(table: pa.Table, name: str) -> np.ndarray:
    """Everybody's score, (n,) float32, of the action of this name."""
    names = class_names_of(table)
    if not name or name not in names:
        known = ", ".join(filter(None, names))
        raise ValueError(f"no action {name!r} in this index; it has {known}")
    return np.concatenate([x[:, names.index(name)] for x in _blocks(table["scores"])])


def _blocks(column: pa.ChunkedArray) -> Iterator[np.ndarray]:
    """Yield a column of vectors as matrices (a few rows, C) of float32."""
    for chunk in column.chunks:
        matrix = chunk.flatten().to_numpy().reshape(len(chunk), -1)
        for start in range(0, len(chunk), _ROWS):
            yield matrix[start : start + _ROWS].astype(np.float32)


def best_rows(table: pa.Table, values: np.ndarray, count: int, but: int = -1) -> list[int]:
    """Give the rows of the highest of the values (n,), the highest first, without the row `but`: of
    everybody whose id is known the best one."""
    found: dict[object, int] = {}
    for row in np.argsort(-values, kind="stable").tolist():
        who = table["video"][row].as_py(), table["person_id"][row].as_py()
        if row != but:
            found.setdefault(who if who[1] >= 0 else row, row)
        if len(found) == count:
            break
    return list(found.values())
