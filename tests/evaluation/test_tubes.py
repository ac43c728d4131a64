"""Tubes: how they are made, and their video mAP, also by a literal reading of published codes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphaaction_d2.evaluation.tubes import (
    MAX_MISSED,
    Path,
    Tube,
    acting,
    annotated_tubes,
    evaluate_tubes,
    link,
    path_tubes,
    spatio_temporal_iou,
    tubes_by_linking,
    tubes_of_identities,
)
from alphaaction_d2.formats.ucf101_24 import UCFAnnotations, UCFDetections

VIDEOS, NAMES = ["Dive/a", "Run/b"], ["Dive", "Run"]


def annotations(tubes: list[Tube], num_frames: int = 60) -> UCFAnnotations:
    rows = [
        (tube.video, tube.first + i, box, tube.label, number)
        for number, tube in enumerate(tubes)
        for i, box in enumerate(tube.boxes)
    ]
    codes, frames, boxes, labels, numbers = zip(*rows) if rows else ((),) * 5
    return UCFAnnotations(
        videos=VIDEOS,
        num_frames=np.full(2, num_frames),
        class_names=NAMES,
        video_codes=np.array(codes, np.int64),
        frames=np.array(frames, np.int64),
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        tubes=np.array(numbers, np.int64),
    )


def detections(rows: list[tuple]) -> UCFDetections:
    """Rows of (video, frame, box, class, score, person)."""
    codes, frames, boxes, labels, scores, ids = zip(*rows)
    return UCFDetections(
        videos=VIDEOS,
        video_codes=np.array(codes),
        frames=np.array(frames),
        boxes=np.array(boxes, np.float64),
        labels=np.array(labels),
        scores=np.array(scores),
        person_ids=np.array(ids),
    )


# ------------------------------------------------------------------------- a literal reading


def literal_iou(a: Tube, b: Tube, extra: float) -> float:
    """Mean spatial IoU over common frames, times that of the two times, as both codes have it."""
    mine = {a.first + i: box for i, box in enumerate(a.boxes.tolist())}
    yours = {b.first + i: box for i, box in enumerate(b.boxes.tolist())}
    common = sorted(set(mine) & set(yours))
    if not common:
        return 0.0
    spatial = []
    for t in common:
        p, q = mine[t], yours[t]
        w = max(0.0, min(p[2], q[2]) - max(p[0], q[0]) + extra)
        h = max(0.0, min(p[3], q[3]) - max(p[1], q[1]) + extra)
        sizes = [(x[2] - x[0] + extra) * (x[3] - x[1] + extra) for x in (p, q)]
        spatial.append(w * h / (sum(sizes) - w * h))
    times = set(mine) | set(yours)
    union = max(times) - min(times) + 1
    return sum(spatial) / len(spatial) * (len(common) / union)


def literal_ap(gt: list[Tube], found: list[Tube], c: int, threshold: float, protocol: str) -> float:
    """One class, by a loop over tubes in the order of scores, with the curve point by point."""
    extra = 0.0 if protocol == "gurkirt" else 1.0
    left = [tube for tube in gt if tube.label == c]
    total = len(left)
    if not total:
        return 0.0 if protocol == "gurkirt" else math.nan
    gone: list[Tube] = []
    points, tp, fp = [], 0, 0
    for tube in sorted((x for x in found if x.label == c), key=lambda x: -x.score):
        pool = [x for x in (left + gone if protocol == "yowo" else left) if x.video == tube.video]
        pool.sort(key=lambda x: gt.index(x))
        best = max(pool, key=lambda x: literal_iou(tube, x, extra), default=None)
        if best is not None and literal_iou(tube, best, extra) >= threshold and best in left:
            left.remove(best)
            gone.append(best)
            tp += 1
        else:
            fp += 1
        points.append((tp / total, tp / (tp + fp)))
    area, before = 0.0, (0.0, 1.0)
    if protocol == "act":
        for point in points:
            area += (point[0] - before[0]) * (point[1] + before[1]) / 2
            before = point
        return area
    for k, (recall, _) in enumerate(points):
        area += (recall - before[0]) * max(p for _, p in points[k:])
        before = (recall, 0.0)
    return area


@st.composite
def generated(draw, scored: bool):
    first, length = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    x, y = draw(st.integers(0, 6)), draw(st.integers(0, 6))
    speed = draw(st.integers(-1, 1))
    boxes = np.array([[x + speed * i, y, x + speed * i + 8, y + 8] for i in range(length)], float)
    score = draw(st.integers(1, 1024)) / 1024 if scored else 1.0
    return Tube(draw(st.integers(0, 1)), draw(st.integers(0, 1)), first, boxes, score)


@settings(max_examples=150)
@given(
    gt=st.lists(generated(scored=False), max_size=6),
    found=st.lists(generated(scored=True), max_size=12, unique_by=lambda x: x.score),
    protocol=st.sampled_from(["gurkirt", "act", "yowo"]),
)
def test_agrees_with_a_literal_reading(gt, found, protocol):
    thresholds = (0.2, 0.5, 0.75)
    result = evaluate_tubes(annotations(gt), found, "generated", protocol, thresholds)
    for threshold in thresholds:
        expected = [literal_ap(gt, found, c, threshold, protocol) for c in (0, 1)]
        np.testing.assert_allclose(result.ap[threshold], expected, rtol=0, atol=1e-6)
    for a, b in itertools.product(gt, found):
        assert spatio_temporal_iou(a, b) == pytest.approx(literal_iou(a, b, 0.0), abs=1e-12)


def test_iou_by_hand():
    box = np.array([[0, 0, 10, 10]])
    a = Tube(0, 0, 1, np.repeat(box, 10, axis=0))
    b = Tube(0, 0, 6, np.repeat(box + [5, 0, 5, 0], 10, axis=0))
    assert spatio_temporal_iou(a, b) == pytest.approx(5 / 15 * (50 / 150))
    assert spatio_temporal_iou(a, a) == 1.0
    assert spatio_temporal_iou(a, Tube(0, 0, 11, a.boxes)) == 0.0


def test_annotated_tubes_come_back():
    boxes = np.arange(20.0).reshape(5, 4)
    gt = [Tube(0, 0, 3, boxes), Tube(0, 0, 8, boxes[:2]), Tube(1, 1, 1, boxes[1:])]
    found = annotated_tubes(annotations(gt))
    assert [(x.video, x.label, x.first, len(x.boxes)) for x in found] == [
        (0, 0, 3, 5), (0, 0, 8, 2), (1, 1, 1, 4)
    ]  # fmt: skip
    result = evaluate_tubes(annotations(gt), found, "annotations")
    assert result.numbers == {"0.2": 1.0, "0.5": 1.0, "0.75": 1.0, "0.5:0.95": 1.0}


# ------------------------------------------------------------------------------------ smoothing


def best_labels(scores: list[float], penalty: float) -> float:
    """The highest sum there is, by trying everything."""
    sums = []
    for labels in itertools.product((0, 1), repeat=len(scores)):
        total = sum(s if x else 1 - s for s, x in zip(scores, labels))
        sums.append(total - penalty * sum(a != b for a, b in zip(labels, labels[1:])))
    return max(sums)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.sampled_from([0.2, 0.7, 3.0]))
def test_smoothing_finds_the_best_labels(scores, penalty):
    labels = acting(np.array(scores), penalty)
    total = sum(s if x else 1 - s for s, x in zip(scores, labels.tolist()))
    changes = int((labels[1:] != labels[:-1]).sum())
    assert total - penalty * changes == pytest.approx(best_labels(scores, penalty), abs=1e-9)


def test_a_path_is_trimmed_and_cut():
    scores = np.concatenate([np.full(20, 0.05), np.full(30, 0.9), np.full(15, 0.1)])
    scores[35] = 0.0  # a frame in which nothing was seen ends nothing
    path = Path(np.arange(100, 165), np.zeros((65, 4)), scores)
    (tube,) = path_tubes(path, 0, 1)
    assert (tube.first, tube.stop, tube.label) == (120, 150, 1)
    assert tube.score == pytest.approx(scores[20:50].mean())
    (whole,) = path_tubes(Path(path.frames, path.boxes, 0.1 * scores), 0, 1)
    assert (whole.first, whole.stop) == (100, 165), "who never acts ranks low, and stays"
    twice = np.concatenate([scores[:50], np.full(20, 0.05), np.full(30, 0.8)])
    found = path_tubes(Path(np.arange(100), np.zeros((100, 4)), twice), 0, 1)
    assert [(x.first, x.stop) for x in found] == [(20, 50), (70, 100)]
    assert path_tubes(Path(np.arange(5), np.zeros((5, 4)), np.ones(5)), 0, 1) == []


# --------------------------------------------------------------------------------------- linking


def walk(start: float, speed: float, frames: range, score: float, **fields) -> list[tuple]:
    fields = {"video": 0, "label": 0, "person": -1, **fields}
    return [
        (fields["video"], t, (start + speed * t, 0, start + speed * t + 20, 40), fields["label"],
         score, fields["person"])
        for t in frames
    ]  # fmt: skip


def path_of(rows: list[tuple]) -> Path:
    rows = sorted(rows, key=lambda row: row[1])
    return Path(
        np.array([r[1] for r in rows]),
        np.array([r[2] for r in rows], float),
        np.array([r[4] for r in rows]),
    )


def test_two_who_walk_are_two_paths():
    rows = walk(0, 1, range(1, 31), 0.9) + walk(100, -1, range(1, 31), 0.6)
    paths = sorted(link(path_of(rows)), key=lambda x: -x.scores[0])
    assert [len(x.frames) for x in paths] == [30, 30]
    for path, row in zip(paths, (rows[:30], rows[30:])):
        assert path.boxes.tolist() == [list(r[2]) for r in row]


@pytest.mark.parametrize(("gap", "number"), [(MAX_MISSED, 1), (MAX_MISSED + 1, 2)])
def test_who_is_missed_for_long_is_somebody_else(gap, number):
    rows = [r for r in walk(0, 0, range(1, 40), 0.9) if not 20 < r[1] < 20 + gap]
    assert len(link(path_of(rows))) == number


def test_the_best_path_chooses_first_by_score_and_overlap():
    rows = walk(0, 0, range(1, 5), 0.9) + walk(15, 0, range(1, 5), 0.3)
    rows += [(0, 5, (14, 0, 34, 40), 0, 0.8, -1)]
    first, second = sorted(link(path_of(rows)), key=lambda x: -x.scores[0])
    assert first.frames.tolist() == [1, 2, 3, 4, 5] and second.frames.tolist() == [1, 2, 3, 4]
    rows += [(0, 5, (1, 0, 21, 40), 0, 0.5, -1)]  # 0.5 + 0.9 is more than 0.8 + 0.18
    first, second = sorted(link(path_of(rows)), key=lambda x: -x.scores[0])
    assert (first.scores[4], second.scores[4]) == (0.5, 0.8)


@pytest.mark.parametrize("make", [tubes_of_identities, tubes_by_linking])
def test_tubes_of_detections(make):
    """Two persons of two videos; gaps are filled, other classes have their own tubes."""
    rows = walk(0, 1, range(1, 31), 0.9, person=4) + walk(100, 0, range(5, 25), 0.8, person=7)
    rows += walk(0, 1, range(1, 31), 0.2, person=4, label=1)
    rows += walk(0, 0, range(1, 31), 0.7, person=4, video=1, label=1)
    rows = [r for r in rows if not 10 < r[1] < 14]
    found = sorted(make(detections(rows), VIDEOS), key=lambda x: -x.score)
    assert [(x.video, x.label, x.first, x.stop) for x in found] == [
        (0, 0, 1, 31), (0, 0, 5, 25), (1, 1, 1, 31), (0, 1, 1, 31)
    ]  # fmt: skip
    expected = np.array([[t, 0, t + 20, 40] for t in range(1, 31)], float)
    np.testing.assert_allclose(found[0].boxes, expected, atol=1e-9)
    known = [4, 7, 4, 4] if make is tubes_of_identities else [-1] * 4
    assert [x.person_id for x in found] == known
    gt = [Tube(x.video, x.label, x.first, x.boxes) for x in found[:3]]
    assert evaluate_tubes(annotations(gt), found, "these").numbers["0.5:0.95"] == 1.0
