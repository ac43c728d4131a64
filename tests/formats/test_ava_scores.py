"""Unrounded scores of evaluations, and their mean over several models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alphaaction_d2.apps.evaluate import main, parse_args
from alphaaction_d2.formats.ava import AVARows, read_ava_csv, select_rows, write_ava_results
from alphaaction_d2.formats.ava_scores import average_scores, read_ava_scores, write_ava_scores

LABEL_MAP = 'item { name: "sit" id: 1 }\nitem { name: "run" id: 2 }\n'
BOXES = np.array([[0.1, 0.1, 0.4, 0.9]] * 2 + [[0.5, 0.2, 0.9, 1.0]] * 2)


def rows(scores, boxes=BOXES) -> AVARows:
    return AVARows(
        videos=["a", "b"],
        video_codes=np.array([0, 0, 1, 1], np.int32),
        timestamps=np.array([902.0, 902.0, 903.0, 903.0]),
        boxes=boxes,
        labels=np.array([1, 2, 1, 2]),
        scores=np.array(scores, np.float32),
        person_ids=np.full(4, -1),
    )


A, B = rows([0.1, 0.7, 1 / 3, 0.2]), rows([0.5, 0.1, 0.9, 1 / 7])


def test_scores_come_back_to_the_bit(tmp_path):
    write_ava_scores(tmp_path / "a.npz", A)
    again = read_ava_scores(tmp_path / "a.npz")
    assert again.videos == A.videos and again.scores.dtype == np.float32
    for name in ("video_codes", "timestamps", "boxes", "labels", "scores"):
        assert np.array_equal(getattr(again, name), getattr(A, name))


def test_the_mean_is_of_unrounded_scores():
    mean = average_scores([A, B, B]).scores
    expected = (A.scores.astype(float) + 2 * B.scores.astype(float)) / 3
    np.testing.assert_allclose(mean, expected, rtol=1e-15)
    assert np.array_equal(average_scores([A]).scores, A.scores)


def test_what_rounding_leaves_of_a_box_is_the_same_box():
    moved = rows([0.5, 0.1, 0.9, 0.2], BOXES + 1e-6)
    assert np.array_equal(average_scores([A, moved]).boxes, A.boxes)


@pytest.mark.parametrize(
    ("other", "where"),
    [
        (replace(B, labels=np.array([1, 2, 2, 1])), "row 3 on: b at 903 s, action 1"),
        (replace(B, timestamps=np.array([902.0, 904, 904, 904])), "row 2 on: a at 902 s"),
        (replace(B, videos=["a", "c"]), "row 3 on: b at 903 s"),
        (rows(B.scores, BOXES + 0.01), "row 1 on"),
    ],
)
def test_other_rows_are_refused(other, where):
    with pytest.raises(ValueError, match="SCORE_THRESH_TEST 0") as error:
        average_scores([A, other])
    assert where in str(error.value)


def test_fewer_rows_are_refused():
    with pytest.raises(ValueError, match="4 and 3 rows, which differ from row 4 on.*nothing"):
        average_scores([A, select_rows(B, np.arange(3))])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x93NUMPY nothing"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a.npz: not an array of numbers"):
        read_ava_scores(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("scores", np.array([0.1, np.nan, 0.2, 0.3]), "finite"),
        ("boxes", np.zeros((4, 3)), "boxes"),
        ("video_codes", np.array([0, 0, 1, 2]), "places in the 2 videos"),
        ("labels", np.array(["a"] * 4), "labels"),
    ],
)
def test_odd_arrays_are_refused(tmp_path, name, value, said):
    arrays = {x: getattr(A, x) for x in ("video_codes", "timestamps", "boxes", "labels", "scores")}
    np.savez(tmp_path / "a.npz", videos=A.videos, **{**arrays, name: value})
    with pytest.raises(ValueError, match=said):
        read_ava_scores(tmp_path / "a.npz")


@pytest.fixture
def files(tmp_path):
    (tmp_path / "list.pbtxt").write_text(LABEL_MAP)
    (tmp_path / "gt.csv").write_text("a,0902,0.1,0.1,0.4,0.9,1,1\nb,0903,0.5,0.2,0.9,1.0,2,1\n")
    for name, table in (("a", A), ("b", B)):
        write_ava_scores(tmp_path / f"{name}.npz", table)
        write_ava_results(tmp_path / f"{name}.csv", table)
    return tmp_path


def score(*arguments: object) -> None:
    main(parse_args(["ava", *map(str, arguments)]))


def test_the_command_averages(files, capsys):
    truth = ("--ground-truth", files / "gt.csv", "--label-map", files / "list.pbtxt")
    texts = []
    for kind in ("npz", "csv"):  # a CSV holds the same scores
        pair = (files / f"a.{kind}", files / f"b.{kind}")
        score(*truth, "--average", *pair, "--write-detections", files / f"mean_{kind}.csv")
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and "mAP@0.5" in texts[0]
    written = read_ava_csv(files / "mean_npz.csv", "results")
    np.testing.assert_allclose(written.scores, average_scores([A, B]).scores, rtol=1e-7)
    score(*truth, "--detections", files / "mean_npz.csv")
    assert capsys.readouterr().out == texts[0]


def test_a_file_for_the_server_needs_no_ground_truth(files, capsys):
    score("--average", files / "a.npz", files / "b.npz", "--write-detections", files / "c.csv")
    assert "Wrote" in capsys.readouterr().out and len(read_ava_csv(files / "c.csv", "results")) == 4


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "one of --detections and --average"),
        (("--detections", "a", "--average", "b"), "one of --detections and --average"),
        (("--detections", "a"), "--ground-truth"),
        (("--detections", "a", "--ground-truth", "b"), "--label-map, both or none"),
        (("--average", "a", "--write-detections", "b", "--output", "c"), "--ground-truth"),
    ],
)
def test_arguments_that_do_not_go_together(arguments, expected):
    with pytest.raises(ValueError, match=expected):
        score(*arguments)
