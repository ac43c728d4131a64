"""The person detector: plain data sets, detectron2's own loop, boxes from the result."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.engine import default_argument_parser

from alphaaction_d2 import register_datasets
from alphaaction_d2.data.datasets.persons import keyframe_address, load_persons, register_persons
from alphaaction_d2.data.video import VideoReader
from alphaaction_d2.modeling.detector import load_detector
from alphaaction_d2.structures import AnnotatedPersons
from tests.helpers import small_cfg, write_dataset

FOLDER = Path(__file__).resolve().parents[2] / "projects" / "AIA" / "person_detector"
CONFIG = FOLDER / "faster_rcnn_X101.yaml"
SMALL = [
    *("MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.NUM_GROUPS", "1", "MODEL.WEIGHTS", ""),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", "64", "MODEL.RESNETS.WIDTH_PER_GROUP", "64"),
    *("MODEL.FPN.OUT_CHANNELS", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "16", "MODEL.DEVICE", "cpu"),
    *("INPUT.MIN_SIZE_TRAIN", "(48,)", "INPUT.MIN_SIZE_TEST", "48", "DATALOADER.NUM_WORKERS", "0"),
    *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "()"),
]


@pytest.fixture(scope="module")
def persons(tmp_path_factory):
    """Names of the data sets of persons beside a small one."""
    folder = write_dataset(tmp_path_factory.mktemp("detector") / "person_squares", 3, 1)
    register_datasets(small_cfg(folder))
    names = [f"{folder.name}_{split}" for split in ("train", "val")]
    for name in names:
        register_persons(name)
    yield [f"{name}_persons" for name in names]
    for name in names:
        DatasetCatalog.remove(f"{name}_persons")
        MetadataCatalog.remove(f"{name}_persons")


@pytest.mark.parametrize("name", ["ava_v2.1_val", "ava_v2.2_train", "ucf101_24_train"])
def test_data_sets_with_a_name_have_one_of_persons(name):
    assert f"{name}_persons" in DatasetCatalog.list()
    assert MetadataCatalog.get(f"{name}_persons").thing_classes == ["person"]
    assert "ava_v2.2_test_persons" not in DatasetCatalog.list(), "nobody is annotated there"


def test_a_record_is_a_picture_with_a_box_a_person(persons):
    keyframes = DatasetCatalog.get(persons[0].removesuffix("_persons"))
    records = load_persons(persons[0].removesuffix("_persons"))
    assert [x["image_id"] for x in records] == list(range(len(keyframes)))
    for record, keyframe in zip(records, keyframes, strict=True):
        boxes = [a["bbox"] for a in record["annotations"]]
        assert boxes == AnnotatedPersons.of(keyframe).boxes.tolist() and len(boxes) == 1
        picture = read_image(record["file_name"], "RGB")
        with VideoReader(keyframe["file_name"]) as reader:
            assert np.array_equal(picture, reader.pictures([keyframe["timestamp"]])[0])
        assert picture.shape[:2] == (record["height"], record["width"])


def test_frames_that_are_counted_are_read_by_their_number(persons):
    video = DatasetCatalog.get(persons[0].removesuffix("_persons"))[0]["file_name"]
    with VideoReader(video, frame_rate=25.0) as reader:
        expected = reader.pictures([5 / 25])[0]
    assert np.array_equal(read_image(keyframe_address(video, 5 / 25, 25.0), "RGB"), expected)


def test_detectron2s_own_mapper_reads_them(persons):
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIG))
    x = DatasetMapper(cfg, is_train=True)(DatasetCatalog.get(persons[0])[0])
    assert x["image"].shape[0] == 3 and x["instances"].gt_classes.tolist() == [0]


def test_it_trains_and_its_boxes_are_read(persons, tmp_path, monkeypatch):
    """Two steps of detectron2's loop with a small network, an evaluation, and boxes."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import train

    data = ("DATASETS.TRAIN", f"('{persons[0]}',)", "DATASETS.TEST", f"('{persons[1]}',)")
    opts = [*SMALL, *data, "OUTPUT_DIR", str(tmp_path)]
    parse, config = default_argument_parser().parse_args, ["--config-file", str(CONFIG)]
    train.main(parse([*config, *opts]))
    weights = str(tmp_path / "model_final.pth")
    results = train.main(parse([*config, "--eval-only", *opts, "MODEL.WEIGHTS", weights]))
    sys.modules.pop("train")
    assert set(results["bbox"]) >= {"AP", "AP50"}
    network = [*SMALL[:4], *SMALL[6:14]]  # without weights, which the command names
    detector = load_detector(str(CONFIG), weights, device="cpu", opts=network, score_threshold=0.0)
    (found,) = detector([np.zeros((48, 64, 3), np.uint8)])
    assert not len(found.objects)
