"""Frame mAP: formulas, hand-computed cases, the official programs' numbers, and invariances."""

from __future__ import annotations

import gzip
import heapq
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphaaction_d2.evaluation import evaluate_ava_files
from alphaaction_d2.evaluation.average_precision import (
    AVA_PROTOCOLS,
    FrameBoxes,
    FrameMAP,
    InvertedBoxError,
    average_precision,
    best_score,
    evaluate_frame_map,
    get_protocol,
    precision_recall,
)
from alphaaction_d2.formats.ava import read_exclusions
from alphaaction_d2.formats.label_map import LabelMap, read_label_map
from alphaaction_d2.formats.tables import DataFileError
from alphaaction_d2.structures import box_iou

TOOL = Path(__file__).resolve().parents[2] / "tools" / "evaluate_ava.py"
THREE_CLASSES = LabelMap({1: "a", 2: "b", 3: "c"}, {1: "pose", 2: "", 3: "pose"})

# boxes as texts: A and B do not touch, A1 overlaps A by 0.95, A2 by 0.78, F touches nothing much
A, B = "0.1,0.1,0.5,0.9", "0.55,0.1,0.95,0.9"
A1, A2, F = "0.11,0.1,0.51,0.9", "0.15,0.1,0.55,0.9", "0.3,0.3,0.4,0.4"


def files(tmp_path: Path, gt: list[str], det: list[str]) -> tuple[Path, Path]:
    """Writes the two CSV files; the rows are given without their first column, the video "v"."""
    paths = tmp_path / "gt.csv", tmp_path / "det.csv"
    for path, rows in zip(paths, (gt, det)):
        path.write_text("".join(f"v,{row}\n" for row in rows))
    return paths


def table(rows: list[tuple]) -> FrameBoxes:
    """Rows of (frame, box, label, score)."""
    return FrameBoxes(
        frames=np.array([row[0] for row in rows], dtype=np.int64),
        boxes=np.array([row[1] for row in rows], dtype=np.float64).reshape(-1, 4),
        labels=np.array([row[2] for row in rows], dtype=np.int64),
        scores=np.array([row[3] for row in rows], dtype=np.float64),
    )


# ----------------------------------------------------------------------------------------- formulas


def test_precision_recall_and_average_precision():
    precision, recall = precision_recall(np.array([True, False, True, False]), 4)
    np.testing.assert_array_equal(precision, [1, 1 / 2, 2 / 3, 2 / 4])
    np.testing.assert_array_equal(recall, [1 / 4, 1 / 4, 2 / 4, 2 / 4])
    assert average_precision(precision, recall) == pytest.approx(1 / 4 + 2 / 3 / 4, abs=1e-15)


def test_average_precision_uses_the_best_later_precision():
    precision, recall = precision_recall(np.array([False, True, True]), 2)
    assert average_precision(precision, recall) == pytest.approx(2 / 3, abs=1e-15)
    assert average_precision(np.zeros(0), np.zeros(0)) == 0.0


# ------------------------------------------------------------------------------------ hand-computed


def ap_of_class_1(tmp_path, gt, det, protocol, **kwargs) -> float:
    return evaluate_ava_files(
        *files(tmp_path, gt, det), THREE_CLASSES, protocol=protocol, **kwargs
    ).ap[1]


@pytest.mark.parametrize("protocol", AVA_PROTOCOLS)
def test_classes_with_and_without_ground_truth(tmp_path, protocol):
    gt = [f"902,{A},1,1", f"902,{A},3,1", f"902,{A},9,1"]
    det = [f"0902,{A1},1,0.9", f"902,{A1},2,0.8", f"902,{A1},9,0.8"]
    result = evaluate_ava_files(*files(tmp_path, gt, det), THREE_CLASSES, protocol=protocol)
    assert result.ap[1] == 1.0
    assert math.isnan(result.ap[2])  # no ground truth: not in the mean
    if protocol == "mmaction2":  # not looked for
        assert math.isnan(result.ap[3]) and result.mean_ap == 1.0
    else:
        assert result.ap[3] == 0.0  # not found
        assert result.mean_ap == 0.5
    assert sorted(result.ap) == [1, 2, 3]
    assert result.num_ground_truth == {1: 1, 2: 0, 3: 1}
    assert result.num_detections == {1: 1, 2: 1, 3: 0}
    assert (result.protocol, result.iou_threshold) == (protocol, 0.5)


def test_an_alias_is_reported_by_the_name_it_stands_for(tmp_path):
    gt, det = [f"902,{A},1,1"], [f"902,{A},1,0.9"]
    for name in ("alphaaction", "alphaction"):
        result = evaluate_ava_files(*files(tmp_path, gt, det), THREE_CLASSES, protocol=name)
        assert result.protocol == "official2018"
    with pytest.raises(ValueError, match="'coco'; known are official2018, .*slowfast"):
        get_protocol("coco")


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [*((name, 1.0) for name in AVA_PROTOCOLS if name != "slowfast"), ("slowfast", 0.5)],
)
def test_two_detections_of_one_box(tmp_path, protocol, expected):
    """The weaker one comes first in the file: it takes the box if nobody sorts."""
    gt = [f"902,{A},1,1"]
    det = [f"902,{A2},1,0.2", f"902,{A1},1,0.9"]
    assert ap_of_class_1(tmp_path, gt, det, protocol) == expected


@pytest.mark.parametrize("protocol", AVA_PROTOCOLS)
def test_no_second_choice(tmp_path, protocol):
    """The second detection overlaps both boxes enough, but its best one is taken."""
    gt = ["902,0,0,1,0.5,1,1", "902,0,0.05,1,0.55,1,1"]
    det = ["902,0,0,1,0.5,1,0.9", "902,0,0.01,1,0.51,1,0.8"]
    assert ap_of_class_1(tmp_path, gt, det, protocol) == 0.5


@pytest.mark.parametrize("protocol", AVA_PROTOCOLS)
def test_iou_of_one_half_is_a_hit_in_float64(tmp_path, protocol):
    gt = [f"{second},{box},1,1" for second, box in enumerate(["0,0,1,1", "0.1,0.1,0.5,0.5"])]
    det = ["0,0,0,0.5,1,1,0.9", "1,0.1,0.1,0.3,0.5,1,0.8"]  # 0.5 and 0.49999999999999994
    assert ap_of_class_1(tmp_path, gt, det, protocol) == 0.5


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        *((name, 0.5) for name in ("official2018", "official2019", "slowfast")),
        *((name, 1.0) for name in ("official2020", "mmaction2")),
    ],
)
@pytest.mark.parametrize("gt_of_other_class", [False, True])
def test_detections_on_frames_without_ground_truth(tmp_path, protocol, expected, gt_of_other_class):
    """Ignored in 2020, but not if the frame has a row of a class that does not count; and in
    mmaction2."""
    gt = [f"902,{A},1,1"] + [f"903,{A},9,1"] * gt_of_other_class
    det = [f"903,{A},1,0.9", f"902,{A},1,0.8"]
    if gt_of_other_class and protocol != "mmaction2":
        expected = 0.5
    assert ap_of_class_1(tmp_path, gt, det, protocol) == expected


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        *((name, 1.0) for name in ("official2018", "official2019", "slowfast")),
        ("official2020", 0.25),  # which has none
        ("mmaction2", 0.5),  # one of two is still to be found
    ],
)
def test_exclusions(tmp_path, protocol, expected, caplog):
    gt = [f"0902,{A},1,1", f"903,{A},1,1"]
    det = [f"902,{A},1,0.9", f"903,{F},1,0.95", f"903,{F},1,0.7"]
    excluded = {("v", 903), ("w", 902)}
    ap = ap_of_class_1(tmp_path, gt, det, protocol, excluded=excluded)
    assert ap == expected
    assert ("knows no exclusions" in caplog.text) == (protocol == "official2020")


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [("official2018", 0.5), *((name, 1.0) for name in AVA_PROTOCOLS if name != "official2018")],
)
def test_scores_up_to_minus_ten(tmp_path, protocol, expected):
    gt = [f"902,{A},1,1", f"903,{A},1,1"]
    det = [f"902,{A},1,-9.99", f"903,{A},1,-10"]
    assert ap_of_class_1(tmp_path, gt, det, protocol) == expected


@pytest.mark.parametrize("protocol", AVA_PROTOCOLS)
def test_cap_of_50_rows(tmp_path, protocol):
    """One row of class 1 below 50 rows of class 2: out of the cap of 2019 and 2020."""
    gt = [f"902,{A},1,1"]
    det = [f"902,{A},1,0.1"] + [f"902,{F},2,0.{900 + i}" for i in range(50)]
    capped = AVA_PROTOCOLS[protocol].max_per_frame is not None
    assert ap_of_class_1(tmp_path, gt, det, protocol) == (0.0 if capped else 1.0)
    assert ap_of_class_1(tmp_path, gt, det[:50], protocol) == 1.0


@pytest.mark.parametrize("protocol", AVA_PROTOCOLS)
def test_boxes_without_area(tmp_path, protocol):
    """Such detections vanish; such ground truth counts and can't be hit."""
    gt = [f"902,{A},1,1", "903,0.2,0.2,0.2,0.8,1,1"]
    det = ["902,0.5,0.1,0.1,0.9,1,0.99", "903,0.2,0.2,0.2,0.8,1,0.98", f"902,{A},1,0.5"]
    result = evaluate_ava_files(*files(tmp_path, gt, det), THREE_CLASSES, protocol=protocol)
    assert result.ap[1] == 0.5
    assert result.num_detections[1] == 1


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        *((name, 0.75) for name in ("official2018", "slowfast")),
        *((name, 1.0) for name in ("official2019", "official2020", "mmaction2")),
    ],
)
def test_order_of_ground_truth(tmp_path, protocol, expected):
    """Two boxes overlap the first detection equally: the first counts, in the protocol's order."""
    gt = ["902,0,0,0.5,0.5,1,1", "902,0.25,0,0.75,0.5,1,2"]
    det = [
        "902,0.125,0,0.625,0.5,1,0.9",
        "902,0,0,0.5,0.5,1,0.8",
        f"902,{F},1,0.75",
        "902,0.25,0,0.75,0.5,1,0.7",
    ]
    assert ap_of_class_1(tmp_path, gt, det, protocol) == expected


@pytest.mark.parametrize("protocol", AVA_PROTOCOLS)
def test_equal_scores_rank_the_last_frame_first(tmp_path, protocol):
    gt = [f"902,{A},1,1", f"903,{A},1,1"]
    hit_last = [f"902,{F},1,0.5", f"903,{A},1,0.5"]
    assert ap_of_class_1(tmp_path, gt, hit_last, protocol) == 0.5
    by_detections = protocol != "mmaction2"
    assert ap_of_class_1(tmp_path, gt, hit_last[::-1], protocol) == (0.25 if by_detections else 0.5)


@pytest.mark.parametrize("protocol", AVA_PROTOCOLS)
def test_nothing_detected_and_nothing_annotated(tmp_path, protocol, caplog):
    result = evaluate_ava_files(
        *files(tmp_path, [f"902,{A},1,1"], []), THREE_CLASSES, protocol=protocol
    )
    assert (result.ap[1], result.mean_ap) == (0.0, 0.0)
    result = evaluate_ava_files(
        *files(tmp_path, [], [f"902,{A},1,1"]), THREE_CLASSES, protocol=protocol
    )
    assert math.isnan(result.mean_ap)
    assert "no mAP" in caplog.text
    assert math.isnan(
        evaluate_ava_files(*files(tmp_path, [], []), THREE_CLASSES, protocol=protocol).mean_ap
    )


# ------------------------------------------------------------------------------------ refused input


@pytest.mark.parametrize("protocol", AVA_PROTOCOLS)
def test_fractional_seconds(tmp_path, protocol):
    gt = [f"902.0,{A},1,1", f"902.5,{B},1,1"]
    det = [f"902,{A},1,0.9", f"902.500,{B},1,0.9", f"902.6,{A},1,0.8"]
    if protocol == "official2020":
        assert ap_of_class_1(tmp_path, gt, det, protocol) == 1.0
    else:
        with pytest.raises(DataFileError, match="gt.csv:1: column timestamp: '902.0'"):
            ap_of_class_1(tmp_path, gt, det, protocol)


@pytest.mark.parametrize("protocol", AVA_PROTOCOLS)
def test_rows_that_say_the_frame_is_empty(tmp_path, protocol):
    gt = [f"902,{A},1,1", "903"]
    det = ["902", f"902,{A},1,0.8", f"903,{A},1,0.9"]
    if protocol == "official2020":
        assert ap_of_class_1(tmp_path, gt, det, protocol) == 0.5
    else:
        with pytest.raises(DataFileError, match="gt.csv:2: 2 columns"):
            ap_of_class_1(tmp_path, gt, det, protocol)


@pytest.mark.parametrize("protocol", AVA_PROTOCOLS)
def test_detections_without_scores(tmp_path, protocol):
    gt, det = [f"902,{A},1,1"], [f"902,{A},1"]
    if protocol == "slowfast":
        with pytest.raises(DataFileError, match=r"det.csv: rows without a score .*slowfast"):
            ap_of_class_1(tmp_path, gt, det, protocol)
    else:
        assert ap_of_class_1(tmp_path, gt, det, protocol) == 1.0


@pytest.mark.parametrize("protocol", AVA_PROTOCOLS)
def test_inverted_ground_truth(tmp_path, protocol):
    """Refused only where a detection would have to be compared with it."""
    gt = [f"902,{A},1,1", "903,0.5,0.1,0.1,0.9,1,1"]
    with pytest.raises(DataFileError, match=r"gt.csv: v at 903 s: box \[0.5, 0.1, 0.1, 0.9\]"):
        ap_of_class_1(tmp_path, gt, [f"902,{A},1,0.9", f"903,{F},1,0.1"], protocol)
    det = [f"902,{A},1,0.9", f"903,{F},2,0.1", "903,0.5,0.1,0.1,0.9,1,0.1"]
    assert ap_of_class_1(tmp_path, gt, det, protocol) == 0.5


def test_inverted_ground_truth_in_memory():
    gt = table([(0, (0, 0, 1, 1), 1, 1), (1, (1, 0, 0, 1), 1, 1)])
    with pytest.raises(InvertedBoxError) as error:
        evaluate_frame_map(gt, table([(1, (0, 0, 1, 1), 1, 0.5)]), [1])
    assert error.value.row == 1


@pytest.mark.parametrize("class_ids", [[], [0, 1]])
def test_class_ids_are_checked(class_ids):
    with pytest.raises(ValueError, match="class ids"):
        evaluate_frame_map(table([]), table([]), class_ids)


# --------------------------------------------------------------------------------- a second opinion


def simple_frame_map(gt, det, num_classes, protocol) -> list[float]:
    """The rules once more, row by row: lists of (frame, box, label, score) in, AP per class out."""
    rules = AVA_PROTOCOLS[protocol]
    by_frame: tuple[dict, dict] = ({}, {})
    for side, rows in zip(by_frame, (gt, det)):
        for frame, box, label, score in rows:
            side.setdefault(frame, []).append((score, label, box))
    if rules.matching_order == "heap":
        for side, capacity in zip(by_frame, (None, rules.max_per_frame)):
            for frame, rows in side.items():
                heap = []
                for score, label, (x1, y1, x2, y2) in rows:
                    entry = (score, label, y1, x1, y2, x2)
                    if capacity is None or len(heap) < capacity:
                        heapq.heappush(heap, entry)
                    elif score > heap[0][0]:
                        heapq.heapreplace(heap, entry)
                side[frame] = [
                    (s, c, (x1, y1, x2, y2))
                    for s, c, y1, x1, y2, x2 in sorted(heap, key=lambda e: -e[0])
                ]
    if rules.matching_order == "sorted":
        truth, found = (
            {frame: sorted(rows, key=lambda row: -row[0]) for frame, rows in side.items()}
            for side in by_frame
        )
        by_frame = (truth, {frame: found[frame] for frame in truth if frame in found})
    aps, detected = [], []
    for c in range(1, num_classes + 1):
        num_gt, scored = 0, []
        for rows in by_frame[0].values():
            num_gt += sum(label == c for _, label, _ in rows)
        for frame, rows in by_frame[1].items():
            if rules.only_annotated_frames and frame not in by_frame[0]:
                continue
            rows = [(s, b) for s, label, b in rows if label == c and b[0] < b[2] and b[1] < b[3]]
            if rules.matching_order == "score":
                rows = [rows[i] for i in np.argsort([s for s, _ in rows], kind="stable")[::-1]]
            boxes = [b for _, label, b in by_frame[0].get(frame, []) if label == c]
            taken = set()
            for score, box in rows:
                if score <= rules.min_score:
                    continue
                hit = False
                if boxes:
                    overlaps = box_iou(np.array([box]), np.array(boxes))
                    best = int(np.argmax(overlaps))
                    hit = overlaps[best] >= 0.5 and best not in taken
                    taken |= {best} if hit else set()
                scored.append((score, hit))
        detected.append(bool(scored))
        if not num_gt:
            aps.append(float("nan"))
            continue
        order = np.argsort([s for s, _ in scored], kind="stable")[::-1]
        ap, tp, points = 0.0, 0, []
        for rank, i in enumerate(order, 1):
            tp += scored[i][1]
            points.append((tp / num_gt, tp / rank))
        last = 0.0
        for i, (recall, _) in enumerate(points):
            if recall > last:
                ap += (recall - last) * max(p for _, p in points[i:])
                last = recall
        aps.append(ap)
    kept = [found and not math.isnan(ap) for found, ap in zip(detected, aps)]
    if rules.only_detected_classes and any(kept):
        aps = [ap if found else math.nan for found, ap in zip(kept, aps)]
    return aps


# few positions, classes and scores: many ties of everything
corner = st.integers(0, 3).map(lambda n: n / 4)
box = st.tuples(corner, corner, st.integers(1, 3), st.integers(1, 3)).map(
    lambda b: (b[0], b[1], b[0] + b[2] / 4, b[1] + b[3] / 4)
)
gt_row = st.tuples(st.integers(0, 2), box, st.integers(1, 3), st.integers(0, 2).map(float))
det_row = st.tuples(st.integers(0, 3), box, st.integers(1, 3), st.integers(0, 4).map(float))
det_rows = st.lists(det_row, max_size=25) | st.lists(
    st.tuples(st.integers(0, 1), box, st.integers(1, 3), st.integers(-11, 40).map(float)),
    min_size=60,
    max_size=140,
)


@pytest.mark.parametrize("protocol", AVA_PROTOCOLS)
@settings(max_examples=30)
@given(gt=st.lists(gt_row, max_size=15), det=det_rows)
def test_agrees_with_the_row_by_row_version(protocol, gt, det):
    result = evaluate_frame_map(table(gt), table(det), [1, 2, 3], protocol=protocol)
    expected = simple_frame_map(gt, det, 3, protocol)
    np.testing.assert_allclose(list(result.ap.values()), expected, rtol=0, atol=1e-12)


@settings(max_examples=40)
@given(gt=st.lists(gt_row, max_size=15), det=st.lists(det_row, max_size=25), data=st.data())
def test_without_ties_the_order_of_rows_does_not_matter(gt, det, data):
    """Nor do the other classes: it is the first appearance of a frame that they change."""
    det = [(*row[:3], 0.9 - i / 100) for i, row in enumerate(det)]
    shuffled = data.draw(st.permutations(det))
    for protocol in ("official2018", "official2019", "official2020"):
        a = evaluate_frame_map(table(gt), table(det), [1, 2, 3], protocol=protocol)
        b = evaluate_frame_map(table(gt), table(shuffled), [1, 2, 3], protocol=protocol)
        np.testing.assert_array_equal(list(a.ap.values()), list(b.ap.values()))
        alone = evaluate_frame_map(table(gt), table(det), [2], protocol=protocol)
        np.testing.assert_array_equal(alone.ap[2], a.ap[2])


@pytest.mark.parametrize("protocol", AVA_PROTOCOLS)
@settings(max_examples=40)
@given(gt=st.lists(gt_row, max_size=15), det=st.lists(det_row, max_size=25))
def test_invariances(protocol, gt, det):
    """The frames' numbers and increasing changes of the scores do not matter."""
    plain = evaluate_frame_map(table(gt), table(det), [1, 2, 3], protocol=protocol)
    assert all(math.isnan(ap) or 0 <= ap <= 1 + 1e-12 for ap in plain.ap.values())
    other_gt = [(7 - row[0], *row[1:]) for row in gt]
    other_det = [(7 - row[0], *row[1:3], math.exp(row[3])) for row in det]
    other = evaluate_frame_map(table(other_gt), table(other_det), [1, 2, 3], protocol=protocol)
    np.testing.assert_array_equal(list(plain.ap.values()), list(other.ap.values()))


@pytest.mark.parametrize("protocol", AVA_PROTOCOLS)
@settings(max_examples=40)
@given(gt=st.lists(gt_row, min_size=1, max_size=15, unique_by=lambda row: row[:3]))
def test_the_ground_truth_itself_is_perfect(protocol, gt):
    result = evaluate_frame_map(table(gt), table(gt), [1, 2, 3], protocol=protocol)
    assert result.mean_ap == 1.0


# --------------------------------------------------------------------------------- official numbers


def check(result: FrameMAP, expected: dict, case: str) -> None:
    expected = expected["stable_argsort"]
    assert result.mean_ap == pytest.approx(expected["mAP@0.5"], abs=1e-12, nan_ok=True), case
    expected_ap = {
        int(i): math.nan if ap is None else ap for i, ap in expected["AP_per_class"].items()
    }
    assert result.ap == pytest.approx(expected_ap, abs=1e-12, nan_ok=True), case


@pytest.mark.parametrize("protocol", [*AVA_PROTOCOLS, "alphaction"])
@pytest.mark.parametrize("folder", ["small", "real"])
def test_cases(shared, folder, protocol):
    cases = sorted(path.parent for path in (shared / "ava/cases" / folder).glob("*/expected.json"))
    assert cases
    for case in cases:
        expected = json.loads((case / "expected.json").read_text())["expected"].get(protocol)
        if expected is None:  # numbers were made for the others
            assert protocol == "mmaction2"
            continue
        det = next(case.glob("det.csv*"))
        exclusions = case / "exclusions.csv"
        excluded = read_exclusions(exclusions) if exclusions.exists() else ()
        label_map = read_label_map(case / "labelmap.pbtxt")
        arguments = (case / "gt.csv", det, label_map)
        if "error" in expected:
            with pytest.raises(ValueError):
                evaluate_ava_files(*arguments, excluded=excluded, protocol=protocol)
            continue
        result = evaluate_ava_files(*arguments, excluded=excluded, protocol=protocol)
        check(result, expected, case.name)


@pytest.mark.slow
@pytest.mark.parametrize("decimals", [9, 4])
def test_large_cases(shared, tmp_path, decimals):
    """0.9 million rows in the scale of the real validation set, without and with many ties."""
    folder = shared / "ava/cases/large"
    all_gt = tmp_path / "all.csv"
    all_gt.write_bytes(gzip.decompress((folder / "gt_semireal_val.csv.gz").read_bytes()))
    gt, det = tmp_path / "gt.csv", tmp_path / "det.csv"
    lines = all_gt.read_text().splitlines(keepends=True)
    gt.write_text("".join(line for line in lines if int(line.split(",")[1]) % 8 == 0))
    command = [sys.executable, folder / "make_pred_large.py", all_gt, det, "8", "7", str(decimals)]
    subprocess.run(command, check=True, capture_output=True)
    label_map = read_label_map(folder / "labelmap60.pbtxt")
    excluded = read_exclusions(folder / "exclusions.csv")
    expected = json.loads((folder / f"expected_mod8_d{decimals}.json").read_text())["expected"]
    for protocol, numbers in expected.items():
        result = evaluate_ava_files(gt, det, label_map, excluded=excluded, protocol=protocol)
        check(result, numbers, protocol)


# -------------------------------------------------------------------------------------- the command


def run_tool(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_tool(tmp_path):
    gt, det = files(
        tmp_path,
        [f"902,{A},1,1", f"902,{B},2,2", f"903,{A},1,1"],
        [f"902,{A1},1,0.9", f"903,{F},1,0.95"],
    )
    label_map = tmp_path / "labels.pbtxt"
    label_map.write_text(
        'label { name: "jump" label_id: 1 label_type: PERSON_MOVEMENT }\n'
        'label { name: "lift" label_id: 2 label_type: OBJECT_MANIPULATION }\n'
        'label { name: "talk" label_id: 3 label_type: PERSON_INTERACTION }\n'
    )
    exclusions = tmp_path / "excluded.csv"
    exclusions.write_text("v,0903\n")
    common = ("--ground-truth", gt, "--detections", det, "--label-map", label_map)
    done = run_tool(*common, "--exclusions", exclusions, "--output", tmp_path / "out.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert "mAP@0.5 = 50.00 %" in done.stdout
    assert "official2018" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["1", "jump", "pose", "1", "100.00"] in rows
    assert ["3", "talk", "person", "0", "nan"] in rows
    assert ["object", "1", "1", "0.00"] in rows
    numbers = json.loads((tmp_path / "out.json").read_text())
    assert numbers["mAP@0.5"] == 0.5
    assert numbers["protocol"] == "official2018"
    assert numbers["AP_per_class"] == {"1": 1.0, "2": 0.0, "3": None}
    assert numbers["AP_per_group"] == {"pose": 1.0, "object": 0.0, "person": None}

    for option in ("--protocol", "--dialect"):  # and what it was called before
        done = run_tool(*common, option, "official2020")
        assert "mAP@0.5 = 12.50 %" in done.stdout
        assert "protocol official2020" in done.stdout


def test_tool_with_bad_input(tmp_path):
    gt, det = files(tmp_path, [f"902,{A},1,1"], ["902,0.1,0.2,wide,0.4,1,0.9"])
    label_map = tmp_path / "labels.pbtxt"
    label_map.write_text('item { name: "jump" id: 1 }')
    common = ("--ground-truth", gt, "--label-map", label_map)
    for arguments, words in (
        ((*common, "--detections", det), f"{det}:1: column x2: 'wide'"),
        ((*common, "--detections", tmp_path / "no.csv"), "no.csv"),
        ((*common, "--detections", gt, "--protocol", "coco"), "unknown protocol 'coco'"),
        ((*common, "--detections", gt, "--exclusions", gt), f"{gt}:1: "),
    ):
        done = run_tool(*arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_the_score_from_which_on_detections_are_shown():
    """By hand: hits, in descending order of the score; F1 after each detection."""
    scores = np.array([0.9, 0.8, 0.7, 0.7, 0.2])
    for hits, truth, expected in (
        ([1, 1, 0, 0, 1], 3, 0.8),  # F1 0.5, 0.8, -, 0.57, 0.75
        ([1, 0, 0, 1, 0], 2, 0.9),  # F1 0.67, 0.5, -, 0.67, 0.57: the first of equals
        ([0, 0, 1, 1, 0], 2, 0.7),  # within equal scores nothing can be cut
        ([0, 0, 0, 0, 1], 1, 0.2),
    ):
        curve = precision_recall(np.array(hits, bool), truth)
        assert best_score(scores, *curve) == expected
    assert np.isnan(best_score(scores, *precision_recall(np.zeros(5, bool), 2)))
    assert np.isnan(best_score(scores[:0], *precision_recall(np.zeros(0, bool), 2)))
