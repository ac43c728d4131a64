"""Folders of pictures and of clips work wherever a video file does, and give the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from alphaaction_d2 import register_datasets
from alphaaction_d2.apps.boxes import (
    dataset_jobs,
    keyframe_pictures,
    video_jobs,
)
from alphaaction_d2.apps.video_results import process_video
from alphaaction_d2.data.dataset_mapper import ActionDatasetMapper
from alphaaction_d2.data.dataset_report import (
    DatasetReport,
    check,
    folder_files,
    look_at_videos,
    read_splits,
)
from alphaaction_d2.data.dataset_summary import choose_keyframes, summarise
from alphaaction_d2.data.datasets.ava import load_ava
from alphaaction_d2.data.datasets.builtin import ava_files
from alphaaction_d2.data.video import iterate_frames
from alphaaction_d2.engine import Trainer, VideoPredictor
from alphaaction_d2.engine.box_sources import DetectedBoxes, KeyframeBoxes
from tests.detectors import NOBODY
from tests.helpers import small_cfg, write_dataset

START = 900


def to_pictures(video: Path) -> None:
    """Replace a video by a folder of its pictures."""
    folder = video.with_suffix("")
    folder.mkdir()
    for number, (_, frame) in enumerate(iterate_frames(video), 1):
        Image.fromarray(frame).save(folder / f"{folder.name}_{number:06d}.png")
    video.unlink()


def to_clips(video: Path) -> None:
    """Replace a video of 8 frames a second by a folder of clips named from `START` on."""
    folder = video.with_suffix("")
    folder.mkdir()
    frames = [frame for _, frame in iterate_frames(video)]
    for second in range(0, len(frames) // 8):
        with av.open(str(folder / f"{START + second:04d}.mkv"), "w") as container:
            stream = container.add_stream("ffv1", rate=8)  # loses nothing
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = "bgr0"
            for frame in frames[8 * second : 8 * second + 8]:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    video.unlink()


def later(folder: Path) -> None:
    """Add `START` to all seconds of a data set."""
    for path in [*folder.glob("annotations/*.csv"), *folder.glob("boxes/*.csv")]:
        rows = [line.split(",") for line in path.read_text().split()]
        rows = [[row[0], f"{int(row[1]) + START:04d}", *row[2:]] for row in rows]
        path.write_text("".join(",".join(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """One data set with videos as files, as pictures, and as clips; the last two from 900 s on."""
    root = tmp_path_factory.mktemp("folders")
    files = write_dataset(root / "files")
    found = {"files": files}
    for form, convert in (("pictures", to_pictures), ("clips", to_clips)):
        found[form] = shutil.copytree(files, root / form)
        for video in sorted((found[form] / "videos").glob("*.mp4")):
            convert(video)
        later(found[form])
    (found["pictures"] / "videos" / "frames.yaml").write_text(f"fps: 8\nstart: {START}\n")
    return found


@pytest.fixture(scope="module")
def predictor(folders, tmp_path_factory) -> VideoPredictor:
    cfg = small_cfg(folders["files"])
    register_datasets(cfg)
    torch.manual_seed(0)
    model = Trainer.build_model(cfg)
    weights = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save({"model": model.state_dict()}, weights)
    cfg.MODEL.WEIGHTS = str(weights)
    return VideoPredictor(cfg)


def keyframes(folder: Path, split: str) -> list[dict]:
    return load_ava(f"{folder.name}_{split}_direct", folder_files(folder, DatasetReport())[split])


@pytest.mark.parametrize("form", ["pictures", "clips"])
@pytest.mark.parametrize("is_train", [True, False])
def test_a_loader_sees_the_same(folders, form, is_train):
    cfg = small_cfg(None)
    expected, found = (
        keyframes(folders[name], "train" if is_train else "val") for name in ("files", form)
    )
    assert [x["timestamp"] + START for x in expected] == [x["timestamp"] for x in found]
    plain, mapper = (ActionDatasetMapper(cfg, is_train) for _ in range(2))
    for x, y in zip(expected, found, strict=True):
        clips = []
        for each, keyframe in ((plain, x), (mapper, y)):
            np.random.seed(0)
            clips.append(each(keyframe))
        assert torch.equal(clips[0]["video"], clips[1]["video"])
        boxes = [clip["proposals"].proposal_boxes.tensor for clip in clips]
        torch.testing.assert_close(boxes[0], boxes[1])
    if not is_train:
        assert mapper.frames_decoded <= plain.frames_decoded


@pytest.mark.parametrize("form", ["pictures", "clips"])
def test_prediction_gives_the_same(folders, predictor, form, tmp_path):
    boxes = {
        name: KeyframeBoxes.from_files([folder / "boxes" / "val_persons.csv"], "val_1")
        for name, folder in folders.items()
    }
    expected = list(predictor(folders["files"] / "videos" / "val_1.mp4", boxes["files"]))
    video = folders[form] / "videos" / "val_1"
    found = list(predictor(video, boxes[form]))
    assert [x["timestamp"] for x in found] == [START + i for i in range(5)]
    for x, y in zip(expected, found, strict=True):
        assert torch.equal(x["instances"].scores, y["instances"].scores)
        assert y["video_id"] == "val_1"
    # What is drawn begins with the first frame, and the report's buttons lead to the right place.
    results = process_video(predictor, video, boxes[form], tmp_path, ["left", "right", "bright"])
    assert len(list(iterate_frames(results.video))) == 40
    assert results.begin == START
    assert results.result.keyframes[0].timestamp == START


@pytest.mark.parametrize("form", ["pictures", "clips"])
def test_the_check_finds_the_same(folders, form):
    reports = []
    for folder in (folders["files"], folders[form]):
        report = DatasetReport()
        read_splits(folder_files(folder, report), report)
        chosen = choose_keyframes(report, 6)
        pictures = dict(look_at_videos(report, [x.key for x in chosen]))
        assert set(pictures) == {x.key for x in chosen}
        check(report)
        assert report.findings == []
        reports.append((report, pictures))
    assert summarise(reports[0][0], 16, 1, 8) == summarise(reports[1][0], 16, 1, 8)
    for (video, second), picture in reports[0][1].items():
        np.testing.assert_array_equal(reports[1][1][video, second + START], picture)


@pytest.mark.parametrize("form", ["pictures", "clips"])
def test_boxes_are_looked_for_in_the_same_pictures(folders, form):
    files = folder_files(folders[form], DatasetReport())["val"]
    jobs = dataset_jobs(files)
    assert [job.path for job in jobs] == [files.videos / f"val_{i}" for i in (0, 1)]
    given = video_jobs([files.videos])
    assert [job.video_id for job in given] == ["train_0", "train_1", "val_0", "val_1"]
    assert video_jobs([files.videos / "val_1"])[0].video_id == "val_1"
    original = folders["files"] / "videos" / "val_1.mp4"
    for times in (None, (1, 2, 4)):
        later = None if times is None else tuple(START + t for t in (-START, *times, 50))
        expected = list(keyframe_pictures(original, times))
        found = list(keyframe_pictures(jobs[1].path, later))
        assert [t + START for t, _ in expected] == [t for t, _ in found]
        for (_, x), (_, y) in zip(expected, found, strict=True):
            np.testing.assert_array_equal(x, y)

    def nothing(pictures):
        looked_at.extend(pictures)
        return [NOBODY]

    looked_at = []
    watched = DetectedBoxes(nothing)
    for seconds, _ in watched.watch(iterate_frames(jobs[1].path)):
        assert seconds >= START
    assert len(looked_at) == 5 and watched.at(START + 4).persons.boxes.shape == (0, 4)


def test_a_forgotten_start_is_guessed_by_the_check(folders, tmp_path):
    folder = shutil.copytree(folders["pictures"], tmp_path / "forgotten")
    (folder / "videos" / "frames.yaml").write_text("fps: 8\n")
    report = DatasetReport()
    read_splits(folder_files(folder, report), report)
    list(look_at_videos(report))
    check(report)
    (finding,) = [x for x in report.findings if "val_0" in x.what]
    assert finding.wrong and "outside it (the video has seconds 0.0 to 5.0)" in finding.what
    assert "is 'start' in frames.yaml the second of its first picture" in finding.what


def test_keyframes_without_a_frame_of_their_own_are_findings(folders, tmp_path):
    folder = shutil.copytree(folders["clips"], tmp_path / "holes")
    (folder / "videos" / "val_0" / f"{START + 2:04d}.mkv").unlink()
    (folder / "videos" / "val_0" / f"{START + 3:04d}.mkv").unlink()
    report = DatasetReport()
    read_splits(folder_files(folder, report), report)
    list(look_at_videos(report))
    check(report)
    assert sorted(finding.what for finding in report.findings) == [
        "2 keyframes of val_0 where frames are missing, which show an older one: val_0 902 s, "
        "val_0 903 s",
        "2 of 5 seconds have no clip, first 902: the frame before is shown there",
    ]


def test_a_bad_picture_is_a_finding(folders, tmp_path):
    folder = shutil.copytree(folders["pictures"], tmp_path / "bad")
    (folder / "videos" / "val_0" / "val_0_000009.png").write_bytes(b"")
    Image.new("RGB", (9, 9)).save(folder / "videos" / "val_1" / "val_1_000010.png")
    report = DatasetReport()
    read_splits(folder_files(folder, report), report)
    list(look_at_videos(report))
    check(report)
    kinds = {Path(x.where).name: (x.wrong, x.what) for x in report.findings}
    assert (
        kinds["val_0_000009.png"][0] is False and "cannot be read" in kinds["val_0_000009.png"][1]
    )
    assert kinds["val_1"][0] is True and "val_1_000010.png is 9x9" in kinds["val_1"][1]


@pytest.mark.parametrize("name", ["frames", "rawframes", "clips/trainval", "videos"])
def test_ava_is_found_in_the_folders_that_others_make(tmp_path, name):
    assert ava_files(tmp_path, "2.2", "val").videos == tmp_path / "ava" / "videos"
    (tmp_path / "ava" / name / "film").mkdir(parents=True)
    (tmp_path / "ava" / "movies" / "trainval" / "film").mkdir(parents=True)
    assert ava_files(tmp_path, "2.2", "val").videos == tmp_path / "ava" / name


def test_an_empty_folder_does_not_hide_a_full_one(tmp_path):
    ava = tmp_path / "ava"
    (ava / "videos").mkdir(parents=True)
    (ava / "videos" / ".gitkeep").touch()
    (ava / "frames").mkdir()
    assert ava_files(tmp_path, "2.2", "val").videos == ava / "videos", "nothing is anywhere"
    (ava / "frames" / "film").mkdir()
    assert ava_files(tmp_path, "2.2", "val").videos == ava / "frames"
    (ava / "videos" / "film.mp4").touch()
    assert ava_files(tmp_path, "2.2", "val").videos == ava / "videos"
