"""UCF101-24: the published evaluators' numbers, a literal reading of their rules, and files."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphaaction_d2.evaluation.ucf101_24 import (
    UCF_PROTOCOLS,
    evaluate_ucf101_24,
    trapezoid_precision,
    ucf_results_as_json,
    ucf_results_as_text,
)
from alphaaction_d2.formats.ava import read_video_list
from alphaaction_d2.formats.tables import DataFileError
from alphaaction_d2.formats.ucf101_24 import (
    UCFAnnotations,
    UCFDetections,
    read_ucf_annotations,
    read_ucf_detections,
    read_ucf_split,
    write_ucf_detections,
)

TOOL = Path(__file__).resolve().parents[2] / "tools" / "evaluate_ucf101_24.py"
VIDEOS, NUM_FRAMES, NAMES = ["Dive/a", "Run/b"], (3, 2), ["Dive", "Run", "Swim"]


def annotations(rows: list[tuple]) -> UCFAnnotations:
    """Rows of (video, frame, box, class) of two short videos."""
    return UCFAnnotations(
        videos=VIDEOS,
        num_frames=np.array(NUM_FRAMES),
        class_names=NAMES,
        video_codes=np.array([row[0] for row in rows], dtype=np.int64),
        frames=np.array([row[1] for row in rows], dtype=np.int64),
        boxes=np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 4),
        labels=np.array([row[3] for row in rows], dtype=np.int64),
        tubes=np.arange(len(rows)),
    )


def detections(rows: list[tuple]) -> UCFDetections:
    """Rows of (video, frame, box, class, score)."""
    return UCFDetections(
        videos=VIDEOS,
        video_codes=np.array([row[0] for row in rows], dtype=np.int64),
        frames=np.array([row[1] for row in rows], dtype=np.int64),
        boxes=np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 4),
        labels=np.array([row[3] for row in rows], dtype=np.int64),
        scores=np.array([row[4] for row in rows], dtype=np.float64),
    )


# ------------------------------------------------------------------------- a literal reading


def iou(a: tuple, b: tuple, extra: int) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + extra
    height = min(a[3], b[3]) - max(a[1], b[1]) + extra
    overlap = max(width, 0) * max(height, 0)
    area_a = (a[2] - a[0] + extra) * (a[3] - a[1] + extra)
    area_b = (b[2] - b[0] + extra) * (b[3] - b[1] + extra)
    return overlap / (area_a + area_b - overlap)


def envelope_area(precision: list[float], recall: list[float]) -> float:
    area, last = 0.0, 0.0
    for i, r in enumerate(recall):
        if r > last:
            area += (r - last) * max(precision[i:])
            last = r
    return area


def literal(gt: list, det: list, protocol: str, frames: str) -> tuple[float, list[float]]:
    """mAP and AP by class, row by row, in the words of the protocols."""
    extra = 0 if protocol == "gurkirt" else 1
    annotated = {row[:2] for row in gt}
    if frames == "annotated":
        det = [row for row in det if row[:2] in annotated]
    aps = []
    for c in range(len(NAMES)):
        free = {}
        for row in gt:
            if row[3] == c:
                free.setdefault(row[:2], []).append([row[2], True])
        num_gt = sum(map(len, free.values()))
        rows = sorted((row for row in det if row[3] == c), key=lambda row: row[:2])
        score = np.float32 if protocol == "act" else float
        rows.sort(key=lambda row: -score(row[4]))
        hits = []
        for row in rows:
            boxes = free.get(row[:2], [])
            if protocol != "yowo":  # the boxes that were hit are gone
                boxes = [box for box in boxes if box[1]]
            overlaps = [iou(row[2], box, extra) for box, _ in boxes]
            best = boxes[overlaps.index(max(overlaps))] if boxes else None
            hit = best is not None and max(overlaps) >= 0.5 and best[1]
            if hit:
                best[1] = False
            hits.append(hit)
        if not num_gt:
            aps.append(math.nan if protocol == "yowo" else 0.0)
            continue
        true = np.cumsum(hits).tolist() if hits else []
        precision = [t / (i + 1) for i, t in enumerate(true)]
        recall = [t / num_gt for t in true]
        if protocol == "act":
            points = [(1.0, 0.0), *zip(precision, recall)]
            pairs = zip(points, points[1:])
            aps.append(sum((b[1] - a[1]) * (b[0] + a[0]) / 2 for a, b in pairs))
        else:
            aps.append(envelope_area(precision, recall))
    return float(np.nanmean(aps)) if not all(map(math.isnan, aps)) else math.nan, aps


corner = st.integers(0, 3).map(lambda n: n * 4)
box = st.tuples(corner, corner, st.integers(1, 3), st.integers(1, 3)).map(
    lambda b: (b[0], b[1], b[0] + 4 * b[2], b[1] + 4 * b[3])
)
place = st.sampled_from([(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)])
gt_row = st.tuples(place, box, st.integers(0, 2)).map(lambda r: (*r[0], r[1], r[2]))
score = st.integers(0, 6).map(lambda n: n / 6) | st.sampled_from([0.1, 0.1 + 1e-12])
det_row = st.tuples(place, box, st.integers(0, 2), score).map(lambda r: (*r[0], *r[1:]))


@pytest.mark.parametrize("frames", ["annotated", "all"])
@pytest.mark.parametrize("protocol", UCF_PROTOCOLS)
@settings(max_examples=60)
@given(gt=st.lists(gt_row, max_size=14), det=st.lists(det_row, max_size=30))
def test_agrees_with_a_literal_reading(protocol, frames, gt, det):
    if (protocol, frames) == ("yowo", "all"):
        with pytest.raises(ValueError, match="yowo knows annotated frames only"):
            evaluate_ucf101_24(annotations(gt), detections(det), protocol, frames=frames)
        return
    if protocol == "act":  # it divides by the number of boxes
        classes = {row[3] for row in gt}
        det = [row for row in det if row[3] in classes]
    result = evaluate_ucf101_24(annotations(gt), detections(det), protocol, frames=frames)
    mean, aps = literal(gt, det, protocol, frames)
    tolerance = 1e-6 if protocol == "act" else 1e-12
    np.testing.assert_allclose(result.ap, aps, rtol=0, atol=tolerance)
    np.testing.assert_allclose(result.mean_ap, mean, rtol=0, atol=tolerance)
    assert (result.protocol, result.frames) == (protocol, frames)


# ------------------------------------------------------------------------------ hand-computed

A, B = (0, 0, 40, 40), (10, 0, 50, 40)  # IoU 0.6


@pytest.mark.parametrize(("protocol", "expected"), [("gurkirt", 1.0), ("act", 1.0), ("yowo", 0.5)])
def test_second_choice(protocol, expected):
    """Both detections are nearest to A; only where boxes leave the race does B get the second."""
    gt = [(0, 1, A, 0), (0, 1, B, 0)]
    det = [(0, 1, A, 0, 0.9), (0, 1, (1, 0, 41, 40), 0, 0.8)]
    assert evaluate_ucf101_24(annotations(gt), detections(det), protocol).ap[0] == expected


@pytest.mark.parametrize(("protocol", "hit"), [("gurkirt", False), ("act", True), ("yowo", True)])
def test_one_pixel_more(protocol, hit):
    """Of boxes of 2x1 one in three pixels is common; of boxes of 3x2, four in eight are."""
    gt, det = [(0, 1, (0, 0, 2, 1), 0)], [(0, 1, (1, 0, 3, 1), 0, 0.9)]
    ap = evaluate_ucf101_24(annotations(gt), detections(det), protocol).ap[0]
    assert ap == (1.0 if hit else 0.0)


def test_frames_without_annotation():
    gt, det = [(0, 1, A, 0)], [(0, 2, A, 0, 0.9), (1, 1, A, 0, 0.8), (0, 1, A, 0, 0.7)]
    numbers = {}
    for protocol, frames in (("gurkirt", None), ("gurkirt", "all"), ("act", None), ("yowo", None)):
        result = evaluate_ucf101_24(annotations(gt), detections(det), protocol, frames=frames)
        numbers[result.rules] = result.ap[0]
    assert numbers == {
        "protocol gurkirt, annotated frames only": 1.0,
        "protocol gurkirt, all frames": 1 / 3,
        "protocol act, all frames": pytest.approx(1 / 6),  # half of 0 + 1/3
        "protocol yowo, annotated frames only": 1.0,
    }


def test_trapezoids():
    precision, recall = np.array([1, 1 / 2, 2 / 3]), np.array([1 / 4, 1 / 4, 1 / 2])
    expected = (1 + 1) / 2 / 4 + (1 / 2 + 2 / 3) / 2 / 4
    assert trapezoid_precision(precision, recall) == pytest.approx(expected, abs=1e-7)
    assert trapezoid_precision(np.zeros(0), np.zeros(0)) == 0.0


def test_classes_without_annotation():
    gt, det = [(0, 1, A, 0)], [(0, 1, A, 0, 0.9), (0, 1, A, 2, 0.9)]
    arguments = annotations(gt), detections(det)
    assert evaluate_ucf101_24(*arguments, "gurkirt").mean_ap == pytest.approx(1 / 3)
    yowo = evaluate_ucf101_24(*arguments, "yowo")
    assert yowo.mean_ap == 1.0 and math.isnan(yowo.ap[2])
    with pytest.raises(DataFileError, match=r"class 2 \(Swim\) is detected but nowhere annotated"):
        evaluate_ucf101_24(*arguments, "act")
    assert evaluate_ucf101_24(arguments[0], detections(det[:1]), "act").mean_ap == pytest.approx(
        1 / 3
    )


def test_what_is_refused(caplog):
    gt = annotations([(0, 1, A, 0)])
    with pytest.raises(ValueError, match="unknown protocol 'coco'; known are gurkirt, act, yowo"):
        evaluate_ucf101_24(gt, detections([]), "coco")
    with pytest.raises(ValueError, match="frames 'some'"):
        evaluate_ucf101_24(gt, detections([]), frames="some")
    with pytest.raises(DataFileError, match="classes 0 to 3; expected 0 to 2"):
        evaluate_ucf101_24(gt, detections([(0, 1, A, 0, 1), (0, 1, A, 3, 1)]))
    with caplog.at_level(logging.WARNING):
        result = evaluate_ucf101_24(gt, detections([(0, 4, A, 0, 1), (0, 1, A, 0, 0.5)]), "act")
    assert result.ap[0] == 1.0 and "frame 4 of Dive/a, which has 3" in caplog.text


def test_texts():
    gt, det = [(0, 1, A, 0)], [(0, 1, A, 0, 0.9), (0, 1, A, 2, 0.9)]
    result = evaluate_ucf101_24(annotations(gt), detections(det), "yowo")
    text = ucf_results_as_text(result)
    assert "frame mAP@0.5 = 100.00 %   (protocol yowo, annotated frames only, 1 ground" in text
    assert ["2", "Swim", "0", "1", "nan"] in [line.split() for line in text.splitlines()]
    numbers = json.loads(ucf_results_as_json(result))
    assert numbers["AP_per_class"] == {"Dive": 1.0, "Run": None, "Swim": None}
    assert (numbers["protocol"], numbers["frames"]) == ("yowo", "annotated")


# -------------------------------------------------------------------------------------- files


def tube(label: int, first: int, boxes: list, dtype=np.uint8) -> dict:
    boxes = np.array(boxes, dtype)
    return {"label": label, "sf": first, "ef": first + len(boxes), "boxes": boxes}


def write_annotations(path: Path, changes: dict | None = None) -> Path:
    entries = {
        np.str_("Dive/a"): {
            "numf": np.uint8(3),
            "label": 0,
            "annotations": [tube(0, 1, [[250, 200, 60, 100], [1, 2, 3, 4]])],
        },
        np.str_("Run/b"): {
            "numf": np.uint16(2),
            "label": 1,
            "annotations": [tube(1, 0, [[5] * 4])],
        },
        **(changes or {}),
    }
    path.write_bytes(pickle.dumps(entries, protocol=2))
    return path


def test_annotations_do_not_run_over(tmp_path):
    found = read_ucf_annotations(write_annotations(tmp_path / "a.pkl"), ["Run/b", "Dive/a"])
    assert found.videos == ["Run/b", "Dive/a"] and found.class_names == ["Dive", "Run"]
    assert found.num_frames.tolist() == [2, 3]
    assert found.frames.tolist() == [1, 2, 3] and found.video_codes.tolist() == [0, 1, 1]
    assert found.boxes.tolist() == [[5, 5, 10, 10], [250, 200, 310, 300], [1, 2, 4, 6]]
    assert found.labels.tolist() == [1, 0, 0]


def test_labels_of_numpy_name_their_classes(tmp_path):
    changes = {
        "Dive/a": {"numf": 3, "annotations": [tube(np.uint8(0), 0, [[1] * 4])]},
        "Run/b": {"numf": 3, "annotations": [tube(np.array(1), 0, [[1] * 4])]},
        # of videos that are not asked for, what is wrong does not matter
        "Swim/c": {"numf": 3, "annotations": [4, {}, tube(-1, 0, []), tube("2", 0, [])]},
    }
    found = read_ucf_annotations(write_annotations(tmp_path / "a.pkl", changes), ["Run/b"])
    assert found.class_names == ["Dive", "Run"] and found.labels.tolist() == [1]


def write_act_annotations(path: Path, **changes: object) -> Path:
    """The tubes of `write_annotations` as `UCF101v2-GT.pkl` has them."""
    gttubes = {
        "Dive/a": {0: [np.array([[2, 250, 200, 310, 300], [3, 1, 2, 4, 6]], np.float32)]},
        "Run/b": {1: [np.array([[1, 5, 5, 10, 10]], np.float32)]},
    }
    entries = {"labels": ["Dive", "Run"], "gttubes": gttubes, "nframes": {"Dive/a": 3, "Run/b": 2}}
    entries |= {"train_videos": [["Dive/a"]], "test_videos": [["Run/b"]]}
    entries |= {"resolution": {"Dive/a": (240, 320), "Run/b": (240, 320)}, **changes}
    path.write_bytes(pickle.dumps(entries, protocol=2))
    return path


def test_both_files_of_annotations_say_the_same(tmp_path):
    (tmp_path / "testlist01.txt").write_text("Run/b.avi\n")
    one, other = write_annotations(tmp_path / "a.pkl"), write_act_annotations(tmp_path / "b.pkl")
    for split, video in (("train", "Dive/a"), ("test", "Run/b")):
        found = [
            read_ucf_split(one, split, tmp_path / "testlist01.txt"),
            read_ucf_split(other, split),
            read_ucf_split(other, split, tmp_path / "testlist01.txt"),
        ]
        assert [x.videos for x in found] == [[video]] * 3
        for key in ("num_frames", "frames", "boxes", "labels", "tubes", "video_codes"):
            values = [getattr(x, key).tolist() for x in found]
            assert values[0] == values[1] == values[2], key
        assert {tuple(x.class_names) for x in found} == {("Dive", "Run")}
    with pytest.raises(DataFileError, match="put testlist01.txt beside it"):
        read_ucf_split(one, "test")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": 3}, "expected labels to be a list"),
        ({"test_videos": ["Run/b"]}, "lists of lists"),
        ({"test_videos": [["Run/c"]]}, "has no video 'Run/c'; it has 2"),
        ({"nframes": {}}, "video 'Run/b': nframes is None"),
        ({"gttubes": {"Run/b": [1]}}, "gttubes to be a dict of labels"),
        ({"gttubes": {"Run/b": {1: [np.ones((2, 5))]}}}, "follow each other"),
        ({"gttubes": {"Run/b": {1: [np.ones((1, 4))]}}}, r"shape \(1, 4\), expected \(n, 5\)"),
        ({"gttubes": {"Run/b": {1: [np.full((1, 5), 9)]}}}, "up to frame 9 of 2"),
    ],
)
def test_bad_annotations_of_act(tmp_path, changes, words):
    path = write_act_annotations(tmp_path / "b.pkl", **changes)
    with pytest.raises(DataFileError, match=words) as error:
        read_ucf_split(path, "test")
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["d.csv", "d.csv.gz"])
def test_detections_that_are_written_are_read(tmp_path, name):
    rows = [(0, 3, A, 0, 0.1 + 0.2), (1, 1, (1.004, 2, 3, 4), 1, 1e-7), (0, 1, B, 2, 1.0)]
    written = detections(rows)
    for ids in (None, np.array([4, -1, 0])):
        write_ucf_detections(tmp_path / name, dataclasses.replace(written, person_ids=ids))
        found = read_ucf_detections(tmp_path / name)
        videos = [found.videos[code] for code in found.video_codes]
        assert videos == ["Dive/a", "Run/b", "Dive/a"]
        assert found.scores.tolist() == written.scores.tolist()
        assert found.boxes[1].tolist() == [1.0, 2, 3, 4]
        known = [-1] * 3 if found.person_ids is None else found.person_ids.tolist()
        assert known == ([-1] * 3 if ids is None else ids.tolist())


class Dangerous:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (Dangerous(), "a pickle that wants"),
        (3, "video 'Dive/a': expected numf"),
        ({"numf": -1, "annotations": []}, "numf is -1"),
        ({"numf": 3, "annotations": [4]}, "expected annotations with label, sf, ef and boxes"),
        ({"numf": 3, "annotations": [tube(0, 2, [[1] * 4] * 2)]}, "up to frame 4 of 3"),
        ({"numf": 3, "annotations": [tube(0, 0, [[1] * 5])]}, r"boxes of the shape \(1, 5\)"),
        ({"numf": 3, "annotations": [{**tube(0, 0, [[1] * 4]), "ef": 2}]}, r"need \(2, 4\)"),
    ],
)
def test_bad_annotations(tmp_path, capsys, entry, words):
    path = write_annotations(tmp_path / "a.pkl", {"Dive/a": entry})
    with pytest.raises(DataFileError, match=words) as error:
        read_ucf_annotations(path, ["Dive/a"])
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


def test_annotations_that_are_not_there(tmp_path):
    path = write_annotations(tmp_path / "a.pkl")
    with pytest.raises(DataFileError, match="has no video 'Dive/z' and 1 more; it has 2"):
        read_ucf_annotations(path, ["Dive/a", "Dive/z", "y"])
    path.write_text("version https://git-lfs")
    with pytest.raises(DataFileError, match="pickle"):
        read_ucf_annotations(path, ["Dive/a"])
    path.write_bytes(pickle.dumps([1]))
    with pytest.raises(DataFileError, match="expected a dict of videos, got list"):
        read_ucf_annotations(path, ["Dive/a"])


def test_detections_with_all_forms_of_names(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("a,1,0,0,40,40,0,0.9\nDive/a.avi,1,0,0,40,40,0,0.8\nb,1,0,0,1,1,1,1e-3\n")
    found = read_ucf_detections(path)
    assert found.scores.tolist() == [0.9, 0.8, 0.001] and found.source == str(path)
    result = evaluate_ucf101_24(annotations([(0, 1, A, 0)]), found)
    assert result.ap[0] == 1.0 and result.num_detections == [2, 0, 0]


def test_strange_videos_are_named(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("a,1,0,0,40,40,0,0.9\nDive/c,1,0,0,40,40,0,0.8\n")
    with pytest.raises(DataFileError, match=r"d.csv: video 'Dive/c' is not in .* as 'Dive/a'"):
        evaluate_ucf101_24(annotations([(0, 1, A, 0)]), read_ucf_detections(path))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a,1,0,0,40,40,0", "7 columns: expected video,frame"),
        ("a,0,0,0,40,40,0,0.9", "column frame: '0': expected a whole number from 1 on"),
        ("a,1.5,0,0,40,40,0,0.9", "column frame: '1.5'"),
        ("a,1,0,0,wide,40,0,0.9", "column x2: 'wide': expected a finite number"),
        ("a,1,0,0,40,40,-1,0.9", "column class: '-1': expected a whole number from 0 on"),
        ("a,1,0,0,40,40,0,nan", "column score: 'nan'"),
        ("a,1,0,0,inf,40,0,0.5", "column x2: 'inf'"),
        (",1,0,0,40,40,0,0.5", "column video"),
        ("a,99999999999,0,0,40,40,0,0.5", "column frame"),
    ],
)
def test_bad_detections(tmp_path, row, words):
    path = tmp_path / "d.csv"
    path.write_text(f"a,1,0,0,40,40,0,0.9\n{row}\na,2,0,0,40,40,0,0.9\n{row}\n")
    with pytest.raises(DataFileError) as error:
        read_ucf_detections(path)
    lines = str(error.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{path}:2", f"{path}:4"]
    assert words in lines[0]


def test_no_detections(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("")
    found = read_ucf_detections(path)
    result = evaluate_ucf101_24(annotations([(0, 1, A, 0)]), found)
    assert result.mean_ap == 0.0
    with pytest.raises(FileNotFoundError):
        read_ucf_detections(tmp_path / "no.csv")


# -------------------------------------------------------------------------- published numbers

CASES = [
    ("gurkirt_voc_gt_frames_only", "gurkirt", None),
    ("gurkirt_voc_all_frames", "gurkirt", "all"),
    ("act_all_frames", "act", None),
    ("act_gt_frames_only", "act", "annotated"),
    ("yowo_pascalvoc_gt_frames_only", "yowo", None),
]


@pytest.fixture(scope="module")
def case(shared, tmp_path_factory) -> tuple[Path, Path]:
    """The case's folder, and a list of its videos."""
    folder = shared / "ava" / "cases" / "ucf24"
    videos = tmp_path_factory.mktemp("ucf") / "list.txt"
    lines = (folder / "frames.csv").read_text().splitlines()
    videos.write_text("".join(line.partition(",")[0] + "\n" for line in lines))
    return folder, videos


@pytest.fixture(scope="module")
def case_data(shared, case) -> tuple[UCFAnnotations, UCFDetections]:
    folder, videos = case
    pickled = shared / "ava" / "ucf101_24" / "pyannot.pkl"
    return (
        read_ucf_annotations(pickled, read_video_list(videos)),
        read_ucf_detections(folder / "det.csv.gz"),
    )


def test_annotations_are_those_of_the_case(case, case_data):
    import gzip

    folder, _ = case
    found, _ = case_data
    lines = gzip.decompress((folder / "gt.csv.gz").read_bytes()).decode().splitlines()
    rows = zip(found.video_codes, found.frames, found.boxes.astype(int).tolist(), found.labels)
    ours = [f"{found.videos[v]},{f},{','.join(map(str, b))},{c}" for v, f, b, c in rows]
    assert sorted(ours) == sorted(lines)
    frames = (folder / "frames.csv").read_text().splitlines()
    assert [f"{v},{n}" for v, n in zip(found.videos, found.num_frames)] == frames


@pytest.mark.parametrize(("name", "protocol", "frames"), CASES)
def test_published_numbers(case, case_data, name, protocol, frames):
    expected = json.loads((case[0] / "expected.json").read_text())[name]
    result = evaluate_ucf101_24(*case_data, protocol, frames=frames)
    if protocol == "yowo":
        np.testing.assert_allclose(result.ap, expected["AP"], rtol=0, atol=1e-12)
        assert result.mean_ap == pytest.approx(expected["mAP"], abs=1e-12)
    else:  # stored in float32
        singles = np.array(result.ap, np.float32)
        np.testing.assert_allclose(singles, expected["AP"], rtol=0, atol=0 if frames else 6e-8)
        assert result.mean_ap == pytest.approx(expected["mAP"], abs=1e-7)


def test_order_of_rows_does_not_matter(case_data):
    found, rows = case_data
    order = np.random.default_rng(0).permutation(len(rows.labels))
    columns = ("video_codes", "frames", "boxes", "labels", "scores")
    shuffled = UCFDetections(rows.videos, *(getattr(rows, name)[order] for name in columns))
    for protocol in UCF_PROTOCOLS:
        a, b = (evaluate_ucf101_24(found, x, protocol) for x in (rows, shuffled))
        assert a.ap == b.ap


# ------------------------------------------------------------------------------------ the tool


def run_tool(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_tool(tmp_path):
    write_annotations(tmp_path / "a.pkl")
    (tmp_path / "list.txt").write_text("Dive/a.avi\nRun/b.avi\n")
    (tmp_path / "d.csv").write_text("a,3,1,2,4,6,0,0.5\nb,1,5,5,10,10,1,0.25\na,1,1,2,4,6,0,0.9\n")
    common = ("--annotations", tmp_path / "a.pkl", "--videos", tmp_path / "list.txt")
    common = (*common, "--detections", tmp_path / "d.csv")
    done = run_tool(*common, "--output", tmp_path / "out.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert "frame mAP@0.5 = 75.00 %   (protocol gurkirt, annotated frames only" in done.stdout
    assert json.loads((tmp_path / "out.json").read_text())["mAP@0.5"] == 0.75
    done = run_tool(*common, "--frames", "all")
    assert "62.50 %   (protocol gurkirt, all frames" in done.stdout

    (tmp_path / "bad.csv").write_text("a,3,1,2,4,6,0,high\n")
    for arguments, words in (
        (("--protocol", "coco"), "unknown protocol 'coco'"),
        (("--detections", tmp_path / "bad.csv"), "bad.csv:1: column score: 'high'"),
        (("--videos", tmp_path / "no.txt"), "no.txt"),
        (("--annotations", tmp_path / "d.csv"), "d.csv"),
    ):
        done = run_tool(*common, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr and len(done.stderr.splitlines()) == 1
