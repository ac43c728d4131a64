"""The command for what happens now."""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from alphaaction_d2.apps import live
from alphaaction_d2.apps.command_line import run_tool
from alphaaction_d2.apps.live_video import FPS, AnnotatedStream, VideoPieces, Window
from alphaaction_d2.data.video import iterate_frames, probe_video
from alphaaction_d2.engine import Trainer
from alphaaction_d2.formats.results import KeyframeResult, PersonResult
from tests.helpers import small_cfg, write_dataset

SOURCE = "lavfi:testsrc2=size=128x96:rate=20:duration=4"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Arguments that name a small model."""
    folder = write_dataset(tmp_path_factory.mktemp("live") / "live_command", seconds=2, videos=1)
    cfg = small_cfg(folder)
    torch.manual_seed(0)
    weights = folder / "weights.pth"
    torch.save({"model": Trainer.build_model(cfg).state_dict()}, weights)
    (folder / "config.yaml").write_text(cfg.dump())
    return ["--config-file", folder / "config.yaml", "--weights", weights]


@pytest.fixture
def run(monkeypatch):
    """Runs the command; returns the exit code."""
    monkeypatch.setattr(live, "setup_console", lambda **_: logging.getLogger("alphaaction_d2"))

    def start(*arguments: object) -> int:
        args = live.parse_args(list(map(str, arguments)))
        return run_tool(lambda: live.main(args))

    return start


def test_lines_and_pieces(run, model, tmp_path, caplog):
    caplog.set_level("INFO")
    lines, pieces = tmp_path / "lines.jsonl", tmp_path / "pieces"
    lines.write_text('{"from": "before"}\n')
    code = run(
        *(SOURCE, "--json", lines, "--video", pieces, "--piece", 2, "--min-score", 0.0),
        *("--boxes", "whole-frame", *model),
    )
    assert code == 0
    before, *results = map(json.loads, lines.read_text().splitlines())
    assert before == {"from": "before"}  # nothing is lost
    assert [x["timestamp"] for x in results] == sorted({x["timestamp"] for x in results})
    assert results[0]["width"] == 128 and results[0]["latency"] > 0
    assert datetime.fromisoformat(results[0]["time"]).tzinfo is not None
    (person,) = results[-1]["persons"]
    assert person["box"] == [0, 0, 128, 96] and len(person["actions"]) == 3
    files = sorted(pieces.glob("*.mp4"))
    assert len(files) == 2
    seconds = sum(probe_video(file).duration or 0 for file in files)
    assert seconds == pytest.approx(results[-1]["timestamp"] + 1, abs=0.2)  # to its end
    assert "MODEL.MEMORY.DELAY 0" in caplog.text
    assert "latency p50" in caplog.text and "seconds skipped" in caplog.text


def test_lines_on_stdout_and_an_end(run, model, capfd):
    assert run(SOURCE, "--seconds", 1, "--boxes", "whole-frame", *model) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [json.loads(line)["timestamp"] for line in lines][-1] >= 1


@pytest.mark.skipif(sys.platform == "win32", reason="has no head")
def test_whoever_reads_the_lines_may_have_enough(model):
    command = [sys.executable, "-m", "alphaaction_d2", "live", SOURCE, "--json", "-"]
    command += ["--boxes", "whole-frame", *map(str, model)]
    root = Path(__file__).resolve().parents[2]
    pipe = f"{shlex.join(command)} | head -1"
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        pipe, shell=True, env=environment, capture_output=True, text=True, timeout=120
    )
    assert json.loads(done.stdout)["timestamp"] >= 0
    assert "Broken pipe" not in done.stderr and "Traceback" not in done.stderr
    assert "latency p50" in done.stderr  # where messages go while stdout has the lines


def test_mistakes_are_one_line(run, model, capfd, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    for arguments, words in [
        (["nowhere.mp4"], "nowhere.mp4: no such file"),
        ([SOURCE, "--piece", 0], "--piece SECONDS must be 1 or more"),
        ([SOURCE, "--window"], "--window: there is no display here"),
    ]:
        assert run(*arguments, "--boxes", "whole-frame", *model) == 2
        assert words in capfd.readouterr().err


def test_a_window_needs_an_opencv_that_has_windows(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")

    def refuse(*_):
        raise live_video_error("no GUI")

    from alphaaction_d2.apps import live_video

    live_video_error = live_video.cv2.error
    monkeypatch.setattr(live_video.cv2, "namedWindow", refuse)
    with pytest.raises(ValueError, match="opencv-python-headless"):
        Window("title")


def keyframe(second: float, left: float) -> KeyframeResult:
    person = PersonResult.from_scores(np.array([left, 20, left + 40, 90]), [0.9], ["walk"], 1)
    return KeyframeResult(second, [person])


def test_pictures_wait_for_their_results_and_are_drawn_where_people_were():
    view, blank = AnnotatedStream(), np.zeros((540, 960, 3), np.uint8)
    frames = view.watch((i / 20, blank) for i in range(60))
    list(frames)
    assert [number for number, _ in view.drawn_until(keyframe(0, 100))] == [0]
    drawn = dict(view.drawn_until(keyframe(1, 300)))
    assert list(drawn) == list(range(1, FPS + 1))
    # Half way, and below the label and the time.
    columns = np.flatnonzero(drawn[5][85].any(axis=1))
    assert abs(columns[0] - 200) < 5 and abs(columns[-1] - 240) < 5
    left = dict(view.drawn_until(None))  # nothing comes after these
    assert list(left) == list(range(FPS + 1, 3 * FPS)) and left[FPS + 1][85].any()


def test_large_pictures_wait_small():
    view = AnnotatedStream()
    frame = np.zeros((1080, 1920, 3), np.uint8)
    assert all(x is frame for _, x in view.watch([(0.0, frame), (0.5, frame)]))
    ((_, drawn),) = view.drawn_until(keyframe(0, 1000))
    assert drawn.shape == (540, 960, 3)
    columns = np.flatnonzero(drawn[40].any(axis=1))
    assert abs(columns[0] - 500) < 5


def test_what_nobody_takes_is_forgotten():
    view, frame = AnnotatedStream(), np.zeros((8, 8, 3), np.uint8)
    list(view.watch((i / FPS, frame) for i in range(1000)))
    assert len(view._waiting) == 200


def test_missing_pictures_are_repeated_and_long_holes_begin_a_file(tmp_path):
    pieces = VideoPieces(tmp_path, 60, datetime(2024, 2, 3, 10, 0, 0))
    picture = np.zeros((32, 32, 3), np.uint8)
    assert pieces.write(0, picture)
    assert not pieces.write(5, picture)
    assert pieces.write(100, picture)
    pieces.close()
    first, second = sorted(tmp_path.glob("*.mp4"))
    assert (first.name, second.name) == ("20240203-100000.mp4", "20240203-100010.mp4")
    assert [len(list(iterate_frames(path))) for path in (first, second)] == [6, 1]
