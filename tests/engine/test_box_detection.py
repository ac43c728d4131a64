"""Boxes from detectors: equal to detectron2's own predictor, and files that survive a kill."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from torch import nn

from alphaaction_d2.data.datasets.ava import AVAFiles
from alphaaction_d2.data.video.reader import VideoError, VideoWriter, iterate_frames
from alphaaction_d2.engine import VideoPredictor
from alphaaction_d2.engine.box_detection import (
    DetectedBoxes,
    VideoJob,
    box_rows,
    dataset_jobs,
    detect_keyframes,
    keyframe_pictures,
    merge_parts,
    video_jobs,
    write_boxes,
)
from alphaaction_d2.engine.box_sources import KeyframeBoxes
from alphaaction_d2.formats.ava import read_ava_csv
from alphaaction_d2.modeling import detector
from alphaaction_d2.modeling.detector import Detector, PictureBoxes, load_detector
from tests.helpers import small_cfg, write_dataset

TINY_DETECTOR = """\
VERSION: 2
MODEL:
  META_ARCHITECTURE: "GeneralizedRCNN"
  BACKBONE: {NAME: "build_resnet_fpn_backbone"}
  RESNETS: {DEPTH: 50, STEM_OUT_CHANNELS: 8, RES2_OUT_CHANNELS: 16, WIDTH_PER_GROUP: 4,
            OUT_FEATURES: ["res2", "res3", "res4", "res5"]}
  FPN: {IN_FEATURES: ["res2", "res3", "res4", "res5"], OUT_CHANNELS: 16}
  ANCHOR_GENERATOR: {SIZES: [[16], [32], [64], [128], [256]]}
  RPN: {IN_FEATURES: ["p2", "p3", "p4", "p5", "p6"], POST_NMS_TOPK_TEST: 30}
  ROI_HEADS: {NAME: "StandardROIHeads", IN_FEATURES: ["p2", "p3", "p4", "p5"], NUM_CLASSES: 80}
  ROI_BOX_HEAD: {NAME: "FastRCNNConvFCHead", NUM_FC: 1, FC_DIM: 32, POOLER_RESOLUTION: 7}
INPUT: {MIN_SIZE_TEST: 96, MAX_SIZE_TEST: 160}
DATASETS: {TEST: ["coco_2017_val"]}
"""


def write_detector(folder: Path, num_classes: int = 80, std: float = 0.5) -> tuple[str, str]:
    """Configuration and weights of a small random Faster R-CNN.

    Args:
        std: of the classifier's weights. 0: all classes are equally likely everywhere.
    """
    config, weights = folder / "detector.yaml", folder / "detector.pth"
    config.write_text(TINY_DETECTOR.replace("NUM_CLASSES: 80", f"NUM_CLASSES: {num_classes}"))
    cfg = get_cfg()
    cfg.merge_from_file(str(config))
    cfg.MODEL.DEVICE = "cpu"
    torch.manual_seed(0)
    model = build_model(cfg)
    nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=std)
    torch.save({"model": model.state_dict()}, weights)
    return str(config), str(weights)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> tuple[str, str]:
    return write_detector(tmp_path_factory.mktemp("detector"))


def find_square(pictures: list[np.ndarray]) -> list[PictureBoxes]:
    """Detects by looking: the pixels that are 200 and more are a person, a ball lies at (0, 0)."""
    results = []
    for picture in pictures:
        ys, xs = np.nonzero(picture[..., 0] >= 200)
        boxes, names = [[0, 0, 4, 4]], ["ball"]
        if len(xs):
            boxes.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            names.append("")
        scores = np.array([0.5, 0.9], np.float32)[: len(boxes)]
        results.append(PictureBoxes(np.array(boxes, np.float32), scores, names))
    return results


def write_walk(path: Path, seconds: int = 3) -> Path:
    """A bright square that is 8 pixels further to the right each second; 5 frames a second."""
    with VideoWriter(path, 5, 64, 48, crf=0) as writer:
        for i in range(5 * seconds):
            frame = np.zeros((48, 64, 3), np.uint8)
            x = 8 * (i // 5)
            frame[12:36, x : x + 8] = 255  # fractions that five decimals hold exactly
            writer.write(frame)
    return path


# ---------------------------------------------------------------------------------------- detector


@pytest.mark.parametrize("channel_order", ["BGR", "RGB"])
def test_equal_to_detectron2s_predictor(tiny, channel_order):
    config, weights = tiny
    threshold, opts = 0.2, ["INPUT.FORMAT", channel_order]
    detect = load_detector(config, weights, device="cpu", score_threshold=threshold, opts=opts)
    cfg = get_cfg()
    cfg.merge_from_file(config)
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", weights, *opts])
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = threshold
    stock = DefaultPredictor(cfg)
    picture = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    pictures = [picture, np.ascontiguousarray(picture[::-1])]
    for found, picture in zip(detect(pictures), pictures, strict=True):
        expected = stock(np.ascontiguousarray(picture[..., ::-1]))["instances"]
        names = stock.metadata.thing_classes
        assert len(found.boxes) == len(expected) > 0
        np.testing.assert_allclose(found.boxes, expected.pred_boxes.tensor.numpy(), atol=0.02)
        np.testing.assert_allclose(found.scores, expected.scores.numpy(), atol=1e-3)
        classes = [names[c] for c in expected.pred_classes]
        assert list(found.names) == ["" if name == "person" else name for name in classes]


def test_short_side(tiny):
    detect = load_detector(*tiny, device="cpu", short_side=64)
    item = detect._input(np.zeros((100, 120, 3), np.uint8))
    assert item["image"].shape == (3, 64, 77) and (item["height"], item["width"]) == (100, 120)


class Fixed(nn.Module):
    """A network that always gives the same instances."""

    def __init__(self, instances) -> None:
        super().__init__()
        self.instances = instances

    def forward(self, inputs):
        return [{"instances": self.instances} for _ in inputs]


def fixed_detector(boxes, scores, classes, names=("person", "ball")) -> Detector:
    from detectron2.structures import Boxes, Instances

    instances = Instances((48, 64), pred_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)))
    instances.scores, instances.pred_classes = torch.tensor(scores), torch.tensor(classes)
    return Detector(
        Fixed(instances),
        augmentations=[],
        channel_order="RGB",
        class_names=names,
        score_threshold=0.3,
    )


def test_persons_and_objects_are_told_apart():
    boxes = [[0.0, 0, 8, 8], [1, 1, 5, 5], [2, 2, 9, 9], [3, 3, 3, 9]]
    detect = fixed_detector(boxes, [0.9, 0.8, 0.2, 0.7], [1, 0, 0, 0])
    found = detect([np.zeros((48, 64, 3), np.uint8)])[0].by_kind()
    # Not the third, whose score is too low, and not the fourth, which has no width.
    assert found["persons"]["boxes"].tolist() == [[1, 1, 5, 5]]
    assert found["persons"]["person_ids"].tolist() == [-1]
    assert found["objects"]["boxes"].tolist() == [[0, 0, 8, 8]]
    assert found["objects"]["scores"].tolist() == [np.float32(0.9)]
    nothing = fixed_detector([], [], [])([np.zeros((48, 64, 3), np.uint8)])[0].by_kind()
    assert nothing["persons"]["boxes"].shape == nothing["objects"]["boxes"].shape == (0, 4)


def test_class_without_a_name():
    detect = fixed_detector([[0.0, 0, 8, 8]], [0.9], [2])
    with pytest.raises(ValueError, match="class 2, of 2 that have a name"):
        detect([np.zeros((48, 64, 3), np.uint8)])


@pytest.mark.parametrize(
    "opts, names, message",
    [
        (["MODEL.ROI_HEADS.NUM_CLASSES", "5"], (), "5 classes, its test set coco_2017_val has 80"),
        (["MODEL.ROI_HEADS.NUM_CLASSES", "5"], ("a",), "1 class names for a detector of 5"),
        (["INPUT.FORMAT", "YUV-BT.601"], (), "use RGB or BGR"),
        (["MODEL.NOTHING", "1"], (), "not a configuration of a detector"),
    ],
)
def test_configurations_that_cannot_be_used(tiny, opts, names, message):
    with pytest.raises(ValueError, match=message):
        load_detector(*tiny, device="cpu", class_names=names, opts=opts)


def test_something_else_as_configuration(tiny, tmp_path):
    config, weights = tiny
    (tmp_path / "x.yaml").write_text("MODEL: {a: [}")
    ours = Path(__file__).resolve().parents[2] / "configs" / "Small" / "aia.yaml"
    for path in (weights, tmp_path / "x.yaml", ours):
        with pytest.raises(ValueError, match="not a configuration of a detector"):
            load_detector(str(path), weights, device="cpu")


def test_weights_that_do_not_fit(tiny):
    opts = ["MODEL.FPN.OUT_CHANNELS", "8"]
    with pytest.raises(ValueError, match="does not fit the configured model"):
        load_detector(*tiny, device="cpu", opts=opts)


def test_what_is_missing_is_named(tiny, monkeypatch):
    config, _ = tiny
    with pytest.raises(FileNotFoundError, match="nothing.yaml.*model zoo has none.*COCO-Detection"):
        load_detector("nothing.yaml")
    with pytest.raises(FileNotFoundError, match="nothing.pth"):
        load_detector(config, "nothing.pth")
    with pytest.raises(ValueError, match="give the weights"):
        load_detector(config)

    def offline(address: str) -> str:
        raise OSError("Name or service not known")

    monkeypatch.setattr(detector.PathManager, "get_local_path", offline)
    zoo = "COCO-Detection/faster_rcnn_R_50_FPN_3x"
    with pytest.raises(FileNotFoundError) as error:
        load_detector(zoo)
    message = str(error.value)
    assert message.startswith("https://") and zoo in message and "\n" not in message
    assert "Name or service not known" in message and "give its path" in message


def test_an_address_is_fetched(tiny, monkeypatch):
    config, weights = tiny
    asked = []
    monkeypatch.setattr(
        detector.PathManager, "get_local_path", lambda a, **_: asked.append(a) or weights
    )
    assert load_detector(config, "https://example.org/model.pth", device="cpu").names[0] == ""
    assert asked[0] == "https://example.org/model.pth"


# ------------------------------------------------------------------------------- boxes in a stream


def test_detected_boxes_are_those_of_the_keyframes(tmp_path):
    frames = list(iterate_frames(write_walk(tmp_path / "walk.mp4")))
    source = DetectedBoxes(find_square)
    assert [t for t, _ in source.watch(frames)] == [t for t, _ in frames]
    for second in range(3):
        box = source(float(second), 48, 64)["persons"]["boxes"]
        assert box.tolist() == [[8 * second, 12, 8 * second + 8, 36]]


def test_boxes_are_there_before_the_next_frame_goes_on():
    frames = [(0.0, 0), (0.4, 1), (1.5, 2), (3.0, 3)]
    looked = []
    source = DetectedBoxes(
        lambda pictures: looked.append(pictures[0]) or [PictureBoxes(np.zeros((0, 4)), [], [])]
    )
    seen = []
    for _, frame in source.watch(frames):
        seen.append((frame, list(looked)))
    # Frame 2 ends what was shown at 0 (frame 0) and 1 (frame 1); frame 3 what was shown at 2.
    assert seen == [(0, []), (1, [0]), (2, [0, 1]), (3, [0, 1, 2])]
    assert looked == [0, 1, 2, 3]
    assert list(source.watch([])) == []


def test_predictor_with_a_detector_equals_boxes_from_a_file(tmp_path):
    folder = write_dataset(tmp_path / "shapes")
    cfg = small_cfg(folder, "INPUT.OBJECT_SCORE_THRESH", 0.1)
    predict = VideoPredictor(cfg)
    video = write_walk(tmp_path / "walk.mp4", seconds=5)
    write_boxes([VideoJob("walk", video)], find_square, tmp_path / "parts", settings={})
    boxes = KeyframeBoxes.from_files([tmp_path / "parts" / "walk.csv"], "walk")
    direct, filed = list(predict(video, DetectedBoxes(find_square))), list(predict(video, boxes))
    assert [r["timestamp"] for r in direct] == [r["timestamp"] for r in filed] == [0, 1, 2, 3, 4]
    for a, b in zip(direct, filed):
        assert len(a["instances"]) == len(b["instances"]) > 0
        torch.testing.assert_close(a["instances"].scores, b["instances"].scores)


# ------------------------------------------------------------------------------------ videos, files


def test_keyframes_in_batches(tmp_path):
    path = write_walk(tmp_path / "walk.mp4", seconds=5)
    sizes = []

    def detect(pictures):
        sizes.append(len(pictures))
        return find_square(pictures)

    found = list(detect_keyframes(keyframe_pictures(path), detect, batch_size=2))
    assert sizes == [2, 2, 1]
    assert [time for time, _, _ in found] == [0, 1, 2, 3, 4]
    assert [size for _, size, _ in found] == [(48, 64)] * 5
    assert [boxes.boxes[1, 0] for _, _, boxes in found] == [0, 8, 16, 24, 32]
    some = [time for time, _ in keyframe_pictures(path, [1, 3, 5, 6])]
    assert some == [1, 3, 5], "the video ends at 5 s"


def test_rows():
    boxes = np.array([[0, 0, 16, 24], [-3, 0, 32, 60], [16, 1, 16.0001, 5]], np.float32)
    found = PictureBoxes(boxes, np.array([0.25, 0.5, 0.9], np.float32), ["cup", "", "cup"])
    assert box_rows("film", 7.0, (48, 64), found) == [
        ["film", "0007", "0.00000", "0.00000", "0.50000", "1.00000", "", "0.500000"],
        ["film", "0007", "0.00000", "0.00000", "0.25000", "0.50000", "cup", "0.250000"],
    ]


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
    with pytest.raises(ValueError, match="two videos are called b"):
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
