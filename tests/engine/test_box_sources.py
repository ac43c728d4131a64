"""Boxes of one video, by keyframe: from files of any form, from a detector, everywhere."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch

from alphaaction_d2.apps.boxes import VideoJob, write_boxes
from alphaaction_d2.data.video import iterate_frames
from alphaaction_d2.engine import VideoPredictor
from alphaaction_d2.engine.box_sources import BoxSource, DetectedBoxes, KeyframeBoxes, WholeFrame
from alphaaction_d2.formats.tables import DataFileError
from alphaaction_d2.structures import FoundBoxes
from tests.detectors import NOBODY, find_square, write_walk
from tests.helpers import small_cfg, watched, write_dataset

PERSON = [0.1, 0.2, 0.5, 0.6]


def person_at(boxes: KeyframeBoxes, seconds: float) -> FoundBoxes:
    return watched(boxes, 200, 100).at(seconds).persons


def pixels_at(boxes: KeyframeBoxes, seconds: float, width: int, height: int) -> np.ndarray:
    return watched(boxes, width, height).at(seconds).persons.in_pixels(width, height)


def test_several_files_of_several_forms(tmp_path):
    csv = tmp_path / "objects.csv"
    csv.write_text("v,0003,0.1,0.2,0.5,0.6,cup,0.7\nv,0004,0.1,0.2,0.5,0.6,person,0.6,8\n")
    proposals = tmp_path / "persons.pkl"
    proposals.write_bytes(pickle.dumps({"v,0003": np.array([[*PERSON, 0.9]])}))
    pixels = tmp_path / "persons.json"
    one = {"image_id": "v,0005", "bbox": [20, 20, 80, 40], "category_id": 1, "score": 0.8}
    pixels.write_text(json.dumps([one]))
    boxes = KeyframeBoxes.from_files([csv, proposals, pixels], "v")
    for second, score, person_id in ((3, 0.9, -1), (4, 0.6, 8), (5, 0.8, -1)):
        persons = person_at(boxes, second)
        np.testing.assert_allclose(persons.boxes, [PERSON], rtol=1e-6)
        np.testing.assert_allclose(persons.scores, [score])
        assert persons.ids.tolist() == [person_id]
    assert boxes.at(3).objects.scores.tolist() == pytest.approx([0.7])
    assert len(boxes.at(6).persons) == 0


def test_pixels_of_a_picture_of_another_size(tmp_path):
    path = tmp_path / "boxes.json"
    box = {"image_id": "v,5", "bbox": [20, 20, 80, 40], "category_id": 1, "score": 0.8}
    path.write_text(json.dumps([box]))
    boxes = KeyframeBoxes.from_files([path], "v")
    # pixels are pixels: the video is larger, the box is not
    assert pixels_at(boxes, 5, 400, 200).tolist() == [[20, 20, 100, 60]]
    with pytest.raises(DataFileError, match="x2: 1.25"):
        pixels_at(boxes, 5, 80, 60)
    (tmp_path / "video_list.txt").write_text("u\nv\n")
    path.write_text(json.dumps([{**box, "image_id": 10005}]))
    boxes = KeyframeBoxes.from_files([path], "v")
    large = pixels_at(boxes, 5, 1920, 1080)
    np.testing.assert_allclose(large, [[60, 60, 300, 180]], rtol=1e-6)


def test_whose_boxes(tmp_path):
    path = tmp_path / "boxes.csv"
    rows = [f"{video},0003,0.1,0.2,0.5,0.6,,0.{i}" for i, video in enumerate("uvw", 1)]
    path.write_text("\n".join(rows))
    boxes = KeyframeBoxes.from_files([path], "v")
    assert person_at(boxes, 3).scores.tolist() == pytest.approx([0.2])
    with pytest.raises(ValueError, match="no boxes of video 'x'; it has u, v, w"):
        KeyframeBoxes.from_files([path], "x")
    path.write_text(rows[0])
    with pytest.raises(ValueError, match="no boxes of video 'x'; it has u: the file of the video"):
        KeyframeBoxes.from_files([path], "x")


def test_annotations_are_no_boxes(tmp_path):
    path = tmp_path / "val.csv"
    path.write_text("v,0003,0.1,0.2,0.5,0.6,12,1\nv,0004,0.1,0.2,0.5,0.6,80,1\n")
    with pytest.raises(ValueError, match=r"val.csv: the class column has numbers \(12, 80\)"):
        KeyframeBoxes.from_files([path], "v")


def test_a_bad_file_gets_one_line(tmp_path):
    path = tmp_path / "boxes"
    path.write_bytes(pickle.dumps({"v,0003": print}))
    with pytest.raises(DataFileError, match="a pickle that wants") as error:
        KeyframeBoxes.from_files([path], "v")
    assert len(str(error.value).splitlines()) == 1


def test_a_second_video_begins_anew(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("v,0003,0.1,0.2,0.5,0.6,,0.9\nv,0004,0.1,0.2,0.5,0.6,cup,0.9\n")
    boxes = KeyframeBoxes.from_files([path], "v")
    assert boxes.unused() == {}, "no video, no seconds that it does not have"
    assert watched(boxes, 200, 100).unused() == {3: 1, 4: 1}
    boxes.at(3)
    assert boxes.unused() == {4: 1}
    assert watched(boxes, 200, 100).unused() == {3: 1, 4: 1}


def test_whole_frame():
    found = WholeFrame().at(3.0)
    assert found.persons.in_pixels(200, 100).tolist() == [[0, 0, 200, 100]]
    assert found.objects.boxes.shape == (0, 4) and len(found.between.found) == 0


def test_what_a_source_need_not_know():
    class Nobody(BoxSource):
        def at(self, seconds):
            return WholeFrame().at(seconds)

    frames = [(0.0, np.zeros((2, 2, 3), np.uint8))]
    source = Nobody()
    assert list(source.watch(frames)) == frames
    assert source.largest_person_id == -1 and source.unused() == {}


# ------------------------------------------------------------------------------------- a detector


def test_detected_boxes_are_those_of_the_keyframes(tmp_path):
    frames = list(iterate_frames(write_walk(tmp_path / "walk.mp4")))
    source = DetectedBoxes(find_square)
    assert [t for t, _ in source.watch(frames)] == [t for t, _ in frames]
    for second in range(3):
        box = source.at(float(second)).persons.in_pixels(64, 48)
        assert box.tolist() == [[8 * second, 12, 8 * second + 8, 36]]


def test_boxes_are_there_before_the_next_frame_goes_on():
    frames = [(0.0, 0), (0.4, 1), (1.5, 2), (3.0, 3)]
    looked = []
    source = DetectedBoxes(lambda pictures: looked.append(pictures[0]) or [NOBODY])
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
