"""Frame mean average precision (mAP) as the evaluators of AVA compute it: numpy in, numbers out.

The published evaluators differ in small things that move the number by up to two points; such a set
of rules is called a protocol, `AVAProtocol`. What all of them share:

* a detection looks only at the ground-truth box of its frame and class with the highest IoU (the
  first one if several have it); it is a true positive if that IoU reaches the threshold and no
  earlier detection has taken the box;
* the average precision of a class is the area under the precision-recall curve over all frames,
  with the precision made monotone, at all points (VOC 2010 and later);
* classes without ground truth have no average precision (NaN) and leave the mean.

Equal scores: the original programs sort with an unstable sort, which makes their number depend on
the processor. Here all sorts are stable, and detections of equal score are ranked in the reverse of
the order in which they were matched, the last frame first. Everything is computed in float64.

Letters: N rows, D detections, G ground-truth boxes, P pairs of a detection and a ground-truth box.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from .runs import ranges, runs

# pairs of boxes compared at a time: bounds the memory of frames with hundreds of boxes
_PAIRS_AT_A_TIME = 1 << 21


@dataclass(frozen=True)
class AVAProtocol:
    """The rules in which the published AVA evaluators differ."""

    name: str  # what a result must be reported with
    # the order in which the detections of a frame and class are matched: "score" (descending; equal
    # scores: last row first), "file" (order of the rows), "heap" (descending; equal scores: in the
    # order of the array of a heap through which the frame's rows went) or "sorted" (descending;
    # equal scores: first row first; frames in the order of the ground truth)
    matching_order: str = "score"
    # only so many rows of a frame, the best of all classes together, are kept (None: all)
    max_per_frame: int | None = None
    max_per_frame_and_class: int | None = None  # only so many rows of a frame and class are kept
    min_score: float = -np.inf  # rows with a score that is not above it are dropped
    # ignore detections on frames that the ground truth does not mention
    only_annotated_frames: bool = False
    only_frames_of_classes: bool = False  # ignore them also where it has rows of other classes only
    exclusions: bool = True  # frames can be excluded
    excluded_truth_counts: bool = False  # what is annotated on excluded frames is still to be found
    only_detected_classes: bool = False  # classes without detections leave the mean, too
    # `902` and `902.0` are one timestamp; otherwise only whole numbers without a point are valid
    fractional_seconds: bool = False
    # a row of video and timestamp alone is valid and means "nothing on this frame"
    empty_rows: bool = False
    scores_required: bool = False  # results without scores are invalid; otherwise their score is 1


DEFAULT_AVA_PROTOCOL = "official2018"
AVA_PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # ActivityNet's evaluation of April 2018; AlphAction's (AIA) is the same
        AVAProtocol("official2018", min_score=-10.0, max_per_frame_and_class=10_000),
        # ActivityNet's of March 2019
        AVAProtocol("official2019", matching_order="heap", max_per_frame=50),
        # ActivityNet's of 2020, its last one
        AVAProtocol(
            "official2020",
            matching_order="heap",
            max_per_frame=50,
            only_annotated_frames=True,
            exclusions=False,
            fractional_seconds=True,
            empty_rows=True,
        ),
        # PySlowFast's
        AVAProtocol("slowfast", matching_order="file", scores_required=True),
        # mmaction2's since December 2022 (1.0). It computes in float32, counts detections without
        # area as misses and stops at inverted ones.
        AVAProtocol(
            "mmaction2",
            matching_order="sorted",
            only_annotated_frames=True,
            only_frames_of_classes=True,
            excluded_truth_counts=True,
            only_detected_classes=True,
        ),
    )
}
_ALIASES = {"alphaaction": "official2018", "alphaction": "official2018"}

PROTOCOL_NAMES = (*AVA_PROTOCOLS, *_ALIASES)


def get_protocol(name: str) -> AVAProtocol:
    """Find a protocol by its name or alias; raise ValueError with the list of names."""
    try:
        return AVA_PROTOCOLS[_ALIASES.get(name, name)]
    except KeyError:
        known = ", ".join(PROTOCOL_NAMES)
        raise ValueError(f"unknown protocol {name!r}; known are {known}") from None


@dataclass(frozen=True)
class FrameBoxes:
    """Boxes of many frames, one row per box and class."""

    # (N,) integers from 0 on, without large gaps: the frame of each row, in numbers that ground
    # truth and detections share
    frames: np.ndarray
    boxes: np.ndarray  # (N, 4) float64, x1 y1 x2 y2
    labels: np.ndarray  # (N,) integers, class ids from 1 on
    # (N,) floating. Of ground truth: what the "heap" order sorts it by, the person id.
    scores: np.ndarray


@dataclass(frozen=True)
class FrameMAP:
    """The result of `evaluate_frame_map`."""

    mean_ap: float  # mean of the classes with ground truth, 0 to 1; NaN if there are none
    # class id -> average precision, 0 to 1; NaN for classes that leave the mean
    ap: dict[int, float]
    num_ground_truth: dict[int, int]  # class id -> number of ground-truth rows
    num_detections: dict[int, int]  # class id -> number of detections that took part
    protocol: str  # name of the rules
    iou_threshold: float  # the IoU from which on a detection is a hit
    # why the number may not mean what it should, see `formats/joins.py`
    notes: tuple[str, ...] = ()
    # class id -> the score from which on detections are to be shown, see :func:`best_score`; NaN
    # where that is not known
    best_scores: dict[int, float] = field(default_factory=dict)


class InvertedBoxError(ValueError):
    """A ground-truth box with x1 > x2 or y1 > y2 that a detection would have to be compared with.

    Attributes:
        row: its row in the ground truth.
    """

    def __init__(self, row: int, box: np.ndarray):
        self.row = row
        super().__init__(f"ground-truth row {row}: box {box.tolist()} has x1 > x2 or y1 > y2")


# ------------------------------------------------------------------------------------- the formulas


def _areas(boxes: np.ndarray, extra: float) -> np.ndarray:
    return (boxes[..., 3] - boxes[..., 1] + extra) * (boxes[..., 2] - boxes[..., 0] + extra)


def iou(boxes: np.ndarray, others: np.ndarray, extra: float = 0.0) -> np.ndarray:
    """Compute the IoU of boxes `(..., 4)` with others `(..., 4)`, element by element.

    `extra` is added to every width and height: 1 for boxes that include their last pixel.

    NOTE: the order of the operations decides on which side of 0.5 the quotient falls for boxes that
    overlap by exactly a half; it is the one of the official programs.
    """
    width = np.minimum(boxes[..., 2], others[..., 2]) - np.maximum(boxes[..., 0], others[..., 0])
    height = np.minimum(boxes[..., 3], others[..., 3]) - np.maximum(boxes[..., 1], others[..., 1])
    intersection = np.maximum(height + extra, 0.0) * np.maximum(width + extra, 0.0)
    union = _areas(boxes, extra) + _areas(others, extra) - intersection
    # two boxes without area have no union: they do not overlap
    return np.divide(intersection, union, out=np.zeros_like(union), where=union != 0)


def precision_recall(is_hit: np.ndarray, num_ground_truth: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute precision and recall (D,) after each detection: `is_hit` (D,) in descending order of
    their score, of `num_ground_truth` >= 1 boxes."""
    hits = np.cumsum(is_hit, dtype=np.float64)
    return hits / np.arange(1, len(hits) + 1), hits / num_ground_truth


def average_precision(precision: np.ndarray, recall: np.ndarray) -> float:
    """Compute the area, 0 to 1, under the precision-recall curve at all points (VOC 2010 and
    later); 0.0 if there are no detections (D,), which come in the order of descending scores."""
    recall = np.concatenate([[0.0], recall, [1.0]])
    precision = np.concatenate([[0.0], precision, [0.0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(np.sum((recall[steps] - recall[steps - 1]) * precision[steps]))


def best_score(scores: np.ndarray, precision: np.ndarray, recall: np.ndarray) -> float:
    """Give the score from which on detections are the best summary: of the largest F1. NaN if no
    detection is a hit; `scores` (D,) are in descending order."""
    if not len(scores) or recall[-1] == 0:
        return float("nan")
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    # Equal scores cannot be told apart: only after the last of them F1 is what a threshold gives.
    is_last = np.append(scores[1:] != scores[:-1], True)
    return float(scores[np.argmax(np.where(is_last, f1, -1))])


# ----------------------------------------------------------------------------------- the evaluation


def evaluate_frame_map(
    ground_truth: FrameBoxes,
    detections: FrameBoxes,
    class_ids: Iterable[int],
    *,
    protocol: str = DEFAULT_AVA_PROTOCOL,
    iou_threshold: float = 0.5,
    annotated_frames: np.ndarray | None = None,
) -> FrameMAP:
    """Compute the average precision of every class over all frames, and their mean.

    Args:
        ground_truth, detections: one row per box and action, of any frames and in any order, which
            decides among equal scores.
        class_ids: the classes to evaluate; rows of other classes take no part.
        protocol: a name of `AVA_PROTOCOLS`.
        annotated_frames: frames that are annotated though no row of `ground_truth` says so (there
            was nothing to annotate). Only protocols that ignore frames which are not annotated look
            at it.

    Raises:
        InvertedBoxError: if a ground-truth box is inverted and a detection has its frame and class.
        ValueError: if the protocol is unknown or there is no class.
    """
    rules = get_protocol(protocol)
    class_ids = sorted(set(class_ids))
    if not class_ids or class_ids[0] < 1:
        raise ValueError(f"class ids must be whole numbers from 1 on, got {class_ids}")
    num_frames = 1 + max(_max(ground_truth.frames), _max(detections.frames))

    # from here on classes are numbered 0 .. K-1, rows of other classes and ignored frames are gone
    gt = _Rows.of_classes(ground_truth, class_ids)
    det = _Rows.of_classes(detections, class_ids)
    is_annotated = np.zeros(num_frames, dtype=bool)
    is_annotated[(gt if rules.only_frames_of_classes else ground_truth).frames] = True
    if annotated_frames is not None:
        is_annotated[annotated_frames[annotated_frames < num_frames]] = True
    if rules.only_annotated_frames:
        det = det.select(is_annotated[det.frames])

    # steps of matching order: rows sorted by (frame, position in the frame's matching order)
    if rules.matching_order == "heap":
        gt = gt.select(_heap_order(ground_truth, gt.rows, None))
        det = det.select(_heap_order(detections, det.rows, rules.max_per_frame))
    elif rules.matching_order == "sorted":
        place = np.zeros(num_frames, dtype=np.int64)
        place[gt.frames[::-1]] = np.arange(len(gt.rows))[::-1]  # the first row of a frame counts
        gt = gt.select(np.lexsort((-gt.scores, place[gt.frames])))
        det = det.select(np.lexsort((-det.scores, place[det.frames])))
    else:
        det = det.select(_frame_order(det.frames))

    # rows that never take part in the matching; they had a place in the cap and the order of frames
    boxes = detections.boxes
    valid = (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
    if not valid.all():
        det = det.select(valid[det.rows])
    num_classes = len(class_ids)
    gt_groups, det_groups = gt.groups(num_classes), det.groups(num_classes)
    _refuse_inverted(ground_truth.boxes, gt.rows, gt_groups, det_groups)

    scores = det.scores
    kept = scores > rules.min_score
    if rules.max_per_frame_and_class is not None:
        kept &= _within_group_limit(det_groups, scores, kept, rules.max_per_frame_and_class)
    if not kept.all():
        det, det_groups, scores = det.select(kept), det_groups[kept], scores[kept]

    is_hit = _match(
        ground_truth.boxes[gt.rows],
        gt_groups,
        boxes,
        det.rows,
        det_groups,
        scores if rules.matching_order == "score" else None,
        num_frames * num_classes,
        iou_threshold,
    )
    del det_groups

    # equal scores: the reverse of the matching order, so the last frame first; "score" had matched
    # its last row first
    reverse = _reversed_frames(det.frames, keep_rows=rules.matching_order == "score")
    det_classes, is_hit, scores = det.classes[reverse], is_hit[reverse], scores[reverse]
    by_class = np.argsort(det_classes, kind="stable")  # a radix sort of 16-bit numbers
    num_det = np.bincount(det_classes, minlength=num_classes)
    num_gt = np.bincount(gt.classes, minlength=num_classes)
    ends = np.cumsum(num_det)
    ap, best = np.full(num_classes, np.nan), np.full(num_classes, np.nan)
    counts = num_gt > 0
    if rules.only_detected_classes and (counts & (num_det > 0)).any():  # nothing found at all is 0
        counts &= num_det > 0
    for c in np.flatnonzero(counts):
        rows = by_class[ends[c] - num_det[c] : ends[c]]
        ranked = rows[np.argsort(-scores[rows], kind="stable")]
        precision, recall = precision_recall(is_hit[ranked], num_gt[c])
        ap[c] = average_precision(precision, recall)
        best[c] = best_score(scores[ranked], precision, recall)
    return FrameMAP(
        mean_ap=float(ap[counts].mean()) if counts.any() else float("nan"),
        ap=dict(zip(class_ids, ap.tolist())),
        num_ground_truth=dict(zip(class_ids, num_gt.tolist())),
        num_detections=dict(zip(class_ids, num_det.tolist())),
        protocol=rules.name,
        iou_threshold=iou_threshold,
        best_scores=dict(zip(class_ids, best.tolist())),
    )


def _max(numbers: np.ndarray) -> int:
    return int(numbers.max()) if len(numbers) else -1


@dataclass(frozen=True)
class _Rows:
    """Rows of a table that take part, in some order."""

    table: FrameBoxes  # the boxes
    rows: np.ndarray  # (n,) which of its rows
    classes: np.ndarray  # (n,) int16, the place of each row's label among those that are evaluated

    @classmethod
    def of_classes(cls, table: FrameBoxes, class_ids: list[int]) -> _Rows:
        place = np.full(class_ids[-1] + 2, -1, dtype=np.int16)
        place[class_ids] = np.arange(len(class_ids), dtype=np.int16)
        places = place[table.labels.clip(0, class_ids[-1] + 1)]
        rows = np.flatnonzero(places >= 0)
        return cls(table, rows, places[rows])

    def select(self, which: np.ndarray | None) -> _Rows:
        """Take those that a mask or an index names, in its order; None: all, as they are."""
        if which is None:
            return self
        return _Rows(self.table, self.rows[which], self.classes[which])

    @property
    def frames(self) -> np.ndarray:
        return self.table.frames[self.rows]

    @property
    def scores(self) -> np.ndarray:
        return self.table.scores[self.rows]

    def groups(self, num_classes: int) -> np.ndarray:
        """Number every pair of frame and class."""
        return self.frames.astype(np.int64) * num_classes + self.classes


# ----------------------------------------------------------------------------------- orders of rows


def _frame_order(frames: np.ndarray) -> np.ndarray | None:
    """Find the order (N,) that brings the rows of a frame together, frames in order of first
    appearance; None if the rows are in that order already."""
    starts, lengths = runs(frames)
    _, first, frame_of_run = np.unique(frames[starts], return_index=True, return_inverse=True)
    if len(first) == len(starts):
        return None
    run_order = np.argsort(first[frame_of_run], kind="stable")
    return ranges(starts[run_order], lengths[run_order])


def _reversed_frames(frames: np.ndarray, keep_rows: bool) -> np.ndarray:
    """Find the order that puts the last frame first; `keep_rows` keeps the order inside of it."""
    if not keep_rows:
        return np.arange(len(frames))[::-1]
    starts, lengths = runs(frames)
    return ranges(starts[::-1], lengths[::-1])


def _heap_order(table: FrameBoxes, rows: np.ndarray, capacity: int | None) -> np.ndarray:
    """Find the order of `rows` (N,) of a table that went through a bounded heap, frame by frame.

    The rows of a frame enter a heap of (score, class, box). Once it is full, a row enters only with
    a score above the lowest one, and replaces the smallest entry. At the end the frame's entries
    are sorted by descending score, and equal scores stay in the order of the heap's array. So a
    real heap is needed only where equal scores matter: in frames where rows of one class have the
    same score, or where the last row kept and the first one left out have.

    Returns:
        Positions in `rows` of those kept, frames in order of first appearance.
    """
    order = _frame_order(table.frames[rows])
    if order is None:
        order = np.arange(len(rows))
    starts, lengths = runs(table.frames[rows[order]])
    frame = np.repeat(np.arange(len(starts)), lengths)
    if capacity is not None:
        # most rows are far from the best ones of their frame: leave them out of the sort
        good = _reaches_best(table.scores[rows[order]], starts, lengths, capacity)
        candidates, frame = order[good], frame[good]
    else:
        candidates = order
    labels, scores = table.labels[rows[candidates]], table.scores[rows[candidates]]
    by_score = np.lexsort((labels, -scores, frame))
    candidates, labels, scores = candidates[by_score], labels[by_score], scores[by_score]

    same = (frame[1:] == frame[:-1]) & (scores[1:] == scores[:-1])
    has_ties = np.zeros(len(starts), dtype=bool)
    has_ties[frame[1:][same & (labels[1:] == labels[:-1])]] = True
    kept = np.ones(len(frame), dtype=bool)
    if capacity is not None:
        candidate_starts, candidate_lengths = runs(frame)
        place = np.arange(len(frame)) - np.repeat(candidate_starts, candidate_lengths)
        kept = place < capacity
        # what reaches the best scores but has no place ties with the last one that has
        has_ties[frame[~kept]] = True
    result = candidates[kept]
    if has_ties.any():
        kept_starts, _ = runs(frame[kept])  # every frame has at least one
        for number in np.flatnonzero(has_ties).tolist():
            inside = order[starts[number] : starts[number] + lengths[number]]
            at = kept_starts[number]
            simulated = _through_heap(table, rows[inside], capacity)
            result[at : at + len(simulated)] = inside[simulated]
    return result


def _reaches_best(
    scores: np.ndarray, starts: np.ndarray, lengths: np.ndarray, count: int
) -> np.ndarray:
    """(N,) bool: is the score at least the `count`-th best of its frame (a range of rows)?"""
    good = np.ones(len(scores), dtype=bool)
    for length in np.unique(lengths[lengths > count]).tolist():  # numpy sorts many in one call
        first = starts[lengths == length]
        at_a_time = max(_PAIRS_AT_A_TIME // length, 1)
        for part in range(0, len(first), at_a_time):
            rows = first[part : part + at_a_time, None] + np.arange(length)
            inside = scores[rows]
            least = np.partition(inside, length - count, axis=1)[:, length - count]
            good[rows] = inside >= least[:, None]
    return good


def _through_heap(table: FrameBoxes, rows: np.ndarray, capacity: int | None) -> list[int]:
    """Send one frame's rows through the heap of `_heap_order`; return positions in them."""
    boxes = table.boxes[rows][:, [1, 0, 3, 2]].tolist()
    positions = defaultdict(list)  # rows that are equal in everything can stand for each other
    heap: list[tuple] = []
    keys = zip(table.scores[rows].tolist(), table.labels[rows].tolist(), map(tuple, boxes))
    for position, key in enumerate(keys):
        positions[key].append(position)
        if capacity is None or len(heap) < capacity:
            heapq.heappush(heap, key)
        elif key[0] > heap[0][0]:
            heapq.heapreplace(heap, key)
    return [positions[key].pop(0) for key in sorted(heap, key=lambda key: -key[0])]


# ---------------------------------------------------------------------------------------- matching


def _refuse_inverted(
    gt_boxes: np.ndarray, gt_rows: np.ndarray, gt_groups: np.ndarray, det_groups: np.ndarray
) -> None:
    """Raise for an inverted ground-truth box in the frame and class of a detection."""
    boxes = gt_boxes[gt_rows]
    inverted = np.flatnonzero((boxes[:, 0] > boxes[:, 2]) | (boxes[:, 1] > boxes[:, 3]))
    if len(inverted):
        inverted = inverted[np.isin(gt_groups[inverted], det_groups)]
    if len(inverted):
        row = int(gt_rows[inverted].min())
        raise InvertedBoxError(row, gt_boxes[row])


def _within_group_limit(
    groups: np.ndarray, scores: np.ndarray, kept: np.ndarray, limit: int
) -> np.ndarray:
    """(D,) bool: is the row among the best `limit` of its group? Only `kept` rows count."""
    within = np.ones(len(groups), dtype=bool)
    if len(groups) <= limit:
        return within
    for group in np.flatnonzero(np.bincount(groups) > limit):
        rows = np.flatnonzero((groups == group) & kept)
        within[rows[np.argsort(scores[rows], kind="stable")[::-1][limit:]]] = False
    return within


def _match(
    gt_boxes: np.ndarray,
    gt_groups: np.ndarray,
    det_boxes: np.ndarray,
    det_rows: np.ndarray,
    det_groups: np.ndarray,
    scores: np.ndarray | None,
    num_groups: int,
    iou_threshold: float,
) -> np.ndarray:
    """Find the detections, (D,) bool, that hit an annotated box of their group, a frame and class.

    Each detection looks at its best box only, so no detection changes what another one looks at: a
    box is hit by the first of the detections that look at it.

    Args:
        gt_boxes, gt_groups: (G, 4) and (G,); the first one of equal IoU counts.
        det_boxes, det_rows: (any, 4), and (D,) which of them, in matching order (but for the
            scores).
        scores: (D,) to match in descending order of the score, of equal ones the last first; None
            to match in the given order.
        num_groups: all groups are below.
    """
    gt_order = np.argsort(gt_groups, kind="stable")
    gt_boxes = gt_boxes[gt_order]
    gt_counts = np.bincount(gt_groups, minlength=num_groups).astype(np.int32)
    gt_starts = np.cumsum(gt_counts) - gt_counts

    # most detections are of frames and classes without ground truth: no hits, nothing to compare
    candidates = np.flatnonzero(gt_counts[det_groups])
    groups = det_groups[candidates]
    pair_ends = np.cumsum(gt_counts[groups], dtype=np.int64)
    best_gt = np.full(len(candidates), -1)
    begin = 0
    while begin < len(candidates):
        pairs_before = pair_ends[begin - 1] if begin else 0
        end = int(np.searchsorted(pair_ends, pairs_before + _PAIRS_AT_A_TIME, side="right"))
        end = max(end, begin + 1)
        part = slice(begin, end)
        best_gt[part] = best_overlap(
            det_boxes[det_rows[candidates[part]]],
            gt_boxes,
            gt_starts[groups[part]],
            gt_counts[groups[part]],
            iou_threshold,
        )
        begin = end

    looking = np.flatnonzero(best_gt >= 0)
    candidates, best_gt = candidates[looking], best_gt[looking]
    if scores is None:
        order = np.argsort(best_gt, kind="stable")
    else:
        order = np.lexsort((-candidates, -scores[candidates], best_gt))
    first, _ = runs(best_gt[order])
    is_hit = np.zeros(len(det_rows), dtype=bool)
    is_hit[candidates[order[first]]] = True
    return is_hit


def best_overlap(
    det_boxes: np.ndarray,
    gt_boxes: np.ndarray,
    starts: np.ndarray,
    counts: np.ndarray,
    iou_threshold: float,
    *,
    extra: float = 0.0,
    free: np.ndarray | None = None,
) -> np.ndarray:
    """Find the best ground-truth box of each detection.

    Args:
        det_boxes, gt_boxes: (D, 4) and (G, 4).
        starts, counts: (D,), counts at least 1: detection i is compared with `gt_boxes[starts[i] :
            starts[i] + counts[i]]`.
        iou_threshold: the IoU that the best box must have.
        extra: added to every width and height.
        free: (G,) bool, the boxes that can still be chosen; None: all.

    Returns:
        (D,) index into `gt_boxes` of the first box with the highest IoU, -1 if that is too low.
    """
    gt_index = ranges(starts, counts)
    ious = iou(np.repeat(det_boxes, counts, axis=0), gt_boxes[gt_index], extra)
    if free is not None:
        ious[~free[gt_index]] = -1.0
    first_pair = np.cumsum(counts) - counts
    best = np.maximum.reduceat(ious, first_pair)
    is_best = np.flatnonzero(ious == np.repeat(best, counts))
    detection = np.repeat(np.arange(len(counts)), counts)[is_best]
    first, _ = runs(detection)
    return np.where(best >= iou_threshold, gt_index[is_best[first]], -1)
