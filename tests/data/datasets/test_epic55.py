"""EPIC-Kitchens-55: from its files to dicts, in all layouts that people have."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from alphaaction_d2.data.dataset_mapper import ActionDatasetMapper
from alphaaction_d2.data.datasets import read_metadata, register_folder
from alphaaction_d2.data.datasets.epic55 import EPICFiles, load_epic
from alphaaction_d2.data.randomness import seeded
from alphaaction_d2.data.video import VideoError, VideoReader
from tests.helpers import read
from tests.kitchens import FPS, SECONDS, SEGMENTS, UIDS, VIDEOS, kitchen_cfg, picture, write_kitchen


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    return write_kitchen(tmp_path_factory.mktemp("epic") / "kitchen")


def test_a_segment_is_a_person_who_fills_the_picture(kitchen):
    names = register_folder(kitchen)
    assert names == [f"kitchen_{k}s_{s}" for k in ("verb", "noun") for s in ("train", "val")]
    read_metadata("kitchen_nouns_train")
    assert MetadataCatalog.get("kitchen_nouns_train").thing_classes == [
        "noun-0",
        "noun-1",
        "noun-2",
    ]
    assert MetadataCatalog.get("kitchen_verbs_val").evaluator_type == "epic"
    dicts = DatasetCatalog.get("kitchen_nouns_train")
    assert [x["video_id"] for x in dicts] == ["P01_01"] * 4 + ["P02_03"] * 4, "P01 to P25"
    first = dicts[0]
    assert first["timestamp"] == pytest.approx(1.3) and first["span"] == (0.5, 2.1)
    assert first["image_id"] == UIDS["P01_01"][0]
    (annotation,) = first["annotations"]
    assert annotation["bbox"] == [0, 0, 64, 48] and annotation["category_id"] == SEGMENTS[0][3]
    assert annotation["person_id"] == first["persons"].ids[0] == first["image_id"]
    assert [x["video_id"] for x in DatasetCatalog.get("kitchen_verbs_val")] == ["P26_01"] * 4
    assert register_folder(kitchen) == names, "again, and the same"


def test_hands_and_objects_of_the_time_around(kitchen):
    segment = load_epic("x", EPICFiles(kitchen, "verb", "train"))[2]
    assert segment["span"] == (3.0, 5.0)
    hands, objects = segment["hands"], segment["objects"]
    assert sorted(set(hands.timestamps)) == [3, 4, 5], "a second beside it, exclusive"
    assert len(hands.found) == 6 and len(objects.found) == 3
    near = hands.near(4.4)
    np.testing.assert_allclose(near.boxes[:, 1], 4 / 20)
    np.testing.assert_allclose(sorted(near.scores), [0.6, 0.9], rtol=1e-6)
    assert hands.near(4.5).boxes[0, 1] == pytest.approx(4 / 20), "of two as near the earlier"


def test_the_mapper_draws_the_centre_within_the_segment(kitchen):
    cfg = kitchen_cfg(kitchen, "verb", "INPUT.RANDOM_FLIP", "none")
    segment = load_epic("x", EPICFiles(kitchen, "verb", "train"))[2]
    training = ActionDatasetMapper(cfg, is_train=True)
    starts = set()
    for seed in range(30):
        with seeded(seed):
            x = training(segment)
        hands = x["objects"][x["objects"].is_hand]
        assert len(hands) == 2 and len(x["objects"]) == 3
        starts.add(round(float(hands.boxes.tensor[0, 1]) / 48 * 20))
        assert x["timestamp"] == 4.0, "remembered as what it is, whatever is drawn"
        assert x["clip_centre"] >= 3 and x["clip_centre"] <= 5
        assert x["instances"].gt_classes.tolist() == [[0.0, 1.0]]
        assert x["proposals"].proposal_boxes.tensor.tolist() == [[0, 0, 64, 48]]
        assert x["proposals"].person_ids.tolist() == [segment["image_id"]]
    assert starts == {3, 4, 5}, "boxes of the moment that is shown"
    testing = ActionDatasetMapper(cfg, is_train=False)
    clips = [testing(segment)["video"] for _ in range(2)]
    assert (clips[0] == clips[1]).all()


def test_few_hands_and_objects_are_shown(kitchen):
    cfg = kitchen_cfg(kitchen, "verb", "INPUT.MAX_HANDS", 1, "INPUT.OBJECT_SCORE_THRESH", 0.85)
    segment = load_epic("x", EPICFiles(kitchen, "verb", "train"))[2]
    objects = ActionDatasetMapper(cfg, is_train=False)(segment)["objects"]
    assert objects.is_hand.tolist() == [True]
    assert objects.scores.tolist() == pytest.approx([0.9]), "the best hand"


@pytest.mark.parametrize("layout", ["flat", "lfb", "official", "official by participant"])
def test_layouts(kitchen, tmp_path, layout):
    root = tmp_path / "kitchen"
    shutil.copytree(kitchen, root, ignore=shutil.ignore_patterns("videos"))
    for video in VIDEOS:
        participant = video[:3]
        if layout == "flat":
            (root / "videos").mkdir(exist_ok=True)
            shutil.copy(kitchen / "videos" / participant / f"{video}.MP4", root / "videos")
            continue
        folder, name = {
            "lfb": (root / "frames" / participant, f"{video}_{{:06d}}.png"),
            "official": (root / "frames_rgb_flow" / "rgb" / "train" / participant / video, ""),
            "official by participant": (root / "rgb_frames" / participant / video, ""),
        }[layout]
        folder.mkdir(parents=True)
        for i in range(SECONDS * FPS):
            path = folder / (name or "frame_{:010d}.png").format(i + 1)
            Image.fromarray(picture(i)).save(path)
        if layout == "lfb":  # another video of the same participant
            Image.fromarray(picture(0)[:40]).save(folder / f"{participant}_99_000001.png")
        (folder.parent / "frames.yaml").write_text(f"fps: {FPS}\nfirst: 1\n")
    dicts = load_epic("x", EPICFiles(root, "verb", "train"))
    assert len(dicts) == 8 and (dicts[0]["width"], dicts[0]["height"]) == (64, 48)
    with VideoReader(dicts[0]["file_name"]) as reader:
        frame = read(reader, [2.0])[0].astype(int)
    assert np.abs(frame - picture(2 * FPS)).mean() < 12, "the frame of its second"


def test_what_is_missing_is_named(kitchen, tmp_path, caplog):
    with pytest.raises(FileNotFoundError, match="no EPIC_train_action_labels.csv at"):
        load_epic("x", EPICFiles(tmp_path, "verb", "val"))
    root = tmp_path / "kitchen"
    shutil.copytree(kitchen, root)
    shutil.rmtree(root / "boxes")
    (root / "videos" / "P02" / "P02_03.MP4").unlink()
    assert len(load_epic("x", EPICFiles(root, "verb", "train"))) == 4
    assert "no hands and objects: none of boxes/train.csv" in caplog.text
    assert "1 of 2 videos cannot be used, which drops 4 of 8 keyframes" in caplog.text
    shutil.rmtree(root / "videos")
    with pytest.raises(FileNotFoundError, match="none of 2 videos"):
        load_epic("x", EPICFiles(root, "verb", "train"))


def test_a_segment_outside_its_video_is_dropped(kitchen, tmp_path, caplog):
    root = tmp_path / "kitchen"
    shutil.copytree(kitchen, root)
    labels = root / "annotations" / "EPIC_train_action_labels.csv"
    labels.write_text(labels.read_text().replace("00:00:07.50", "00:01:07.50"))
    assert len(load_epic("x", EPICFiles(root, "noun", "val"))) == 3
    assert "dropped 1 of 4 segments whose middle is not in their video" in caplog.text
    with pytest.raises(ValueError, match="class 2, .*EPIC_noun_classes.csv ends before it"):
        classes = root / "annotations" / "EPIC_noun_classes.csv"
        classes.write_text(classes.read_text().replace("2,noun-2,['x']\n", ""))
        load_epic("x", EPICFiles(root, "noun", "val"))


def test_a_video_that_is_no_folder_needs_pictures_of_its_name(tmp_path):
    Image.fromarray(picture(0)).save(tmp_path / "P01_010_000001.png")
    with pytest.raises(VideoError):
        VideoReader(tmp_path / "P01_01")


def test_real_annotations(shared, tmp_path):
    """The two parts of LFB; every segment's middle and span."""
    root = tmp_path / "epic"
    shutil.copytree(shared / "ava" / "epic55", root / "annotations")
    train, val = (EPICFiles(root, "noun", split).segments() for split in ("train", "val"))
    assert (len(train), len(val)) == (23191, 5281)
    assert train.participants.max() == 25 and val.participants.min() == 26
    for part in (train, val):
        assert (part.stops > part.starts).all() and part.stops.max() < 10_000
        assert all(video[:3] == f"P{p:02d}" for video, p in zip(part.videos, part.participants))
