"""AVA and data sets in its format: from files to one dataset dict per keyframe."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from ...ava_files import AVARows, LabelMap, read_ava_csv, read_exclusions, read_label_map
from ..video import VideoError, VideoInfo, probe_video
from .ava_classes import AVA_CLASSES, is_ava, with_groups

logger = logging.getLogger(__name__)

PERSON_CLASSES = ("", "person")  # words in the class column of a box file that mean a person
_SHOWN = 5  # names listed in a warning


@dataclass(frozen=True)
class AVAFiles:
    """Where the parts of one split lie.

    Attributes:
        annotations: CSV of AVA rows; None for a split without ground truth.
        label_map: pbtxt with names, ids and groups of the classes.
        videos: folder with one video file per id, any container: <video_id>.<extension>.
        excluded: CSV of keyframes that do not count, or None.
        persons: CSV of detected persons; None: testing uses the annotated boxes.
        objects: CSV of detected objects, or None.
    """

    annotations: Path | None
    label_map: Path
    videos: Path
    excluded: Path | None = None
    persons: Path | None = None
    objects: Path | None = None


def register_ava(name: str, files: AVAFiles) -> None:
    """Register a split under `name` in detectron2's catalogs. Files are read when it is first used.

    The metadata `evaluator_type` ("ava"), `label_map`, `thing_classes`, `annotation_file` and
    `excluded` are what the evaluator and the demo look for. `thing_classes` has a name for every id
    up to the largest; category_id = action id - 1.
    """
    DatasetCatalog.register(name, lambda: load_ava(name, files))
    MetadataCatalog.get(name).set(evaluator_type="ava", files=files)


def read_metadata(name: str) -> None:
    """Fill the metadata of a registered data set from its label map and exclusions, if need be.

    Raises:
        KeyError: the name is not registered.
        FileNotFoundError: a file is missing.
    """
    if name not in DatasetCatalog.list():
        known = ", ".join(n for n in DatasetCatalog.list() if MetadataCatalog.get(n).get("files"))
        raise KeyError(f"data set {name!r} is not registered; of this kind there are: {known}")
    files = MetadataCatalog.get(name).get("files")
    if files is not None and MetadataCatalog.get(name).get("label_map") is None:
        _check_files(name, files)
        _set_metadata(name, files)


def _check_files(name: str, files: AVAFiles) -> None:
    for role in ("label_map", "annotations", "videos", "excluded", "persons", "objects"):
        path = getattr(files, role)
        if path is not None and not path.exists():
            raise FileNotFoundError(f"{name}: no {role.replace('_', ' ')} at {path}")


def _set_metadata(name: str, files: AVAFiles) -> LabelMap:
    label_map = with_groups(read_label_map(files.label_map))
    MetadataCatalog.get(name).set(
        label_map=label_map,
        thing_classes=class_names(label_map),
        annotation_file=None if files.annotations is None else str(files.annotations),
        excluded=frozenset(read_exclusions(files.excluded)) if files.excluded else frozenset(),
    )
    return label_map


def class_names(label_map: LabelMap) -> list[str]:
    """A name for every category_id; ids that the label map leaves out have AVA's name or number."""
    if is_ava(label_map):
        return list(AVA_CLASSES[: label_map.num_classes])
    return [label_map.names.get(i, f"class {i}") for i in range(1, label_map.num_classes + 1)]


def load_ava(name: str, files: AVAFiles) -> list[dict]:
    """Read a split: one dict per keyframe, ordered by video and time.

    Keyframes are the seconds with an annotation or a detected person, without the excluded ones.
    Videos that are missing or cannot be opened are left out with one warning that counts what is
    lost.

    Args:
        name: of the data set, for messages.

    Returns:
        Dicts with `file_name`, `video_id`, `timestamp` (s), `image_id`, `height`, `width`,
        `annotations` (`bbox` XYXY in pixels, `category_id`, `person_id`), `persons` and `objects`
        (`boxes` (n, 4) in pixels, `scores` (n,), `person_ids` (n,)).

    Raises:
        FileNotFoundError: a file is missing, or every video is.
        AVAFileError: a row is wrong; all bad rows in one message.
    """
    _check_files(name, files)
    label_map = _set_metadata(name, files)
    excluded = read_exclusions(files.excluded) if files.excluded else set()

    annotations = _Keyframes.read(files.annotations, "annotations")
    _check_labels(name, annotations.rows, label_map)
    persons = _Keyframes.read(files.persons, "boxes")
    _check_persons(persons.rows)
    objects = _Keyframes(_without_persons(files.objects))
    if files.persons is None:
        logger.warning("%s: no detected persons; testing uses the annotated boxes", name)

    keys = sorted((set(annotations.slices) | set(persons.slices)) - excluded)
    videos = _probe_videos(name, files.videos, keys)
    dicts = []
    for video, second in _inside(name, keys, videos):
        info = videos[video]
        size = np.array([info.width, info.height, info.width, info.height], dtype=np.float64)
        key = (video, second)
        rows = annotations.of(key)
        annotated = _annotations(annotations.rows, rows, size)
        detected = persons.rows if files.persons is not None else None
        dicts.append(
            {
                "file_name": str(info.path),
                "video_id": video,
                "timestamp": second,
                "image_id": f"{video},{second:04d}",
                "height": info.height,
                "width": info.width,
                "annotations": annotated,
                "persons": annotated_persons(annotated)
                if detected is None
                else _boxes(persons.rows, persons.of(key), size),
                "objects": _boxes(objects.rows, objects.of(key), size),
            }
        )
    logger.info("%s: %d keyframes of %d videos", name, len(dicts), len(videos))
    return dicts


class _Keyframes:
    """The rows of a file, found by keyframe."""

    def __init__(self, rows: AVARows | None) -> None:
        self.rows = rows
        self.slices: dict[tuple[str, int], np.ndarray] = {}
        if rows is None or not len(rows):
            return
        rows = at_keyframes(rows)
        self.rows = rows
        seconds = np.floor(rows.timestamps + 0.5).astype(np.int64)
        # Stable, so that rows of a keyframe keep the order of the file.
        order = np.lexsort((seconds, rows.video_codes))
        codes, seconds = rows.video_codes[order], seconds[order]
        starts = np.flatnonzero(
            (np.diff(codes, prepend=-1) != 0) | (np.diff(seconds, prepend=-1) != 0)
        )
        for start, group in zip(starts, np.split(order, starts[1:])):
            self.slices[rows.videos[codes[start]], int(seconds[start])] = group

    @classmethod
    def read(cls, path: Path | None, kind: str) -> _Keyframes:
        return cls(None if path is None else read_ava_csv(path, kind))

    def of(self, key: tuple[str, int]) -> np.ndarray:
        """Row numbers of one keyframe."""
        return self.slices.get(key, np.zeros(0, dtype=np.int64))


def _annotations(rows: AVARows, index: np.ndarray, size: np.ndarray) -> list[dict]:
    """detectron2's annotations: one box, one class each."""
    if not len(index):
        return []
    boxes = (rows.boxes[index] * size).tolist()
    labels, ids = rows.labels[index].tolist(), rows.person_ids[index].tolist()
    return [
        {"bbox": b, "bbox_mode": BoxMode.XYXY_ABS, "category_id": c - 1, "person_id": i}
        for b, c, i in zip(boxes, labels, ids)
    ]


def _boxes(rows: AVARows | None, index: np.ndarray, size: np.ndarray) -> dict[str, np.ndarray]:
    if rows is None:
        return _box_arrays(np.zeros((0, 4)), np.zeros(0), np.zeros(0))
    return _box_arrays(rows.boxes[index] * size, rows.scores[index], rows.person_ids[index])


def annotated_persons(annotations: list[dict]) -> dict[str, np.ndarray]:
    """Annotated persons in the form of detected ones, with score 1."""
    persons = list(dict.fromkeys((*a["bbox"], a["person_id"]) for a in annotations))
    table = np.array(persons, dtype=np.float64).reshape(-1, 5)
    return _box_arrays(table[:, :4], np.ones(len(table)), table[:, 4])


def _box_arrays(boxes: np.ndarray, scores: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "boxes": boxes.astype(np.float32),
        "scores": scores.astype(np.float32),
        "person_ids": ids.astype(np.int64),
    }


def _check_labels(name: str, rows: AVARows | None, label_map: LabelMap) -> None:
    if rows is None or not len(rows):
        return
    largest = int(rows.labels.max())
    if largest > label_map.num_classes:
        raise ValueError(
            f"{name}: annotations use action id {largest}, the label map ends at "
            f"{label_map.num_classes}"
        )


def _check_persons(rows: AVARows | None) -> None:
    if rows is None:
        return
    others = sorted(set(rows.class_names) - set(PERSON_CLASSES))
    if others:
        raise ValueError(
            f"{rows.source}: class {others[0]!r} in a file of persons; expected an empty column or "
            "'person'"
        )


def at_keyframes(rows: AVARows) -> AVARows:
    """Leave out rows between keyframes: of each video and second only the time nearest to it stays.

    Files with boxes for every frame would otherwise give every person many times over.
    """
    offsets = np.abs(rows.timestamps - np.floor(rows.timestamps + 0.5))
    if not offsets.any():
        return rows
    seconds = np.floor(rows.timestamps + 0.5).astype(np.int64)
    keys = np.stack([rows.video_codes.astype(np.int64), seconds], axis=1)
    _, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.reshape(-1)
    nearest = np.full(group.max() + 1, np.inf)
    np.minimum.at(nearest, group, offsets)
    keep = offsets <= nearest[group] + 1e-6
    if not keep.all():
        logger.warning(
            "%s: used the %d rows nearest to whole seconds, not the other %d",
            rows.source,
            keep.sum(),
            (~keep).sum(),
        )
    return select_rows(rows, keep)


def _without_persons(path: Path | None) -> AVARows | None:
    """Rows of a file of objects; persons in it have a file of their own and are left out."""
    if path is None:
        return None
    rows = read_ava_csv(path, "boxes")
    persons = is_person(rows)
    if persons.any():
        logger.warning("%s: left out %d rows that are persons", path, persons.sum())
    return select_rows(rows, ~persons)


def is_person(rows: AVARows) -> np.ndarray:
    """(N,) bool: which rows of a box file are persons."""
    codes = [-1] + [i for i, name in enumerate(rows.class_names) if name in PERSON_CLASSES]
    return np.isin(rows.labels, codes)


def select_rows(rows: AVARows, mask: np.ndarray) -> AVARows:
    """The rows where `mask` (N,) is True."""
    columns = ("video_codes", "timestamps", "boxes", "labels", "scores", "person_ids")
    return replace(rows, **{name: getattr(rows, name)[mask] for name in columns})


def _inside(
    name: str, keys: list[tuple[str, int]], videos: dict[str, VideoInfo]
) -> list[tuple[str, int]]:
    """Keyframes of usable videos, without those after a video's end (a trimmed video, say)."""
    usable = [key for key in keys if key[0] in videos]
    inside = [(v, t) for v, t in usable if videos[v].duration is None or t <= videos[v].duration]
    if len(inside) < len(usable):
        video, second = next(key for key in usable if key not in set(inside))
        logger.warning(
            "%s: dropped %d of %d keyframes that lie after the end of their video, such as %s at "
            "%d s of %.1f s",
            name,
            len(usable) - len(inside),
            len(usable),
            video,
            second,
            videos[video].duration,
        )
    return inside


def find_videos(folder: Path) -> dict[str, list[Path]]:
    """Files of a folder by name without extension, in alphabetical order."""
    found: dict[str, list[Path]] = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.is_file() and not entry.name.startswith("."):
                path = Path(entry.path)
                found.setdefault(path.stem, []).append(path)
    return found


def _probe_videos(name: str, folder: Path, keys: list[tuple[str, int]]) -> dict[str, VideoInfo]:
    """Header information of every video that the keyframes need and that can be opened."""
    files = find_videos(folder)
    wanted = list(dict.fromkeys(video for video, _ in keys))
    infos, problems = {}, []
    for video in wanted:
        if video not in files:
            problems.append(f"{video}: not found")
            continue
        # A picture or a text of the same name may lie beside the video: the first that opens.
        for path in files[video]:
            try:
                infos[video] = probe_video(path)
                break
            except VideoError as error:
                reason = str(error)
        else:
            problems.append(reason)
    if problems:
        lost = sum(video not in infos for video, _ in keys)
        text = "; ".join(problems[:_SHOWN])
        if len(problems) > _SHOWN:
            text += f"; and {len(problems) - _SHOWN} more"
        if not infos:
            raise FileNotFoundError(f"{name}: none of {len(wanted)} videos is in {folder}: {text}")
        logger.warning(
            "%s: %d of %d videos cannot be used, which drops %d of %d keyframes: %s",
            name,
            len(problems),
            len(wanted),
            lost,
            len(keys),
            text,
        )
    return infos
