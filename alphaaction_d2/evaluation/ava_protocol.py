"""From the rows of AVA's files to a frame mAP and its tables: what AVA adds to the bare metric.

That is: which frame a row belongs to, which frames are excluded, and which files a protocol
refuses. No torch and no detectron2 here, so that scoring a file starts at once.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ..formats.ava import AVARows, read_ava_csv, select_rows
from ..formats.joins import odd_scores, why_unjoined
from ..formats.label_map import LabelMap
from ..formats.tables import DataFileError
from .average_precision import (
    DEFAULT_AVA_PROTOCOL,
    FrameBoxes,
    FrameMAP,
    InvertedBoxError,
    evaluate_frame_map,
    get_protocol,
)
from .summaries import as_json, as_table, percent

logger = logging.getLogger(__name__)

_HARDLY_ANY = 0.01  # a mAP below is what files give that do not join


def evaluate_ava_files(
    ground_truth: str | os.PathLike,
    detections: str | os.PathLike,
    label_map: LabelMap,
    *,
    excluded: Iterable[tuple[str, int]] = (),
    protocol: str = DEFAULT_AVA_PROTOCOL,
) -> FrameMAP:
    """Score CSV files of annotations and results as the official evaluator of that protocol would.

    It reads what that program reads (boxes of any size and place, in 2020 also fractions of a
    second) and refuses what it refuses, DataFileError with file and line. Classes that are not in
    the label map are ignored, and so are the frames (video id, second) of `excluded`.
    """
    gt_rows = read_rows(ground_truth, "annotations", protocol)
    det_rows = read_rows(detections, "results", protocol)
    return evaluate_ava(gt_rows, det_rows, label_map, excluded=excluded, protocol=protocol)


def read_rows(path: str | os.PathLike, kind: str, protocol: str) -> AVARows:
    """Read "annotations" or "results" as freely as the evaluator of that protocol does."""
    rules = get_protocol(protocol)
    return read_ava_csv(
        path,
        kind,
        check_boxes=False,
        integer_timestamps=not rules.fractional_seconds,
        allow_empty_frames=rules.empty_rows,
    )


def evaluate_ava(
    ground_truth: AVARows,
    detections: AVARows,
    label_map: LabelMap,
    *,
    excluded: Iterable[tuple[str, int]] = (),
    protocol: str = DEFAULT_AVA_PROTOCOL,
) -> FrameMAP:
    """Score detections in memory; the arguments are those of `evaluate_ava_files`, read."""
    rules = get_protocol(protocol)
    excluded = set(excluded)
    if rules.scores_required and not detections.has_scores:
        raise DataFileError(
            f"{detections.source or 'detections'}: rows without a score (7 columns); "
            f"the protocol {rules.name} needs video_id,timestamp,x1,y1,x2,y2,action_id,score"
        )
    if excluded and not rules.exclusions:
        logger.warning(
            "The protocol %s knows no exclusions: the %d frames of the list are evaluated",
            rules.name,
            len(excluded),
        )
        excluded = set()
    gt_frames, det_frames, empty_frames, is_excluded = _frame_numbers(
        ground_truth, detections, excluded
    )
    gt_labels, det_labels = ground_truth.labels, detections.labels
    if is_excluded.any():
        # 0 is no class, so these rows take no part
        if not rules.excluded_truth_counts:
            gt_labels = np.where(is_excluded[gt_frames], 0, gt_labels)
        det_labels = np.where(is_excluded[det_frames], 0, det_labels)
        logger.info("%d frames of the files are excluded", is_excluded.sum())
    gt = FrameBoxes(gt_frames, ground_truth.boxes, gt_labels, ground_truth.scores)
    det = FrameBoxes(det_frames, detections.boxes, det_labels, detections.scores)
    try:
        result = evaluate_frame_map(
            gt, det, label_map.names, protocol=protocol, annotated_frames=empty_frames
        )
    except InvertedBoxError as error:
        row = error.row
        video = ground_truth.videos[ground_truth.video_codes[row]]
        raise DataFileError(
            f"{ground_truth.source or 'ground truth'}: {video} at {ground_truth.timestamps[row]:g} "
            f"s: box {ground_truth.boxes[row].tolist()}: expected x1 <= x2 and y1 <= y2"
        ) from None
    if math.isnan(result.mean_ap):
        logger.warning(
            "%s holds no box of a class of the label map: there is no mAP",
            ground_truth.source or "The ground truth",
        )
    annotated = np.zeros(len(is_excluded), dtype=bool)
    annotated[gt_frames], annotated[empty_frames] = True, True
    notes = odd_scores(detections)
    # what costs time is asked only where something seems wrong
    if result.mean_ap < _HARDLY_ANY or annotated[det_frames].sum() * 2 < len(detections):
        acting = select_rows(ground_truth, np.isin(ground_truth.labels, [*label_map.names]))
        notes += why_unjoined(acting, detections, label_map.names)
    if result.mean_ap == 0 and not notes:
        notes = ["no detection is a hit: none has the place and the class of an annotated one"]
    return replace(result, notes=tuple(notes))


def _frame_numbers(
    ground_truth: AVARows, detections: AVARows, excluded: set[tuple[str, int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Give every frame a number that both tables share.

    Returns:
        frame of each row of the ground truth; frame of each detection; frames of the ground truth
            that are annotated as empty; and for every frame whether it is excluded.
    """
    numbers: dict[str, int] = {}
    empty_videos = [video for video, _ in ground_truth.empty_frames]
    for video in (*ground_truth.videos, *detections.videos, *empty_videos):
        numbers.setdefault(video, len(numbers))

    # rows of a frame are neighbours, most of the time: look at the runs and not at millions of rows
    videos, seconds, lengths = [], [], []
    for rows in (ground_truth, detections):
        video_numbers = np.array([numbers[video] for video in rows.videos], dtype=np.int64)
        codes, times = rows.video_codes, rows.timestamps
        is_new = np.ones(len(rows), dtype=bool)
        is_new[1:] = (codes[1:] != codes[:-1]) | (times[1:] != times[:-1])
        starts = np.flatnonzero(is_new)
        videos.append(video_numbers[codes[starts]] if len(starts) else starts)
        seconds.append(times[starts])
        lengths.append(np.diff(starts, append=len(rows)))
    listed = [(numbers[video], time) for video, time in ground_truth.empty_frames]
    num_gt_runs, num_det_runs = len(videos[0]), len(videos[1])
    out = [(numbers[video], time) for video, time in excluded if video in numbers]
    for extra in (listed, out):
        videos.append(np.array([video for video, _ in extra], dtype=np.int64))
        seconds.append(np.array([time for _, time in extra], dtype=np.float64))

    times, time_codes = np.unique(np.concatenate(seconds), return_inverse=True)
    # the protocol official2020 takes timestamps for the same that are so to the last digit of %.6f
    texts = {text: i for i, text in enumerate(dict.fromkeys(f"{t:.6f}" for t in times.tolist()))}
    time_codes = np.array([texts[f"{t:.6f}"] for t in times.tolist()], dtype=np.int64)[time_codes]
    keys = np.concatenate(videos) * len(times) + time_codes
    unique_keys, frames = np.unique(keys, return_inverse=True)
    ends = np.cumsum([num_gt_runs, num_det_runs, len(listed)])
    gt_runs, det_runs, empty_frames, excluded_frames = np.split(frames, ends)
    is_excluded = np.zeros(len(unique_keys), dtype=bool)
    is_excluded[excluded_frames] = True
    return (
        np.repeat(gt_runs, lengths[0]),
        np.repeat(det_runs, lengths[1]),
        empty_frames,
        is_excluded,
    )


# ------------------------------------------------------------------------------------ summaries


def group_ap(result: FrameMAP, label_map: LabelMap) -> dict[str, float]:
    """Compute the mean average precision of each group of classes ("pose", "object", ...), 0 to 1.

    Not official, but common. Classes without ground truth leave the mean, as they do in the mAP; a
    group with no other classes is NaN. Classes without a group are in no group.
    """
    groups: dict[str, list[float]] = {}
    for action_id, group in label_map.groups.items():
        if group:
            groups.setdefault(group, []).append(result.ap[action_id])
    numbers = {group: [ap for ap in aps if not math.isnan(ap)] for group, aps in groups.items()}
    return {group: sum(x) / len(x) if x else math.nan for group, x in numbers.items()}


def results_as_json(result: FrameMAP, label_map: LabelMap) -> str:
    """Write the result as JSON: fractions from 0 to 1, `null` where there is no ground truth."""
    return as_json(
        {
            "metric": "AVA frame mAP",
            "protocol": result.protocol,
            "iou_threshold": result.iou_threshold,
            f"mAP@{result.iou_threshold:g}": result.mean_ap,
            "AP_per_class": result.ap,
            "AP_per_group": group_ap(result, label_map),
            "class_names": {i: label_map.names[i] for i in result.ap},
            "group_of_class": {i: label_map.groups.get(i, "") for i in result.ap},
            "num_ground_truth_per_class": result.num_ground_truth,
            "num_detections_per_class": result.num_detections,
            "best_score_per_class": result.best_scores,
        }
    )


def results_as_text(result: FrameMAP, label_map: LabelMap) -> str:
    """Write the result as tables in per cent: by class, by group, and the mAP with its protocol."""
    num_gt, group_of = result.num_ground_truth, label_map.groups
    classes = [
        (i, label_map.names[i], group_of.get(i, ""), num_gt[i], percent(ap))
        for i, ap in result.ap.items()
    ]
    columns = ("id", "class", "group", "gt boxes", "AP %")
    parts = [as_table(columns, classes, left=("class", "group"))]
    groups = []
    for group, ap in group_ap(result, label_map).items():
        members = [i for i in result.ap if group_of[i] == group]
        groups.append((group, len(members), sum(num_gt[i] for i in members), percent(ap)))
    if groups:
        of_group = ("group", "classes", "gt boxes", "mean AP %")
        parts.append(as_table(of_group, groups, left=("group",)))
    num_classes = sum(n > 0 for n in num_gt.values())
    parts.append(
        f"mAP@{result.iou_threshold:g} = {percent(result.mean_ap)} %   (frame mAP, protocol "
        f"{result.protocol}, {num_classes} classes with {sum(num_gt.values())} ground-truth boxes, "
        f"{sum(result.num_detections.values())} detections)"
    )
    if result.notes:
        parts.append("\n".join(f"note: {note}" for note in result.notes))
    return "\n\n".join(parts)
