"""The released model's reference numbers: every case passes, and what is wrong is reported."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.golden.check import check_case, find_cases, main

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("ALPHAACTION_SHARED", ROOT.parent / "shared"))
FOLDER = SHARED / "golden" / "data"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
def test_reference_case(name):
    (case,) = (case for case in find_cases(FOLDER, [name]) if case.name == name)
    check_case(case)
    assert case.ok, [x for x in case.comparisons.values() if not x.ok][:5]
    assert case.comparisons


def test_what_is_wrong_is_reported_and_the_others_count(shared, tmp_path, capsys):
    for file in (shared / "golden" / "data").glob("d[17]_*"):
        shutil.copy(file, tmp_path)
    (tmp_path / "x1.json").write_text(json.dumps({"config": {"what": 1}}))
    path = tmp_path / "d1_action_loss.npz"
    arrays = dict(np.load(path))
    arrays["out/loss_pose_action"] *= np.float32(1.01)
    np.savez(path, **arrays, **{"out/news": np.zeros(3, np.float32)})
    assert main([str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "FAIL d1_action_loss" in printed and "ok   d7_post_processor" in printed
    assert "out/loss_pose_action differs by" in printed
    assert "out/news was not compared" in printed
    assert "FAIL x1" in printed and "of no known kind" in printed
    assert "3 cases, 2 failed" in printed


def test_where_there_is_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no cases"):
        main([str(tmp_path)])
    with pytest.raises(FileNotFoundError, match="no such folder"):
        main([str(tmp_path / "x")])
