"""Frame mAP on UCF101-24, by the three evaluators whose numbers are published.

They differ in the frames that count, in the area of a box, in what becomes of a detection whose
best box is taken, and in how the area under the curve is computed; see `UCF_PROTOCOLS`. The
frames matter most: of the same detections, all frames of the videos give 6 points less than those
in which somebody acts. So every number is printed with its protocol.

All sorts are stable: equal scores rank in the order of videos in the list, then of frames, then of
rows. Letters: D detections, G annotated boxes.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np

from ..formats.tables import DataFileError
from ..formats.ucf101_24 import UCFAnnotations, UCFDetections, match_videos
from .average_precision import average_precision, best_overlap, precision_recall
from .runs import runs
from .summaries import as_json, as_table, percent

logger = logging.getLogger(__name__)

FRAMES = ("annotated", "all")


@dataclass(frozen=True)
class UCFProtocol:
    """The rules in which the evaluators differ."""

    name: str  # what a result must be reported with
    # "annotated" (detections elsewhere are ignored) or "all" frames of the videos (detections
    # elsewhere are false positives), unless asked otherwise
    frames: str
    extra: float  # pixels added to every width and height before areas are computed
    # a detection looks at the boxes that are still free; otherwise at all boxes, and is a false
    # positive when the best one is taken
    second_choice: bool
    # precision is made monotone, and the area taken at all points (VOC 2010); otherwise the
    # trapezoids under the curve as it is, in float32
    envelope: bool
    single_scores: bool  # scores are rounded to float32 first
    # classes without annotated box: "zero" (they count in the mean), "left out", or "refused" once
    # something of them is detected
    unseen: str

    def area(self, precision: np.ndarray, recall: np.ndarray) -> float:
        """Compute the area under a precision-recall curve."""
        return (average_precision if self.envelope else trapezoid_precision)(precision, recall)


DEFAULT_UCF_PROTOCOL = "gurkirt"
UCF_PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # gurkirt/realtime-action-detection
        UCFProtocol("gurkirt", "annotated", 0.0, True, True, False, "zero"),
        # ACT and MOC, frameAP
        UCFProtocol("act", "all", 1.0, True, False, True, "refused"),
        # YOWO, pascalvoc
        UCFProtocol("yowo", "annotated", 1.0, False, True, False, "left out"),
    )
}


@dataclass(frozen=True)
class UCFFrameMAP:
    """The result of `evaluate_ucf101_24`."""

    mean_ap: float  # 0 to 1; NaN if no class counts
    ap: list[float]  # average precision of every class by number; NaN for classes that do not count
    num_ground_truth: list[int]  # annotated boxes of every class
    num_detections: list[int]  # of every class, those that took part
    protocol: str  # name of the rules
    frames: str  # "annotated" or "all"
    iou_threshold: float  # the IoU from which on a detection is a hit
    class_names: list[str]  # by number

    @property
    def rules(self) -> str:
        """The protocol in words, to be reported with every number."""
        frames = "annotated frames only" if self.frames == "annotated" else "all frames"
        return f"protocol {self.protocol}, {frames}"


def evaluate_ucf101_24(
    annotations: UCFAnnotations,
    detections: UCFDetections,
    protocol: str = DEFAULT_UCF_PROTOCOL,
    *,
    frames: str | None = None,
    iou_threshold: float = 0.5,
) -> UCFFrameMAP:
    """Compute the frame mAP of detections as one of the published evaluators computes it.

    Args:
        detections: in any order; the order of a frame's rows decides among equal scores.
        protocol: a name of `UCF_PROTOCOLS`.
        frames: "annotated" or "all"; None: what the protocol does.

    Raises:
        DataFileError: detections of unknown videos or classes, or of a class without annotated box
            under a protocol that divides by their number ("act").
        ValueError: unknown protocol or frames, or "yowo" on all frames, which nobody publishes.
    """
    rules = get_ucf_protocol(protocol)
    frames = rules.frames if frames is None else frames
    if frames not in FRAMES:
        raise ValueError(f"frames {frames!r}: expected one of {', '.join(FRAMES)}")
    if rules.name == "yowo" and frames == "all":
        raise ValueError("the protocol yowo knows annotated frames only; use gurkirt or act")
    num_classes = len(annotations.class_names)
    where = detections.source or "detections"
    if len(detections.labels) and not 0 <= detections.labels.min() <= detections.labels.max() < (
        num_classes
    ):
        raise DataFileError(
            f"{where}: classes {detections.labels.min()} to {detections.labels.max()}; expected 0 "
            f"to {num_classes - 1}"
        )
    gt_frames, det_frames, rows = _frame_numbers(annotations, detections, frames)
    det_frames, labels = det_frames[rows], detections.labels[rows]
    scores, boxes = detections.scores[rows], detections.boxes[rows]
    if rules.single_scores:
        scores = scores.astype(np.float32)

    gt_groups = gt_frames * num_classes + annotations.labels
    det_groups = det_frames * num_classes + labels
    order = np.argsort(-scores, kind="stable")  # by rank from here on
    is_hit = _match(
        annotations.boxes, gt_groups, boxes[order], det_groups[order], rules, iou_threshold
    )
    labels = labels[order]
    num_gt = np.bincount(annotations.labels, minlength=num_classes)
    num_det = np.bincount(labels, minlength=num_classes)
    ap = np.zeros(num_classes)
    for c in range(num_classes):
        if num_gt[c]:
            ap[c] = rules.area(*precision_recall(is_hit[labels == c], num_gt[c]))
        elif rules.unseen == "left out":
            ap[c] = math.nan
        elif rules.unseen == "refused" and num_det[c]:
            raise DataFileError(
                f"{where}: class {c} ({annotations.class_names[c]}) is detected but nowhere "
                f"annotated; the protocol {rules.name} divides by the number of its boxes: leave "
                "its rows out or use gurkirt"
            )
    counted = ap[~np.isnan(ap)]
    return UCFFrameMAP(
        mean_ap=float(counted.mean()) if len(counted) else math.nan,
        ap=ap.tolist(),
        num_ground_truth=num_gt.tolist(),
        num_detections=num_det.tolist(),
        protocol=rules.name,
        frames=frames,
        iou_threshold=iou_threshold,
        class_names=annotations.class_names,
    )


def get_ucf_protocol(name: str) -> UCFProtocol:
    """Find the rules of a name; ValueError for one that is unknown."""
    try:
        return UCF_PROTOCOLS[name]
    except KeyError:
        known = ", ".join(UCF_PROTOCOLS)
        raise ValueError(f"unknown protocol {name!r}; known are {known}") from None


def trapezoid_precision(precision: np.ndarray, recall: np.ndarray) -> float:
    """Compute the area under the precision-recall curve as it is, by trapezoids, in float32 (ACT),
    from recall 0 (where precision is 1) to the last recall. The curve (D,) is as in
    `average_precision`."""
    precision = np.concatenate([[1.0], precision]).astype(np.float32)
    recall = np.concatenate([[0.0], recall]).astype(np.float32)
    steps, sums = recall[1:] - recall[:-1], precision[1:] + precision[:-1]
    return float(np.sum(steps * sums * np.float32(0.5)))


def _frame_numbers(
    annotations: UCFAnnotations, detections: UCFDetections, frames: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number the frames of all videos, and which detections count.

    Returns:
        frame of each annotated box (G,); frame of each detection (D,); rows of the detections that
        count, in the order of their frames.
    """
    starts = np.cumsum(annotations.num_frames) - annotations.num_frames
    gt_frames = starts[annotations.video_codes] + annotations.frames - 1
    codes = match_videos(detections, annotations.videos)
    det_frames = starts[codes] + detections.frames - 1
    counts = detections.frames <= annotations.num_frames[codes]
    if not counts.all():
        row = int(np.flatnonzero(~counts)[0])
        logger.warning(
            "%s: %d rows are of frames after the end of their video, such as frame %d of %s, which "
            "has %d; they are left out",
            detections.source or "detections",
            *((~counts).sum(), detections.frames[row], annotations.videos[codes[row]]),
            annotations.num_frames[codes[row]],
        )
    if frames == "annotated":
        is_annotated = np.zeros(annotations.num_frames.sum() + 1, dtype=bool)
        is_annotated[gt_frames] = True
        counts[counts] = is_annotated[det_frames[counts]]
    rows = np.flatnonzero(counts)
    return gt_frames, det_frames, rows[np.argsort(det_frames[rows], kind="stable")]


def _match(
    gt_boxes: np.ndarray,
    gt_groups: np.ndarray,
    det_boxes: np.ndarray,
    det_groups: np.ndarray,
    rules: UCFProtocol,
    iou_threshold: float,
) -> np.ndarray:
    """Find the detections, (D,) bool, that hit a box of their group (a frame and class).

    What is free for a detection depends on those before it in its group alone, so all groups go
    along together: first everybody's best detection, then everybody's second ... Detections come in
    descending order of the score; of equal IoU the first annotated box counts.
    """
    is_hit = np.zeros(len(det_groups), dtype=bool)
    if not len(gt_groups):
        return is_hit
    gt_order = np.argsort(gt_groups, kind="stable")
    gt_boxes, gt_groups = gt_boxes[gt_order], gt_groups[gt_order]
    starts, counts = runs(gt_groups)
    places = np.searchsorted(gt_groups[starts], det_groups).clip(max=len(starts) - 1)
    candidates = np.flatnonzero(gt_groups[starts][places] == det_groups)
    candidates = candidates[np.argsort(places[candidates], kind="stable")]
    det_starts, det_counts = runs(places[candidates])
    turns = np.arange(len(candidates)) - np.repeat(det_starts, det_counts)
    by_turn = np.argsort(turns, kind="stable")
    _, lengths = runs(turns[by_turn])
    free = np.ones(len(gt_groups), dtype=bool)
    for turn in np.split(by_turn, np.cumsum(lengths)[:-1]):
        looking = candidates[turn]
        best = best_overlap(
            det_boxes[looking],
            gt_boxes,
            starts[places[looking]],
            counts[places[looking]],
            iou_threshold,
            extra=rules.extra,
            free=free if rules.second_choice else None,
        )
        hits = (best >= 0) & free[best]
        is_hit[looking[hits]] = True
        free[best[hits]] = False
    return is_hit


# ------------------------------------------------------------------------------------ summaries


def ucf_results_as_json(result: UCFFrameMAP, **others: object) -> str:
    """Write the result, and `others`, as JSON: fractions, `null` for what does not count."""
    names = result.class_names
    return as_json(
        {
            "metric": "UCF101-24 frame mAP",
            "protocol": result.protocol,
            "frames": result.frames,
            "iou_threshold": result.iou_threshold,
            f"mAP@{result.iou_threshold:g}": result.mean_ap,
            "AP_per_class": dict(zip(names, result.ap)),
            "num_ground_truth_per_class": dict(zip(names, result.num_ground_truth)),
            "num_detections_per_class": dict(zip(names, result.num_detections)),
            **others,
        }
    )


def ucf_results_as_text(result: UCFFrameMAP) -> str:
    """Write the result as a table in per cent, and the mAP with its protocol."""
    columns = (result.class_names, result.num_ground_truth, result.num_detections)
    rows = zip(range(len(result.ap)), *columns, map(percent, result.ap))
    table = as_table(("class", "name", "gt boxes", "detections", "AP %"), rows, left=("name",))
    return (
        f"{table}\n\nframe mAP@{result.iou_threshold:g} = {100 * result.mean_ap:.2f} %   "
        f"({result.rules}, {sum(result.num_ground_truth)} ground-truth boxes, "
        f"{sum(result.num_detections)} detections)"
    )
