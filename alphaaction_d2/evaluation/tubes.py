"""Action tubes: from detections in frames to detections in space and time, and their video mAP.

A tube is what somebody does from one frame to another. Two ways lead to them: the identities of
persons, which the model's tracks have anyway, or, to compare with others, the online linking of
Singh et al. (ICCV 2017), which knows boxes and scores only. Both are trimmed in time by Viterbi
smoothing (Saha et al., BMVC 2016, Eq. 4).

Pure functions of arrays. Shape letters: D detections, T frames of a path, n boxes of a tube.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..formats.ucf101_24 import UCFAnnotations, UCFDetections, match_videos
from .average_precision import iou, precision_recall
from .runs import runs
from .ucf101_24 import (
    DEFAULT_UCF_PROTOCOL,
    UCFProtocol,
    get_ucf_protocol,
)

# The published linking: boxes of a class that count in a frame, and what makes a path.
MIN_SCORE = 0.001
MAX_BOXES = 10
MIN_IOU = 0.1  # of a path's last box and its next one
MAX_MISSED = 5  # frames without a box that end a path
SWITCH_PENALTY = 3.0  # of beginning or ending to act
MIN_FRAMES = 8  # of a tube
TOP_FRAMES = 40  # whose mean score is the tube's
THRESHOLDS = (0.2, *(round(0.5 + 0.05 * i, 2) for i in range(10)))


@dataclass(frozen=True, eq=False)
class Tube:
    """One action of one person."""

    video: int  # its number
    label: int  # of the class, from 0 on
    first: int  # the frame of the first box; the others follow frame by frame
    boxes: np.ndarray  # (n, 4) XYXY
    score: float = 1.0  # of a detected one
    person_id: int = -1  # who it is; -1 where that is not known

    @property
    def stop(self) -> int:
        """The frame after the last one."""
        return self.first + len(self.boxes)


@dataclass(frozen=True, eq=False)
class Path:
    """Boxes of one person, one a frame at most, with the scores of one class."""

    frames: np.ndarray  # (T,) increasing
    boxes: np.ndarray  # (T, 4)
    scores: np.ndarray  # (T,)

    def filled(self) -> Path:
        """Give the same with boxes and scores between the known ones where frames are left out."""
        frames = np.arange(self.frames[0], self.frames[-1] + 1)
        if len(frames) == len(self.frames):
            return self
        columns = [np.interp(frames, self.frames, x) for x in (*self.boxes.T, self.scores)]
        return Path(frames, np.stack(columns[:4], axis=1), columns[4])


def annotated_tubes(annotations: UCFAnnotations) -> list[Tube]:
    """Give the tubes of the annotations."""
    numbers = annotations.video_codes * (1 + annotations.tubes.max(initial=0)) + annotations.tubes
    starts, lengths = runs(numbers)
    codes, labels, frames = annotations.video_codes, annotations.labels, annotations.frames
    return [
        Tube(int(codes[i]), int(labels[i]), int(frames[i]), annotations.boxes[i : i + n])
        for i, n in zip(starts.tolist(), lengths.tolist())
    ]


# ------------------------------------------------------------------------------------------ making


def tubes_of_identities(detections: UCFDetections, videos: Sequence[str]) -> list[Tube]:
    """Make tubes of all boxes of a person in whole videos, class by class; persons without id have
    none. Tubes have the numbers of `videos`, which are all names."""
    ids = detections.person_ids
    if ids is None:
        return []
    known = ids >= 0
    columns = (match_videos(detections, videos), detections.labels, ids)
    tubes = []
    for (video, label, person), path in _paths(detections, columns, known):
        if path.scores.max() >= MIN_SCORE:
            tubes += path_tubes(path, video, label, person_id=person)
    return tubes


def tubes_by_linking(detections: UCFDetections, videos: Sequence[str]) -> list[Tube]:
    """Make tubes of boxes that follow each other in whole videos, class by class (Singh et al.,
    ICCV 2017). Tubes have the numbers of `videos`, which are all names."""
    columns = (match_videos(detections, videos), detections.labels)
    tubes = []
    for (video, label), boxes in _paths(detections, columns, detections.scores > MIN_SCORE):
        for path in link(boxes):
            tubes += path_tubes(path, video, label)
    return tubes


def _paths(
    detections: UCFDetections, columns: Sequence[np.ndarray], which: np.ndarray
) -> Iterator[tuple[tuple[int, ...], Path]]:
    """Yield the rows that are alike in some columns, in the order of their frames."""
    rows = np.flatnonzero(which)
    keys = np.stack([x[rows] for x in columns], axis=1).astype(np.int64)
    order = np.lexsort((detections.frames[rows], *keys.T[::-1]))
    rows, keys = rows[order], keys[order]
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (keys[1:] != keys[:-1]).any(axis=1)
    starts = np.flatnonzero(new)
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)]):
        mine = rows[start:stop]
        values = (detections.frames, detections.boxes, detections.scores.astype(np.float64))
        yield tuple(keys[start].tolist()), Path(*(x[mine] for x in values))


_Seen = tuple[int, list[float], float]  # frame, box, score


def _rank(path: Sequence[_Seen]) -> float:
    """Mean of its best scores: the best path chooses first."""
    best = sorted(score for *_, score in path)[-(MAX_MISSED + 1) :]
    return sum(best) / len(best)


def link(boxes: Path) -> list[Path]:
    """Link boxes of one class from frame to frame, greedily and without looking ahead.

    The best path so far chooses first, the box of the highest score + IoU among those that overlap
    its last one by MIN_IOU or more. A box that nobody takes begins a path; a path that has not gone
    on for MAX_MISSED frames ends. `boxes` are in the order of frames; here a frame may have
    several.
    """
    live: list[list[_Seen]] = []
    ended: list[list[_Seen]] = []
    starts, lengths = runs(boxes.frames)
    for start, length in zip(starts.tolist(), lengths.tolist()):
        frame = int(boxes.frames[start])
        rows = slice(start, start + length)
        scores = boxes.scores[rows]
        best = np.argsort(-scores, kind="stable")[:MAX_BOXES]
        free = list(zip(boxes.boxes[rows][best].tolist(), scores[best].tolist()))
        ended += [path for path in live if frame - path[-1][0] > MAX_MISSED]
        live = [path for path in live if frame - path[-1][0] <= MAX_MISSED]
        for path in sorted(live, key=lambda x: -_rank(x)) if len(live) > 1 else live:
            overlaps = [_iou(path[-1][1], box) for box, _ in free]
            fits = [i for i, overlap in enumerate(overlaps) if overlap >= MIN_IOU]
            if fits:
                best_fit = max(fits, key=lambda i: free[i][1] + overlaps[i])
                path.append((frame, *free.pop(best_fit)))
        live += [[(frame, *box)] for box in free]
    return [Path(*map(np.array, zip(*path))) for path in (*ended, *live)]


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def path_tubes(
    path: Path,
    video: int,
    label: int,
    person_id: int = -1,
    min_frames: int = MIN_FRAMES,
    penalty: float = SWITCH_PENALTY,
) -> list[Tube]:
    """Cut a path into the tubes in which its person acts.

    A path whose person never seems to act stays whole: its low score says what there is to say.
    """
    path = path.filled()
    acts = acting(path.scores, penalty)
    if not acts.any():
        acts[:] = True
    starts, lengths = runs(acts)
    tubes = []
    for start, length in zip(starts.tolist(), lengths.tolist()):
        if acts[start] and length >= min_frames:
            rows = slice(start, start + length)
            best = np.sort(path.scores[rows])[-TOP_FRAMES:]
            score, first = float(best.mean()), int(path.frames[start])
            tubes.append(Tube(video, label, first, path.boxes[rows], score, person_id))
    return tubes


def acting(scores: np.ndarray, penalty: float = SWITCH_PENALTY) -> np.ndarray:
    """Say (T,) in which frames somebody acts, of scores (T,) in [0, 1]: maximise the sum of s where
    so, of 1 - s elsewhere, less a penalty for each change."""
    if scores.max(initial=0.0) <= 0.5:  # most classes of most persons: nothing to gain anywhere
        return np.zeros(len(scores), dtype=bool)
    rests, acts = 0.0, 0.0  # best sums that end so, of 2 s - 1 where somebody acts
    came: list[tuple[bool, bool]] = []  # what came before, by what is now
    for score in scores.tolist():
        from_acting, from_resting = acts - penalty > rests, rests - penalty > acts
        came.append((from_acting, not from_resting))
        rests, acts = (
            acts - penalty if from_acting else rests,
            (rests - penalty if from_resting else acts) + 2 * score - 1,
        )
    state, result = acts > rests, np.zeros(len(scores), dtype=bool)
    for t in range(len(scores) - 1, -1, -1):
        result[t] = state
        state = came[t][int(state)]
    return result


# --------------------------------------------------------------------------------------- the metric


def spatio_temporal_iou(a: Tube, b: Tube, extra: float = 0.0) -> float:
    """Compute the mean IoU of the boxes over all frames that either tube has; it is 0 where only
    one is. The same as the mean over common frames, times the IoU of the two times. `extra` pixels
    are added to every width and height."""
    first, stop = max(a.first, b.first), min(a.stop, b.stop)
    if stop <= first:
        return 0.0
    one = a.boxes[first - a.first : stop - a.first]
    other = b.boxes[first - b.first : stop - b.first]
    return float(iou(one, other, extra).sum() / (max(a.stop, b.stop) - min(a.first, b.first)))


@dataclass(frozen=True)
class UCFVideoMAP:
    """The result of :func:`evaluate_tubes`."""

    tubes: str  # how they were made, such as "identities"
    protocol: str  # name of the rules
    # threshold -> average precision of every class by number; NaN for those that do not count
    ap: dict[float, list[float]]
    # num_ground_truth, num_detections: tubes of every class
    num_ground_truth: list[int]
    num_detections: list[int]
    class_names: list[str]  # by number

    def mean_ap(self, threshold: float) -> float:
        """The video mAP at a threshold, 0 to 1; NaN if no class counts."""
        counted = [ap for ap in self.ap[threshold] if not math.isnan(ap)]
        return float(np.mean(counted)) if counted else math.nan

    @property
    def numbers(self) -> dict[str, float]:
        """The video mAP as it is published: at 0.2, 0.5, 0.75 and the mean from 0.5 to 0.95."""
        numbers = {f"{x:g}": self.mean_ap(x) for x in (0.2, 0.5, 0.75)}
        return {**numbers, "0.5:0.95": float(np.mean([self.mean_ap(x) for x in THRESHOLDS[1:]]))}


def evaluate_tubes(
    annotations: UCFAnnotations,
    tubes: Sequence[Tube],
    made_from: str,
    protocol: str = DEFAULT_UCF_PROTOCOL,
    thresholds: Iterable[float] = THRESHOLDS,
) -> UCFVideoMAP:
    """Compute the video mAP of detected tubes, numbered as `annotations.videos` and `made_from` so.

    In the order of their scores, each takes the annotated tube of its video and class of the
    highest :func:`spatio_temporal_iou`, if that is at least the threshold (gurkirt's code asks for
    more than the threshold); equal scores rank as given. What the published codes differ in is as
    for frames: the area of a box, the second choice, the area under the curve.
    """
    rules = get_ucf_protocol(protocol)
    num_classes = len(annotations.class_names)
    truth: dict[tuple[int, int], list[Tube]] = defaultdict(list)
    for tube in annotated_tubes(annotations):
        truth[tube.video, tube.label].append(tube)
    num_gt = [0] * num_classes
    for (_, label), of_video in truth.items():
        num_gt[label] += len(of_video)
    scores = np.array([tube.score for tube in tubes])
    if rules.single_scores:
        scores = scores.astype(np.float32)
    by_class: list[list[Tube]] = [[] for _ in range(num_classes)]
    for i in np.argsort(-scores, kind="stable").tolist() if len(tubes) else ():
        by_class[tubes[i].label].append(tubes[i])
    ap: dict[float, list[float]] = {}
    overlaps = [
        [
            [spatio_temporal_iou(tube, x, rules.extra) for x in truth.get((tube.video, c), ())]
            for tube in of_class
        ]
        for c, of_class in enumerate(by_class)
    ]
    for threshold in thresholds:
        ap[threshold] = []
        for c, of_class in enumerate(by_class):
            if num_gt[c]:
                hits = _hits(of_class, overlaps[c], threshold, rules)
                ap[threshold].append(rules.area(*precision_recall(hits, num_gt[c])))
            else:
                ap[threshold].append(0.0 if rules.unseen == "zero" else math.nan)
    counts = [len(of_class) for of_class in by_class]
    return UCFVideoMAP(made_from, rules.name, ap, num_gt, counts, annotations.class_names)


def evaluate_all_tubes(
    annotations: UCFAnnotations,
    detections: UCFDetections,
    protocol: str = DEFAULT_UCF_PROTOCOL,
) -> list[UCFVideoMAP]:
    """Compute the video mAP by both ways from detections to tubes: by linking, and by identities if
    persons have any."""
    found = {"linked": tubes_by_linking(detections, annotations.videos)}
    if detections.person_ids is not None and (detections.person_ids >= 0).any():
        found["identities"] = tubes_of_identities(detections, annotations.videos)
    return [evaluate_tubes(annotations, tubes, x, protocol) for x, tubes in found.items()]


def video_results_as_text(results: Sequence[UCFVideoMAP]) -> str:
    """Write the video mAP in per cent, a line for each way of making tubes."""
    lines = []
    for result in results:
        numbers = ", ".join(f"{100 * ap:.2f} at {x}" for x, ap in result.numbers.items())
        lines.append(
            f"video mAP = {numbers} %   (tubes: {result.tubes}, protocol {result.protocol}, "
            f"{sum(result.num_ground_truth)} annotated, {sum(result.num_detections)} detected)"
        )
    return "\n".join(lines)


def video_results_as_dict(results: Sequence[UCFVideoMAP]) -> dict[str, dict[str, dict]]:
    """Give the video mAP, and AP at 0.5 of the classes, as fractions by way of making tubes."""
    return {
        "video": {x.tubes: {f"mAP@{at}": ap for at, ap in x.numbers.items()} for x in results},
        "video_AP_per_class": {x.tubes: dict(zip(x.class_names, x.ap[0.5])) for x in results},
    }


def _hits(
    tubes: list[Tube], overlaps: list[list[float]], threshold: float, rules: UCFProtocol
) -> np.ndarray:
    """Find the tubes (D,) of one class, best first, that take an annotated one of their video."""
    taken: set[tuple[int, int]] = set()  # video, place among its annotated tubes
    hits = np.zeros(len(tubes), dtype=bool)
    for i, (tube, ious) in enumerate(zip(tubes, overlaps)):
        places = range(len(ious))
        if rules.second_choice:
            places = [p for p in places if (tube.video, p) not in taken]  # type: ignore[assignment]
        best = max(places, key=lambda p: ious[p], default=None)
        if best is not None and ious[best] >= threshold and (tube.video, best) not in taken:
            taken.add((tube.video, best))
            hits[i] = True
    return hits
