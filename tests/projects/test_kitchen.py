"""projects/AIA/kitchen.py: what the miniature shows, and what it hides."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from alphaaction_d2.data.datasets.epic55 import EPICFiles, load_epic
from alphaaction_d2.formats.epic55 import read_detected_features
from tests.helpers import CONFIGS

SCRIPT = Path(__file__).resolve().parents[2] / "projects" / "AIA" / "kitchen.py"
CLIP = 8 * 2 / 8.0 / 2  # seconds on each side of a clip's centre


@pytest.fixture(scope="module")
def kitchen() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(SCRIPT)))


@pytest.fixture(scope="module")
def folder(kitchen, tmp_path_factory) -> Path:
    return kitchen.generate(tmp_path_factory.mktemp("data") / "kitchen", train=1, val=1)


def test_the_files_are_read(kitchen, folder):
    train, val = (load_epic("x", EPICFiles(folder, "noun", split)) for split in ("train", "val"))
    assert [x["video_id"] for x in train] == ["P01_01"] * kitchen.SEGMENTS
    assert {x["video_id"] for x in val} == {"P26_01"}
    assert all(len(x["hands"].near(x["timestamp"])) == 2 for x in train)
    assert kitchen.generate(folder, train=1, val=1) == folder, "it is there already"
    (folder / "kitchen.json").unlink()
    with pytest.raises(ValueError, match="is no kitchen of this script"):
        kitchen.generate(folder)


def test_open_and_close_look_alike_and_come_in_turn(kitchen):
    for seed in range(20):
        segments = kitchen.plan(np.random.default_rng(seed))
        turns = [i for i, x in enumerate(segments) if x.verb in ("open", "close")]
        assert [segments[i].verb for i in turns] == ["open", "close"] * (len(turns) // 2)
        gaps = np.diff(turns)
        assert set(gaps[::2]) <= {2} and (gaps[1::2] > 2).all(), "else which is which?"
    a, b = (kitchen.Segment(3.0, 0.5, verb, "pan", 0.5, 0.2) for verb in ("open", "close"))
    for seconds in (2.0, 3.0, 3.7):
        assert kitchen.hands_at(a, seconds) == kitchen.hands_at(b, seconds)


def test_no_clip_shows_a_jar_and_the_features_do(kitchen, folder):
    segments = kitchen.plan(np.random.default_rng([0, 1, 0]))  # of the training video
    found = read_detected_features(folder / "noun_lfb" / "train_lfb.pkl")["P01_01"]
    hidden = [x for x in segments if x.hidden]
    assert hidden
    for x in hidden:
        drawn = [x.middle + d for d in np.linspace(-x.half - CLIP, x.half + CLIP, 41)]
        assert not any(x.shows_thing(t) for t in drawn), "wherever training puts the clip"
        seconds = [30 * s for s in range(72) if abs(s - x.middle) < 3 and x.shows_thing(s)]
        assert seconds and all(frame in found for frame in seconds)
    white = np.zeros((kitchen.HEIGHT, kitchen.WIDTH, 3))
    pictures = [
        kitchen.draw([kitchen.Segment(3.0, 0.5, "cut", noun, 0.5, 0.2)], 3.0, white)
        for noun in kitchen.NOUNS
    ]
    jars = pictures[3:]
    assert all((jars[0] == x).all() for x in jars), "covered, all jars are the same"
    assert len({x.tobytes() for x in pictures}) == 4


def test_accuracies_by_hand(kitchen, folder, tmp_path):
    (tmp_path / "annotations").mkdir()
    for name in ("EPIC_train_action_labels.csv", "EPIC_verb_classes.csv", "EPIC_noun_classes.csv"):
        (tmp_path / "annotations" / name).write_text((folder / "annotations" / name).read_text())
    segments = EPICFiles(tmp_path, "verb", "val").segments()
    files = {}
    for kind, labels, count in (("verb", segments.verbs, 5), ("noun", segments.nouns, 6)):
        logits = np.eye(count)[labels]
        if kind == "noun":
            logits[np.isin(labels, (3, 4, 5))] = 0  # says the last class
        files[kind] = tmp_path / f"{kind}.npz"
        np.savez(files[kind], uids=segments.uids, logits=logits)
    found = kitchen.accuracies(tmp_path, files)
    assert found["verbs all"] == found["verbs seen"] == found["nouns seen"] == 100
    jars = segments.nouns[np.isin(segments.nouns, (3, 4, 5))]
    assert found["nouns remembered"] == pytest.approx(100 * np.mean(jars == 5))


def test_configurations_are_of_the_miniature(kitchen):
    names = {f"{kind}_{method}.yaml" for kind in ("verb", "noun") for method in kitchen.METHODS}
    there = {path.name for path in (CONFIGS / "EPIC-Kitchens" / "miniature").glob("[!B]*.yaml")}
    assert names == there
