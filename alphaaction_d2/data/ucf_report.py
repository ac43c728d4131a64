"""What is wrong with a data set in the form of UCF101-24, or unusual; see `dataset_report`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..formats.ucf101_24 import FRAME_RATE, PICTURE_SIZE, TRAIN_FRAME_STRIDE, UCFAnnotations
from .box_tables import KeyframeTable
from .dataset_report import DatasetReport, noting
from .datasets.ucf101_24 import UCFFiles
from .video import VideoError, first_that_opens, iterate_frames


class UCFSummary(NamedTuple):
    """What training and testing will see of a split, in numbers."""

    videos: int
    frames: int
    tubes: int
    persons: int
    objects: int
    tubes_of_classes: dict[str, int]


def check_ucf(
    splits: Mapping[str, UCFFiles], report: DatasetReport, decode: bool = True
) -> dict[str, UCFSummary]:
    """Note all that is wrong or unusual with the splits; gives what there is of each."""
    summaries = {}
    for name, files in splits.items():
        with noting(report, name):
            files.check(name)
            annotations = files.read()
            sizes = _look(files, annotations, report, decode)
            persons, objects = files.tables(annotations, sizes)
            _check_boxes(name, files, annotations, sizes, persons, report)
            columns = (annotations.video_codes, annotations.tubes, annotations.labels)
            labels = {(v, t): c for v, t, c in zip(*(x.tolist() for x in columns))}
            of_classes = np.bincount(list(labels.values()), minlength=len(annotations.class_names))
            summaries[name] = UCFSummary(
                videos=len(annotations.videos),
                frames=sum(map(len, files.keyframes(annotations).values())),
                tubes=len(labels),
                persons=len(persons.rows),
                objects=len(objects.rows),
                tubes_of_classes=dict(zip(annotations.class_names, of_classes.tolist())),
            )
    report.findings.sort(key=lambda finding: not finding.wrong)
    return summaries


def _look(
    files: UCFFiles, annotations: UCFAnnotations, report: DatasetReport, decode: bool
) -> dict[str, tuple[int, int]]:
    """Open every video, and compare its frames with the annotations'; gives their sizes."""
    sizes = dict.fromkeys(annotations.videos, PICTURE_SIZE)
    found = files.find_videos(annotations)
    lasts = np.zeros(len(annotations.videos), np.int64)
    np.maximum.at(lasts, annotations.video_codes, annotations.frames)
    missing = []
    counts = zip(annotations.videos, annotations.num_frames.tolist(), lasts.tolist())
    for video, numf, last in counts:
        if video not in found:
            missing.append(video)
            continue
        info, problems = first_that_opens(found[video], FRAME_RATE)
        if info is None:
            report.add(True, found[video][0], problems[-1].partition(": ")[2])
            continue
        sizes[video] = info.width, info.height
        number = None if info.duration is None else round(info.duration * FRAME_RATE)
        try:
            if decode:
                number = sum(1 for _ in iterate_frames(info.path, frame_rate=FRAME_RATE))
        except VideoError as error:
            report.add(True, info.path, str(error).partition(": ")[2])
            continue
        if number is not None and number != numf:
            what = f"has {number} frames, the annotations count {numf}"
            wrong = number < last
            report.add(wrong, info.path, f"{what}, and use the first {last}" if wrong else what)
    what = f"{len(missing)} of {len(annotations.videos)} videos are missing"
    report.add_some(True, files.videos, what, missing)
    return sizes


def _check_boxes(
    name: str,
    files: UCFFiles,
    annotations: UCFAnnotations,
    sizes: Mapping[str, tuple[int, int]],
    persons: KeyframeTable,
    report: DatasetReport,
) -> None:
    limits = np.array([sizes[video] * 2 for video in annotations.videos])
    outside = annotations.boxes > limits[annotations.video_codes] + 1
    if outside.any():
        row = int(outside.any(axis=1).argmax())
        video, frame = annotations.videos[annotations.video_codes[row]], annotations.frames[row]
        what = f"{outside.any(axis=1).sum()} boxes reach beyond their picture"
        report.add(False, files.annotations, f"{what}, first in {video} frame {frame}")
    if files.persons is None:
        report.add(False, name, "no detected persons: testing uses the annotated boxes")
        return
    strange = sorted(set(persons.rows.videos) - set(annotations.videos))
    what = f"persons of {len(strange)} videos that the split does not have"
    report.add_some(False, files.persons, what, strange)
    wanted = set(zip(annotations.video_codes.tolist(), (annotations.frames - 1).tolist()))
    if files.split == "train":
        wanted = {(v, k) for v, k in wanted if k % TRAIN_FRAME_STRIDE == 0}
    without = [x for x in wanted if not len(persons[annotations.videos[x[0]], x[1]])]
    if without:
        code, k = min(without)
        what = f"no detected person in {len(without)} of {len(wanted)} annotated frames, such as "
        report.add(False, files.persons, f"{what}{annotations.videos[code]} frame {k + 1}")
