"""tools/check_dataset.py as a user calls it."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from alphaaction_d2 import setup_cfg
from alphaaction_d2.data.datasets.builtin import register_datasets, register_folder
from tests.helpers import loaded_tool, write_dataset
from tests.kitchens import write_kitchen

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    with loaded_tool(ROOT / "tools" / "check_dataset.py") as run:
        yield run


def test_good_data(tool, tmp_path, capsys):
    folder, sheet = write_dataset(tmp_path / "checked"), tmp_path / "sheet.png"
    config = ROOT / "configs" / "Small" / "aia.yaml"
    assert tool(folder, "--sheet", sheet, "--sheet-size", 5, "--config-file", config) == 0
    text = capsys.readouterr().out
    assert "0 wrong, 0 unusual" in text and "clips beyond an end (2.00 s)" in text
    assert re.search(r"1\s+left\s+pose\s+\d+\s+\d+", text)
    picture = cv2.imread(str(sheet))
    assert picture.shape[1] == 4 * 448 + 8 and picture.any()
    # The keys can be copied as they are.
    keys = re.findall(r'^  ([A-Z_.]+) "(.*)"', text, re.MULTILINE)
    cfg = setup_cfg(str(config), [word for pair in keys for word in pair])
    assert cfg.DATASETS.FOLDERS == (str(folder),) and cfg.DATASETS.TEST == ("checked_val",)
    register_datasets(cfg)
    assert cfg.MODEL.ROI_ACTION_HEAD.GROUP_SIZES == (2, 1)
    assert cfg.MODEL.ROI_ACTION_HEAD.SOFTMAX_GROUPS == ("pose",)
    assert "pose: 2, exclude each other\n  object: 1\n" in text and "GROUP_" not in text


def test_wrong_data(tool, tmp_path, capsys):
    folder = write_dataset(tmp_path / "wrong")
    with (folder / "annotations" / "val.csv").open("a") as file:
        file.writelines(f"val_0,000{i},0.1,0.1,0.5,x,1,1\n" for i in range(40))
    (folder / "videos" / "train_0.mp4").unlink()
    assert tool(folder, "--no-decode") == 1
    text = capsys.readouterr().out
    assert "41 wrong" in text and "... and 10 more" in text
    assert "no video of this name" in text and "expected a number" in text


def test_registered_names(tool, tmp_path, capsys):
    names = register_folder(write_dataset(tmp_path / "named"))
    assert tool(names[1], "--sheet", tmp_path / "sheet.png") == 0
    text = capsys.readouterr().out
    assert "named_val" in text and "DATASETS.FOLDERS" not in text
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nothing"], "data set 'nothing' is not registered"),
        ([".", "nothing"], "one folder, or names"),
        ([".", "--sheet", "sheet.jpg"], "ends in .png"),
    ],
)
def test_mistakes_are_one_line(tool, capsys, arguments, message):
    assert tool(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and error.count("\n") == 1


def test_segments(tool, tmp_path, capsys):
    folder = write_kitchen(tmp_path / "kitchen_check")
    assert tool(folder) == 0
    text = capsys.readouterr().out
    assert "0 wrong, 0 unusual" in text
    assert re.search(r"train +2 +8 +8 +8 +8 +8\n", text)
    assert re.search(r"val +1 +4 +4 +4 +4 +4\b", text)

    (folder / "videos" / "P02" / "P02_03.MP4").write_bytes(b"nothing")
    (folder / "noun_lfb" / "val_lfb.pkl").write_bytes(b"nothing")
    boxes = folder / "boxes" / "val.csv"
    boxes.write_text(boxes.read_text().replace("hand", "paw").replace("left ", ""))
    labels = folder / "annotations" / "EPIC_train_action_labels.csv"
    labels.write_text(labels.read_text().replace("00:00:07.50", "00:00:27.50"))
    assert tool(folder) == 1
    text = " ".join(capsys.readouterr().out.split())
    for words in ("P02_03.MP4", "1 of 2 videos are not there", "no box is of the class", "damaged"):
        assert words in text
    assert "its middle, 16.50 s" in text
    labels.write_text("uid\n1\n")
    assert tool(folder) == 1
    assert "no column" in capsys.readouterr().out
