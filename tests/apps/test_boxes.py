"""Box files of many videos: what is looked at, rows, and runs that survive a kill."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from alphaaction_d2.apps.boxes import (
    VideoJob,
    box_rows,
    dataset_jobs,
    detect_keyframes,
    keyframe_pictures,
    merge_parts,
    split_task,
    video_jobs,
    write_boxes,
)
from alphaaction_d2.data.datasets.ava import AVAFiles
from alphaaction_d2.data.datasets.builtin import ucf101_24_files
from alphaaction_d2.data.datasets.ucf101_24 import load_ucf101_24
from alphaaction_d2.data.video import VideoError
from alphaaction_d2.formats.ava import read_ava_csv
from alphaaction_d2.modeling.picture_boxes import PictureBoxes
from alphaaction_d2.structures import FoundBoxes
from tests.data.datasets.test_ucf101_24 import write_ucf
from tests.detectors import find_square, write_walk
from tests.helpers import write_dataset


def test_keyframes_in_batches(tmp_path):
    path = write_walk(tmp_path / "walk.mp4", seconds=5)
    sizes = []

    def detect(pictures):
        sizes.append(len(pictures))
        return find_square(pictures)

    found = list(detect_keyframes(keyframe_pictures(path), detect, batch_size=2))
    assert sizes == [2, 2, 1]
    assert [time for time, _ in found] == [0, 1, 2, 3, 4]
    assert [boxes.found.in_pixels(64, 48)[1, 0] for _, boxes in found] == [0, 8, 16, 24, 32]
    some = [time for time, _ in keyframe_pictures(path, [1, 3, 5, 6])]
    assert some == [1, 3, 5], "the video ends at 5 s"


def test_rows():
    boxes = np.array([[0, 0, 16, 24], [-3, 0, 32, 60], [16, 1, 16.0001, 5]], np.float32)
    found = FoundBoxes.of(boxes, [0.25, 0.5, 0.9], size=(64, 48))
    assert box_rows("film", 7.0, PictureBoxes(found, ["cup", "", "cup"])) == [
        ["film", "0007", "0.00000", "0.00000", "0.50000", "1.00000", "", "0.500000"],
        ["film", "0007", "0.00000", "0.00000", "0.25000", "0.50000", "cup", "0.250000"],
    ]


def test_ids_that_lead_elsewhere_take_no_foreign_rows(tmp_path):
    foreign = "foreign,0001,0,0,1,1,,0.9\n"
    (tmp_path / "secret.csv").write_text(foreign)
    walk = write_walk(tmp_path / "walk.mp4")
    ids = [
        "../../secret",
        "..",
        "/etc/passwd",
        str(tmp_path / "secret"),
        "two\nlines",
        "caf\udce9",
        "",
    ]
    jobs = [VideoJob(name, None) for name in ids] + [VideoJob(name, walk) for name in ids]
    parts, output = tmp_path / "deep" / "parts", tmp_path / "out.csv"
    before = set(tmp_path.iterdir())
    failed = write_boxes(jobs[: len(ids)], find_square, parts, settings={})
    assert len(failed) == len(ids), "nothing is taken for a video's boxes"
    merge_parts(jobs[: len(ids)], parts, {output: ("person", "object")})
    assert output.read_text() == ""
    assert write_boxes(jobs[len(ids) :], find_square, parts, settings={}) == []
    merge_parts(jobs[len(ids) :], parts, {output: ("person", "object")})
    assert len(list(parts.glob("*.csv"))) == len(ids) and "foreign" not in output.read_text()
    assert (tmp_path / "secret.csv").read_text() == foreign
    assert set(tmp_path.iterdir()) == before | {tmp_path / "deep", output}


def test_a_run_that_was_killed_goes_on(tmp_path):
    jobs = [VideoJob(n, write_walk(tmp_path / f"{n}.mp4")) for n in ("a", "b, c", "d")]
    parts, calls = tmp_path / "parts", []

    class Killed(BaseException):
        pass

    def killed(pictures):
        calls.append("killed")
        if len(calls) == 5:  # in the middle of the second video
            raise Killed
        return find_square(pictures)

    with pytest.raises(Killed):
        write_boxes(jobs, killed, parts, settings={"x": 1})
    assert sorted(p.name for p in parts.glob("*.csv")) == ["a.csv"]
    calls.clear()

    def counting(pictures):
        calls.append("counted")
        return find_square(pictures)

    with pytest.raises(ValueError, match="begun with x 1, not 2"):
        write_boxes(jobs, counting, parts, settings={"x": 2})
    assert write_boxes(jobs, counting, parts, settings={"x": 1}) == []
    assert len(calls) == 6, "two videos of three keyframes were missing"
    both, persons = tmp_path / "both.csv", tmp_path / "persons.csv"
    merge_parts(jobs, parts, {both: ("person", "object"), persons: ("person",)})

    write_boxes(jobs, find_square, tmp_path / "again", settings={})
    merge_parts(jobs, tmp_path / "again", {tmp_path / "again.csv": ("person", "object")})
    assert both.read_text() == (tmp_path / "again.csv").read_text()
    rows = read_ava_csv(both, "boxes")
    assert rows.videos == ["a", "b, c", "d"] and len(rows) == 18
    only = read_ava_csv(persons, "boxes")
    assert len(only) == 9 and not only.class_names


def test_a_bad_video_does_not_stop_the_others(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"")
    jobs = [
        VideoJob("bad", tmp_path / "bad.mp4"),
        VideoJob("gone", None),
        VideoJob("good", write_walk(tmp_path / "good.mp4")),
    ]
    failed = write_boxes(jobs, find_square, tmp_path / "parts", settings={})
    assert len(failed) == 2 and "empty file" in failed[0] and "gone: video not found" in failed[1]
    merge_parts(jobs, tmp_path / "parts", {tmp_path / "boxes.csv": ("person",)})
    assert read_ava_csv(tmp_path / "boxes.csv", "boxes").videos == ["good"]
    with pytest.raises(VideoError):
        list(keyframe_pictures(tmp_path / "bad.mp4"))


def test_jobs_of_files_and_folders(tmp_path):
    for name in ("b.mp4", "a.MKV", "notes.txt", ".hidden.mp4"):
        (tmp_path / name).write_bytes(b"")
    other = tmp_path / "strange.name"
    jobs = video_jobs([tmp_path, other])
    assert [(j.video_id, j.path.name) for j in jobs] == [
        ("a", "a.MKV"),
        ("b", "b.mp4"),
        ("strange", "strange.name"),
    ]
    with pytest.raises(ValueError, match="several videos are called b"):
        video_jobs([tmp_path, tmp_path / "b.avi"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no videos in this folder"):
        video_jobs([tmp_path / "empty"])


def test_jobs_of_a_split(tmp_path):
    root = write_dataset(tmp_path / "shapes")
    files = AVAFiles(
        annotations=root / "annotations" / "val.csv",
        label_map=root / "label_map.pbtxt",
        videos=root / "videos",
        excluded=root / "annotations" / "val_excluded.csv",
    )
    (root / "videos" / "val_1.mp4").unlink()
    first, second = dataset_jobs(files)
    assert (first.video_id, first.timestamps) == ("val_0", (2, 3, 4)), "second 1 is excluded"
    assert (second.video_id, second.path) == ("val_1", None)
    assert dataset_jobs(files, every_second=True)[0].timestamps is None


def test_whatever_lies_in_a_folder_of_videos_is_looked_at_or_listed(tmp_path, caplog):
    folder, long = tmp_path / "videos", "x" * 251
    folder.mkdir()
    good = write_walk(folder / "good.mp4", seconds=1)
    (folder / f"{long}.mp4").write_bytes(good.read_bytes())
    (folder / "two\nlines.mp4").write_bytes(good.read_bytes())
    (folder / "folder.mp4").mkdir()
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (folder / "nowhere.mp4").symlink_to("nothing")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "notes.txt").write_text("no video")
    (folder / "more").mkdir()
    for name in ("1.mkv", "2.png"):
        (folder / "more" / name).write_bytes(b"")
    jobs = video_jobs([folder])
    parts = tmp_path / "parts"
    with caplog.at_level(logging.INFO):
        failed = write_boxes(jobs, find_square, parts, settings={})
    assert all("\n" not in record.getMessage() for record in caplog.records)
    reasons = {Path(line.split(": ")[0]).name: line.split(": ")[1] for line in failed}
    assert reasons.pop("more").startswith("pictures (2.png) and clips (1.mkv)")
    assert reasons.pop("folder.mp4").startswith("a directory without")
    assert reasons.pop("pipe.mp4").startswith("a device or a pipe")
    assert set(reasons) == {"loop.mp4", "nowhere.mp4"}
    merge_parts(jobs, parts, {tmp_path / "boxes.csv": ("person", "object")})
    videos = read_ava_csv(tmp_path / "boxes.csv", "boxes").videos
    assert set(videos) == {"good", long, "two\nlines"}
    with caplog.at_level(logging.INFO):  # and goes on with those that failed only
        assert len(write_boxes(jobs, find_square, parts, settings={})) == 5
    assert "goes on with 5 of 8 videos" in caplog.text


def test_boxes_of_ucf101_24_are_made_for_frames(tmp_path):
    """All frames of test videos, every fifth annotated one for training, and read back there."""
    folder = write_ucf(tmp_path / "toy")
    (folder / "boxes").mkdir()
    levels = []

    def detect(pictures):
        levels.extend(round(float(picture.mean()) / 10) for picture in pictures)
        found = FoundBoxes.of([[0.1, 0.1, 0.5, 0.9], [0, 0, 1, 1]], [0.9, 0.8])
        return [PictureBoxes(found, ["", "cup"]) for _ in pictures]

    for split, frames in (("train", [5, 5]), ("test", list(range(12)))):
        levels.clear()
        task = split_task(ucf101_24_files(folder, split), folder / "boxes" / split, False)
        assert write_boxes(task.jobs, detect, task.parts, settings={}) == []
        merge_parts(task.jobs, task.parts, task.outputs)
        assert levels == frames
        dicts = load_ucf101_24("toy", ucf101_24_files(folder, split))
        numbers = [
            (round(x["timestamp"] * 25), len(x["persons"]), len(x["objects"])) for x in dicts
        ]
        assert [k for k, *found in numbers if found == [1, 1]] == frames
