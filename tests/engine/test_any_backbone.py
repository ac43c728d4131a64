"""A whole run with other libraries' networks, from a configuration of ten lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode

from alphaaction_d2 import setup_cfg
from alphaaction_d2.engine import Trainer, VideoPredictor
from tests.helpers import CONFIGS, build_trainer, write_dataset
from tests.modeling.test_networks import KINDS, TINY, transformer

TEN_LINES = """\
_BASE_: ["{configs}/AVA/aia_dense_R50_4x16.yaml", "{configs}/Base-MapBackbone.yaml"]
MODEL:
  WEIGHTS: ""
  VIDEO_BACKBONE: {{NAME: "{name}"}}
  INTERACTION: {{NAME: "{interaction}", DIM: 8}}
DATASETS:
  FOLDERS: ("{data}",)
  TRAIN: ("data_train",)
  TEST: ("data_val",)
OUTPUT_DIR: "{output}"
"""
# One is enough for every day.
NAMES = ["vjepa2", *(pytest.param(x, marks=pytest.mark.slow) for x in (*list(TINY)[::2], *KINDS))]
SMALL = (
    *("INPUT.MIN_SIZE_TRAIN", "(48,)", "INPUT.MIN_SIZE_TEST", 48, "SOLVER.IMS_PER_BATCH", 2),
    *("MODEL.ROI_ACTION_HEAD.FC_DIM", 8, "DATALOADER.NUM_WORKERS", 0, "SOLVER.STEPS", "()"),
    *("SOLVER.REFERENCE_IMS_PER_BATCH", 0, "MODEL.MEMORY.WINDOW", "(1,1)", "SEED", 3),
    *("MODEL.DEVICE", "cpu"),
)


def configuration(name: object, folder: Path, data: Path, *opts: object) -> CfgNode:
    file = folder / "ten_lines.yaml"
    interaction = "DenseSerialInteraction"
    values = {"configs": CONFIGS, "name": name, "interaction": interaction, "data": data}
    file.write_text(TEN_LINES.format(**values, output=folder / "output"))
    frames = 16 if name == "s3d" else 4
    return setup_cfg(str(file), [*SMALL, "INPUT.NUM_FRAMES", frames, *opts])


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("films") / "data", seconds=3, videos=1)


def trained(cfg: CfgNode, iterations: int) -> Trainer:
    cfg.SOLVER.MAX_ITER = iterations
    trainer = build_trainer(cfg, Path(cfg.OUTPUT_DIR))
    trainer.resume_or_load(resume=True)
    trainer.train()
    return trainer


@pytest.mark.parametrize("name", NAMES)
def test_trains_resumes_is_tested_and_watches_a_video(name, tmp_path, data):
    if name in TINY:
        transformer(name).save_pretrained(tmp_path / name)
        name = tmp_path / name
    cfg = configuration(name, tmp_path, data)
    trained(cfg, 1)
    trainer = trained(cfg, 2)
    assert trainer.start_iter == 1
    scores = Trainer.test(cfg, trainer.model)
    assert 0 <= scores["ava"]["mAP@0.5"] <= 100
    cfg.MODEL.WEIGHTS = str(tmp_path / "output" / "model_final.pth")
    frames = np.zeros((24, 48, 64, 3), np.uint8)
    results = list(VideoPredictor(cfg)(frames, fps=8))
    assert results and all(x["instances"].scores.isfinite().all() for x in results)


@pytest.mark.parametrize("name", NAMES)
def test_trains_on_stored_features(name, tmp_path, data):
    if name in TINY:
        transformer(name).save_pretrained(tmp_path / name)
        name = tmp_path / name
    frozen: tuple[Any, ...] = ("MODEL.VIDEO_BACKBONE.FROZEN", True)
    cfg = configuration(name, tmp_path, data, *frozen, "DATALOADER.STORED_VARIANTS", 1)
    trainer = trained(cfg, 2)
    before = build_trainer(cfg, tmp_path / "again").model.backbone.state_dict()
    for key, value in trainer.model.backbone.state_dict().items():
        assert torch.equal(value, before[key]), key
