"""`alphaaction search` on an index that is there."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest

from alphaaction_d2.apps.command_line import run_module
from alphaaction_d2.formats.people import read_people
from tests.formats.test_people import person, write


@pytest.fixture
def search(tmp_path, monkeypatch):
    write(tmp_path / "a", "film", {1.0: [person(0, 1), person(1, 2)], 2.5: [person(2, 1)]})
    write(tmp_path / "b", "other", {1.0: [person(0.5, 1, 0.9)]})
    monkeypatch.chdir(tmp_path)
    return lambda *words: run_module("search", words, needs_models=False)


def test_tables(search, capsys, tmp_path):
    assert search("--action", " open ", "--csv", "found.csv") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["video", "second", "person", "score", "does"]
    assert lines[2].split() == ["other", "1", "1", "0.8999", "open", "0.90,", "walk", "0.25"]
    rows = list(csv.DictReader((tmp_path / "found.csv").open()))
    assert [(x["video"], x["second"]) for x in rows[:2]] == [("other", "1.0"), ("film", "1.0")]
    assert float(rows[0]["x2"]) == pytest.approx(0.3) and len(rows) == 3
    assert search("--like", "film@1#1", "--top", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[2].split()[:3] == ["other", "1", "1"]
    assert float(lines[2].split()[3]) == pytest.approx(np.cos(0.5), abs=1e-3)


def test_join(search, tmp_path, capsys):
    assert search("--join", "all.arrow") == 0
    assert capsys.readouterr().out == "all.arrow: 4 rows\n"
    assert len(read_people([tmp_path / "all.arrow"])) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--index", "nowhere.arrow", "--action", "open"], "nowhere.arrow"),
        (["--like", "film@1"], "which one?"),
        (["--like", "film@1#1", "--pictures", "x.png"], "film.mp4: "),
    ],
)
def test_mistakes_are_one_line(search, capsys, words, message):
    assert search(*words) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and message in errors and errors.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--action", "x", "--like", "y"],
        ["--join", "x", "--top", "0"],
        ["--join", "x", "--csv", "y"],
    ],
)
def test_what_is_asked_must_be_said(search, words):
    with pytest.raises(SystemExit):
        search(*words)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (person(0, 1), "film@1#1: nobody else is in this index"),
        (replace(person(0, 1), features=None), "an index of an exported model has no vectors"),
    ],
)
def test_who_has_nobody_to_be_like(tmp_path, capsys, found, message):
    write(tmp_path, "film", {1.0: [found]})
    words = ["--index", str(tmp_path), "--like", "film@1#1"]
    assert run_module("search", words, needs_models=False) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
