"""tools/demo.py as a user calls it, on bad input and good."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from alphaaction_d2 import setup_cfg
from alphaaction_d2.data.video import VideoWriter
from tests.detectors import write_detector

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "Puppets" / "none.yaml"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Two videos, a broken one, boxes for the first two, and weights."""
    root = tmp_path_factory.mktemp("scene")
    for name in ("one", "two"):
        with VideoWriter(root / f"{name}.mp4", 8, 96, 64) as writer:
            for i in range(16):
                writer.write(np.full((64, 96, 3), 10 * i, np.uint8))
    (root / "broken.mp4").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    rows = [f"{v},000{t},0.1,0.1,0.5,0.9,,0.9,1" for v in ("one", "two") for t in (0, 1)]
    (root / "boxes.csv").write_text("\n".join(rows) + "\n")
    cfg = setup_cfg(str(CONFIG), ["MODEL.DEVICE", "cpu"])
    torch.save({"model": build_model(cfg).state_dict()}, root / "weights.pth")
    # One class, which is taken as "person"; random weights find it everywhere, at 1/2.
    write_detector(root, num_classes=1, std=0)
    return root


def demo(scene: Path, output: Path, videos: list[str], *arguments: object):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [
        *(sys.executable, ROOT / "tools" / "demo.py", "--config-file", CONFIG),
        *("--weights", scene / "weights.pth", "--input", *(scene / v for v in videos)),
        *("--output", output, *arguments),
    ]
    return subprocess.run(
        list(map(str, command)), cwd=output.parent, env=environment, capture_output=True, text=True
    )


def test_a_bad_video_is_named_and_the_others_go_on(scene, tmp_path):
    done = demo(
        scene,
        tmp_path / "out",
        ["one.mp4", "broken.mp4", "two.mp4"],
        "--boxes",
        scene / "boxes.csv",
    )
    assert done.returncode == 1
    assert "1 of 3 videos failed" in done.stderr and "git lfs pull" in done.stderr
    assert "Traceback" not in done.stderr
    page = (tmp_path / "out" / "report.html").read_text()
    assert "broken.mp4" in page
    for name in ("one", "two"):
        result = json.loads((tmp_path / "out" / name / "results.json").read_text())
        assert [len(k["persons"]) for k in result["keyframes"]] == [1, 1]


def test_whole_frame_without_boxes(scene, tmp_path):
    done = demo(scene, tmp_path / "out", ["one.mp4"], "--boxes", "whole-frame")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "annotated.mp4").is_file()


def test_a_detector_gives_the_boxes(scene, tmp_path):
    done = demo(
        scene,
        tmp_path / "out",
        ["one.mp4"],
        *("--person-detector", scene / "detector.yaml", scene / "detector.pth"),
        *("--opts", "INPUT.PERSON_SCORE_THRESH_TEST", 0.4),
    )
    assert done.returncode == 0, done.stderr
    keyframes = json.loads((tmp_path / "out" / "results.json").read_text())["keyframes"]
    assert [k["timestamp"] for k in keyframes] == [0, 1]
    assert all(k["persons"] for k in keyframes)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--boxes FILE"),
        (["--boxes", "whole-frame", "--person-detector", "x.yaml"], "no --boxes besides"),
        (["--person-detector", "x.yaml", "y.pth"], "x.yaml: no such configuration file"),
        (["--boxes", "nothing.csv"], "nothing.csv"),
        (["--boxes", "whole-frame", "--opts", "MODEL.X"], "KEY VALUE pairs"),
        (["--boxes", "whole-frame", "--weights", "boxes.csv"], "not a checkpoint"),
    ],
)
def test_mistakes_are_one_line(scene, tmp_path, arguments, message):
    arguments = [scene / a if a == "boxes.csv" else a for a in arguments]
    done = demo(scene, tmp_path / "out", ["one.mp4"], *arguments)
    assert done.returncode in (1, 2)
    assert message in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_two_videos_of_one_name(scene, tmp_path):
    done = demo(scene, tmp_path / "out", ["one.mp4", "one.mp4"], "--boxes", "whole-frame")
    assert done.returncode == 2 and "several videos are called one" in done.stderr
