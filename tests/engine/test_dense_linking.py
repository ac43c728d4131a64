"""Identities over all frames between two keyframes, from a detector, a file and a data set."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alphaaction_d2 import register_datasets
from alphaaction_d2.apps.boxes import VideoJob, box_rows, keyframe_pictures, write_boxes
from alphaaction_d2.data.video import VideoWriter, iterate_frames
from alphaaction_d2.engine import Trainer, VideoPredictor
from alphaaction_d2.engine.box_sources import DetectedBoxes, KeyframeBoxes
from alphaaction_d2.engine.inference import build_delayed_inference
from alphaaction_d2.modeling.picture_boxes import PictureBoxes
from alphaaction_d2.structures import FoundBoxes
from tests.detectors import NOBODY
from tests.helpers import small_cfg, watched, write_dataset

FPS = 10
SHADES = (255, 150)  # of two persons


def places(seconds: float) -> list[tuple[int, int]]:
    """Left top corners of two persons who go round each other, half a turn a second.

    At every keyframe each stands where the other one stood: keyframes alone cannot tell.
    """
    x, y = 20 * math.cos(math.pi * seconds), 14 * math.sin(math.pi * seconds)
    return [(round(26 - x), round(18 - y)), (round(26 + x), round(18 + y))]


def frame_at(seconds: float) -> np.ndarray:
    frame = np.zeros((48, 64, 3), np.uint8)
    for (x, y), shade in zip(places(seconds), SHADES):
        frame[y : y + 12, x : x + 12] = shade
    return frame


def find_persons(pictures: list[np.ndarray]) -> list[PictureBoxes]:
    """Detects by shade, and lists what it finds from left to right; a ball lies at (0, 0)."""
    results = []
    for picture in pictures:
        boxes = []
        for shade in SHADES:
            ys, xs = np.nonzero(np.abs(picture[..., 0].astype(int) - shade) < 30)
            boxes.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        found = FoundBoxes.of([*sorted(boxes), [0, 0, 4, 4]], 0.9, size=(64, 48))
        results.append(PictureBoxes(found, ["", "", "ball"]))
    return results


def write_dance(path: Path, seconds: int = 5) -> Path:
    with VideoWriter(path, FPS, 64, 48, crf=0) as writer:
        for i in range(FPS * seconds):
            writer.write(frame_at(i / FPS))
    return path


def ids_of_shades(results) -> list[list[int]]:
    """At every keyframe, the ids of the bright and of the dark person."""
    found = []
    for result in results:
        rows = result["instances"]
        corners = [tuple(round(float(v)) for v in box[:2]) for box in rows.pred_boxes.tensor]
        ids = dict(zip(corners, rows.person_ids.tolist()))
        found.append([ids[place] for place in places(result["timestamp"])])
    return found


@pytest.fixture(scope="module")
def dance(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dance")
    cfg = small_cfg(write_dataset(folder / "others"), "INPUT.OBJECT_SCORE_THRESH", 0.1)
    torch.manual_seed(0)
    return write_dance(folder / "dance.mp4"), VideoPredictor(cfg)


SAME, EXCHANGED = [[1, 2]] * 5, [[1, 2], [2, 1], [1, 2], [2, 1], [1, 2]]


@pytest.mark.parametrize("looks, expected", [(1, EXCHANGED), (10, SAME)])
def test_a_detector_that_looks_more_often_keeps_identities(dance, looks, expected):
    video, predict = dance
    assert ids_of_shades(predict(video, DetectedBoxes(find_persons, looks))) == expected


def test_a_file_with_boxes_of_all_frames_does_the_same(dance, tmp_path):
    video, predict = dance
    jobs = [VideoJob("dance", video)]
    write_boxes(jobs, find_persons, tmp_path / "parts", settings={}, looks_per_second=10)
    boxes = KeyframeBoxes.from_files([tmp_path / "parts" / "dance.csv"], "dance")
    filed = list(predict(video, boxes))
    direct = list(predict(video, DetectedBoxes(find_persons, 10)))
    assert ids_of_shades(filed) == SAME
    for a, b in zip(direct, filed, strict=True):
        # Persons between keyframes are linked and nothing else.
        assert a["timestamp"] == b["timestamp"] and len(a["instances"]) == 2 * 3
        torch.testing.assert_close(a["instances"].scores, b["instances"].scores)


TRACKERS = {
    "detectron2's": {"NAME": "VanillaHungarianBBoxIOUTracker", "IOU_THRESHOLD": 0.2},
    "appearance at keyframes": {"NAME": "PersonTracker", "IOU_THRESHOLD": 0.5},
}


@pytest.mark.parametrize("tracker", TRACKERS)
def test_other_trackers_see_all_moments_too(dance, tracker, monkeypatch):
    video, predict = dance
    cfg = predict.cfg.clone()
    cfg.TRACKER_HEADS.TRACKER_NAME = TRACKERS[tracker]["NAME"]
    cfg.TRACKER_HEADS.TRACK_IOU_THRESHOLD = TRACKERS[tracker]["IOU_THRESHOLD"]
    cfg.TRACKER_HEADS.APPEARANCE_WEIGHT = 0.5
    monkeypatch.setattr(predict, "cfg", cfg)
    assert ids_of_shades(predict(video, DetectedBoxes(find_persons, 10))) == SAME


def test_a_data_set_with_dense_detections_equals_the_stream(dance, tmp_path):
    video, predict = dance
    folder = write_dataset(tmp_path / "dancers", videos=1)
    (folder / "videos" / "dance.mp4").write_bytes(video.read_bytes())
    rows = [f"dance,{t:04d},0.1,0.1,0.3,0.3,1,1" for t in range(5)]
    (folder / "annotations" / "val.csv").write_text("\n".join(rows) + "\n")
    (folder / "annotations" / "val_excluded.csv").unlink()
    write_boxes(
        [VideoJob("dance", video)],
        find_persons,
        tmp_path / "parts",
        settings={},
        looks_per_second=10,
    )
    text = (tmp_path / "parts" / "dance.csv").read_text()
    persons = folder / "boxes" / "val_persons.csv"
    persons.write_text("\n".join(x for x in text.splitlines() if ",ball," not in x) + "\n")
    objects = folder / "boxes" / "val_objects.csv"
    objects.write_text("\n".join(x for x in text.splitlines() if ",ball," in x) + "\n")
    cfg = predict.cfg.clone()
    cfg.DATASETS.FOLDERS, cfg.DATASETS.TEST = (str(folder),), ("dancers_val",)
    register_datasets(cfg)
    delayed = build_delayed_inference(cfg, predict.model).eval()
    results = []
    with torch.no_grad():
        for batch in Trainer.build_test_loader(cfg, "dancers_val"):
            results += delayed(batch)
    assert ids_of_shades(results) == SAME
    streamed = list(predict(video, KeyframeBoxes.from_files([persons, objects], "dance")))
    for a, b in zip(results, streamed, strict=True):
        torch.testing.assert_close(a["instances"].scores, b["instances"].scores)
        assert torch.equal(a["instances"].person_ids, b["instances"].person_ids)


# ----------------------------------------------------------------------------------- the sources


def test_a_detector_gives_what_lies_between(dance):
    frames = list(iterate_frames(dance[0]))
    source = DetectedBoxes(find_persons, 5)
    list(source.watch(frames))
    assert len(source.at(0.0).between.found) == 0
    between = source.at(1.0).between
    np.testing.assert_allclose(between.timestamps, np.repeat([0.2, 0.4, 0.6, 0.8], 2))
    boxes = between.found.in_pixels(64, 48)
    assert [tuple(box[:2]) for box in boxes[2:4].tolist()] == sorted(places(0.4))
    assert between.found.ids.tolist() == [-1] * 8
    with pytest.raises(ValueError, match="LOOKS_PER_SECOND 0"):
        DetectedBoxes(find_persons, 0)


def test_a_dense_file_gives_what_lies_between(tmp_path):
    path = tmp_path / "boxes.csv"
    rows = [
        f"v,{t},0.{n + 1},0.1,0.9,0.9,,0.9,{n + 3}"
        for t in (0.1, 0.4, 1.1, 1.5, 1.7)
        for n in (0, 1)
    ]
    path.write_text("\n".join([*rows, "v,0.4,0.1,0.1,0.2,0.2,cup,0.9"]) + "\n")
    boxes = watched(KeyframeBoxes.from_files([path], "v"), 20, 10)
    assert boxes.largest_person_id == 4
    assert len(boxes.at(0).between.found) == 0
    between = boxes.at(1).between
    assert between.timestamps.tolist() == [0.4, 0.4] and between.found.ids.tolist() == [3, 4]
    assert between.found.in_pixels(20, 10)[1].tolist() == [4, 1, 18, 9]
    # 1.7 is the moment nearest to second 2, so only 1.5 lies between.
    later = boxes.at(2)
    assert later.between.timestamps.tolist() == [1.5, 1.5]
    assert len(later.persons) == 2
    path.write_text("v,0001,0.1,0.1,0.9,0.9,,0.9\n")
    boxes = watched(KeyframeBoxes.from_files([path], "v"), 20, 10)
    assert len(boxes.at(1).persons) == 1 and len(boxes.at(1).between.found) == 0


def test_a_keyframe_where_nobody_is_found_stays_empty(tmp_path):
    """Its neighbours in a dense file do not take its place; file and detector agree."""

    def detect(pictures):
        return [
            NOBODY if p[0, 0, 0] == 7 else found
            for p, found in zip(pictures, find_persons(pictures))
        ]

    folder = tmp_path / "dance"
    folder.mkdir()
    for i in range(37):  # from second 900.4 to 904.0; nobody is seen at 902
        frame = frame_at(0.4 + i / FPS)
        frame[0, 0] = 7 if i == 16 else 0
        Image.fromarray(frame).save(folder / f"{i:05d}.png")
    (folder / "frames.yaml").write_text(f"fps: {FPS}\nstart: 900.4\n")
    source = DetectedBoxes(detect, 5)
    list(source.watch(iterate_frames(folder)))
    write_boxes(
        [VideoJob("dance", folder)], detect, tmp_path / "parts", settings={}, looks_per_second=5
    )
    boxes = KeyframeBoxes.from_files([tmp_path / "parts" / "dance.csv"], "dance")
    watched(boxes, 64, 48)
    for second, persons in ((901, 2), (902, 0), (903, 2), (904, 2)):
        direct, filed = source.at(second), boxes.at(second)
        assert len(filed.persons) == len(direct.persons) == persons
        times = [x.between.timestamps for x in (direct, filed)]
        assert len(times[0]) == 2 * (3 if second == 901 else 4)
        np.testing.assert_allclose(times[1], times[0])
    assert boxes.unused() == {}


def test_pictures_between_keyframes(dance):
    video, _ = dance
    moments = [t for t, _ in keyframe_pictures(video, [1, 2, 4], looks_per_second=2)]
    assert moments == [1, 1.5, 2, 4]  # nobody is linked over two seconds
    assert [t for t, _ in keyframe_pictures(video, None, 2)] == [n / 2 for n in range(10)]


def test_nothing_is_written_after_the_last_keyframe(dance, tmp_path):
    jobs = [VideoJob("dance", dance[0])]
    write_boxes(jobs, find_persons, tmp_path / "parts", settings={}, looks_per_second=10)
    lines = (tmp_path / "parts" / "dance.csv").read_text().splitlines()
    seconds = sorted({float(line.split(",")[1]) for line in lines})
    np.testing.assert_allclose(seconds, np.arange(41) / 10)


def test_rows_between_keyframes_are_persons():
    found = find_persons([frame_at(0.5)])[0]
    rows = box_rows("dance", 0.5, found, is_keyframe=False)
    assert [row[1] for row in rows] == ["0000.500"] * 2 and {row[6] for row in rows} == {""}
    assert len(box_rows("dance", 1.0, found)) == 3
