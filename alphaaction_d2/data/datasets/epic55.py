"""EPIC-Kitchens-55: from files to one dataset dict per segment (AIA, Sec. 6).

Models are asked for the verb or for the noun of a segment, so each split is two data sets. What is
classified is the whole picture: a segment is a person who fills it, known by the segment's uid.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from ...formats.ava import AVARows, concatenate_rows, select_rows
from ...formats.boxes import read_boxes
from ...formats.epic55 import EPICSegments, read_epic_classes, read_epic_segments, split_segments
from ...structures import FoundBoxes
from ..box_tables import DenseBoxes
from ..video import VIDEO_SUFFIXES, VideoInfo
from .catalog import files_of_kind, register
from .videos import demand_files, inside_videos, probe_videos

logger = logging.getLogger(__name__)

LABELS = "EPIC_train_action_labels.csv"
KINDS = ("verb", "noun")
SPLITS = ("train", "val")
# Where the videos lie: files; pictures of LFB; the official pictures, as their script loads them.
_VIDEO_FOLDERS = ("videos", "frames", "rgb_frames", "frames_rgb_flow/rgb")
_BOX_FILES = ("boxes/{split}.csv", "boxes/{split}_hands.csv", "boxes/{split}_objects.csv")
BOX_MARGIN = 1.0  # seconds beside a segment in which boxes still count for it
_HAND = re.compile(r"(.*[ _-])?hands?([ _-].*)?", re.IGNORECASE)


@dataclass(frozen=True)
class EPICFiles:
    """A folder of EPIC-Kitchens-55, or of data in its form, as one of its data sets.

    ::

        annotations/EPIC_train_action_labels.csv, EPIC_verb_classes.csv, EPIC_noun_classes.csv
        videos/P01/P01_01.MP4, or frames/P01/P01_01_000001.jpg, or
            rgb_frames/P01/P01_01/frame_0000000001.jpg (with frames.yaml, which tells their rate)
        boxes/{train,val}.csv (optional, in any form of `read_boxes`), or _hands.csv, _objects.csv
        noun_lfb/{train,val}_lfb.pkl, frame_lists/{train,val}.csv (for the noun model's memory)

    The `kind` is "verb" or "noun"; `split` "train" (P01 to P25) or "val".
    """

    folder: Path
    kind: str
    split: str

    @property
    def labels(self) -> Path:
        return self.folder / "annotations" / LABELS

    @property
    def label_map(self) -> Path:
        return self.folder / "annotations" / f"EPIC_{self.kind}_classes.csv"

    @property
    def boxes(self) -> list[Path]:
        """The files of hands and objects that are there."""
        known = (self.folder / name.format(split=self.split) for name in _BOX_FILES)
        return [path for path in known if path.is_file()]

    @property
    def features(self) -> Path:
        """Where what a detector says of objects is to lie."""
        return self.folder / "noun_lfb" / f"{self.split}_lfb.pkl"

    def segments(self) -> EPICSegments:
        """Read those of the split."""
        return split_segments(read_epic_segments(self.labels))[SPLITS.index(self.split)]

    def video_files(self, video: str) -> list[Path]:
        """List what may be a video, files first."""
        participant = video.partition("_")[0]
        roots = [self.folder / name for name in _VIDEO_FOLDERS]
        places = [
            root / part
            for root in roots
            for part in (participant, "", f"train/{participant}", f"test/{participant}")
        ]
        places = [place for place in places if place.is_dir()]
        names = [video + form(x) for x in sorted(VIDEO_SUFFIXES) for form in (str, str.upper)]
        found = [x for place in places for name in names if (x := place / name).is_file()]
        found += [place / video for place in places if (place / video).is_dir()]
        # pictures of several videos in one folder; opening it says what is wrong
        return found or [place / video for place in places if place.name == participant]


def epic_splits(name: str, folder: Path) -> dict[str, EPICFiles]:
    """Give the data sets of a folder: <name>_{verbs,nouns}_{train,val}."""
    return {
        f"{name}_{kind}s_{split}": EPICFiles(folder, kind, split)
        for kind in KINDS
        for split in SPLITS
    }


def epic_files(data: Sequence[str]) -> dict[str, EPICFiles]:
    """Give the data sets in this form, by name, that a folder has or that registered names are."""
    folder = Path(data[0]).expanduser()
    if len(data) == 1 and (folder / "annotations" / LABELS).is_file():
        return epic_splits(folder.resolve().name, folder)
    return files_of_kind(data, EPICFiles)


def register_epic(name: str, folder: Path) -> list[str]:
    """Register the data sets of a folder, see `epic_splits`; files are read when first used.

    The metadata: `evaluator_type` "epic", `files` (the `EPICFiles`) and `thing_classes`.
    """

    def classes_of(part: str, files: EPICFiles) -> dict[str, Any]:
        _check_files(part, files)
        return {"thing_classes": read_epic_classes(files.label_map)}

    splits = epic_splits(name, folder)
    for part, files in splits.items():
        load, read = partial(load_epic, part, files), partial(classes_of, part, files)
        register(part, load, read, ("thing_classes",), evaluator_type="epic", files=files)
    return list(splits)


def _check_files(name: str, files: EPICFiles) -> None:
    demand_files(name, ((path.name, path) for path in (files.labels, files.label_map)))


def load_epic(name: str, files: EPICFiles) -> list[dict]:
    """Read a split: one dict per segment, ordered by video and time.

    Segments of videos that are missing or cannot be opened are left out, with a warning.

    Returns:
        Dicts with `file_name`, `video_id`, `timestamp` (s, the segment's middle), `span` (its start
        and stop), `image_id` (the uid), `height`, `width`, one annotation (`bbox` the whole
        picture, `category_id` the verb or noun, `person_id` the uid), `persons` (the same as found)
        and, of the time in and beside the segment, `hands` and `objects` (`TimedBoxes`).

    Raises:
        FileNotFoundError: a file is missing, or every video is.
        DataFileError: a row is wrong.
    """
    _check_files(name, files)
    segments = files.segments()
    if np.isnan(segments.starts).any() or "" in segments.videos:
        raise ValueError(f"{files.labels}: has no video_id, start_timestamp and stop_timestamp")
    middles = (segments.starts + segments.stops) / 2
    keys = list(zip(segments.videos.tolist(), middles.tolist()))
    candidates = {video: files.video_files(video) for video in dict.fromkeys(segments.videos)}
    videos = probe_videos(name, candidates, files.folder, keys)
    inside = set(inside_videos(name, keys, videos, "segments whose middle is not in their video"))
    if not files.boxes:
        wanted = ", ".join(x.format(split=files.split) for x in _BOX_FILES)
        logger.warning("%s: no hands and objects: none of %s in %s", name, wanted, files.folder)
    hands, objects = read_hands_and_objects(files.boxes, videos)
    labels = segments.verbs if files.kind == "verb" else segments.nouns
    num_classes = len(read_epic_classes(files.label_map))
    if len(labels) and labels.max() >= num_classes:
        raise ValueError(f"{files.labels}: class {labels.max()}, {files.label_map} ends before it")
    order = np.lexsort((segments.uids, middles, segments.videos))
    kept = [i for i in order.tolist() if keys[i] in inside]
    dicts = list(_build(segments, labels, kept, keys, videos, hands, objects))
    logger.info("%s: %d segments of %d videos", name, len(dicts), len(videos))
    return dicts


def _build(
    segments: EPICSegments,
    labels: np.ndarray,
    kept: list[int],
    keys: list[tuple[str, float]],
    videos: dict[str, VideoInfo],
    hands: DenseBoxes,
    objects: DenseBoxes,
) -> Iterator[dict]:
    for i in kept:
        info, uid = videos[keys[i][0]], int(segments.uids[i])
        span = float(segments.starts[i]), float(segments.stops[i])
        segment = segment_dict(keys[i][0], info, uid, span, hands, objects)
        segment["annotations"] = [
            {
                "bbox": [0.0, 0.0, float(info.width), float(info.height)],
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": int(labels[i]),
                "person_id": uid,
            }
        ]
        yield segment


def segment_dict(
    video: str,
    info: VideoInfo,
    uid: int,
    span: tuple[float, float],
    hands: DenseBoxes,
    objects: DenseBoxes,
) -> dict:
    """Make the dict of a segment that nobody has annotated, see `load_epic`."""
    around = (video, span[0] - BOX_MARGIN, span[1] + BOX_MARGIN)
    return {
        "file_name": str(info.path),
        "video_id": video,
        "timestamp": (span[0] + span[1]) / 2,
        "span": span,
        "image_id": uid,
        "height": info.height,
        "width": info.width,
        "annotations": [],
        "persons": FoundBoxes.of([0, 0, 1, 1], 1.0, uid),
        "hands": hands.between(*around),
        "objects": objects.between(*around),
    }


def read_hands_and_objects(
    paths: Sequence[str | Path], videos: Mapping[str, VideoInfo]
) -> tuple[DenseBoxes, DenseBoxes]:
    """Read hands and objects of some videos from files of boxes, of which there may be none."""
    sizes = {video: (info.width, info.height) for video, info in videos.items()}
    tables = [read_boxes(x, "objects").as_fractions(sizes.get).rows for x in paths]
    table = concatenate_rows([table for table in tables if len(table)])
    hands = are_hands(table)
    return DenseBoxes([select_rows(table, hands)]), DenseBoxes([select_rows(table, ~hands)])


def are_hands(rows: AVARows) -> np.ndarray:
    """(N,) bool: which rows of a file of boxes are hands: of the class hand, left hand, ..."""
    return np.isin(rows.labels, [i for i, x in enumerate(rows.class_names) if _HAND.fullmatch(x)])
