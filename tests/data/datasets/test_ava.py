"""Files of an AVA-style data set to dataset dicts."""

from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts

from alphaaction_d2.ava_files import AVAFileError, read_label_map
from alphaaction_d2.data.datasets import register_folder
from alphaaction_d2.data.datasets.ava import class_names
from alphaaction_d2.data.datasets.ava_classes import AVA_CLASSES, with_groups
from alphaaction_d2.data.samplers import shard_videos
from tests.helpers import write_dataset


@pytest.fixture
def folder(tmp_path):
    return write_dataset(tmp_path / "toy", seconds=4)


def load(folder, split):
    register_folder(folder)
    return DatasetCatalog.get(f"{folder.name}_{split}")


def test_folder_to_dicts(folder):
    dicts = load(folder, "train")
    assert [(d["video_id"], d["timestamp"]) for d in dicts] == [
        (video, t) for video in ("train_0", "train_1") for t in (1, 2, 3)
    ]
    first = dicts[0]
    assert (first["height"], first["width"]) == (48, 64)
    annotation = first["annotations"][0]
    np.testing.assert_allclose(annotation["bbox"][1::2], [10, 40], atol=0.1)
    assert annotation["person_id"] == 1 and annotation["category_id"] in (0, 1)
    np.testing.assert_allclose(first["persons"]["boxes"][0], annotation["bbox"], atol=0.1)
    assert first["objects"]["scores"].tolist() == pytest.approx([0.9])


def test_metadata_for_evaluator_and_demo(folder):
    assert register_folder(folder) == ["toy_train", "toy_val"]
    metadata = MetadataCatalog.get("toy_val")
    assert metadata.thing_classes == ["left", "right", "bright"]
    assert metadata.evaluator_type == "ava" and metadata.excluded == {("val_0", 1)}
    assert metadata.label_map.groups[3] == "object"
    register_folder(folder)  # twice is fine


def test_excluded_keyframes_are_left_out(folder):
    assert ("val_0", 1) not in {(d["video_id"], d["timestamp"]) for d in load(folder, "val")}


def test_detectron2_reads_it(folder):
    register_folder(folder)
    assert len(get_detection_dataset_dicts("toy_train")) == 6


def test_keyframe_with_detections_only_counts_in_testing_not_in_training(folder):
    path = folder / "boxes" / "train_persons.csv"
    path.write_text(path.read_text() + "train_0,0000,0.1,0.1,0.2,0.2,,0.9\n")
    assert len(load(folder, "train")) == 7
    assert len(get_detection_dataset_dicts("toy_train")) == 6


def test_without_detections_the_annotated_boxes_are_used(folder, caplog):
    (folder / "boxes" / "val_persons.csv").unlink()
    with caplog.at_level(logging.WARNING):
        dicts = load(folder, "val")
    assert "toy_val: no detected persons" in caplog.text
    assert dicts[0]["persons"]["scores"].tolist() == [1.0]


def test_missing_and_broken_videos_are_counted(folder, caplog):
    (folder / "videos" / "train_0.mp4").unlink()
    with caplog.at_level(logging.WARNING):
        assert len(load(folder, "train")) == 3
    assert "1 of 2 videos cannot be used, which drops 3 of 6 keyframes: train_0: not found" in (
        caplog.text
    )
    (folder / "videos" / "train_1.mp4").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="none of 2 videos.*empty file"):
        DatasetCatalog.get("toy_train")


def test_a_picture_of_the_same_name_does_not_replace_the_video(folder):
    cv2.imwrite(str(folder / "videos" / "train_0.jpg"), np.zeros((30, 30, 3), np.uint8))
    assert load(folder, "train")[0]["width"] == 64


def test_keyframes_after_the_end_are_dropped_and_counted(folder, caplog):
    path = folder / "annotations" / "train.csv"
    path.write_text(path.read_text() + "train_0,0900,0.1,0.1,0.2,0.9,1,1\n")
    with caplog.at_level(logging.WARNING):
        assert len(load(folder, "train")) == 6
    assert "dropped 1 of 7 keyframes that lie after the end" in caplog.text


def test_boxes_of_every_frame_count_once_a_second(folder, caplog):
    rows = [f"val_0,{2 + k / 8},0.1,0.1,0.2,0.{5 + k},,0.9" for k in (-1, 1, 2)]
    (folder / "boxes" / "val_persons.csv").write_text("\n".join(rows) + "\n")
    with caplog.at_level(logging.WARNING):
        second = next(d for d in load(folder, "val") if d["timestamp"] == 2)
    assert len(second["persons"]["boxes"]) == 2, "two times are equally near"
    assert "nearest to whole seconds" in caplog.text


def test_persons_in_a_file_of_objects_are_left_out(folder, caplog):
    path = folder / "boxes" / "val_objects.csv"
    path.write_text(path.read_text() + "val_0,0002,0.1,0.1,0.2,0.2,person,0.9\n")
    with caplog.at_level(logging.WARNING):
        second = next(d for d in load(folder, "val") if d["timestamp"] == 2)
    assert len(second["objects"]["boxes"]) == 1
    assert "left out 1 rows that are persons" in caplog.text


def test_what_is_missing_is_named(folder):
    (folder / "label_map.pbtxt").rename(folder / "x")
    with pytest.raises(FileNotFoundError, match="label_map.pbtxt is missing"):
        register_folder(folder)


def test_bad_rows_are_reported_together(folder):
    path = folder / "annotations" / "train.csv"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([*rows, "train_0,0001,0.5,0.1,0.2,0.9,1,1", "train_0,x,0,0,1,1,1,1"]))
    with pytest.raises(AVAFileError) as error:
        load(folder, "train")
    assert len(str(error.value).splitlines()) == 2


def test_action_outside_the_label_map(folder):
    path = folder / "annotations" / "train.csv"
    path.write_text(path.read_text() + "train_0,0001,0.1,0.1,0.2,0.9,9,1\n")
    with pytest.raises(ValueError, match="action id 9, the label map ends at 3"):
        load(folder, "train")


def test_objects_in_a_file_of_persons_are_refused(folder):
    path = folder / "boxes" / "val_persons.csv"
    path.write_text(path.read_text() + "val_0,0002,0.1,0.1,0.2,0.2,dog,0.9\n")
    with pytest.raises(ValueError, match="'dog' in a file of persons"):
        load(folder, "val")


def test_one_name_one_folder(folder, tmp_path):
    register_folder(folder)
    other = write_dataset(tmp_path / "elsewhere" / "toy", seconds=3)
    with pytest.raises(ValueError, match="registered already"):
        register_folder(other)


@pytest.fixture(autouse=True)
def forget_data_sets():
    yield
    for name in ("toy_train", "toy_val"):
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def test_ava_classes_are_the_official_ones(shared):
    official = shared / "ava" / "official"
    full = read_label_map(official / "ava_action_list_v2.2.pbtxt")
    assert tuple(full.names[i] for i in range(1, 81)) == AVA_CLASSES
    scored = with_groups(
        read_label_map(official / "ava_action_list_v2.2_for_activitynet_2019.pbtxt")
    )
    assert scored.groups == {i: full.groups[i] for i in scored.names}
    assert class_names(scored) == list(AVA_CLASSES)


def test_shards_are_whole_videos():
    videos = ["a"] * 5 + ["b"] * 1 + ["c"] * 4 + ["d"] * 2
    for num_shards in (1, 2, 3, 4, 7):
        shards = shard_videos(videos, num_shards)
        assert [i for shard in shards for i in shard] == list(range(12))
        owners = {}
        for number, shard in enumerate(shards):
            for i in shard:
                assert owners.setdefault(videos[i], number) == number
    assert shard_videos([], 3) == [range(0, 0)] * 3
    assert max(len(s) for s in shard_videos(videos, 2)) <= 7
