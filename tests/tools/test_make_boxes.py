"""tools/make_boxes.py as a user calls it, with a small random detector."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from alphaaction_d2.data.datasets.builtin import register_folder
from alphaaction_d2.data.video import VideoWriter, iterate_frames
from alphaaction_d2.formats.ava import read_ava_csv
from alphaaction_d2.formats.epic55 import read_detected_features
from alphaaction_d2.formats.writing import only_writer
from tests.detectors import write_detector
from tests.helpers import loaded_tool, write_dataset

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "make_boxes.py"


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> list[str]:
    """The arguments that name a detector."""
    # Two classes, of which one is a person; random weights find both everywhere, at 1/3.
    files = write_detector(tmp_path_factory.mktemp("detector"), num_classes=2, std=0)
    names = ("--device", "cpu", "--class-names", "person", "ball", "--min-score", "0.2")
    return ["--detector", *files, *names]


@pytest.fixture(scope="module")
def tool():
    with loaded_tool(TOOL) as run:
        yield run


def write_videos(folder: Path, *names: str) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in names:
        with VideoWriter(folder / f"{name}.mp4", 4, 64, 48) as writer:
            for _ in range(10):
                writer.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    return folder


def test_videos_of_a_folder(detector, tool, tmp_path, capsys):
    videos = write_videos(tmp_path / "videos", "a", "b")
    output = tmp_path / "out" / "boxes.csv"
    once = ("--looks-per-second", 1, "--batch-size", 2)
    assert tool(*detector, "--input", videos, "--output", output, *once) == 0
    rows = read_ava_csv(output, "boxes")
    assert rows.videos == ["a", "b"] and set(rows.timestamps) == {0, 1, 2}
    assert set(rows.class_names) == {"ball"} and set(rows.labels) == {-1, 0}
    assert sorted(p.name for p in output.parent.iterdir()) == ["boxes.csv"]

    assert tool(*detector, "--input", videos, "--output", output) == 2
    assert "give --overwrite" in capsys.readouterr().err
    assert tool(*detector, "--input", videos / "a.mp4", "--output", output, "--overwrite") == 0
    assert read_ava_csv(output, "boxes").videos == ["a"]


def test_features_of_objects(detector, tool, tmp_path, capsys):
    videos, output = write_videos(tmp_path / "videos", "a", "b"), tmp_path / "boxes.csv"
    path = tmp_path / "features.pkl"
    given = (*detector, "--input", videos, "--output", output, "--features", path)
    assert tool(*given) == 0
    found = read_detected_features(path)
    assert list(found) == ["a", "b"] and list(found["a"]) == [0, 30, 60]
    rows = read_ava_csv(output, "boxes")
    objects = np.sum((rows.labels == 0) & (rows.video_codes == 0) & (rows.timestamps == 1))
    (width,) = {x.shape[1] for frames in found.values() for x in frames.values()}
    assert found["a"][30].shape == (min(objects, 10), width), "of the objects, and not of persons"
    assert tool(*given) == 2 and "give --overwrite" in capsys.readouterr().err
    assert tool(*detector, "--dataset", "x", "--features", path) == 2


def test_persons_between_keyframes(detector, tool, tmp_path, capsys):
    videos, output = write_videos(tmp_path / "videos", "a"), tmp_path / "boxes.csv"
    given = (*detector, "--input", videos, "--output", output)
    assert tool(*given, "--looks-per-second", 0) == 2
    assert "--looks-per-second 0" in capsys.readouterr().err
    for n, more in ((4, ("--looks-per-second", 4)), (5, ("--overwrite",))):  # 5 without a word
        assert tool(*given, *more) == 0
        rows = read_ava_csv(output, "boxes")
        assert sorted(set(rows.timestamps[rows.labels == -1])) == [i / n for i in range(2 * n + 1)]
    assert set(rows.timestamps[rows.labels == 0]) == {0, 1, 2}


def test_folders_of_pictures_and_of_clips(detector, tool, tmp_path, capsys):
    videos = write_videos(tmp_path / "videos", "a")
    pictures, clips, numbered = (tmp_path / name for name in ("videos/b", "videos/c", "numbered"))
    pictures.mkdir()
    for number, (_, frame) in enumerate(iterate_frames(videos / "a.mp4"), 1):
        Image.fromarray(frame).save(pictures / f"img_{number:05d}.png")
    (videos / "frames.yaml").write_text("fps: 4\nstart: 900\n")
    write_videos(clips)
    for second in (7, 8):
        with VideoWriter(clips / f"{second}.mp4", 4, 64, 48) as writer:
            for _ in range(4):
                writer.write(np.zeros((48, 64, 3), np.uint8))
    output = tmp_path / "boxes.csv"
    assert tool(*detector, "--input", videos, "--output", output) == 0
    rows = read_ava_csv(output, "boxes")
    found = {(video, int(t)) for video, t in zip(rows.video_ids, rows.timestamps)}
    assert found == {
        *((name, t) for name in "ab" for t in (900, 901, 902)),  # by frames.yaml beside them
        *(("c", t) for t in (7, 8)),
    }
    assert tool(*detector, "--input", pictures, clips, "--output", output, "--overwrite") == 0
    assert read_ava_csv(output, "boxes").videos == ["b", "c"]
    # Whole videos whose names are numbers are videos of their own.
    write_videos(numbered, "1", "2")
    assert tool(*detector, "--input", numbered, "--output", output, "--overwrite") == 0
    assert read_ava_csv(output, "boxes").videos == ["1", "2"]


def test_a_bad_video_is_listed_and_tried_again(detector, tool, tmp_path, capsys):
    videos = write_videos(tmp_path / "videos", "a")
    (videos / "bad.mp4").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    output = tmp_path / "boxes.csv"
    assert tool(*detector, "--input", videos, "--output", output) == 1
    error = capsys.readouterr().err
    assert "1 of 2 videos failed:\n" in error and "git lfs pull" in error
    assert read_ava_csv(output, "boxes").videos == ["a"]
    parts = tmp_path / "boxes.csv.parts"
    begun = (parts / "a.csv").stat().st_mtime_ns

    (videos / "bad.mp4").write_bytes((videos / "a.mp4").read_bytes())
    assert tool(*detector, "--input", videos, "--output", output, "--min-score", "0.1") == 2
    assert "begun with min-score 0.2, not 0.1" in capsys.readouterr().err
    assert (parts / "a.csv").stat().st_mtime_ns == begun
    assert tool(*detector, "--input", videos, "--output", output) == 0
    assert read_ava_csv(output, "boxes").videos == ["a", "bad"]
    assert not parts.exists()


def test_folder_data_set_gets_its_boxes(detector, tool, tmp_path, capsys):
    folder = write_dataset(tmp_path / "boxed")
    assert tool(*detector, "--dataset", folder) == 2
    assert "train_persons.csv exists: give --overwrite" in capsys.readouterr().err
    for path in (folder / "boxes").iterdir():
        path.unlink()
    assert tool(*detector, "--dataset", folder) == 0
    names = [f"{s}_{kind}.csv" for s in ("train", "val") for kind in ("objects", "persons")]
    assert sorted(p.name for p in (folder / "boxes").iterdir()) == names
    register_folder(folder)
    dicts = DatasetCatalog.get("boxed_val")
    assert len(dicts) == 7, "four annotated seconds each, one excluded"
    assert all(len(d["persons"]) and len(d["objects"]) for d in dicts)
    train = read_ava_csv(folder / "boxes" / "train_persons.csv", "boxes")
    assert set(train.timestamps) == {1, 2, 3, 4}

    prefix = tmp_path / "elsewhere" / "mine"
    assert tool(*detector, "--dataset", "boxed_val") == 2
    every = ("--output", prefix, "--every-second")
    assert tool(*detector, "--dataset", "boxed_val", *every) == 0
    rows = read_ava_csv(f"{prefix}_objects.csv", "boxes")
    assert set(rows.timestamps) == {0, 1, 2, 3, 4} and set(rows.class_names) == {"ball"}
    for name in ("boxed_train", "boxed_val"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--input", "nothing.mp4", "--output", "x.csv"], "nothing.mp4: no such file"),
        (["--input", "."], "--input needs --output"),
        (["--dataset", "nothing"], "data set 'nothing' is not registered"),
        (["--input", "x.mp4", "--output", "x.csv", "--batch-size", "0"], "from 1 on"),
        (["--input", "rtsp://a/b", "--output", "x.csv"], "rtsp://a/b: addresses and cameras are"),
        (["--input", "x.mp4", "--output", "x.csv", "--opts", "MODEL.X", "1"], "MODEL.X"),
    ],
)
def test_mistakes_are_one_line(detector, tool, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert tool(*detector, *arguments) in (1, 2)
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


@pytest.mark.slow
def test_killed_and_started_again(detector, tool, tmp_path):
    videos = write_videos(tmp_path / "videos", *"abcdefgh")
    output, parts = tmp_path / "boxes.csv", tmp_path / "boxes.csv.parts"
    arguments = [*detector, "--input", str(videos), "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(TOOL), *arguments], env=environment)
    deadline = time.monotonic() + 120
    while len(list(parts.glob("*.csv"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    begun = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.csv")}
    assert len(begun) >= 2 and not output.exists()
    assert json.loads((parts / "settings.json").read_text())["min-score"] == 0.2
    assert tool(*arguments) == 0
    whole = tmp_path / "whole.csv"
    assert tool(*detector, "--input", videos, "--output", whole) == 0
    assert output.read_bytes() == whole.read_bytes()


def test_a_second_run_of_the_same_boxes_waits_to_be_asked(detector, tool, tmp_path, capsys):
    videos, output = write_videos(tmp_path / "videos", "a"), tmp_path / "boxes.csv"
    given = (*detector, "--input", videos, "--output", output)
    with only_writer(f"{output}.parts"):
        assert tool(*given) == 2
    assert "another run writes into this folder" in capsys.readouterr().err
    assert not output.exists()
    assert tool(*given) == 0 and not Path(f"{output}.parts").exists()


def test_every_second_of_a_video_is_looked_at_anyway(detector, tool, tmp_path, capsys):
    videos = write_videos(tmp_path / "videos", "a")
    given = ("--input", videos, "--output", tmp_path / "boxes.csv", "--every-second")
    assert tool(*detector, *given) == 2
    assert "--every-second goes with --dataset" in capsys.readouterr().err
