"""`alphaaction predict`: many videos, whatever ends the processes that look at them."""

from __future__ import annotations

import csv
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from detectron2.modeling import build_model

from alphaaction_d2 import setup_cfg
from alphaaction_d2.apps import predict as app
from alphaaction_d2.apps.progress import videos_text
from alphaaction_d2.apps.video_arguments import find_inputs
from alphaaction_d2.apps.video_folders import MOST_DEATHS, VideoFolders, claim_folder, shard_of
from alphaaction_d2.data.video import VideoWriter
from tests.helpers import loaded_tool

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "predict.py"
CONFIG = ROOT / "configs" / "Puppets" / "none.yaml"
GIVEN = ("--config-file", CONFIG, "--boxes", "whole-frame")


def write_films(folder: Path, number: int) -> Path:
    folder.mkdir()
    for k in range(number):
        with VideoWriter(folder / f"film_{k}.mp4", 8, 96, 64) as writer:
            for i in range(16 + 4 * (k % 3)):
                writer.write(np.full((64, 96, 3), 5 * i + k, np.uint8))
    return folder


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Four films, and the weights of a network."""
    root = tmp_path_factory.mktemp("scene")
    write_films(root / "films", 4)
    torch.manual_seed(0)
    model = build_model(setup_cfg(str(CONFIG), ["MODEL.DEVICE", "cpu"]))
    torch.save({"model": model.state_dict()}, root / "weights.pth")
    return root


@pytest.fixture
def predict(scene, tmp_path, monkeypatch, caplog):
    """Runs the tool in this process, into `out`; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, "alphaaction_d2")
    weights = ("--weights", scene / "weights.pth")
    with loaded_tool(TOOL) as run:
        yield lambda videos, output="out", *more: run(
            *("--input", videos, "--output", output, *weights, *GIVEN, *more)
        )


def contents(folder: Path) -> dict[str, bytes]:
    files = (x for x in folder.rglob("*") if x.is_file() and x.name != ".lock")
    return {str(x.relative_to(folder)): x.read_bytes() for x in files}


def test_a_folder_for_each_video_as_demo_writes_it(predict, scene, tmp_path):
    assert predict(scene / "films") == 0
    found = contents(tmp_path / "out")
    kinds = ("people.arrow", "results.csv", "results.json")
    results = [f"film_{k}/{kind}" for k in range(4) for kind in kinds]
    assert sorted(found) == sorted([*results, "results.parquet", "settings.json"])
    with loaded_tool(ROOT / "tools" / "demo.py") as demo:
        given = ("--weights", scene / "weights.pth", *GIVEN, "--output", "demo")
        assert demo(scene / "films" / "film_1.mp4", *given) == 0
    for kind in kinds:
        assert (tmp_path / "demo" / kind).read_bytes() == found[f"film_1/{kind}"]
    rows = pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    texts = [found[f"film_{k}/results.csv"].decode().splitlines() for k in range(4)]
    expected = [row for text in texts for row in csv.DictReader(text)]
    assert len(rows) == len(expected) > 0
    for row, text in zip(rows, expected):
        assert row["video_id"] == text["video_id"] and row["action_name"] == text["action_name"]
        for key in ("timestamp", "x1", "y2", "action_id", "score", "person_id"):
            assert row[key] == pytest.approx(float(text[key]), abs=1e-6)


def test_failures_cost_a_row_and_are_tried_again(
    predict, scene, tmp_path, capsys, caplog, monkeypatch
):
    films = write_films(tmp_path / "films", 2)
    (films / "a broken.mp4").write_bytes(b"")
    (films / "film_1.mp4").rename(films / "z.mp4")
    assert predict(films) == 1
    rows = list(csv.DictReader((tmp_path / "out" / "failed.csv").open()))
    assert [(x["name"], x["video"]) for x in rows] == [("a broken", str(films / "a broken.mp4"))]
    assert "empty" in rows[0]["reason"]
    assert "2 videos done, 1 failed (out/failed.csv), 0 passed over" in caplog.text
    assert "Traceback" not in capsys.readouterr().err + caplog.text
    before = contents(tmp_path / "out")
    with monkeypatch.context() as patch:  # torchrun would end the other processes
        patch.setenv("TORCHELASTIC_RUN_ID", "x")
        assert predict(films) == 0
    assert contents(tmp_path / "out") == before
    (films / "a broken.mp4").write_bytes((scene / "films" / "film_3.mp4").read_bytes())
    assert predict(films) == 0
    assert "1 videos done, 0 failed, 2 passed over" in caplog.text
    after = contents(tmp_path / "out")
    assert after["failed.csv"] == b"name,video,reason\n" and "a broken/results.csv" in after
    assert all(after[x] == before[x] for x in before if x.startswith(("film", "z")))


def test_shards_are_the_whole(predict, scene, tmp_path, monkeypatch, caplog):
    names = [f"film_{k}" for k in range(300)]
    parts = [shard_of(x, 2) for x in names]
    assert 120 < sum(parts) < 180
    assert predict(scene / "films", "whole") == 0
    assert predict(scene / "films", "parts", "--shard", "0/2") == 0
    assert "2 are other processes' to do" in caplog.text
    names = set(pq.read_table(tmp_path / "parts" / "results.parquet")["video_id"].to_pylist())
    assert names == {f"film_{k}" for k in range(4) if shard_of(f"film_{k}", 2) == 0}
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert predict(scene / "films", "parts") == 0
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.parametrize("shard", ["2/2", "1", "x/2", "-1/2"])
def test_shards_that_do_not_exist(predict, scene, capsys, shard):
    assert predict(scene / "films", "out", f"--shard={shard}") == 2
    assert "give I/N, I from 0 to N - 1" in capsys.readouterr().err


def test_other_settings_are_not_mixed(predict, scene, tmp_path, capsys):
    assert predict(scene / "films" / "film_0.mp4") == 0
    before = contents(tmp_path / "out")
    weights = torch.load(scene / "weights.pth", weights_only=True)
    torch.save({"model": {k: x + 0 for k, x in weights["model"].items()}}, tmp_path / "same.pth")
    assert predict(scene / "films", "out", "--weights", tmp_path / "same.pth") == 0
    name = next(x for x in weights["model"] if x.endswith(".weight"))
    weights["model"][name][0] += 1
    torch.save(weights, tmp_path / "other.pth")
    for more, key in (
        (("--weights", tmp_path / "other.pth"), "weights"),
        (("--opts", "INPUT.MIN_SIZE_TEST", "32"), "INPUT.MIN_SIZE_TEST"),
    ):
        assert predict(scene / "films", "out", *more) == 2
        error = capsys.readouterr().err
        assert f"error: out: begun with {key} " in error and error.count("\n") == 1
    assert before.items() <= {**contents(tmp_path / "out"), **_tables(before)}.items()


def _tables(found: dict[str, bytes]) -> dict[str, bytes]:
    return {x: found[x] for x in found if x.endswith(".parquet")}


def test_settings_of_two_that_begin_at_once(tmp_path, monkeypatch):
    claim_folder(tmp_path / "a", {"x": (1, 2)})
    claim_folder(tmp_path / "a", {"x": [1, 2]})
    # Between looking and writing, the other one has begun.
    monkeypatch.setattr(Path, "is_file", lambda path: False)
    with pytest.raises(ValueError, match=r"a: begun with x \[1, 2\], not 3"):
        claim_folder(tmp_path / "a", {"x": 3})
    (tmp_path / "a" / "settings.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        claim_folder(tmp_path / "a", {"x": 3})


def test_ctrl_c_leaves_nothing_half(predict, scene, tmp_path, monkeypatch):
    assert predict(scene / "films", "whole") == 0
    original, calls = app.keyframe_result, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(app, "keyframe_result", interrupted)
        assert predict(scene / "films") == 130
    there = sorted(x.name for x in (tmp_path / "out").iterdir())
    assert there == [".lock", "film_0", "settings.json"]
    assert predict(scene / "films") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_scores_that_are_no_numbers_are_a_failure(predict, scene, tmp_path, monkeypatch):
    original = app.keyframe_result

    def broken(result, names):
        keyframe = original(result, names)
        for person in keyframe.persons if result["video_id"] == "film_1" else ():
            person.scores[0] = np.nan
        return keyframe

    monkeypatch.setattr(app, "keyframe_result", broken)
    assert predict(scene / "films") == 1
    (row,) = csv.DictReader((tmp_path / "out" / "failed.csv").open())
    assert row["name"] == "film_1" and "holds scores that are not numbers" in row["reason"]
    assert not list((tmp_path / "out").glob("*film_1*"))


def begin_in_a_child(output: Path, name: str, until: int | None = None) -> int:
    """Begin a video in another process, which is gone when it has, or when a pipe is closed."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        folders = VideoFolders(output)
        os.write(told, b"y" if folders.begin(name) else b"n")
        if until is not None:
            time.sleep(60)
        os._exit(0)
    assert os.read(ready, 1) == b"y"
    if until is None:
        os.waitpid(child, 0)
    return child


def test_nobody_takes_what_another_process_has(tmp_path):
    folders = VideoFolders(tmp_path)
    child = begin_in_a_child(tmp_path, "a", until=1)
    assert folders.begin("a") is None
    assert folders.begin("b") == tmp_path / ".b.partial"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    scratch = folders.begin("a")
    (scratch / "results.csv").write_text("x")
    folders.finish("a")
    folders.leave("a")
    assert [x.name for x in (tmp_path / "a").iterdir()] == ["results.csv"]
    assert folders.begin("a") is None and not scratch.exists()


def test_a_video_that_was_finished_between_looking_and_locking(tmp_path, monkeypatch):
    folders = VideoFolders(tmp_path)
    lock = folders._lock

    def late(name: str, how: int) -> bool:
        (tmp_path / name).mkdir(exist_ok=True)
        return lock(name, how)

    monkeypatch.setattr(folders, "_lock", late)
    assert folders.begin("a") is None
    assert [x.name for x in tmp_path.iterdir() if x.name != ".lock"] == ["a"]


def test_a_video_that_kills_its_processes_is_left_aside(tmp_path):
    for _ in range(MOST_DEATHS):
        begin_in_a_child(tmp_path, "a")
    folders = VideoFolders(tmp_path)
    with pytest.raises(ValueError, match=f"{MOST_DEATHS} processes were killed.* remove "):
        folders.begin("a")
    (tmp_path / ".a.partial" / "begun").unlink()
    folders.begin("a")
    for _ in range(MOST_DEATHS):  # who was interrupted gives it back
        folders.leave("a")
        assert folders.begin("a") is not None


def test_a_video_that_may_have_killed_a_process_is_tried_alone_and_last(
    predict, scene, tmp_path, monkeypatch
):
    asked = []
    several = app.VideoPredictor.several
    monkeypatch.setattr(
        app.VideoPredictor,
        "several",
        lambda self, videos, number: several(
            self, ((asked.append((x[1], number)), x)[1] for x in videos), number
        ),
    )
    assert predict(scene / "films", "out", "--opts", "TEST.IMS_PER_BATCH", 2) == 0
    shutil.rmtree(tmp_path / "out" / "film_1")
    shutil.rmtree(tmp_path / "out" / "film_2")
    begin_in_a_child(tmp_path / "out", "film_1")
    asked.clear()
    assert predict(scene / "films", "out", "--opts", "TEST.IMS_PER_BATCH", 2) == 0
    assert [(Path(x).stem, number) for x, number in asked] == [("film_2", 2), ("film_1", 1)]


def test_a_failed_video_of_any_name_has_one_row_and_loses_it(tmp_path):
    folders, name = VideoFolders(tmp_path), "b\udce9d\nday"
    for reason in ("empty", "still empty"):
        folders.fail(name, "films/b", reason)
    assert folders.has_failed(name) and len(folders.failed()) == 1
    folders.begin(name)
    folders.finish(name)
    assert not folders.has_failed(name) and not folders.failed()


def test_a_batch_of_nothing_is_refused(predict, scene, capsys):
    assert predict(scene / "films", "out", "--opts", "TEST.IMS_PER_BATCH", 0) == 2
    assert "TEST.IMS_PER_BATCH" in capsys.readouterr().err


@pytest.mark.slow
def test_the_end_of_a_machines_time_is_no_death(scene, tmp_path):
    films = tmp_path / "films"
    films.mkdir()
    with VideoWriter(films / "film_0.mp4", 8, 96, 64) as writer:  # ten minutes
        for i in range(4800):
            writer.write(np.full((64, 96, 3), i % 256, np.uint8))
    command = [sys.executable, TOOL, "--input", films, "--output", "out", "--random", *GIVEN]
    with subprocess.Popen(list(map(str, command)), cwd=tmp_path) as process:
        while not (tmp_path / "out" / ".film_0.partial" / "begun").exists():
            assert process.poll() is None
            time.sleep(0.1)
        process.terminate()
        assert process.wait(60) == 130
    assert not (tmp_path / "out" / ".film_0.partial").exists()


def test_lists_and_patterns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    films = [tmp_path / "x" / name for name in ("a.mp4", "b[1].mp4", "c.mkv")]
    films[0].parent.mkdir()
    for path in films:
        path.write_bytes(b"")
    assert find_inputs(["x/*.mp4"]) == ["x/a.mp4", "x/b[1].mp4"]
    assert find_inputs(["x/b[1].mp4"]) == ["x/b[1].mp4"]  # it is there
    (tmp_path / "list.txt").write_text("x/c.mkv\n\n  x/a.mp4\n")
    (tmp_path / "bom.txt").write_text("\ufeffx/c.mkv\n", encoding="utf-8")
    assert find_inputs(["bom.txt"]) == ["x/c.mkv"]
    (tmp_path / "none.txt").write_text("\n")
    with pytest.raises(ValueError, match="none.txt: no videos in this list"):
        find_inputs(["none.txt"])
    assert find_inputs(["list.txt", "x/b*"]) == ["x/c.mkv", "x/a.mp4", "x/b[1].mp4"]
    with pytest.raises(ValueError, match="nothing fits this pattern"):
        find_inputs(["y/*.mp4"])
    with pytest.raises(ValueError, match="several videos are called a: .* an output each"):
        find_inputs(["x/a.mp4", "x/a.mp4"])


def test_rate_and_time_that_is_left():
    assert videos_text(10, 40, 360, 120) == (
        "10 of 40 videos, 5.0 a minute, 3.0 times as fast as they play, 0.1 hours left"
    )


def test_a_worker_that_cannot_be_set_up_says_why_in_rows(predict, scene, tmp_path):
    """Ray would try again for minutes, and then bury the line in its own."""
    assert predict(scene / "films" / "film_0.mp4") == 0
    films, weights = str(scene / "films"), ["--weights", str(scene / "weights.pth")]
    given = [*map(str, GIVEN), "--input", films, "--output", "out"]
    batch = {"video": np.array([f"{films}/film_{k}.mp4" for k in (0, 1)])}
    rows = app._Worker(app.parse_args([*given, *weights]), str(tmp_path))(batch)
    assert rows["what"] == ["passed over", "done"] and rows["video"] == batch["video"].tolist()
    other = ["--opts", "INPUT.MIN_SIZE_TEST", "32"]
    rows = app._Worker(app.parse_args([*given, *weights, *other]), str(tmp_path))(batch)
    assert rows["what"] == ["refused"] * 2 and "begun with INPUT.MIN" in rows["reason"][0]


@pytest.mark.slow
def test_two_actors_of_ray_one_of_which_is_killed(predict, scene, tmp_path):
    pytest.importorskip("ray")
    films = write_films(tmp_path / "films", 20)
    (films / "broken.mp4").write_bytes(b"")
    assert predict("films", "one") == 1
    given = (*GIVEN, "--weights", scene / "weights.pth", "--input", "films", "--output", "two")
    run = subprocess.Popen(
        [sys.executable, str(TOOL), *map(str, given), "--ray", "2"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    killed = 0
    while run.poll() is None and not killed:
        time.sleep(0.02)
        if list((tmp_path / "two").glob("film_*")):
            for worker in _workers(tmp_path)[:1]:
                os.kill(worker, signal.SIGKILL)
                killed += 1
    error = run.communicate(timeout=300)[1]
    assert run.returncode == 1 and killed == 1, error
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def _workers(folder: Path) -> list[int]:
    """The processes of Ray that predict in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            is_worker = b"MapWorker" in (path / "cmdline").read_bytes()
            if is_worker and (path / "cwd").resolve() == folder.resolve():
                found.append(int(path.name))
        except OSError:
            continue
    return found
