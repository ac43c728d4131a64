"""What is wrong with data in EPIC-Kitchens' form, what is unusual, and what training will see.

Everything is looked at, whatever is wrong with the rest; problems become `Finding`s.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from ..formats.ava import concatenate_rows, select_rows
from ..formats.boxes import scan_boxes
from ..formats.epic55 import (
    FEATURE_FPS,
    EPICSegments,
    read_detected_features,
    read_epic_classes,
    read_epic_segments,
)
from ..formats.tables import listed
from .box_tables import DenseBoxes
from .dataset_report import DatasetReport, noting
from .datasets.epic55 import BOX_MARGIN, EPICFiles, are_hands
from .video import VideoInfo, first_that_opens, hearing_warnings, iterate_frames

COLUMNS = ("split", "videos", "segments", "usable", "with hands", "with objects", "with features")
_WINDOW = 6.0  # seconds before and after, of the configurations


def check_epic(
    splits: Mapping[str, EPICFiles], report: DatasetReport, decode: bool = True
) -> list[tuple]:
    """Look at the data sets of a folder, those of verbs and of nouns once; see `COLUMNS`."""
    first = next(iter(splits.values()))
    for path in {x.label_map: x for x in splits.values()}:
        with noting(report, path):
            read_epic_classes(path)
    with noting(report, first.labels):
        read_epic_segments(first.labels)
        parts = {files.split: files for files in splits.values()}
        return [_check_split(files, report, decode) for files in parts.values()]
    return []


def _check_split(files: EPICFiles, report: DatasetReport, decode: bool) -> tuple:
    segments = files.segments()
    where = f"{files.folder} ({files.split})"
    middles = (segments.starts + segments.stops) / 2
    videos: dict[str, VideoInfo] = {}
    lost: dict[str, int] = {}
    for video in dict.fromkeys(segments.videos.tolist()):
        info, problems = first_that_opens(files.video_files(video))
        if info is None:
            lost[video] = int((segments.videos == video).sum())
            if problems:
                report.add(True, *problems[-1].split(": ", 1))
            continue
        videos[video] = info
        if decode:
            last = float(segments.stops[segments.videos == video].max())
            _decode(report, info, last)
    if lost:
        there = len(lost) + len(videos)
        of = f"{len(lost)} of {there} videos are not there ({listed(sorted(lost))})"
        report.add(not videos, where, f"{of}: {sum(lost.values())} segments are left out")
    inside = np.array(
        [v in videos and videos[v].spans(m) for v, m in zip(segments.videos, middles)]
    )
    for row in np.flatnonzero(~inside & np.isin(segments.videos, list(videos)))[:3].tolist():
        video = segments.videos[row]
        what = f"segment (uid) {segments.uids[row]}: its middle, {middles[row]:.2f} s, is not in it"
        report.add(False, videos[video].path, f"{what} ({videos[video].span_text()})")
    usable = segments[inside]
    hands, objects = _count_boxes(files, report, usable, videos)
    features = _count_features(files, report, usable, where)
    numbers = (len(videos), len(segments), len(usable), hands, objects, features)
    return (files.split, *numbers)


def _decode(report: DatasetReport, info: VideoInfo, last: float) -> None:
    """Look at all frames up to a moment; what is unusual becomes a finding."""
    with hearing_warnings(functools.partial(report.add, False)):
        seconds = info.begin
        for seconds, _ in iterate_frames(info.path):
            if seconds > last:
                return
    if seconds + 1 < last:
        report.add(False, info.path, f"ends at {seconds:.1f} s, its segments at {last:.1f} s")


def _count_boxes(
    files: EPICFiles, report: DatasetReport, segments: EPICSegments, videos: dict[str, VideoInfo]
) -> tuple[int, int]:
    """Count the segments that have a hand, and an object, in their time."""
    tables = []
    sizes = {video: (info.width, info.height) for video, info in videos.items()}
    for path in files.boxes:
        with noting(report, path):
            boxes, findings = scan_boxes(path, "objects")
            report.add_all([*findings.wrong(), *findings.notes])
            tables.append(boxes.as_fractions(sizes.get).rows)
    if not tables:
        report.add(False, files.folder / "boxes", f"no {files.split}.csv of hands and objects")
        return 0, 0
    rows = concatenate_rows(tables)
    strange = sorted(set(rows.videos) - set(files.segments().videos.tolist()))
    what = "boxes of videos without segments in this split"
    report.add_some(False, files.boxes[0], what, strange)
    is_hand = are_hands(rows)
    if not is_hand.any():
        known = ", ".join(sorted(rows.class_names)[:5]) or "no classes"
        report.add(False, files.boxes[0], f"no box is of the class 'hand': there are {known}")
    counts = []
    for part in (is_hand, ~is_hand):
        table = DenseBoxes([select_rows(rows, part)])
        around = zip(segments.videos.tolist(), segments.starts, segments.stops)
        found = (table.between(v, a - BOX_MARGIN, b + BOX_MARGIN) for v, a, b in around)
        counts.append(sum(len(x.found) > 0 for x in found))
    return counts[0], counts[1]


def _count_features(
    files: EPICFiles, report: DatasetReport, segments: EPICSegments, where: str
) -> int | str:
    """Count the segments that have a detector's features within a memory's window."""
    if not files.features.is_file():
        return "-"
    found: dict[str, dict[int, np.ndarray]] = {}
    with noting(report, files.features):
        found = read_detected_features(files.features)
    if not found:
        return 0
    missing = sorted(set(segments.videos.tolist()) - found.keys())
    report.add_some(False, where, f"no features of {len(missing)} videos", missing)
    middles = (segments.starts + segments.stops) / 2
    frames = {v: np.array(sorted(x)) / FEATURE_FPS for v, x in found.items()}
    nothing = np.zeros(0)
    away = [
        np.abs(frames.get(v, nothing) - m).min(initial=np.inf)
        for v, m in zip(segments.videos.tolist(), middles)
    ]
    return int(np.count_nonzero(np.array(away) <= _WINDOW))
