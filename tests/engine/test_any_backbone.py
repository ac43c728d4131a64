"""A whole run with other libraries' networks, from a configuration of ten lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode

from alphaaction_d2 import setup_cfg
from alphaaction_d2.apps.command_line import run_module
from alphaaction_d2.engine import Trainer, VideoPredictor
from tests.helpers import CONFIGS, build_trainer, write_dataset
from tests.modeling.test_networks import KINDS, TINY, transformer

TEN_LINES = """\
_BASE_: ["{configs}/AVA/{method}_R50_4x16.yaml", "{configs}/Base-MapBackbone.yaml"]
MODEL:
  WEIGHTS: ""
  VIDEO_BACKBONE: {{NAME: "{name}"}}
DATASETS:
  FOLDERS: ("{data}",)
  TRAIN: ("data_train",)
  TEST: ("data_val",)
OUTPUT_DIR: "{output}"
"""
METHODS = ("aia_dense", "igmn")
# One is enough for every day.
NAMES = ["vjepa2", *(pytest.param(x, marks=pytest.mark.slow) for x in (*list(TINY)[::2], *KINDS))]
SMALL = (
    *("INPUT.MIN_SIZE_TRAIN", "(48,)", "INPUT.MIN_SIZE_TEST", 48, "SOLVER.IMS_PER_BATCH", 2),
    *("MODEL.ROI_ACTION_HEAD.FC_DIM", 8, "DATALOADER.NUM_WORKERS", 0, "SOLVER.STEPS", "()"),
    *("SOLVER.REFERENCE_IMS_PER_BATCH", 0, "MODEL.MEMORY.WINDOW", "(1,1)", "SEED", 3),
    *("MODEL.INTERACTION.DIM", 8, "MODEL.DEVICE", "cpu"),
)


@pytest.fixture(params=NAMES)
def name(request, tmp_path) -> str | Path:
    """A network's name, or the folder of one."""
    if request.param not in TINY:
        return request.param
    transformer(request.param).save_pretrained(tmp_path / request.param)
    return tmp_path / request.param


def options(name: object, method: str) -> list[object]:
    """What makes a run small."""
    small = ["MODEL.INTERACTION.DIM_OUT", 8] if method == "igmn" else []  # AIA's is the persons'
    return [*SMALL, *small, "INPUT.NUM_FRAMES", 16 if name == "s3d" else 4]


def configuration(name: object, method: str, folder: Path, data: Path, *opts: object) -> CfgNode:
    file = folder / "ten_lines.yaml"
    values = {"configs": CONFIGS, "name": name, "method": method, "data": data}
    file.write_text(TEN_LINES.format(**values, output=folder / "output"))
    return setup_cfg(str(file), [*options(name, method), *opts])


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("films") / "data", seconds=3, videos=1)


def trained(cfg: CfgNode, iterations: int) -> Trainer:
    cfg.SOLVER.MAX_ITER = iterations
    trainer = build_trainer(cfg, Path(cfg.OUTPUT_DIR))
    trainer.resume_or_load(resume=True)
    trainer.train()
    return trainer


@pytest.mark.parametrize("method", METHODS)
def test_trains_resumes_is_tested_and_watches_a_video(name, method, tmp_path, data):
    cfg = configuration(name, method, tmp_path, data)
    trained(cfg, 1)
    trainer = trained(cfg, 2)
    assert trainer.start_iter == 1
    scores = Trainer.test(cfg, trainer.model)
    assert 0 <= scores["ava"]["mAP@0.5"] <= 100
    cfg.MODEL.WEIGHTS = weights = str(tmp_path / "output" / "model_final.pth")
    frames = np.zeros((24, 48, 64, 3), np.uint8)
    results = list(VideoPredictor(cfg)(frames, fps=8))
    assert results and all(x["instances"].scores.isfinite().all() for x in results)

    arguments = ["--config-file", tmp_path / "ten_lines.yaml", "--weights", weights]
    arguments += ["--boxes", data / "boxes" / "val_persons.csv", "--output", tmp_path / "shown"]
    video = data / "videos" / "val_0.mp4"
    arguments += [video, "--opts", *options(name, method)]
    assert run_module("demo", list(map(str, arguments))) == 0
    told = json.loads((tmp_path / "shown" / "results.json").read_text())["keyframes"]
    assert [len(x["persons"]) for x in told] == [0, 1, 1]
    assert (tmp_path / "shown" / "report.html").stat().st_size > 1000


@pytest.mark.parametrize("method", METHODS)
def test_trains_on_stored_features(name, method, tmp_path, data):
    frozen: tuple[Any, ...] = ("MODEL.VIDEO_BACKBONE.FROZEN", True)
    folder = ("DATALOADER.STORED_FOLDER", str(tmp_path / "features"))
    stored = ("DATALOADER.STORED_VARIANTS", 1, *folder)
    cfg = configuration(name, method, tmp_path, data, *frozen, *stored)
    trainer = trained(cfg, 2)
    assert list((tmp_path / "features").rglob("*.pth"))
    before = build_trainer(cfg, tmp_path / "again").model.backbone.state_dict()
    for key, value in trainer.model.backbone.state_dict().items():
        assert torch.equal(value, before[key]), key
