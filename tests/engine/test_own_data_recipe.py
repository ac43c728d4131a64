"""configs/OwnData: a frozen network, features on disk, AIA and IGMN on top of them."""

from __future__ import annotations

import pytest
import torch

from alphaaction_d2 import setup_cfg
from alphaaction_d2.engine.solver import scale_to_batch
from tests.helpers import CONFIGS, build_trainer, write_dataset
from tests.modeling.test_networks import transformer

OWN = CONFIGS / "OwnData"
RECIPES = sorted(OWN.glob("*_frozen_*.yaml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "own_squares")


@pytest.mark.parametrize("path", RECIPES, ids=lambda x: x.stem)
def test_all_recipes_train_as_written(path):
    """Whatever the network's own configuration says of batches and steps."""
    cfg = setup_cfg(str(path))
    solver, head = cfg.SOLVER, cfg.MODEL.ROI_ACTION_HEAD
    recipe = (solver.IMS_PER_BATCH, solver.BASE_LR, solver.MAX_ITER, solver.WARMUP_ITERS)
    assert (*recipe, *solver.STEPS) == (16, 0.0005, 1200, 100, 800, 1100)
    assert scale_to_batch(cfg).SOLVER == solver
    assert head.SOFTMAX_GROUPS is None and head.SCORE_THRESH_TEST == 0  # the label file says


@pytest.mark.parametrize("path", RECIPES, ids=lambda x: x.stem)
def test_a_recipe_trains_and_is_evaluated(path, folder, tmp_path):
    """With a network that is smaller and random, everything else as it is written."""
    options = [
        *("DATASETS.FOLDERS", f"('{folder}',)", "DATASETS.TRAIN", f"('{folder.name}_train',)"),
        *("DATASETS.TEST", f"('{folder.name}_val',)", "MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu"),
        *("DATALOADER.STORED_FOLDER", str(tmp_path / "features"), "DATALOADER.NUM_WORKERS", 0),
        *("INPUT.MIN_SIZE_TRAIN", "(36,)", "INPUT.MIN_SIZE_TEST", 36, "SOLVER.IMS_PER_BATCH", 4),
        *("SOLVER.MAX_ITER", 2, "SOLVER.STEPS", "()", "SOLVER.WARMUP_ITERS", 0),
        *("MODEL.SLOWFAST.STEM_CHANNELS", 8, "MODEL.SLOWFAST.DEPTH", 18),
        *("DATALOADER.STORED_VARIANTS", 1),
    ]
    kinds = {"vjepa2": "vjepa2", "videoprism": "videoprism_vision_model"}
    kind = kinds.get(path.stem.partition("_")[0])
    if kind is not None:
        transformer(kind).save_pretrained(tmp_path / kind)
        options += ["MODEL.VIDEO_BACKBONE.NAME", str(tmp_path / kind), "INPUT.NUM_FRAMES", 4]
        options += ["MODEL.VIDEO_BACKBONE.WEIGHTS", str(tmp_path / kind)]
    cfg = setup_cfg(str(path), options)
    losses = []
    for run in ("first", "second"):  # the second reads what the first has computed
        trainer = build_trainer(cfg.clone(), tmp_path / run)
        trainer.resume_or_load(resume=False)
        assert not any(x.requires_grad for x in trainer.model.backbone.parameters())
        if run == "second":
            trainer.model._pool = None  # nobody asks the network again
        trainer.train()
        losses.append(trainer.last_step.loss)
        assert 0 <= trainer._last_eval_results["ava"]["mAP@0.5"] <= 100
    if kind is not None:  # a random SlowFast is another one in each run
        assert losses[0] == losses[1]
    stored = list((tmp_path / "features").rglob("*.pth"))
    assert stored and all(torch.is_tensor(x) for x in trainer.model.state_dict().values())
