"""`alphaaction segments`: what is done in a film, by a table's segments or by windows."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from alphaaction_d2.apps.command_line import run_tool
from alphaaction_d2.apps.segments import actions, main, parse_args
from alphaaction_d2.visualization.segment_chart import joined, segment_chart
from tests.helpers import build_trainer
from tests.kitchens import kitchen_cfg, write_kitchen


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    return write_kitchen(tmp_path_factory.mktemp("epic") / "kitchen_apps")


@pytest.fixture(scope="module")
def models(kitchen, tmp_path_factory) -> dict[str, list[str]]:
    """Configuration and weights of both models, hardly trained."""
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for kind in ("verb", "noun"):
        cfg = kitchen_cfg(kitchen, kind, "SEED", 1, "SOLVER.MAX_ITER", 1, "SOLVER.STEPS", "()")
        cfg.DATASETS.TEST = ()
        build_trainer(cfg, folder / kind).train()
        cfg.DATASETS.FOLDERS = ()
        path = folder / f"{kind}.yaml"
        path.write_text(cfg.dump())
        found[f"--{kind}s"] = [str(path), str(folder / kind / "model_final.pth")]
    return found


def run(kitchen, models, output, *more) -> int:
    video = kitchen / "videos" / "P26" / "P26_01.MP4"
    given = [x for kind, files in models.items() for x in (kind, *files)]
    boxes = ("--boxes", kitchen / "boxes" / "val.csv")
    words = [*given, "--input", video, "--output", output, *boxes, *more]
    return run_tool(lambda: main(parse_args(list(map(str, words)))))


def read(output) -> list[dict]:
    with (output / "segments.csv").open() as file:
        return list(csv.DictReader(file))


def test_segments_of_a_table_are_scored_as_in_testing(kitchen, models, tmp_path, capsys):
    features = ("--features", kitchen / "noun_lfb" / "val_lfb.pkl")
    labels = kitchen / "annotations" / "EPIC_train_action_labels.csv"
    assert run(kitchen, models, tmp_path, *features, "--segments", labels, "--prior", labels) == 0
    rows = read(tmp_path)
    assert [row["start"] for row in rows] == ["0.50", "0.90", "3.00", "5.50"]
    assert {row["verb"] for row in rows} <= {"verb-0", "verb-1"}, "by the names in the weights"
    assert all(row["action"].startswith("verb-") for row in rows)
    with Image.open(tmp_path / "timeline.png") as picture:
        assert picture.width > 1000 and len(picture.convert("RGB").getcolors(2**24)) > 10


def test_windows_slide_over_a_film(kitchen, models, tmp_path, capsys):
    alone = {"--verbs": models["--verbs"]}
    assert run(kitchen, alone, tmp_path, "--every", 2) == 0
    rows = read(tmp_path)
    assert [(row["start"], row["stop"]) for row in rows] == [
        (f"{t}.00", f"{t + 2}.00") for t in range(0, 8, 2)
    ]
    assert set(rows[0]) == {"start", "stop", "verb", "score"}
    assert run(kitchen, alone, tmp_path, "--every", 0) == 2
    assert "--every 0.0" in capsys.readouterr().err


def test_what_is_missing_is_told(kitchen, models, tmp_path, capsys):
    assert run(kitchen, models, tmp_path) == 2
    assert "give --features FILE" in capsys.readouterr().err
    assert run(kitchen, {}, tmp_path) == 2
    assert "give a model" in capsys.readouterr().err
    labels = tmp_path / "labels.csv"
    text = (kitchen / "annotations" / "EPIC_train_action_labels.csv").read_text()
    labels.write_text(text.replace("P26_01", "P26_02"))
    alone = {"--verbs": models["--verbs"]}
    assert run(kitchen, alone, tmp_path, "--segments", labels) == 2
    assert "no segment of a video 'P26_01'" in capsys.readouterr().err


def test_actions_by_the_prior(tmp_path):
    verbs = ["open", "cut"], np.array([[0.6, 0.4]])
    nouns = ["door", "bread"], np.array([[0.5, 0.5]])
    answers = {"verbs": verbs, "nouns": nouns}
    ((_, _, what, score),) = actions([(0, 1)], answers, None)
    assert (what, score) == ("open door", pytest.approx(0.3))
    labels = tmp_path / "labels.csv"
    labels.write_text("uid,participant_id,verb_class,noun_class\n0,P01,1,1\n1,P02,1,1\n2,P26,0,0\n")
    ((_, _, what, score),) = actions([(0, 1)], answers, str(labels))
    assert what == "cut bread" and score == pytest.approx(1), "the only one of training"


def test_bars_that_follow_each_other_are_joined(tmp_path):
    bars = [(0, 1, "cut", 0.5), (1, 2, "cut", 0.9), (2, 3, "stir", 0.2), (4, 5, "stir", 0.1)]
    assert joined(bars) == [(0, 2, "cut", 0.9), (2, 3, "stir", 0.2), (4, 5, "stir", 0.1)]
    hours = [(3600.0 * i, 3600.0 * i + 5, f"{i} $x$", 0.5) for i in range(3)]
    with Image.open(segment_chart(tmp_path / "long.png", "v", {"verbs": hours})) as picture:
        assert picture.height < 6000
    assert segment_chart(tmp_path / "none.png", "v", {"verbs": []}).is_file()
