"""`alphaaction convert --to coco`, whose content is tested beside what makes it."""

from __future__ import annotations

import json

from alphaaction_d2.apps.command_line import run_module
from alphaaction_d2.formats.results import write_results_json
from tests.formats.test_results import some_result


def test_a_file_or_a_folder_of_them(tmp_path, capsys):
    write_results_json(tmp_path / "films" / "a" / "results.json", some_result())
    for given in (tmp_path / "films", tmp_path / "films" / "a" / "results.json"):
        words = ["--to", "coco", "--min-score", "0.5", str(given), str(tmp_path / "coco.json")]
        assert run_module("convert", words) == 0
        assert "3 images, 3 annotations, 2 categories" in capsys.readouterr().out
        content = json.loads((tmp_path / "coco.json").read_text("utf-8"))
        assert min(x["score"] for x in content["annotations"]) >= 0.5


def test_mistakes_are_one_line(tmp_path, capsys):
    (tmp_path / "no.json").write_text("[]")
    for given, message in (
        (tmp_path, "no results.json in it"),
        (tmp_path / "no.json", "not a results.json of a video"),
        (tmp_path / "none.json", "No such file"),
    ):
        assert run_module("convert", ["--to", "coco", str(given), str(tmp_path / "x.json")]) == 2
        errors = capsys.readouterr().err
        assert errors.startswith("error: ") and message in errors and errors.count("\n") == 1
        assert not (tmp_path / "x.json").exists()
