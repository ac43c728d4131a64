"""projects/AIA/memory_window.py with the small model."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "projects" / "AIA" / "memory_window.py"
SMALL = [
    *("--config-file", str(ROOT / "configs" / "Small" / "aia.yaml"), "--short-side", "48"),
]
CPU = ("--opts", "MODEL.DEVICE", "cpu")


@pytest.fixture(scope="module")
def script() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(SCRIPT)))


def test_steps_run_and_are_timed(script):
    args = script.parse_arguments([*SMALL, "--lengths", "8", "0", "8", *CPU])
    assert args.lengths == [0, 8]
    cfg = script.load_config(args)
    assert script.picture_size(cfg) == (48, 63)
    steps = [script.build_step(cfg, "memory", 0), script.build_step(cfg, "memory", 8)]
    steps.append(script.build_step(cfg, "joint", 2))
    medians = script.interleaved_medians(steps, repeats=1, cfg=cfg)
    assert len(medians) == 3 and min(medians) > 0
    assert cfg.MODEL.MEMORY.WINDOW == (7, 7), "the configuration itself is left alone"


def test_draws_two_panels(script, tmp_path):
    rows = [
        {"length": length, "seconds": 1.0, "bytes": 1, "relative_time": r, "relative_memory": r}
        for length, r in ((0, 1.0), (60, 1.05))
    ]
    result = {"config": "x.yaml", "device": "cpu", "picture": "63x48", "repeats": 1}
    path = tmp_path / "figure.png"
    script.draw({**result, "methods": {"memory": rows, "joint": rows}}, path)
    with Image.open(path) as picture:
        assert picture.width > picture.height > 300
        assert len(picture.convert("RGB").getcolors(2**24)) > 10  # not an empty page


def test_a_model_without_memory_is_named(script):
    config = ROOT / "configs" / "AVA" / "slowfast_R50_4x16.yaml"
    with pytest.raises(ValueError, match="the model has no memory blocks"):
        script.main(["--config-file", str(config), *CPU])


def test_a_negative_window_is_refused(script, capsys):
    with pytest.raises(SystemExit):
        script.parse_arguments(["--lengths", "0", "-5"])
    assert "invalid seconds value: '-5'" in capsys.readouterr().err


@pytest.mark.slow
def test_whole_tool(tmp_path):
    arguments = ["--lengths", "0", "60", "--joint", "3", "--repeats", "1", "--output", tmp_path]
    done = subprocess.run(
        list(map(str, [sys.executable, SCRIPT, *SMALL, *arguments, *CPU])),
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "memory pool,  60 s" in done.stdout and "joint training,   3 s" in done.stdout
    result = json.loads((tmp_path / "memory_window.json").read_text())
    assert result["picture"] == "63x48"
    first, second = result["methods"]["memory"]
    assert (first["length"], second["length"]) == (0, 60)
    assert first["relative_time"] == first["relative_memory"] == 1
    assert all(row["seconds"] > 0 and row["bytes"] > 2**20 for row in (first, second))
    # With a pool peak memory stays, with three more clips in the step it does not.
    alone, joint = result["methods"]["joint"]
    assert (alone["length"], joint["length"]) == (0, 3)
    assert second["relative_memory"] < 1.1 < joint["relative_memory"]
    assert (tmp_path / "memory_window.png").is_file()
