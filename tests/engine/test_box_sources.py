"""Boxes of one video, by keyframe, from files of any form."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from alphaaction_d2.engine.box_sources import KeyframeBoxes, whole_frame_boxes
from alphaaction_d2.formats.ava import AVAFileError

PERSON = [0.1, 0.2, 0.5, 0.6]


def person_at(boxes: KeyframeBoxes, timestamp: float, width: int = 200, height: int = 100):
    return boxes(timestamp, height, width)["persons"]


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
        np.testing.assert_allclose(persons["boxes"], [[20, 20, 100, 60]], rtol=1e-6)
        np.testing.assert_allclose(persons["scores"], [score])
        assert persons["person_ids"].tolist() == [person_id]
    assert boxes(3, 100, 200)["objects"]["scores"].tolist() == pytest.approx([0.7])
    assert len(boxes(6, 100, 200)["persons"]["boxes"]) == 0


def test_pixels_of_a_picture_of_another_size(tmp_path):
    path = tmp_path / "boxes.json"
    box = {"image_id": "v,5", "bbox": [20, 20, 80, 40], "category_id": 1, "score": 0.8}
    path.write_text(json.dumps([box]))
    boxes = KeyframeBoxes.from_files([path], "v")
    # pixels are pixels: the video is larger, the box is not
    assert person_at(boxes, 5, 400, 200)["boxes"].tolist() == [[20, 20, 100, 60]]
    with pytest.raises(AVAFileError, match="x2: 1.25"):
        person_at(boxes, 5, 80, 60)
    (tmp_path / "video_list.txt").write_text("u\nv\n")
    path.write_text(json.dumps([{**box, "image_id": 10005}]))
    boxes = KeyframeBoxes.from_files([path], "v")
    large = person_at(boxes, 5, 1920, 1080)["boxes"]
    np.testing.assert_allclose(large, [[60, 60, 300, 180]], rtol=1e-6)


def test_whose_boxes(tmp_path):
    path = tmp_path / "boxes.csv"
    rows = [f"{video},0003,0.1,0.2,0.5,0.6,,0.{i}" for i, video in enumerate("uvw", 1)]
    path.write_text("\n".join(rows))
    boxes = KeyframeBoxes.from_files([path], "v")
    assert person_at(boxes, 3)["scores"].tolist() == pytest.approx([0.2])
    with pytest.raises(ValueError, match="no boxes of video 'x'; it has u, v, w"):
        KeyframeBoxes.from_files([path], "x")
    path.write_text(rows[0])  # a file about a single video is taken whole
    assert len(person_at(KeyframeBoxes.from_files([path], "x"), 3)["boxes"]) == 1


def test_a_bad_file_gets_one_line(tmp_path):
    path = tmp_path / "boxes"
    path.write_bytes(pickle.dumps({"v,0003": print}))
    with pytest.raises(AVAFileError, match="a pickle that wants") as error:
        KeyframeBoxes.from_files([path], "v")
    assert len(str(error.value).splitlines()) == 1


def test_whole_frame():
    boxes = whole_frame_boxes(3.0, 100, 200)
    assert boxes["persons"]["boxes"].tolist() == [[0, 0, 200, 100]]
    assert boxes["objects"]["boxes"].shape == (0, 4)
