"""Persons and actions over time, and what annotators say to them."""

from __future__ import annotations

import numpy as np
import pytest

from alphaaction_d2.formats.results import KeyframeResult, PersonResult, VideoResult
from alphaaction_d2.visualization.timeline import (
    Strip,
    Tally,
    overlooked,
    persons_over_time,
    with_truth,
)

NAMES = ["walk", "wave", "open"]


def person(number: int, left: float, *scores: float) -> PersonResult:
    return PersonResult.from_scores([left, 0, left + 10, 20], scores, NAMES, number)


def box(left: float) -> list[float]:
    return [left, 0, left + 10, 20]


def test_who_is_whom():
    keyframe = KeyframeResult(3.0, [person(1, 0, 0.9, 0.1, 0.1), person(2, 50, 0.9, 0.6, 0.1)])
    truth = {3.0: (np.array([box(52), box(100), box(51)]), [["wave"], ["open"], ["walk"]])}
    found = with_truth(keyframe, truth)
    assert [x.truth for x in found.persons] == [(), ("walk",)]  # the nearest of two
    assert found.missed == [("wave",), ("open",)]
    assert overlooked(found.persons[1], 0.95) == ["walk"]
    assert overlooked(found.persons[1], 0.5) == []


def test_half_an_overlap_is_needed_and_other_keyframes_are_not_annotated():
    keyframe = KeyframeResult(3.0, [person(1, 0, 0.9, 0.1, 0.1)])
    far = with_truth(keyframe, {3.0: (np.array([box(4)]), [["walk"]])})  # IoU 6 / 14
    assert far.persons[0].truth == () and far.missed == [("walk",)]
    near = with_truth(keyframe, {3.0: (np.array([box(3)]), [["walk"]])})  # IoU 7 / 13
    assert near.persons[0].truth == ("walk",) and near.missed == []
    assert with_truth(keyframe, {4.0: (np.zeros((0, 4)), [])}) is keyframe


def test_nobody_annotated_or_nobody_found():
    empty = KeyframeResult(1.0, [])
    truth = {1.0: (np.array([box(0)]), [["walk", "wave"]]), 2.0: (np.zeros((0, 4)), [])}
    assert with_truth(empty, truth).missed == [("walk", "wave")]
    found = with_truth(KeyframeResult(2.0, [person(1, 0, 0.9, 0, 0)]), truth)
    assert found.persons[0].truth == ()


def test_counting():
    truth = {
        0.0: (np.array([box(0), box(30)]), [["walk", "open"], ["wave"]]),
    }
    keyframes = [
        with_truth(KeyframeResult(0.0, [person(1, 0, 0.9, 0.8, 0.1)]), truth),
        KeyframeResult(1.0, [person(1, 0, 0.9, 0.8, 0.7)]),  # nobody knows
    ]
    result = VideoResult("v", 200, 100, NAMES, keyframes)
    tally = Tally.of(result, 0.3)
    assert (tally.right, tally.wrong, tally.missed) == (1, 1, 2)
    assert (tally.persons, tally.persons_missed) == (2, 1)
    assert Tally.of(VideoResult("v", 200, 100, NAMES, keyframes[1:]), 0.3) is None


def test_rare_actions_are_not_behind_common_ones():
    keyframes = [KeyframeResult(float(t), [person(1, 0, 0.5, 0.1, 0.1)]) for t in range(9)]
    keyframes[4] = KeyframeResult(4.0, [person(1, 0, 0.5, 0.1, 0.95), person(2, 50, 0, 0, 0)])
    rows = persons_over_time(VideoResult("v", 99, 99, NAMES, keyframes), 0.3)
    assert [(x.person_id, [s.action for s in x.strips]) for x in rows] == [
        (1, ["open", "walk"]),
        (2, []),
    ]
    assert rows[0].strips[0].scores == {4.0: pytest.approx(0.95)}


def test_what_is_true_has_a_strip_though_it_is_not_shown():
    truth = {2.0: (np.array([box(0)]), [["wave"]])}
    keyframe = with_truth(KeyframeResult(2.0, [person(1, 0, 0.9, 0.1, 0.1)]), truth)
    (row,) = persons_over_time(VideoResult("v", 99, 99, NAMES, [keyframe]), 0.3)
    assert [(s.action, s.best, s.truth) for s in row.strips] == [
        ("walk", pytest.approx(0.9), set()),
        ("wave", 0.0, {2.0}),
    ]


def test_runs_join_what_looks_the_same():
    strip = Strip("walk", {0.0: 0.3, 1.0: 0.32, 2.0: 1.0, 4.0: 1.0}, {1.0, 2.0, 3.0, 7.0})
    assert list(strip.runs(1.0, 0.3)) == [(-0.5, 1.5, 0.25), (1.5, 2.5, 1.0), (3.5, 4.5, 1.0)]
    assert list(strip.true_runs(1.0)) == [(0.5, 3.5), (6.5, 7.5)]
    assert list(Strip("walk").runs(1.0, 0.3)) == []
