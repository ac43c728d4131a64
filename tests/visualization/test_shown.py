"""Which classes are shown of whom, and in which words."""

from __future__ import annotations

import json

import numpy as np

from alphaaction_d2.formats.ava_classes import AVA_CLASSES, SHORT_NAMES
from alphaaction_d2.formats.results import (
    KeyframeResult,
    PersonResult,
    VideoResult,
    read_best_scores,
)
from alphaaction_d2.visualization.shown import ShownClasses, display_thresholds


def keyframe_of(scores: dict[str, float], names=AVA_CLASSES, truth=None) -> KeyframeResult:
    values = np.array([scores.get(name, 0.01) for name in names])
    person = PersonResult.from_scores(np.array([0, 0, 9, 9]), values, list(names), 1)
    person = PersonResult(person.box, 1, person.actions, person.scores, truth)
    return KeyframeResult(2.0, [person], missed=[truth or ()])


def shown_of(shown: ShownClasses, keyframe: KeyframeResult) -> list[str]:
    return [name for name, _ in shown.keyframe(keyframe).persons[0].actions]


def test_short_names_are_of_ava_and_stay_different():
    assert set(SHORT_NAMES) < set(AVA_CLASSES)
    names = ShownClasses.of(AVA_CLASSES).names
    assert len(set(names)) == len(names) == 80
    assert max(map(len, names)) <= 18 and not any("(" in name or "/" in name for name in names)


def test_one_pose_and_what_else_is_done():
    scores = {"stand": 0.6, "walk": 0.5, "watch (a person)": 0.55, "carry/hold (an object)": 0.3}
    shown = ShownClasses.of(AVA_CLASSES)
    keyframe = keyframe_of({**scores, "eat": 0.29})
    assert shown_of(shown, keyframe) == ["stand", "watch someone", "hold something"]
    person = shown.keyframe(keyframe).persons[0]
    np.testing.assert_array_equal(person.scores, keyframe.persons[0].scores)  # all of them


def test_a_score_for_each_class():
    names = ["open", "close", "", "wave"]
    keyframe = keyframe_of({"open": 0.2, "close": 0.6, "": 0.99, "wave": 0.5}, names)
    assert shown_of(ShownClasses.of(names), keyframe) == ["close", "wave"]
    shown = ShownClasses.of(names, [0.1, 0.7, 0.0, 0.5])
    assert shown_of(shown, keyframe) == ["wave", "open"]
    assert shown.names == names and shown.lowest == 0


def test_whole_results_and_what_annotators_saw():
    keyframe = keyframe_of({"talk to (e.g., self, a person, a group)": 0.9}, truth=("lie/sleep",))
    shown = ShownClasses.of(AVA_CLASSES)
    result = shown.result(VideoResult("v", 10, 10, AVA_CLASSES, [keyframe]))
    assert result.class_names[AVA_CLASSES.index("lie/sleep")] == "lie"
    assert [a for a, _ in result.keyframes[0].persons[0].actions] == ["talk"]
    assert result.keyframes[0].persons[0].truth == ("lie",)
    assert result.keyframes[0].missed == [("lie",)]


def test_thresholds_of_an_evaluation(tmp_path):
    names = ["open", "close", "wave", "hide"]
    content = {
        "class_names": {"1": "open", "2": "close", "3": "wave"},
        "best_score_per_class": {"1": 0.62, "2": 0.001, "3": None},
    }
    path = tmp_path / "ava_results.json"
    path.write_text(json.dumps(content))
    best = read_best_scores(path, names)
    assert display_thresholds(names, best) == [0.62, 0.1, 0.3, 0.3]
    assert read_best_scores(path, ["other"]) == {}  # of other classes
    assert read_best_scores(tmp_path / "none.json", names) == {}
    path.write_text("[1]")
    assert display_thresholds(names, read_best_scores(path, names)) == [0.3] * 4
