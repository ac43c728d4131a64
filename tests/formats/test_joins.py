"""Why tables do not join: the cases that people have met, and a right file, of which nothing is
said."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from alphaaction_d2.evaluation.ava_protocol import evaluate_ava, results_as_text
from alphaaction_d2.formats.ava import AVARows
from alphaaction_d2.formats.joins import frame_numbers, low_scores, recall, why_no_persons
from alphaaction_d2.formats.label_map import LabelMap

LABELS = LabelMap({1: "stand", 2: "walk", 3: "hold"}, {1: "", 2: "", 3: ""})
BOXES = np.array([[0.1, 0.2, 0.3, 0.8], [0.5, 0.1, 0.9, 0.7], [0.2, 0.3, 0.4, 0.9]])


def table(**columns) -> AVARows:
    """Three persons at the seconds 2, 3 and 4, who do 1, 2 and 3."""
    good = AVARows(
        videos=["v"],
        video_codes=np.zeros(3, np.int32),
        timestamps=np.array([2.0, 3, 4]),
        boxes=BOXES.copy(),
        labels=np.array([1, 2, 3]),
        scores=np.array([0.9, 0.8, 0.7]),
        person_ids=np.full(3, -1),
    )
    return replace(good, **columns)


CORNERS, SIZES = BOXES[:, :2], BOXES[:, 2:] - BOXES[:, :2]
WRONG = {
    "pixels": ({"boxes": BOXES * 640}, "all boxes reach beyond 1"),
    "extension": (
        {"videos": ["v.mp4"]},
        r"no row is of a video of the ground truth \(v.mp4; .* v\)",
    ),
    "late": ({"timestamps": np.array([902.0, 903, 904])}, "no row is at a .* all are 900 s late"),
    "frames": ({"timestamps": np.array([60.0, 90, 120])}, "all times are multiples of 30"),
    "ids from 0": ({"labels": np.array([0, 1, 2])}, "1 rows have action_id 0"),
    "ids moved": ({"labels": np.array([2, 3, 4])}, "ids that are -1 most have"),
    "xywh": ({"boxes": np.hstack([CORNERS, SIZES])}, "read as x, y, width, height 100%"),
    "cxcywh": ({"boxes": np.hstack([CORNERS + SIZES / 2, SIZES])}, "read as centre x"),
    "yx": ({"boxes": BOXES[:, [1, 0, 3, 2]]}, "read as y1, x1, y2, x2"),
    "ids as scores": ({"scores": np.array([1.0, 2, 1])}, "whole numbers .* person ids"),
    "no scores": ({"has_scores": False}, "no scores: the order"),
    "equal scores": ({"scores": np.ones(3)}, "all scores are 1"),
    "classes": ({"labels": np.array([7, 8, 9])}, r"no row has a class of the label map \(ids 7"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_an_evaluation_says_what_does_not_join(kind):
    columns, words = WRONG[kind]
    result = evaluate_ava(table(), table(**columns), LABELS)
    text = "\n".join(f"note: {note}" for note in result.notes)
    assert text and results_as_text(result, LABELS).endswith(text)

    assert re.search(words, text), text


def test_of_what_joins_nothing_is_said():
    result = evaluate_ava(table(), table(), LABELS)
    assert result.mean_ap == 1 and result.notes == ()
    assert recall(table(), table()) == 1


def test_no_number_without_a_match_is_alone():
    nobody = table(
        **{
            name: getattr(table(), name)[:0]
            for name in ("video_codes", "timestamps", "boxes", "labels", "scores", "person_ids")
        }
    )
    assert evaluate_ava(table(), nobody, LABELS).notes == ("there is no row at all",)


def test_persons_below_the_threshold():
    key = "INPUT.PERSON_SCORE_THRESH_TEST 0.8"
    assert low_scores(np.full(12, 0.45), 0.8) == [
        f"none of 12 detected persons scores {key} (highest 0.45)"
    ]
    assert low_scores(np.array([0.9, 0.9, 0.1]), 0.8) == []
    assert low_scores(np.array([0.9, 0.2, 0.1]), 0.8) == [
        f"2 of 3 detected persons score less than {key} (highest 0.90)"
    ]


def test_a_class_column_of_numbers_shows_nobody():
    rows = table(class_names=["0"], labels=np.zeros(3, np.int64))
    (why,) = why_no_persons(rows, np.zeros(3, bool), 0.8)
    assert why.startswith("no row is a person: the class column has 0; persons have an empty class")
    persons = table(labels=np.full(3, -1), scores=np.array([1.0, 2, 3]))
    assert "person ids" in why_no_persons(persons, np.ones(3, bool), 0.8)[0]


@pytest.mark.parametrize(("times", "odd"), [((30, 60, 90), True), ((2, 3, 4), False)])
def test_frame_numbers(times, odd):
    assert bool(frame_numbers(table(timestamps=np.array(times, float)))) == odd
