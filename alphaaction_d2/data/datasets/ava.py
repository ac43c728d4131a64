"""AVA and data sets in its format: from files to one dataset dict per keyframe."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from ...formats.ava import (
    AVARows,
    concatenate_rows,
    duplicates,
    read_ava_csv,
    read_exclusions,
    read_seconds,
    read_video_list,
    rename_videos,
    select_rows,
)
from ...formats.boxes import BoxFile, at_keyframes, read_boxes
from ...formats.label_map import LabelMap, class_names, is_ava, read_label_map, with_groups
from ...formats.names import meant_video
from ...structures import AnnotatedPersons
from ..box_tables import DenseBoxes, Keyframe, KeyframeTable, keyframes_in, split_at_keyframes
from ..video import VideoInfo, find_videos
from .catalog import check_registered, register
from .videos import demand_files, inside_videos, probe_videos

logger = logging.getLogger(__name__)

_SHOWN = 5  # names listed in a warning


@dataclass(frozen=True)
class AVAFiles:
    """Where the parts of one split lie.

    A part that is spread over several files (train and val as one set) is a tuple of paths.
    """

    annotations: Path | tuple[Path, ...] | None  # CSV of AVA rows; None without ground truth
    label_map: Path  # pbtxt, or plain list, with names, ids and groups of the classes
    # Folder with one video per id: a file <video_id>.<extension>, any container, or a folder
    # <video_id> of pictures or one-second clips.
    videos: Path
    excluded: Path | tuple[Path, ...] | None = None  # CSV of keyframes that do not count
    # Detected ones, in any form that `read_boxes` knows. Without persons testing uses the
    # annotated boxes.
    persons: Path | tuple[Path, ...] | None = None
    objects: Path | tuple[Path, ...] | None = None
    # Of a split without annotations: its videos and its keyframes' seconds, the same for all
    # videos (AVA's `ava_included_timestamps`). Both or none.
    video_list: Path | None = None
    seconds: Path | None = None

    def paths(self, part: str) -> tuple[Path, ...]:
        """The files of a part, none, one or more."""
        value = getattr(self, part)
        if value is None:
            return ()
        return value if isinstance(value, tuple) else (value,)


def register_ava(name: str, files: AVAFiles, *, official: bool = False) -> None:
    """Register a split under `name` in detectron2's catalogs. Files are read when it is first used.

    The metadata `evaluator_type` ("ava"), `label_map`, `thing_classes`, `annotation_file`,
    `loaded` and `excluded` are what the evaluator and the demo look for. `thing_classes` has a name
    for every id up to the largest; category_id = action id - 1.

    Args:
        official: score with the very rows of the files, as the published evaluators do;
            `annotation_file` names them, and is None for a split without ground truth or with
            several files of it. Otherwise with those that were loaded: `loaded` has the rows of
            `annotations` and detected `persons` (None: there are none), once there are dicts.
    """

    def read() -> dict[str, Any]:
        _check_files(name, files)
        return _metadata(files)

    known = {"evaluator_type": "ava", "files": files, "official": official, "loaded": {}}
    on_demand = ("label_map", "thing_classes", "annotation_file", "excluded")
    register(name, lambda: load_ava(name, files), read, on_demand, **known)


def registered_files(name: str) -> AVAFiles:
    """Give the files of a registered split: else KeyError, ValueError if of another format."""
    check_registered(name)
    files = MetadataCatalog.get(name).get("files")
    if not isinstance(files, AVAFiles):
        raise ValueError(f"{name}: not a data set in AVA's format")
    return files


def _check_files(name: str, files: AVAFiles) -> None:
    parts = ["label_map", *(x.name for x in fields(files))]
    paths = ((part.replace("_", " "), path) for part in parts for path in files.paths(part))
    demand_files(name, paths)


def _metadata(files: AVAFiles) -> dict[str, Any]:
    label_map = with_groups(read_label_map(files.label_map))
    annotations = files.paths("annotations")
    return {
        "label_map": label_map,
        "thing_classes": class_names(label_map),
        # one file is what the evaluators read
        "annotation_file": str(annotations[0]) if len(annotations) == 1 else None,
        "excluded": frozenset(_excluded(files)),
    }


def _excluded(files: AVAFiles) -> set[Keyframe]:
    excluded = set().union(*(read_exclusions(path) for path in files.paths("excluded")))
    renamed = meant_videos(files, {video for video, _ in excluded})
    return {(renamed.get(video, video), second) for video, second in excluded}


def meant_videos(files: AVAFiles, names: Iterable[str]) -> dict[str, str]:
    """Give, by name there, the ids of videos that tables call with a folder or an extension."""
    found = find_videos(files.videos) if files.videos.is_dir() else {}
    meant = {name: meant_video(name, found) for name in names}
    return {name: video for name, video in meant.items() if name != video}


def load_ava(name: str, files: AVAFiles) -> list[dict]:
    """Read a split: one dict per keyframe, ordered by video and time.

    Keyframes are the seconds with an annotation or a detected person, or those that `files` lists,
    without the excluded ones. Videos that are missing or cannot be opened are left out. Whatever is
    left out, and why, is counted in the log.

    Returns:
        Dicts with `file_name`, `video_id`, `timestamp` (s), `image_id`, `height`, `width`,
        `annotations` (`bbox` XYXY in pixels, `category_id`, `person_id`), `persons` and `objects`
        (`FoundBoxes`). If there are persons who do nothing of the list: `negatives`, annotations
        without `category_id`. If persons were detected between keyframes, too, `persons_between`:
        those since the keyframe before (`TimedBoxes`). Annotations of one box share its list of
        numbers, and boxes, scores and ids of all keyframes lie in a few large arrays.

    Raises:
        FileNotFoundError: a file is missing, or every video is.
        DataFileError: a row is wrong; all bad rows in one message.
    """
    _check_files(name, files)
    metadata = MetadataCatalog.get(name)
    metadata.set(**_metadata(files))
    annotations = read_annotations(name, files, metadata.label_map)
    boxes: dict[str, list[tuple[BoxFile, BoxFile]]] = {"persons": [], "objects": []}
    for role, found in boxes.items():
        for file in (read_boxes(path, role) for path in files.paths(role)):
            rows = rename_videos(file.rows, meant_videos(files, file.rows.videos))
            found.append(split_at_keyframes(replace(file, rows=rows)))
    persons = boxes["persons"]
    if not persons:
        instead = "testing uses the annotated boxes" if annotations is not None else "none are used"
        logger.warning("%s: no detected persons; %s", name, instead)

    annotated = [] if annotations is None else [annotations]
    keys = listed_keyframes(files).union(
        *(keyframes_in(rows) for rows in (*annotated, *(at.rows for at, _ in persons)))
    )
    excluded = _excluded(files)
    keyframes = sorted(keys - excluded)
    videos = probe_videos(name, find_videos(files.videos), files.videos, keyframes)
    sizes = {video: (info.width, info.height) for video, info in videos.items()}
    outside = "keyframes that lie after the end of their video or before its beginning"
    kept = inside_videos(name, keyframes, videos, outside)
    with without_garbage_collection():
        tables = {"annotations": KeyframeTable(annotated)}
        for role, found in boxes.items():
            tables[role] = KeyframeTable([at.as_fractions(sizes.get).rows for at, _ in found])
        between = DenseBoxes([x.as_fractions(sizes.get).rows for _, x in persons])
        _log_unused(name, tables, set(kept), excluded, videos)
        counted = excluded.union(kept)
        metadata.get("loaded", {}).update(
            annotations=None if annotations is None else tables["annotations"].within(counted),
            persons=tables["persons"].within(counted) if persons else None,
        )
        dicts = list(_build(kept, videos, tables, between, detected=bool(persons)))
    logger.info("%s: %d keyframes of %d videos", name, len(dicts), len(videos))
    return dicts


def _build(
    keys: list[Keyframe],
    videos: dict[str, VideoInfo],
    tables: dict[str, KeyframeTable],
    between: DenseBoxes,
    detected: bool,
) -> Iterator[dict]:
    annotation_dicts = _annotation_dicts(tables["annotations"], videos)
    file_names = {video: str(info.path) for video, info in videos.items()}
    last: dict[str, float] = {}  # keyframe of each video
    for key in keys:
        video, second = key
        width, height = videos[video].width, videos[video].height
        annotations = annotation_dicts[tables["annotations"].place(key)]
        acting = [a for a in annotations if a["category_id"] >= 0]
        keyframe = {
            "file_name": file_names[video],
            "video_id": video,
            "timestamp": second,
            "image_id": f"{video},{second:04d}",
            "height": height,
            "width": width,
            "annotations": acting,
            "persons": tables["persons"][key],
            "objects": tables["objects"][key],
        }
        if len(acting) < len(annotations):
            nothing = [a for a in annotations if a["category_id"] < 0]
            for annotation in nothing:
                del annotation["category_id"]
            keyframe["negatives"] = nothing
        if not detected:
            keyframe["persons"] = AnnotatedPersons.of(keyframe).found(width, height)
        if len(between):
            start = last.get(video, -math.inf)
            keyframe["persons_between"] = between.between(video, start, second)
            last[video] = second
        yield keyframe


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """For making millions of objects that all stay: looking for garbage takes half the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _annotation_dicts(table: KeyframeTable, videos: dict[str, VideoInfo]) -> list[dict]:
    """Make detectron2's annotations, in the order of the table: one box, one class each."""
    rows = table.rows
    # The actions of a person stand in rows one after the other; they share one list.
    new_box = np.ones(len(rows), dtype=bool)
    new_box[1:] = (rows.boxes[1:] != rows.boxes[:-1]).any(axis=1)
    new_box[[place.start for place in table.places.values()]] = True
    box_of = (np.cumsum(new_box) - 1).tolist()
    scale = np.ones((len(rows.videos), 4))  # of videos that are not used nobody asks for pixels
    for code, video in enumerate(rows.videos):
        if video in videos:
            scale[code] = (videos[video].width, videos[video].height) * 2
    boxes = (rows.boxes[new_box] * scale[rows.video_codes[new_box]]).tolist()
    return [
        {
            "bbox": boxes[b],
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": label - 1,
            "person_id": person,
        }
        for b, label, person in zip(box_of, rows.labels.tolist(), rows.person_ids.tolist())
    ]


def read_annotations(name: str, files: AVAFiles, label_map: LabelMap) -> AVARows | None:
    """The annotated rows of a split at its keyframes; None for a split without ground truth.

    Rows that come twice count once, with a warning.

    Raises:
        DataFileError: a row is wrong; all bad rows in one message.
        ValueError: the rows use actions that the label map does not have.
    """
    paths = files.paths("annotations")
    if not paths:
        return None
    rows = concatenate_rows(
        [read_ava_csv(path, allow_empty_frames=True, label_map=label_map) for path in paths]
    )
    rows = rename_videos(rows, meant_videos(files, rows.videos))
    _check_labels(name, rows, label_map)
    again = duplicates(rows)
    if again.any():
        logger.warning("%s: left out %d annotations that are there twice", name, again.sum())
        rows = select_rows(rows, ~again)
    return at_keyframes(rows)


def keyframes_of(name: str, files: AVAFiles) -> list[Keyframe]:
    """The keyframes that a split's annotations or lists name, whether or not videos are there."""
    _check_files(name, files)
    annotations = read_annotations(name, files, with_groups(read_label_map(files.label_map)))
    keys = listed_keyframes(files) | (set() if annotations is None else keyframes_in(annotations))
    return sorted(keys - _excluded(files))


def listed_keyframes(files: AVAFiles) -> set[Keyframe]:
    """Read the keyframes of a split without annotations; of any other there are none."""
    if files.video_list is None or files.seconds is None:
        return set()
    seconds = read_seconds(files.seconds)
    return {(video, second) for video in read_video_list(files.video_list) for second in seconds}


def _log_unused(
    name: str,
    tables: dict[str, KeyframeTable],
    kept: set[Keyframe],
    excluded: set[Keyframe],
    videos: dict[str, VideoInfo],
) -> None:
    """Counts the rows that no dict gets, by table and reason."""
    for part, table in tables.items():
        counts: Counter[str] = Counter()
        for key, rows in table.counts().items():
            if key in kept:
                counts["used"] += rows
            elif key in excluded:
                counts["on excluded keyframes"] += rows
            elif key[0] in videos:
                counts["on seconds that are no keyframes"] += rows
            else:
                counts["of videos that are not used"] += rows
        used = counts.pop("used", 0)
        if counts:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
            level = logging.INFO if used else logging.WARNING
            logger.log(level, "%s: rows of %s left out: %s; used: %d", name, part, reasons, used)


def _check_labels(name: str, rows: AVARows, label_map: LabelMap) -> None:
    """Names the action ids that the label map does not have."""
    labels = rows.labels[rows.labels >= 0]
    used = Counter(dict(zip(*(x.tolist() for x in np.unique(labels, return_counts=True)))))
    outside = {i: n for i, n in used.items() if i > label_map.num_classes}
    if outside:
        listed = ", ".join(f"{i} ({n} rows)" for i, n in list(outside.items())[:_SHOWN])
        raise ValueError(
            f"{name}: annotations use action id {listed}, the label map ends at "
            f"{label_map.num_classes}"
        )
    nameless = {i: n for i, n in used.items() if i not in label_map.names}
    if nameless and not is_ava(label_map):  # AVA's 60-class list leaves out classes on purpose
        logger.warning(
            "%s: %d annotations use action ids that the label map has no name for: %s",
            *(name, sum(nameless.values()), ", ".join(map(str, list(nameless)[:_SHOWN]))),
        )
