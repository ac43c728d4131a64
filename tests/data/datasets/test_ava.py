"""Files of an AVA-style data set to dataset dicts."""

from __future__ import annotations

import gzip
import json
import logging
import os
import pickle
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alphaaction_d2.data.datasets import (
    AVAFiles,
    keyframes_of,
    load_ava,
    register_ava,
    register_folder,
)
from alphaaction_d2.data.datasets.builtin import ava_files
from alphaaction_d2.data.samplers import shard_videos
from alphaaction_d2.data.video import VideoWriter
from alphaaction_d2.formats.ava_classes import AVA_CLASSES
from alphaaction_d2.formats.label_map import class_names, read_label_map, with_groups
from alphaaction_d2.formats.tables import DataFileError
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
    np.testing.assert_allclose(first["persons"].in_pixels(64, 48)[0], annotation["bbox"], atol=0.1)
    assert first["objects"].scores.tolist() == pytest.approx([0.9])


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
    assert dicts[0]["persons"].scores.tolist() == [1.0]


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
    assert len(second["persons"]) == 1, "of two times as near the earlier one"
    assert "nearest to whole seconds" in caplog.text


def test_persons_in_a_file_of_objects_are_left_out(folder, caplog):
    path = folder / "boxes" / "val_objects.csv"
    path.write_text(path.read_text() + "val_0,0002,0.1,0.1,0.2,0.2,person,0.9\n")
    with caplog.at_level(logging.WARNING):
        second = next(d for d in load(folder, "val") if d["timestamp"] == 2)
    assert len(second["objects"]) == 1
    assert "left out 1 rows that are persons" in caplog.text


def test_what_is_missing_is_named(folder):
    (folder / "label_map.pbtxt").rename(folder / "x")
    with pytest.raises(FileNotFoundError, match="label_map.pbtxt is missing"):
        register_folder(folder)


def test_bad_rows_are_reported_together(folder):
    path = folder / "annotations" / "train.csv"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([*rows, "train_0,0001,0.5,0.1,0.2,0.9,1,1", "train_0,x,0,0,1,1,1,1"]))
    with pytest.raises(DataFileError) as error:
        load(folder, "train")
    assert len(str(error.value).splitlines()) == 2


def test_action_outside_the_label_map(folder):
    path = folder / "annotations" / "train.csv"
    path.write_text(path.read_text() + "train_0,0001,0.1,0.1,0.2,0.9,9,1\n")
    with pytest.raises(ValueError, match=r"action id 9 \(1 rows\), the label map ends at 3"):
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


# ------------------------------------------------------------------------------------ other forms


def boxes_of(dicts: list[dict]) -> list[tuple]:
    return [
        (d["image_id"], role, d[role].in_pixels(64, 48).round(2).tolist(), d[role].scores.tolist())
        for d in dicts
        for role in ("persons", "objects")
    ]


def as_coco(path: Path, size=(64, 48)) -> str:
    found = []
    for line in path.read_text().splitlines():
        video, second, *box, word, score = line.split(",")[:8]
        x1, y1, x2, y2 = np.array(box, float) * [*size, *size]
        category = 1 if word in ("", "person") else 37
        found.append(
            {"image_id": f"{video},{second}", "bbox": [x1, y1, x2 - x1, y2 - y1]}
            | {"category_id": category, "score": float(score)}
        )
    return json.dumps(found)


def test_boxes_in_json_and_pickle(folder):
    expected = boxes_of(load(folder, "val"))
    persons, objects = (folder / "boxes" / f"val_{role}.csv" for role in ("persons", "objects"))
    objects.with_suffix(".json").write_text(as_coco(objects))
    objects.unlink()
    entries: dict[str, list] = {}
    for line in persons.read_text().splitlines():
        video, second, *box, _, score, _ = line.split(",")
        entries.setdefault(f"{video},{second}", []).append(list(map(float, [*box, score])))
    arrays = {key: np.array(rows) for key, rows in entries.items()}
    persons.with_suffix(".pkl").write_bytes(pickle.dumps(arrays))
    persons.unlink()
    assert boxes_of(load(folder, "val")) == expected


def test_plain_list_of_labels(folder):
    (folder / "label_map.pbtxt").unlink()
    (folder / "labels.txt").write_text("[pose]\nleft\nright\n[object]\nbright\n")
    load(folder, "train")
    metadata = MetadataCatalog.get("toy_train")
    assert metadata.thing_classes == ["left", "right", "bright"]
    assert metadata.label_map.groups == {1: "pose", 2: "pose", 3: "object"}


def test_actions_of_a_person_share_a_box(folder):
    path = folder / "annotations" / "train.csv"
    path.write_text(
        "".join(f"train_0,0001,0.25,0.5,0.5,1,{i},{p}\n" for p in (4, 5) for i in (1, 3))
    )
    (folder / "boxes" / "train_persons.csv").unlink()
    (only,) = load(folder, "train")
    assert [a["category_id"] for a in only["annotations"]] == [0, 2, 0, 2]
    assert [a["person_id"] for a in only["annotations"]] == [4, 4, 5, 5]
    assert all(a["bbox"] == [16, 24, 32, 48] for a in only["annotations"])
    assert only["persons"].ids.tolist() == [4, 5]


def test_keyframes_without_opening_videos(folder):
    register_folder(folder)
    files = MetadataCatalog.get("toy_val").files
    expected = [(d["video_id"], d["timestamp"]) for d in load(folder, "val")]
    shutil.rmtree(folder / "videos")
    (folder / "videos").mkdir()
    assert keyframes_of("toy_val", files) == expected


# ---------------------------------------------------------------------------- counted, not silent


def test_rows_that_come_twice_count_once(folder, caplog):
    expected = load(folder, "train")
    for path in (folder / "annotations" / "train.csv", folder / "boxes" / "train_persons.csv"):
        path.write_text(path.read_text() * 2)
    with caplog.at_level(logging.WARNING):
        again = load(folder, "train")
    assert [d["annotations"] for d in again] == [d["annotations"] for d in expected]
    assert boxes_of(again) == boxes_of(expected)
    number = sum(len(d["annotations"]) for d in expected)
    assert f"left out {number} annotations that are there twice" in caplog.text
    assert "left out 6 rows that are there twice" in caplog.text


def test_boxes_of_nothing_that_the_set_has_are_counted(folder, caplog):
    path = folder / "boxes" / "val_objects.csv"
    path.write_text("other,0002,0.1,0.1,0.3,0.3,ball,0.9\nval_0,0000,0.1,0.1,0.3,0.3,ball,0.9\n")
    with caplog.at_level(logging.WARNING):
        load(folder, "val")
    assert (
        "rows of objects left out: 1 of videos that are not used, 1 on seconds that are no "
        "keyframes; used: 0" in caplog.text
    )


def test_actions_without_a_name_are_counted(folder, caplog):
    (folder / "label_map.pbtxt").write_text(
        'item { name: "left" id: 1 }\nitem { name: "bright" id: 3 }\n'
    )
    with caplog.at_level(logging.WARNING):
        dicts = load(folder, "train")
    number = sum(a["category_id"] == 1 for d in dicts for a in d["annotations"])
    assert f"{number} annotations use action ids that the label map has no name for: 2" in (
        caplog.text
    )
    assert MetadataCatalog.get("toy_train").thing_classes == ["left", "class 2", "bright"]


rows_of_any_kind = st.lists(
    st.tuples(
        st.sampled_from(["train_0", "train_1", "gone"]),
        st.integers(0, 9),
        st.integers(1, 3),
        st.sampled_from(["0.1", "0.2"]),
    ),
    min_size=1,
    max_size=25,
)


def numbers_in(text: str, pattern: str) -> int:
    return sum(int(number) for number in re.findall(pattern, text))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows_of_any_kind)
def test_every_row_is_used_or_counted(folder, caplog, rows):
    """Whatever video, second and class: the rows in the dicts and those in the log are all."""
    lines = [f"{video},{second:04d},{x},0.1,0.5,0.9" for video, second, _, x in rows]
    annotations = folder / "annotations" / "any.csv"
    annotations.write_text("".join(f"{x},{row[2]},1\n" for x, row in zip(lines, rows)))
    (folder / "annotations" / "any_excluded.csv").write_text("train_0,0002\ntrain_1,0001\n")
    boxes = folder / "boxes" / "objects.csv"
    boxes.write_text("".join(f"{x},cup,0.{row[2]}\n" for x, row in zip(lines, rows)))
    files = AVAFiles(
        annotations=annotations,
        label_map=folder / "label_map.pbtxt",
        videos=folder / "videos",
        excluded=folder / "annotations" / "any_excluded.csv",
        objects=boxes,
    )
    caplog.clear()
    try:
        with caplog.at_level(logging.INFO):
            dicts = load_ava("any", files)
    except FileNotFoundError as error:
        assert "none of" in str(error) and all(video == "gone" for video, *_ in rows)
        return
    log = caplog.text
    used = sum(len(d["annotations"]) for d in dicts)
    twice = numbers_in(log, r"left out (\d+) annotations that are there twice")
    unused = {
        part: sum(map(int, re.findall(r"(\d+) o[nf] ", line)))
        for part, line in re.findall(r"rows of (\w+) left out: (.*);", log)
    }
    assert used + twice + unused.get("annotations", 0) == len(rows)
    used = sum(len(d["objects"]) for d in dicts)
    twice = numbers_in(log, r"left out (\d+) rows that are there twice")
    assert used + twice + unused.get("objects", 0) == len(rows)


# --------------------------------------------------------------------------------------------- AVA


@pytest.fixture
def ava(tmp_path, shared) -> Path:
    """A data-set root with AVA's files under their official names; videos are tiny, and few."""
    official, root = shared / "ava" / "official", tmp_path / "root"
    annotations = root / "ava" / "annotations"
    shutil.copytree(official, annotations)
    for name in ("videos", "boxes"):
        (root / "ava" / name).mkdir()
    real = (official / "ava_val_v2.1_head27163.csv").read_text().splitlines(keepends=True)
    for version in ("2.1", "2.2"):
        (annotations / f"ava_val_v{version}.csv").write_text("".join(real))
        renamed = [re.sub("^1j20qq1JyX4", "-5KQ66BBWC4", row) for row in real if row[:4] == "1j20"]
        (annotations / f"ava_train_v{version}.csv").write_text("".join(renamed))
    video = tmp_path / "v.mp4"
    with VideoWriter(video, 1, 32, 24, gop=50) as writer:
        for _ in range(1801):
            writer.write(np.zeros((24, 32, 3), np.uint8))
    for name in ("1j20qq1JyX4.mp4", "5BDj0ow5hnA.mkv", "-5KQ66BBWC4.mp4", "--205wugM18.mkv"):
        os.link(video, root / "ava" / "videos" / name)
    return root


def test_ava_by_name():
    names = DatasetCatalog.list()
    assert {f"ava_v2.1_{split}" for split in ("train", "val")} <= set(names)
    assert {f"ava_v2.2_{split}" for split in ("train", "val", "trainval", "test")} <= set(names)


@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_ava_validation_set(ava, version, caplog):
    with caplog.at_level(logging.INFO):
        dicts = load_ava("ava_val", ava_files(ava, version, "val"))
    videos = {d["video_id"] for d in dicts}
    assert videos == {"1j20qq1JyX4", "5BDj0ow5hnA"}
    assert not {("5BDj0ow5hnA", 1038)} & {(d["video_id"], d["timestamp"]) for d in dicts}
    rows = (ava / "ava" / "annotations" / f"ava_val_v{version}.csv").read_text().splitlines()
    used = [row for row in rows if row.split(",")[0] in videos]
    assert sum(len(d["annotations"]) for d in dicts) == len(used)
    assert f"{len(rows) - len(used)} of videos that are not used; used: {len(used)}" in caplog.text
    assert "6 of 8 videos cannot be used" in caplog.text
    metadata = MetadataCatalog.get("ava_val")
    assert len(metadata.thing_classes) == 80 and len(metadata.label_map.names) == 60
    assert set(metadata.label_map.groups.values()) == {"pose", "object", "person"}
    MetadataCatalog.remove("ava_val")


def test_ava_trainval_is_both_files_as_one(ava):
    both, *parts = [
        load_ava(f"ava_{split}", ava_files(ava, "2.2", split))
        for split in ("trainval", "train", "val")
    ]
    assert sorted(d["image_id"] for d in both) == sorted(d["image_id"] for p in parts for d in p)
    by_id = {d["image_id"]: d for p in parts for d in p}
    assert all(d["annotations"] == by_id[d["image_id"]]["annotations"] for d in both)
    metadata = MetadataCatalog.get("ava_trainval")
    assert metadata.annotation_file is None and len(metadata.excluded) == 161 + 37
    for split in ("trainval", "train", "val"):
        MetadataCatalog.remove(f"ava_{split}")


def test_ava_test_set_has_no_ground_truth(ava, caplog):
    path = ava / "ava" / "boxes" / "ava_test_predicted_boxes.csv"
    path.write_text("--205wugM18,0910,0.1,0.2,0.5,0.6,,0.9\n")
    with caplog.at_level(logging.WARNING):
        dicts = load_ava("ava_none", ava_files(ava, "2.2", "test"))
    assert {d["video_id"] for d in dicts} == {"--205wugM18"}
    assert [d["timestamp"] for d in dicts] == list(range(902, 1799))
    assert all(d["annotations"] == [] for d in dicts)
    assert [d["timestamp"] for d in dicts if len(d["persons"])] == [910]
    assert "130 of 131 videos cannot be used" in caplog.text
    assert MetadataCatalog.get("ava_none").annotation_file is None
    MetadataCatalog.remove("ava_none")


def test_files_of_others_under_their_own_names(ava):
    """AlphAction's json names keyframes by the place in the official list of file names."""
    listed = (ava / "ava" / "annotations" / "ava_file_names_trainval_v2.1.txt").read_text().split()
    place = [name.split(".")[0] for name in listed].index("1j20qq1JyX4")
    content = [
        {"image_id": 10000 * place + 902, "bbox": [4, 6, 8, 9], "category_id": c, "score": 0.9}
        for c in (1, 62)
    ]
    boxes = ava / "ava" / "boxes"
    (boxes / "ava_val_det_person_bbox.json").write_text(json.dumps(content[:1]))
    (boxes / "ava_val_det_object_bbox.json").write_text(json.dumps(content[1:]))
    first = load_ava("ava_json", ava_files(ava, "2.1", "val"))[0]
    assert first["image_id"] == "1j20qq1JyX4,0902"
    for role in ("persons", "objects"):
        np.testing.assert_allclose(first[role].in_pixels(32, 24), [[4, 6, 12, 15]], rtol=1e-6)
    proposals = {"1j20qq1JyX4,0902": np.array([[0.5, 0.5, 1, 1, 0.7]])}
    (boxes / "ava_val_det_person_bbox.json").unlink()
    name = "ava_dense_proposals_val.FAIR.recall_93.9.pkl"
    (ava / "ava" / "annotations" / name).write_bytes(pickle.dumps(proposals))
    first = load_ava("ava_json", ava_files(ava, "2.1", "val"))[0]
    assert first["persons"].in_pixels(32, 24).tolist() == [[16, 12, 32, 24]]
    MetadataCatalog.remove("ava_json")


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


def test_metadata_are_read_when_they_are_asked_for(tmp_path):
    """Also of data sets that are registered before their files are there."""
    files = AVAFiles(
        annotations=tmp_path / "later" / "annotations" / "val.csv",
        label_map=tmp_path / "later" / "label_map.pbtxt",
        videos=tmp_path / "later" / "videos",
    )
    MetadataCatalog.get("later_val").thing_colors = [(0, 0, 0)]
    register_ava("later_val", files)
    metadata = MetadataCatalog.get("later_val")
    assert metadata.get("thing_classes") is None and not hasattr(metadata, "label_map")
    with pytest.raises(AttributeError, match="thing_classes: later_val: no label map at"):
        _ = metadata.thing_classes
    write_dataset(tmp_path / "later")
    assert metadata.thing_classes == ["left", "right", "bright"]
    assert metadata.thing_colors == [(0, 0, 0)] and metadata.annotation_file.endswith("val.csv")
    with pytest.raises(AttributeError, match="'nonsense' does not exist"):
        _ = metadata.nonsense


def rename_in(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def test_videos_with_folder_or_extension_are_those_of_that_name(folder):
    """In every table of a split; the evaluator's rows have the id, too."""
    expected = load(folder, "val")
    rename_in(folder / "annotations" / "val.csv", "val_0", "val_0.mp4")
    rename_in(folder / "annotations" / "val_excluded.csv", "val_0,0001", "clips/val_0.avi,1.0")
    rename_in(folder / "boxes" / "val_persons.csv", "val_1", "C:\\films\\val_1.mkv")
    found = load(folder, "val")
    assert len(found) == len(expected) and MetadataCatalog.get("toy_val").excluded == {("val_0", 1)}
    for mine, theirs in zip(found, expected):
        assert mine["video_id"] == theirs["video_id"]
        assert mine["annotations"] == theirs["annotations"]
        np.testing.assert_array_equal(mine["persons"].boxes, theirs["persons"].boxes)
    assert set(MetadataCatalog.get("toy_val").loaded["annotations"].videos) == {"val_0", "val_1"}


def test_a_name_that_fits_two_videos_is_not_taken(folder, caplog):
    shutil.copy(folder / "videos" / "val_0.mp4", folder / "videos" / "val_0.mp4.mp4")
    rename_in(folder / "annotations" / "val.csv", "val_0,", "films/val_0.mp4,")
    with caplog.at_level(logging.WARNING):
        load(folder, "val")
    assert (
        "1 of 3 videos cannot be used" in caplog.text
        and "films/val_0.mp4: not found" in caplog.text
    )


def test_lists_of_keyframes_are_exclusions_whatever_they_are_called(folder, caplog):
    expected = [(d["video_id"], d["timestamp"]) for d in load(folder, "val")]
    annotations = folder / "annotations"
    (annotations / "val_excluded.csv").rename(annotations / "bad frames (val).tsv")
    rename_in(annotations / "bad frames (val).tsv", ",", "\t")
    (annotations / "not these.csv").write_text("video_id;timestamp\nval_1;2.0\ntrain_0;3.0\n")
    (annotations / "val_included.csv").write_text("val_1,2\n")
    with caplog.at_level(logging.WARNING):
        # what says that it is included is no list of what is not
        assert register_folder(folder) == ["toy_train", "toy_val", "toy_val_included"]
    expected.remove(("val_1", 2))
    found = DatasetCatalog.get("toy_val")
    assert [(d["video_id"], d["timestamp"]) for d in found] == expected
    assert ("train_0", 3) in MetadataCatalog.get("toy_train").excluded
    assert ("val_0", 1) not in MetadataCatalog.get("toy_train").excluded
    assert caplog.text.count("is taken for a list of excluded keyframes") == 2
    for name in ("toy_train", "toy_val", "toy_val_included"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_endings_of_box_files(folder, caplog):
    expected = load(folder, "val")
    boxes = folder / "boxes"
    (boxes / "val_persons.csv").rename(boxes / "val_persons.CSV")
    packed = gzip.compress((boxes / "val_objects.csv").read_bytes())
    (boxes / "val_objects.json.gz").write_bytes(packed)  # told by what is in it
    (boxes / "val_objects.csv").unlink()
    (boxes / "vall_persons.csv").write_text("")
    with caplog.at_level(logging.WARNING):
        found = load(folder, "val")
    assert f"{boxes / 'vall_persons.csv'}: is not read; expected train_persons.csv" in caplog.text
    for mine, theirs in zip(found, expected, strict=True):
        for part in ("persons", "objects"):
            np.testing.assert_array_equal(mine[part].boxes, theirs[part].boxes)
