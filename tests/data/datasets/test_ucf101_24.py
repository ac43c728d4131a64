"""UCF101-24: files to dataset dicts and evaluators, with the real annotations, too."""

from __future__ import annotations

import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from PIL import Image

from alphaaction_d2.data.datasets import register_folder
from alphaaction_d2.data.datasets.builtin import ucf101_24_files
from alphaaction_d2.data.datasets.ucf101_24 import UCFFiles, load_ucf101_24, register_ucf101_24
from alphaaction_d2.data.video import VideoWriter
from alphaaction_d2.evaluation import UCFEvaluator

WIDTH, HEIGHT = 64, 48


def picture(k: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), 10 * k, np.uint8)


def write_ucf(root: Path, frames: int = 12, pictures: bool = False) -> Path:
    """Two videos for training and one for testing, as AVI files or as pictures."""
    entries = {}
    for video in ("Run/v_Run_g01", "Dive/v_Dive_g01", "Dive/v_Dive_g02"):
        label = int(video.startswith("Run"))
        boxes = np.array([[10 + k, 8, 20, 30] for k in range(frames - 4)], np.uint8)
        tube = {"label": label, "sf": 2, "ef": frames - 2, "boxes": boxes}
        numf = np.uint8(frames)
        entries[video] = {"numf": numf, "label": label, "annotations": [tube]}
        if pictures:
            folder = root / "rgb-images" / video
            folder.mkdir(parents=True)
            for k in range(frames):
                Image.fromarray(picture(k)).save(folder / f"{k + 1:05d}.jpg")
        else:
            path = root / "videos" / f"{video}.avi"
            path.parent.mkdir(parents=True, exist_ok=True)
            with VideoWriter(path, 30000 / 1001, WIDTH, HEIGHT) as writer:  # not what counts
                for k in range(frames):
                    writer.write(picture(k))
    (root / "pyannot.pkl").write_bytes(pickle.dumps(entries, protocol=2))
    (root / "testlist01.txt").write_text("Dive/v_Dive_g02\n")
    return root


def write_persons(folder: Path, split: str, rows: list[str]) -> None:
    (folder / "boxes").mkdir(exist_ok=True)
    (folder / "boxes" / f"{split}_persons.csv").write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize("pictures", [False, True])
def test_folder_to_dicts(tmp_path, pictures):
    folder = write_ucf(tmp_path / f"toy{pictures}", pictures=pictures)
    write_persons(
        folder, "test", ["v_Dive_g02,0.120,0.1,0.2,0.5,0.8,,0.9", "v_Dive_g02,0.160,0,0,1,1,,0.7"]
    )
    train, test = register_folder(folder)
    assert MetadataCatalog.get(train).thing_classes == ["Dive", "Run"]
    dicts = DatasetCatalog.get(train)
    assert [x["video_id"] for x in dicts] == ["Dive/v_Dive_g01"] * 8 + ["Run/v_Run_g01"] * 8
    assert [round(x["timestamp"] * 25) for x in dicts[:8]] == list(range(2, 10)), "annotated only"
    first = dicts[0]
    (annotation,) = first["annotations"]
    assert annotation["bbox"] == [10, 8, 30, 38]
    assert (annotation["category_id"], annotation["person_id"]) == (0, 0)
    assert (first["height"], first["width"], first["frame_rate"]) == (HEIGHT, WIDTH, 25.0)
    assert Path(first["file_name"]).exists()
    dicts = DatasetCatalog.get(test)
    assert [x["image_id"] for x in dicts] == [f"Dive/v_Dive_g02,{k:05d}" for k in range(12)]
    assert [len(x["persons"]) for x in dicts] == [0, 0, 0, 1, 1] + [0] * 7
    assert dicts[3]["persons"].boxes.tolist() == [[0.1, 0.2, 0.5, 0.8]]


def test_without_detected_persons_the_annotated_are_tested(tmp_path, caplog):
    folder = write_ucf(tmp_path / "toy")
    dicts = load_ucf101_24("toy", ucf101_24_files(folder, "test"))
    assert [len(x["persons"]) for x in dicts] == [0, 0] + [1] * 8 + [0, 0]
    assert "no detected persons; testing uses the annotated boxes" in caplog.text


def test_a_video_with_fewer_frames_than_annotated(tmp_path, caplog):
    folder = write_ucf(tmp_path / "toy")
    short = folder / "videos" / "Dive" / "v_Dive_g02.avi"
    with VideoWriter(short, 25, WIDTH, HEIGHT) as writer:
        for k in range(7):
            writer.write(picture(k))
    load_ucf101_24("toy", ucf101_24_files(folder, "test"))
    assert "1 of 1 videos have fewer frames than annotated" in caplog.text
    assert "Dive/v_Dive_g02 has 7 of 12" in caplog.text


def test_videos_that_are_not_there(tmp_path, caplog):
    folder = write_ucf(tmp_path / "toy")
    (folder / "videos" / "Run" / "v_Run_g01.avi").unlink()
    dicts = load_ucf101_24("toy", ucf101_24_files(folder, "train"))
    assert {x["video_id"] for x in dicts} == {"Dive/v_Dive_g01"}
    assert "1 of 2 videos cannot be used, which drops 8 of 16 keyframes" in caplog.text
    (folder / "testlist01.txt").unlink()
    with pytest.raises(ValueError, match="put testlist01.txt beside it"):
        load_ucf101_24("toy", ucf101_24_files(folder, "test"))
    with pytest.raises(FileNotFoundError, match="no annotations at .*pyannot.pkl"):
        load_ucf101_24("toy", ucf101_24_files(tmp_path / "nowhere", "test"))


# ------------------------------------------------------------------------------- real annotations


def result(video: str, frame: int, boxes: np.ndarray, scores: np.ndarray, ids=None) -> dict:
    """What a model says of a frame: (n, 4) boxes and (n, K) scores, all classes of everybody."""
    n, k = scores.shape
    rows = np.repeat(np.arange(n), k)
    instances = Instances((240, 320), pred_boxes=Boxes(torch.from_numpy(boxes[rows]).float()))
    instances.scores = torch.from_numpy(scores.reshape(-1)).float()
    instances.pred_classes = torch.arange(k).repeat(n)
    instances.person_ids = torch.from_numpy((np.full(n, -1) if ids is None else ids)[rows])
    return {"video_id": video, "timestamp": frame / 25, "instances": instances}


@pytest.fixture(scope="module")
def real(shared) -> UCFFiles:
    folder = shared / "ava" / "ucf101_24"
    return UCFFiles(folder / "pyannot.pkl", "test", None, folder / "testlist01.txt")


def perturbed(x: dict, rng: np.random.Generator) -> dict:
    """The annotated persons of a frame as a good model would find them, and a spectator.

    Boxes are moved by about a tenth of their size, 2 in 100 persons are missed, every tenth video
    is taken for another class, and everybody is also given a little of three other classes.
    """
    people = [a for a in x["annotations"] if rng.random() > 0.02]
    boxes = np.array([a["bbox"] for a in people]).reshape(-1, 4)
    sizes = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    boxes = boxes + sizes * rng.normal(0, 0.07, boxes.shape)
    number = zlib.crc32(x["video_id"].encode())  # the same for all frames
    scores = np.zeros((len(people) + 1, 24))
    for row, a in zip(scores, people):
        row[rng.integers(24, size=3)] = rng.uniform(0, 0.4, 3)
        wrong = number % 10 == 0
        row[(a["category_id"] + wrong) % 24] = np.clip(rng.normal(0.75, 0.15), 0.05, 1)
    scores[-1, number % 24] = rng.uniform(0, 0.5)
    boxes = np.concatenate([boxes, [[280, 10, 310, 100]]])
    ids = np.array([*(a["person_id"] for a in people), 99])
    return result(x["video_id"], round(x["timestamp"] * 25), boxes, scores, ids)


@pytest.mark.slow
def test_real_annotations_through_data_set_and_evaluator(real, tmp_path, caplog):
    """910 videos, with what a good model of the annotated boxes would say."""
    register_ucf101_24("ucf101_24_real", real)
    try:
        dicts = DatasetCatalog.get("ucf101_24_real")
        assert len(dicts) == 159_289 and len({x["video_id"] for x in dicts}) == 910
        assert sum(len(x["annotations"]) for x in dicts) == 170_580
        assert sum(bool(x["annotations"]) for x in dicts) == 138_527
        assert len(MetadataCatalog.get("ucf101_24_real").thing_classes) == 24
        evaluator = UCFEvaluator("ucf101_24_real", tmp_path)
        rng = np.random.default_rng(0)
        for x in dicts:
            evaluator.process([], [perturbed(x, rng)])
        numbers = evaluator.evaluate()["ucf101_24"]
    finally:
        DatasetCatalog.remove("ucf101_24_real")
        MetadataCatalog.remove("ucf101_24_real")
    assert 80 < numbers["frame_mAP@0.5"] < 95 and len(numbers) == 1 + 4 + 4 + 24
    assert numbers["video_mAP@0.2"] >= numbers["video_mAP@0.5"] >= numbers["video_mAP@0.75"] > 50
    assert numbers["video_mAP@0.5"] > numbers["linked_video_mAP@0.5"] > 50
