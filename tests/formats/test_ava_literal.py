"""AVA's evaluators spelled out, file by file and row by row, against ours on generated files.

The second opinion reads the texts itself and knows no arrays: what a row, a key, an exclusion or a
missing score means is decided here once more.
"""

from __future__ import annotations

import csv
import heapq
import math
import tempfile
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alphaaction_d2.evaluation import AVA_PROTOCOLS, evaluate_ava_files
from alphaaction_d2.formats.ava import read_exclusions
from alphaaction_d2.formats.label_map import read_label_map

HEAP = ("official2019", "official2020")
LABEL_MAP = "".join(
    f'item {{\n  name: "{name}"\n  id: {i}\n}}\n' for i, name in zip((1, 2, 4), "abd")
)


class Refused(Exception):
    """The evaluator stops."""


def frame_key(row: list[str], protocol: str) -> str:
    if protocol == "official2020":
        return "%s,%.6f" % (row[0], Decimal(row[1]))  # noqa: UP031 - through a double, as there
    try:
        return f"{row[0]},{int(row[1]):04d}"
    except ValueError:
        raise Refused from None


def read_rows(text: str, classes: set[int], protocol: str, kind: str) -> tuple[dict, set]:
    """Frame -> [(score, class, box y1 x1 y2 x2)] in matching order, and all frames mentioned."""
    frames: dict[str, list] = {}
    mentioned = set()
    for row in csv.reader(text.splitlines()):
        if len(row) == 2 and protocol == "official2020":
            mentioned.add(frame_key(row, protocol))
            continue
        if len(row) not in (7, 8) or protocol == "slowfast" and kind == "det" and len(row) == 7:
            raise Refused
        key = frame_key(row, protocol)
        mentioned.add(key)
        if int(row[6]) not in classes:
            continue
        x1, y1, x2, y2 = map(float, row[2:6])
        score = float(row[7]) if len(row) == 8 else 1.0
        entry = (score, int(row[6]), y1, x1, y2, x2)
        rows = frames.setdefault(key, [])
        if protocol not in HEAP:
            rows.append(entry)
        elif kind == "gt" or len(rows) < 50:
            heapq.heappush(rows, entry)
        elif score > rows[0][0]:
            heapq.heapreplace(rows, entry)
    if protocol in (*HEAP, "mmaction2"):
        frames = {key: sorted(rows, key=lambda row: -row[0]) for key, rows in frames.items()}
    return frames, mentioned


def overlap(det: tuple, gt: tuple) -> float:
    height = max(0.0, min(det[2], gt[2]) - max(det[0], gt[0]))
    width = max(0.0, min(det[3], gt[3]) - max(det[1], gt[1]))
    inter = height * width
    area_det, area_gt = ((b[2] - b[0]) * (b[3] - b[1]) for b in (det, gt))
    union = area_det + area_gt - inter
    return inter / union if union else 0.0


def match_frame(rows: list, gt_rows: list, c: int, protocol: str) -> list[tuple[float, bool]]:
    """Score and hit of one frame's detections of a class, in matching order."""
    rows = [row for row in rows if row[1] == c and row[2] < row[4] and row[3] < row[5]]
    boxes = [row[2:] for row in gt_rows if row[1] == c]
    if rows and any(b[0] > b[2] or b[1] > b[3] for b in boxes):
        raise Refused
    if protocol == "official2018":
        rows.reverse()
        rows = [row for row in sorted(rows, key=lambda row: -row[0]) if row[0] > -10]
    taken: set[int] = set()
    found = []
    for row in rows:
        overlaps = [overlap(row[2:], box) for box in boxes]
        best = overlaps.index(max(overlaps)) if boxes else -1
        hit = best >= 0 and overlaps[best] >= 0.5 and best not in taken
        if hit:
            taken.add(best)
        found.append((row[0], hit))
    return found


def average(found: list[tuple[float, bool]], num_gt: int) -> float:
    order = sorted(range(len(found)), key=lambda i: (-found[i][0], -i))  # equal: the last first
    true, points = 0, []
    for rank, i in enumerate(order, 1):
        true += found[i][1]
        points.append((true / num_gt, true / rank))
    area, last = 0.0, 0.0
    for i, (recall, _) in enumerate(points):
        if recall > last:
            area += (recall - last) * max(precision for _, precision in points[i:])
            last = recall
    return area


def literal(gt: str, det: str, excluded: str, protocol: str) -> dict[int, float]:
    """AP of every class; raises Refused where the program would stop."""
    classes = {1, 2, 4}
    gt_frames, annotated = read_rows(gt, classes, protocol, "gt")
    det_frames, _ = read_rows(det, classes, protocol, "det")
    to_be_found = dict.fromkeys(classes, 0)
    if protocol == "mmaction2":  # counted before anything is left out
        for _, c, *_ in (row for rows in gt_frames.values() for row in rows):
            to_be_found[c] += 1
        det_frames = {key: det_frames[key] for key in gt_frames if key in det_frames}
    if protocol == "official2020":
        det_frames = {key: rows for key, rows in det_frames.items() if key in annotated}
    else:
        for row in csv.reader(excluded.splitlines()):
            gt_frames.pop(frame_key(row, protocol), None)
            det_frames.pop(frame_key(row, protocol), None)
    aps, detected = {}, {}
    for c in sorted(classes):
        num_gt = sum(row[1] == c for rows in gt_frames.values() for row in rows)
        found = []
        for key, rows in det_frames.items():
            found += match_frame(rows, gt_frames.get(key, []), c, protocol)
        num_gt = max(num_gt, to_be_found[c])
        aps[c] = average(found, num_gt) if num_gt else math.nan
        detected[c] = bool(found)
    if protocol == "mmaction2" and any(detected[c] and to_be_found[c] for c in classes):
        aps = {c: ap if detected[c] else math.nan for c, ap in aps.items()}
    return aps


# ---------------------------------------------------------------------------------- generated files

video = st.sampled_from(["v", "w", "-x_1"])
second = st.sampled_from(["902", "0902", "903", "00904"])
edge = st.sampled_from(["0", "0.1", "0.25", "0.3", "0.5", "0.5000", "5e-1", "0.75", "0.9", "1"])


@st.composite
def a_box(draw: st.DrawFn, odd: int = 12) -> str:
    """Mostly a box; one in ``odd`` may be empty or inverted."""
    (x1, x2), (y1, y2) = (
        sorted((draw(edge), draw(edge)), key=float) if draw(st.integers(1, odd)) > 1 else (a, b)
        for a, b in (("0.5", "0.25"), ("0.3", "0.3"))
    )
    return f"{x1},{y1},{x2},{y2}"


label = st.sampled_from(["1", "1", "2", "2", "4", "3", "80"])
scores = ["0.5", "0.50", "0.25", "0.125", "1", "0", "-9.99", "-10", "-11", "1e-3", "0.9"]
score = st.sampled_from(scores) | st.integers(0, 40).map(lambda n: f"{n / 64}")
gt_line = st.tuples(video, second, a_box(odd=150), label, st.integers(0, 3).map(str)).map(",".join)
gt_short = st.tuples(video, second, a_box(odd=150), label).map(",".join)
det_line = st.tuples(video, second, a_box(), label, score).map(",".join)
det_short = st.tuples(video, second, a_box(), label).map(",".join)
crowded = st.tuples(st.just("v"), st.just("902"), a_box(), label, score).map(",".join)
no_box = st.tuples(video, second).map(",".join)
fraction = st.sampled_from(
    ["902.0", "902.5", "902.500", "902.5000004", "902.0000005", "903.000000"]
)
gt_fraction = st.tuples(video, fraction, a_box(odd=150), label, st.just("7")).map(",".join)
det_fraction = st.tuples(video, fraction, a_box(), label, score).map(",".join)


@st.composite
def some_files(draw: st.DrawFn) -> tuple[str, str, str]:
    """Ground truth, detections, exclusions. Now and then with rows that some protocols refuse."""
    gt = draw(st.lists(gt_line | gt_short if draw(st.booleans()) else gt_line, max_size=14))
    det = draw(st.lists(det_line, max_size=24))
    special = draw(st.integers(0, 9))
    if special == 0:
        det += draw(st.lists(det_short, max_size=6))
    elif special == 1:
        gt += draw(st.lists(no_box, max_size=3))
    elif special == 2:
        gt += draw(st.lists(gt_fraction, max_size=5))
        det += draw(st.lists(det_fraction, max_size=8))
    elif special == 3:
        det += draw(st.lists(no_box, max_size=2))
    elif special <= 6:
        det += draw(st.lists(crowded, min_size=50, max_size=90))
    gt, det = draw(st.permutations(gt)), draw(st.permutations(det)) if special > 6 else det
    excluded = draw(st.lists(no_box, max_size=2))
    return tuple("".join(f"{row}\n" for row in rows) for rows in (gt, det, excluded))


@pytest.mark.parametrize("protocol", AVA_PROTOCOLS)
@settings(max_examples=60)
@given(files=some_files())
@example(files=("v,902,0,0,1,1,1,1\n", "", ""))
@example(files=("", "v,902,0,0,1,1,1,0.5\n", "v,902\n"))
@example(files=("v,902.5000004,0,0,1,1,1,1\n", "v,902.5,0,0,1,1,1,0.5\n", ""))
def test_generated_files(protocol, files):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [folder / name for name in ("gt.csv", "det.csv", "excluded.csv")]
        for path, text in zip(paths, files):
            path.write_text(text)
        (folder / "map.pbtxt").write_text(LABEL_MAP)
        label_map = read_label_map(folder / "map.pbtxt")
        arguments = {"excluded": read_exclusions(paths[2]), "protocol": protocol}
        try:
            expected = literal(*files, protocol)
        except Refused:
            with pytest.raises(ValueError) as error:
                evaluate_ava_files(paths[0], paths[1], label_map, **arguments)
            assert str(folder) in str(error.value)  # it names the file
            return
        result = evaluate_ava_files(paths[0], paths[1], label_map, **arguments)
    values = list(expected.values())
    np.testing.assert_allclose(list(result.ap.values()), values, rtol=0, atol=1e-12)
    if any(not math.isnan(ap) for ap in values):
        assert result.mean_ap == pytest.approx(np.nanmean(values), abs=1e-12)
    else:
        assert math.isnan(result.mean_ap)
