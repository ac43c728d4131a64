"""Files of detected boxes, in the forms that people have.

==========  ======================================================================================
form        contents
==========  ======================================================================================
CSV         rows video_id,timestamp,x1,y1,x2,y2,class,score[,person_id], boxes as fractions. Class
            "" or "person" is a person. PySlowFast's files of detected persons are read as well:
            their class is empty, -1 (no action), or an action id, once for each action of a box.
COCO json   detections {image_id, category_id, bbox [x, y, width, height], score} in pixels:
            a list of them, or "annotations" beside "images" and "categories". Category 1 is a
            person. AlphAction's files are of this form, and what detectron2's converter makes
            of our data sets, whose categories are actions: all boxes there are persons.
pickle      {"video_id,second": array (n, 5) of x1 y1 x2 y2 score as fractions}, persons:
            mmaction2's proposals; keys may be pairs, numbers text, and ACAR-Net's lists are
            read as well. Nothing in the pickle is executed.
==========  ======================================================================================

The content tells which form a file is in, not its name; each may be gzipped.

An image id of a json file is the text "video_id,second" (or with "_" or "/" between the two, with
or without the extension of a picture), the id of an entry of "images" that says this in its
`file_name`, or a number: 10000 x the video's place in a list of videos + the second. That list is
`ava_file_names_trainval_v2.1.txt` or `video_list.txt`, beside the file or in the folder
"annotations" beside its folder.

Pixels count in pictures of the size that "images" states. Where it states none, they count in the
video's own, and with numbers as image ids in one that is scaled down to a short side of 360, if it
is larger: AlphAction's key frames.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .ava import AVARows, clipped, duplicates, good_rows, read_video_list, scan_ava_csv, select_rows
from .pickles import read_numbers
from .tables import DataFileError, Findings, gunzipping, strict

_STARTS = 512  # bytes that tell a file's form
VIDEO_LISTS = ("ava_file_names_trainval_v2.1.txt", "video_list.txt")
_IDS_PER_VIDEO = 10_000
_KEYFRAME_SHORT_SIDE = 360.0
_PERSON_WORDS = ("", "person")
_PERSON_CATEGORY = 1
_LARGEST_FRACTION = 1.05  # a file whose coordinates all stay below has no pixels
_IMAGE_NAME = re.compile(r"(.+)[,_/\\](\d{1,9})(?:\.(?:jpe?g|png|bmp|webp))?", re.IGNORECASE)

# From a video to the (width, height) of its upright picture, None if it cannot be opened.
SizeOf = Callable[[str], "tuple[int, int] | None"]


@dataclass(frozen=True)
class BoxFile:
    """Boxes of a file, and what they are measured in."""

    rows: AVARows  # persons have label -1, other rows the index of their class
    # None if the boxes are fractions of the picture; otherwise they are in pixels of the picture
    # as it is when scaled down to this short side (inf: not scaled).
    short_side: float | None = None

    def as_fractions(self, size_of: SizeOf) -> BoxFile:
        """Give the same boxes as fractions, checked: DataFileError if they do not fit in a video.

        Rows of videos without a size become NaN.
        """
        if self.short_side is None:
            return self
        factors = np.full((len(self.rows.videos), 4), np.nan)
        for code in np.unique(self.rows.video_codes).tolist():
            size = size_of(self.rows.videos[code])
            if size is not None:
                factors[code] = max(1.0, min(size) / self.short_side) / np.array(size * 2)
        factors = factors[self.rows.video_codes]
        rows = replace(self.rows, boxes=self.rows.boxes * factors)
        known = np.flatnonzero(np.isfinite(factors[:, 0]))
        checked = select_rows(rows, known)
        findings = Findings(rows.source, _row_namer(checked))
        checked = _checked(checked, findings, np.arange(len(known)))
        boxes = rows.boxes.copy()
        boxes[known] = strict((checked, findings)).boxes
        return BoxFile(replace(rows, boxes=boxes))


def read_boxes(path: str | os.PathLike, role: str | None = None) -> BoxFile:
    """Read a file of boxes in any of the module's forms.

    Rows that are equal in every column count once. Detections without area, which detectors leave
    behind in json and pickle files, are left out. Both are counted in the log.

    Args:
        role: "persons" refuses boxes of anything else; "objects" leaves persons out, with a
            warning that counts them; None takes both.

    Raises:
        DataFileError: the file is none of these, or rows in it are wrong: a line of text for each,
            at most 20.
    """
    return strict(scan_boxes(path, role))


def scan_boxes(path: str | os.PathLike, role: str | None = None) -> tuple[BoxFile, Findings]:
    """Read what is good of a file of boxes, see `read_boxes`, and say what is left out."""
    with gunzipping(path) as file:
        start = file.read(_STARTS)
    if _is_pickle(start):
        boxes, findings = _read_pickle(path)
    elif re.match(rb'(\xef\xbb\xbf)?\s*(\{\s*["}]|\[\s*[\[{\]]|[\[{]\s*\Z)', start):
        boxes, findings = _read_json(path)
    else:
        rows, findings = scan_ava_csv(path, "boxes")
        boxes = BoxFile(_with_persons(rows, role))
    rows = boxes.rows
    again = duplicates(rows)
    if again.any():
        findings.note(f"left out {again.sum()} rows that are there twice")
        rows = select_rows(rows, ~again)
    return replace(boxes, rows=_in_role(rows, role, findings)), findings


def is_person(rows: AVARows) -> np.ndarray:
    """(N,) bool: which rows of a file of boxes are persons."""
    codes = [-1] + [i for i, name in enumerate(rows.class_names) if name in _PERSON_WORDS]
    return np.isin(rows.labels, codes)


def keyframe_seconds(timestamps: np.ndarray) -> np.ndarray:
    """(N,) int64: the whole second nearest to each time."""
    return np.floor(timestamps + 0.5).astype(np.int64)


def at_keyframes(rows: AVARows) -> AVARows:
    """Leave out rows between keyframes, see `scan_keyframes`; they are counted in the log."""
    return strict(scan_keyframes(rows))


def scan_keyframes(rows: AVARows) -> tuple[AVARows, Findings]:
    """Leave out rows between keyframes: of each video and second only the time nearest to it stays.

    Files with boxes for every frame would otherwise give every person many times over.
    """
    findings = Findings(rows.source)
    offsets = np.abs(rows.timestamps - keyframe_seconds(rows.timestamps))
    if not offsets.any():
        return rows, findings
    keep = _nearest_to_keyframes(rows)
    if other := int((~keep).sum()):
        what = f"used the {keep.sum()} rows nearest to whole seconds, not the other {other}"
        findings.note(what)
    aside = offsets[keep & (offsets > 0.1)]
    if len(aside):
        what = f"{len(aside)} of these rows are up to {aside.max():.2f} s beside the whole second"
        findings.note(f"{what} that they count for")
    return select_rows(rows, keep), findings


def between_keyframes(rows: AVARows) -> AVARows:
    """Take the rows that `at_keyframes` leaves out."""
    return select_rows(rows, ~_nearest_to_keyframes(rows))


_ON_TIME = 1e-3  # seconds beside the whole second that are none


def _nearest_to_keyframes(rows: AVARows) -> np.ndarray:
    """(N,) bool: the rows at the time that is nearest to its whole second, in each video.

    In a video whose seconds mostly have rows at the very second, only such rows count.
    """
    seconds = keyframe_seconds(rows.timestamps)
    offsets = np.abs(rows.timestamps - seconds)
    if not offsets.any():
        return np.ones(len(rows), dtype=bool)
    offsets += 1e-5 * (rows.timestamps > seconds)  # of two as near the earlier one
    keys = np.stack([rows.video_codes.astype(np.int64), seconds], axis=1)
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    group = group.reshape(-1)
    nearest = np.full(len(first), np.inf)
    np.minimum.at(nearest, group, offsets)
    # Who looked at whole seconds, and saw nobody at one of them, saw nobody there.
    videos = rows.video_codes[first]
    on_time = np.bincount(videos, nearest <= _ON_TIME) / np.maximum(np.bincount(videos), 1)
    nearest = np.where(on_time[videos] >= 0.5, np.minimum(nearest, _ON_TIME), nearest)
    return offsets <= nearest[group] + 1e-6


# --------------------------------------------------------------------------------- whose boxes


def _with_persons(rows: AVARows, role: str | None) -> AVARows:
    """Give persons the label -1, also those of PySlowFast's files."""
    names = rows.class_names
    if names and all(re.fullmatch(r"-?\d+", name) for name in names):
        if role == "persons" or "-1" in names:
            return replace(rows, labels=np.full(len(rows), -1), class_names=[])
    return replace(rows, labels=np.where(is_person(rows), -1, rows.labels))


def _in_role(rows: AVARows, role: str | None, findings: Findings) -> AVARows:
    persons = rows.labels == -1
    if role == "persons" and not persons.all():
        others = sorted({rows.class_names[i] for i in np.unique(rows.labels[~persons])})
        what = f"class {others[0]!r} in a file of persons; expected an empty column or 'person'"
        raise DataFileError(rows.source, what)
    if role == "objects" and persons.any():
        findings.note(f"left out {persons.sum()} rows that are persons")
        return select_rows(rows, ~persons)
    return rows


def _row_namer(rows: AVARows) -> Callable[[int], str]:
    """Name a row of a file without lines by its keyframe."""
    videos, codes, times = rows.videos, rows.video_codes, rows.timestamps
    return lambda row: f"{rows.source}: {videos[codes[row]]},{times[row]:04.0f}"


def _checked(rows: AVARows, findings: Findings, numbers: np.ndarray) -> AVARows:
    """Leave out bad rows; `numbers` (N,) are those by which `findings` know them."""
    rows = good_rows(rows, "boxes", findings, lambda places: numbers[places].tolist())
    return clipped(rows, findings)


def _table(
    findings: Findings,
    videos: Mapping[str, int],
    keyframes: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    class_names: Sequence[str] = (),
) -> tuple[AVARows, np.ndarray]:
    """Make rows of a json or pickle file, without those that have no area, and their numbers.

    Args:
        keyframes: (N, 2) place in `videos` and second of each row.
    """
    rows = AVARows(
        videos=list(videos),
        video_codes=keyframes[:, 0].astype(np.int32),
        timestamps=keyframes[:, 1].astype(np.float64),
        boxes=boxes,
        labels=labels,
        scores=scores,
        person_ids=np.full(len(labels), -1),
        class_names=class_names,
        source=str(findings.path),
    )
    x1, y1, x2, y2 = rows.boxes.T
    empty = (x1 == x2) | (y1 == y2)
    if empty.any():
        findings.note(f"left out {empty.sum()} boxes without area")
        rows = select_rows(rows, ~empty)
    return rows, np.flatnonzero(~empty)


def _is_pickle(start: bytes) -> bool:
    """Whether a file starts as a pickle: protocol 2 and later say so, a dict's or call's text."""
    return start[:1] == b"\x80" or bool(re.match(rb"\((dp|lp|i)|[\]}]q|c[\w.]+\n[\w.]+\n", start))


# --------------------------------------------------------------------------------------- pickle


def _read_pickle(path: str | os.PathLike) -> tuple[BoxFile, Findings]:
    entries = read_numbers(path)
    if isinstance(entries, list) and entries:
        if all(isinstance(x, dict) and _ACAR <= x.keys() for x in entries):
            entries = _from_acar(entries)
    if not isinstance(entries, dict):
        what = f'a pickle of a {type(entries).__name__}; expected a dict of "video_id,second" to '
        raise DataFileError(path, f"{what}arrays (n, 5)")
    keys = list(entries)
    bad_entries = Findings(path, lambda entry: f"{path}: entry {_short(keys[entry])}")
    bad_entries.num_rows = len(keys)
    videos: dict[str, int] = {}
    keyframes, tables = [np.zeros((0, 2), np.int64)], [np.zeros((0, 5))]
    for number, (key, value) in enumerate(entries.items()):
        place = _keyframe_of(key)
        if place is None:
            bad_entries.bad_row(number, 'expected "video_id,second"')
            continue
        try:
            table = _proposals(value)
        except ValueError as error:
            bad_entries.bad_row(number, str(error))
            continue
        if len(table):
            code = videos.setdefault(place[0], len(videos))
            keyframes.append(np.full((len(table), 2), (code, place[1])))
            tables.append(table)
    bad_entries.raise_if_wrong()
    boxes, findings = np.concatenate(tables), Findings(path)
    labels = np.full(len(boxes), -1)
    columns = np.concatenate(keyframes), boxes[:, :4], labels, boxes[:, 4]
    rows, _ = _table(findings, videos, *columns)
    findings.where = _row_namer(rows)
    return BoxFile(_checked(rows, findings, np.arange(len(rows)))), findings


_ACAR = {"video", "time", "labels"}  # of the entries of ACAR-Net's lists


def _from_acar(entries: list[dict]) -> dict[tuple[str, object], list]:
    """Make the boxes of ACAR-Net's lists a dict of keyframes."""
    found: dict[tuple[str, object], list] = {}
    for entry in entries:
        labels = entry["labels"] if isinstance(entry["labels"], list) else [entry["labels"]]
        boxes = found.setdefault((str(entry["video"]), _scalar(entry["time"])), [])
        for label in labels:
            box = label.get("bounding_box") if isinstance(label, dict) else None
            box = box.tolist() if isinstance(box, np.ndarray) else box
            score = label.get("score", 1.0) if isinstance(label, dict) else None
            boxes.append([*box[:4], _scalar(score)] if isinstance(box, list) else [box])
    return found


def _scalar(value: object) -> object:
    """A number of numpy's as Python's; anything else as it is, lists as their text."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return value.item()
    return value if value is None or isinstance(value, str | int | float) else repr(value)[:80]


def _short(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 2**64:
        return "a huge number"
    is_plain = isinstance(value, str | int | float | tuple)
    return repr(value)[:80] if is_plain else type(value).__name__


def _keyframe_of(key: object) -> tuple[str, int] | None:
    """(video id, second) of a key "video_id,second" or (video_id, second)."""
    if isinstance(key, tuple) and len(key) == 2 and isinstance(key[0], str):
        key = f"{key[0]},{_short(key[1]).strip(chr(39))}"
    found = re.fullmatch(r"(.+),\s*(\d{1,7})(\.0*)?", key) if isinstance(key, str) else None
    return (found[1], int(found[2])) if found else None


_PROPOSALS = "expected an array (n, 5) of x1 y1 x2 y2 score"


def _proposals(value: object) -> np.ndarray:
    """(n, 5) float64, n boxes without scores get 1; ValueError for anything else."""
    if isinstance(value, list):
        rows = [item.tolist() if isinstance(item, np.ndarray) else item for item in value]
        lengths = {len(row) if isinstance(row, list | tuple) else -1 for row in rows}
        if len(lengths) > 1 or not lengths <= {0, 4, 5}:
            raise ValueError(_PROPOSALS)
        names = ("x1", "y1", "x2", "y2", "score")
        numbers = [[_as_number(x, name) for x, name in zip(row, names)] for row in rows]
        value = np.array(numbers, dtype=np.float64)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise ValueError(_PROPOSALS)
    if value.size == 0:
        return np.zeros((0, 5))
    if value.ndim != 2 or value.shape[1] not in (4, 5):
        raise ValueError(_PROPOSALS)
    if value.shape[1] == 4:
        value = np.concatenate([value, np.ones((len(value), 1))], axis=1)
    return value.astype(np.float64)


def _as_number(value: object, name: str) -> float:
    """Read a number, also of a text; `name` is that of its column."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("latin1")
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
        raise ValueError(f"column {name}: text {value[:40]!r}: expected a number")
    if not _is_number(value):
        raise ValueError(f"column {name}: {_short(value)}: expected a finite number")
    return float(value)  # type: ignore[arg-type]


def _is_number(value: object) -> bool:
    """Whether a value is a number that an array of doubles can hold."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


# ----------------------------------------------------------------------------------------- json


def _read_json(path: str | os.PathLike) -> tuple[BoxFile, Findings]:
    detections = _Detections(path)
    try:
        # The detections are taken out while the text is parsed: as dicts, those of AVA take
        # gigabytes.
        with gunzipping(path) as file:
            rest = json.loads(file.read().decode("utf-8-sig"), object_hook=detections.take)
    except UnicodeDecodeError as error:
        raise DataFileError(path, f"not a text file (expected UTF-8: {error.reason})") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataFileError):
            raise
        text = " ".join(str(error).split())[:120]
        raise DataFileError(path, f"not a json file ({text})") from None
    parts = rest if isinstance(rest, dict) else {"annotations": rest}
    rest = parts.get("annotations")
    if not isinstance(rest, list) or any(item is not _TAKEN for item in rest):
        what = "expected a list of detections (image_id, category_id, bbox, score), or a COCO file "
        raise DataFileError(path, f'{what}with "images" and "annotations"')
    names = (_by_id(path, name, parts.get(name, [])) for name in ("images", "categories"))
    return detections.build(*names), detections.findings


_TAKEN = object()  # stands where a detection was


def _by_id(path: object, name: str, entries: object) -> dict[int | str, dict]:
    """Find the entries of "images" or "categories" by their id."""
    found: dict[int | str, dict] = {}
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries], 1):
        identity = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(identity, int | str) or isinstance(identity, bool):
            raise DataFileError(path, f'entry {number} of "{name}": expected {{"id": ...}}')
        if found.setdefault(identity, entry) != entry:
            raise DataFileError(path, f'entry {number} of "{name}": id {identity!r} comes twice')
    return found


class _Detections:
    """Columns of numbers, filled while a json file is parsed."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = path
        self.count = 0  # detections seen, good or bad
        self.findings = Findings(path, lambda number: f"{path}: detection {number + 1}")
        self.images: dict[int | str, int] = {}
        self.categories: dict[int, int] = {}
        self.numbers, self.image_codes, self.labels = array("q"), array("q"), array("q")
        self.boxes, self.scores = array("d"), array("d")

    def take(self, entry: dict) -> object:
        """Keep a detection's numbers, as the parser's hook; other entries stay as they are."""
        if not ("bbox" in entry and "image_id" in entry):
            return entry
        number, self.count = self.count, self.count + 1
        image, category = entry["image_id"], entry.get("category_id")  # type: Any, Any
        box, score = entry["bbox"], entry.get("score", 1.0)
        wrong = ""
        if isinstance(image, bool) or not isinstance(image, int | str):
            wrong = f"image_id {_short(image)}: expected a number or a text"
        elif not isinstance(category, int) or not _is_number(category):
            wrong = f"category_id {_short(category)}: expected a number"
        elif not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
            wrong = "bbox: expected four finite numbers, [x, y, width, height]"
        elif box[2] < 0 or box[3] < 0:
            wrong = f"bbox {box}: expected a width and a height from 0 on"
        elif not _is_number(score):
            wrong = f"score {_short(score)}: expected a finite number"
        if wrong:
            self.findings.bad_row(number, wrong)
            return _TAKEN
        self.numbers.append(number)
        self.image_codes.append(self.images.setdefault(image, len(self.images)))
        self.labels.append(self.categories.setdefault(category, len(self.categories)))
        self.boxes.extend(box)
        self.scores.append(score)
        return _TAKEN

    def build(self, images: dict[int | str, dict], categories: dict[int | str, dict]) -> BoxFile:
        """Put names to image ids and categories."""
        places = _places(self.path, list(self.images), images)
        codes = np.array(self.image_codes, dtype=np.int64)
        numbers = np.array(self.numbers, dtype=np.int64)
        boxes = np.array(self.boxes, dtype=np.float64).reshape(-1, 4)
        unknown = {code: name for name, code in self.images.items() if places[code] is None}
        for row in np.flatnonzero(np.isin(codes, list(unknown))).tolist():
            what = f"image_id {_short(unknown[codes[row]])}: {_IMAGE_HINT}"
            self.findings.bad_row(int(numbers[row]), what)
        self.findings.raise_if_wrong()

        known = [place for place in places if place is not None]  # all those of a box are
        videos: dict[str, int] = {}
        of_image = [(videos.setdefault(p.video, len(videos)), p.second) for p in known]
        keyframes = np.array(of_image, dtype=np.int64).reshape(-1, 2)[codes]
        short_side: float | None = None
        boxes[:, 2:] += boxes[:, :2]
        sizes = [p.size * 2 for p in known if p.size is not None]
        if sizes and len(sizes) == len(known):
            boxes /= np.array(sizes, dtype=np.float64)[codes]
        elif not (boxes <= _LARGEST_FRACTION).all():
            numbered = any(isinstance(image, int) and image not in images for image in self.images)
            short_side = _KEYFRAME_SHORT_SIDE if numbered else math.inf
        class_names, label_of = _class_names(list(self.categories), categories)
        if self.images and all(_own_keyframe(x, images.get(x, {})) for x in self.images):
            class_names, label_of = [], np.full(len(label_of), -1)  # what persons do
        labels = label_of[np.array(self.labels, dtype=np.int64)]
        scores = np.array(self.scores, dtype=np.float64)
        columns = keyframes, boxes, labels, scores
        rows, kept = _table(self.findings, videos, *columns, class_names)
        if short_side is None:
            rows = _checked(rows, self.findings, numbers[kept])
        return BoxFile(rows, short_side)


@dataclass(frozen=True)
class _Place:
    """What an image id stands for; `size` is the (width, height) of its picture, if stated."""

    video: str
    second: int
    size: tuple[float, float] | None = None


_IMAGE_HINT = (
    'expected "video_id,second", the id of an image whose file_name says so, or 10000 x the place '
    f"in {VIDEO_LISTS[0]} (or {VIDEO_LISTS[1]}) + the second, with that list beside this file"
)


def _places(
    path: str | os.PathLike, ids: list[int | str], images: dict[int | str, dict]
) -> list[_Place | None]:
    """Find the keyframe of every image id; None where it is unknown."""
    listed: list[str] | None = None
    places: list[_Place | None] = []
    for identity in ids:
        entry = images.get(identity, {})
        name = entry.get("file_name", identity)
        found = _own_keyframe(identity, entry)
        if found is None and isinstance(name, str):
            found = _IMAGE_NAME.fullmatch(name)
        if found:
            places.append(_Place(Path(found[1]).name, int(found[2]), _size(path, entry)))
        elif isinstance(identity, int):
            if listed is None:
                listed = _video_list(path)
            index, second = divmod(identity, _IDS_PER_VIDEO)
            ok = 0 <= index < len(listed)
            places.append(_Place(listed[index], second, _size(path, entry)) if ok else None)
        else:
            places.append(None)
    return places


def _own_keyframe(identity: int | str, entry: dict) -> re.Match | None:
    """Match the id "video_id,second" of an image that is a keyframe of our data sets.

    detectron2's `convert_to_coco_json` writes them so, with the video as the image's file and the
    actions of persons as categories.
    """
    found = re.fullmatch(r"(.+),(\d{1,9})", identity) if isinstance(identity, str) else None
    video = Path(str(entry.get("file_name", "")))
    return found if found and found[1] in (video.name, video.stem) else None


def _size(path: object, entry: dict) -> tuple[float, float] | None:
    width: Any = entry.get("width")
    height: Any = entry.get("height")
    if width is None and height is None:
        return None
    if not (_is_number(width) and _is_number(height) and width > 0 and height > 0):
        what = f"width {_short(width)}, height {_short(height)}: expected numbers of pixels"
        raise DataFileError(path, f"image {_short(entry['id'])}: {what}")
    return float(width), float(height)


def _video_list(path: str | os.PathLike) -> list[str]:
    folder = Path(path).resolve().parent
    places = (folder, folder.parent / "annotations")
    lists = [place / name for place in places for name in VIDEO_LISTS]
    found = next(filter(Path.is_file, lists), None)
    return [] if found is None else read_video_list(found)


def _class_names(
    found: list[int], categories: dict[int | str, dict]
) -> tuple[list[str], np.ndarray]:
    """Name the classes that are not persons, and the label of each of the `found` ids."""
    places = dict.fromkeys(_PERSON_WORDS, -1)
    label_of = []
    for category in found:
        default = "person" if category == _PERSON_CATEGORY else f"category {category}"
        name = str(categories.get(category, {}).get("name", default))
        label_of.append(places.setdefault(name, len(places) - len(_PERSON_WORDS)))
    return list(places)[len(_PERSON_WORDS) :], np.array(label_of, dtype=np.int64)
