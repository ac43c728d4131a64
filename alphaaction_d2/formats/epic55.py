"""Files of EPIC-Kitchens-55: labels of segments, detectors' features, and models' logits."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from .arrays import read_arrays
from .ava import read_video_list
from .pickles import read_numbers
from .tables import Column, DataFileError, read_table, strict

NUM_VERBS, NUM_NOUNS = 125, 352
LAST_TRAINING_PARTICIPANT = 25  # P26 to P31 are LFB's validation part
FEATURE_FPS = 30.0  # in which LFB counts frames


@dataclass(frozen=True)
class EPICSegments:
    """Segments (N) of the annotation file, in its order.

    The columns are (N,): `videos` of text such as `P01_01`, empty in a file without this column;
    `starts` and `stops` float64 seconds, NaN in a file without these; the others int64.
    """

    uids: np.ndarray
    participants: np.ndarray
    verbs: np.ndarray
    nouns: np.ndarray
    source: str = ""
    videos: np.ndarray = field(default_factory=lambda: np.zeros(0, str))
    starts: np.ndarray = field(default_factory=lambda: np.zeros(0))
    stops: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        return len(self.uids)

    def __getitem__(self, which: np.ndarray) -> EPICSegments:
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        taken = {k: x[which] for k, x in columns.items() if isinstance(x, np.ndarray) and len(x)}
        return replace(self, **taken)


def read_epic_segments(path: str | os.PathLike) -> EPICSegments:
    """Read `EPIC_train_action_labels.csv`, or any CSV with a header that names its columns uid,
    participant_id, verb_class and noun_class; video_id, start_timestamp and stop_timestamp may
    lack.

    Raises:
        DataFileError: one line per bad row.
    """
    table = read_table(path, _COLUMNS, has_header=True)
    columns = strict((table.columns, table.findings))
    if twice := _comes_twice(columns["uid"]):
        raise DataFileError(path, twice)
    numbers = [int(word.removeprefix("P")) for word in table.words["participant_id"]]
    videos = np.array(table.words.get("video_id", [""]))
    unknown = np.full(len(table.columns["uid"]), np.nan)
    starts, stops = (columns.get(f"{x}_timestamp", unknown) for x in ("start", "stop"))
    if (stops < starts).any():
        row = int(np.flatnonzero(stops < starts)[0])
        what = f"the segment (uid) {columns['uid'][row]} stops before it starts"
        raise DataFileError(path, what)
    return EPICSegments(
        uids=columns["uid"],
        participants=np.array(numbers, dtype=np.int64)[columns["participant_id"]],
        verbs=columns["verb_class"],
        nouns=columns["noun_class"],
        source=str(path),
        videos=videos[columns.get("video_id", np.zeros(len(unknown), np.int64))],
        starts=starts,
        stops=stops,
    )


def _comes_twice(uids: np.ndarray) -> str:
    values, counts = np.unique(uids, return_counts=True)
    twice = values[counts > 1]
    return f"the segment (uid) {twice[0]} comes more than once" if len(twice) else ""


def split_segments(segments: EPICSegments) -> tuple[EPICSegments, EPICSegments]:
    """LFB's training part (P01 to P25) and validation part (P26 to P31)."""
    is_training = segments.participants <= LAST_TRAINING_PARTICIPANT
    return segments[is_training], segments[~is_training]


def read_epic_classes(path: str | os.PathLike) -> list[str]:
    """Read the names in `EPIC_verb_classes.csv` or `EPIC_noun_classes.csv`, in the order of ids.

    Raises:
        DataFileError: a bad row, or ids that are not 0, 1, 2, ...
    """
    kind = "noun" if "noun" in Path(path).name else "verb"
    number = Column(f"{kind}_id", int)
    table = read_table(path, (number, Column("class_key", str)), has_header=True)
    columns = strict((table.columns, table.findings))
    ids = columns[number.name].tolist()
    if sorted(ids) != list(range(len(ids))):
        raise DataFileError(path, f"{number.name}: expected the numbers 0 to {len(ids) - 1}")
    names = [table.words["class_key"][code] for code in columns["class_key"].tolist()]
    return [name for _, name in sorted(zip(ids, names))]


_TIME = re.compile(r"(\d{1,3}):(\d{1,2}):(\d{1,2}(?:\.\d{0,9})?)")


def _seconds(text: str) -> float:
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return 3600.0 * int(found[1]) + 60.0 * int(found[2]) + float(found[3])


def _time(name: str) -> Column:
    expected = "a time such as 00:02:10.99"
    return Column(name, float, expected=expected, may_lack=True, read=_seconds)


def _below(name: str, limit: int) -> Column:
    return Column(name, int, lambda x: (0 <= x) & (x < limit), f"0 to {limit - 1}")


_COLUMNS = (
    _below("uid", 2**31),
    Column(
        "participant_id", str, re.compile(r"P?[0-9]{1,3}").fullmatch, "a participant such as P01"
    ),
    _below("verb_class", NUM_VERBS),
    _below("noun_class", NUM_NOUNS),
    Column("video_id", str, may_lack=True),
    _time("start_timestamp"),
    _time("stop_timestamp"),
)


def read_detected_features(path: str | os.PathLike) -> dict[str, dict[int, np.ndarray]]:
    """Read what a detector has said of objects, once or more often a second.

    Args:
        path: a pickle, of which nothing is executed: `{train,val}_lfb.pkl` of Long-Term Feature
            Banks, a list by video, or a dict by video's name as `make_boxes --features` writes. A
            video is a dict: frame, counted at 30 a second, to (n, C) numbers, best objects first,
            or an empty list. A list goes by `frame_lists/{train,val}.csv` in the folder above, of
            LFB or with the name of a video on each line.

    Returns:
        By video and frame: (n, C), n > 0, all of the same C.

    Raises:
        DataFileError: it is something else.
    """
    loaded = read_numbers(path)
    if isinstance(loaded, list):
        folder, name = Path(path).resolve().parent.parent, Path(path).name.partition(".")[0]
        video_list = folder / "frame_lists" / f"{name.removesuffix('_lfb')}.csv"
        if not video_list.is_file():
            what = f"a list of {len(loaded)} videos without names: what it goes by is no file"
            raise DataFileError(path, f"{what}, {video_list} (LFB's, or one video a line)")
        names = _listed_videos(video_list)
        if len(names) != len(loaded):
            what = f"a list of {len(loaded)} videos, {video_list} names {len(names)}"
            raise DataFileError(path, what)
        loaded = dict(zip(names, loaded))
    if not isinstance(loaded, dict) or not all(isinstance(x, dict) for x in loaded.values()):
        raise DataFileError(path, "expected a list or dict of videos, each a dict of frames")
    widths: dict[int, str] = {}
    found: dict[str, dict[int, np.ndarray]] = {}
    for video, frames in loaded.items():
        found[str(video)] = kept = {}
        for frame, features in frames.items():
            if isinstance(features, list) and not features:
                continue
            place = f"{video}, frame {frame}"
            is_good = isinstance(frame, int) and frame >= 0 and isinstance(features, np.ndarray)
            if not is_good or features.ndim != 2 or features.dtype.kind != "f":
                raise DataFileError(path, f"{place}: expected an array (n, channels) or nothing")
            if len(features):
                widths.setdefault(features.shape[1], place)
                kept[frame] = features
    if len(widths) > 1:
        (one, there), (other, here) = list(widths.items())[:2]
        raise DataFileError(path, f"{there} has {one} channels, {here} has {other}")
    if not widths:
        raise DataFileError(path, "has no features")
    return found


def _listed_videos(path: str | os.PathLike) -> list[str]:
    """Read the videos of LFB's frame list, a row a frame under a header; or of one a line."""
    with open(path, encoding="utf-8") as file:
        if len(file.readline().split()) < 2:
            return read_video_list(path)
        return list(dict.fromkeys(line.split(None, 1)[0] for line in file if line.strip()))


def read_epic_scores(
    path: str | os.PathLike, segments: EPICSegments, num_classes: int
) -> np.ndarray:
    """Read a model's logits.

    Args:
        path: a `.npy` file of an array (N, classes), a row a segment in the order of
            `segments`; or an `.npz` file of "uids" (N,) and "logits" (N, classes), in any
            order.
        segments: those to score; the file must have just these.
        num_classes: `NUM_VERBS` or `NUM_NOUNS`.

    Returns:
        (N, classes) float64, in the order of `segments`.

    Raises:
        ValueError: the file is something else, or has other segments; in one line.
    """
    content = read_arrays(path)
    if "" in content:
        logits, uids = content[""], segments.uids
    elif {"logits", "uids"} <= content.keys():
        logits, uids = content["logits"], content["uids"]
    else:
        raise ValueError(f'{path}: expected the arrays "uids" and "logits"')
    expected = (len(segments), num_classes)
    if logits.shape != expected or logits.dtype.kind not in "fiu":
        what = f"a row for each of the {len(segments)} segments of {segments.source or 'the list'}"
        raise ValueError(
            f"{path}: logits {logits.shape} of {logits.dtype}; expected {expected} numbers, {what}"
        )
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        raise ValueError(f"{path}: row {int(finite.argmin())} has numbers that are not finite")
    if uids.shape != segments.uids.shape:
        expected_uids = f"expected {segments.uids.shape}, one for each row of logits"
        raise ValueError(f"{path}: uids {uids.shape}; {expected_uids}")
    if twice := _comes_twice(uids):
        raise ValueError(f"{path}: {twice}")
    if not np.array_equal(np.sort(uids), np.sort(segments.uids)):
        strange = sorted(set(segments.uids.tolist()) - set(uids.tolist()))
        raise ValueError(f"{path}: has no scores for the segments (uids) {strange[:5]} ...")
    order = np.empty(len(segments), dtype=np.int64)
    order[np.argsort(segments.uids)] = np.argsort(uids)
    return logits[order].astype(np.float64)
