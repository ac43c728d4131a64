"""The real trainer on a generated data set: memory, checkpoint, resume, evaluation."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.engine.hooks import PeriodicCheckpointer

from alphaaction_d2 import setup_cfg
from alphaaction_d2.checkpoint.checkpointer import CheckpointMismatch, load_for_inference
from alphaaction_d2.engine import MemoryHook, Trainer
from alphaaction_d2.engine.solver import parameter_groups
from alphaaction_d2.evaluation import AVAEvaluator
from tests.helpers import CONFIGS, build_trainer, small_cfg, write_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "squares")


def make_trainer(folder, output, *opts):
    cfg = small_cfg(folder, "SOLVER.CHECKPOINT_PERIOD", 3, "SOLVER.MAX_ITER", 6, *opts)
    return build_trainer(cfg, output, seed=0)


def test_train_save_resume_evaluate(folder, tmp_path):
    trainer = make_trainer(folder, tmp_path, "SOLVER.MAX_ITER", 3)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert len(trainer.pool) > 0 and 0 < trainer.pool.err < math.inf
    stored = len(trainer.pool)
    assert sorted(p.name for p in tmp_path.glob("*.memory")) == ["model_final.memory"]

    again = make_trainer(folder, tmp_path)
    again.resume_or_load(resume=True)
    assert again.start_iter == 3
    assert len(again.pool) == stored and again.pool.err == trainer.pool.err
    again.train()
    assert (tmp_path / "model_0000005.pth").is_file()

    results = again._last_eval_results["ava"]
    assert 0 <= results["mAP@0.5"] <= 100
    assert {"AP-pose", "AP-object", "AP/left", "AP/right", "AP/bright"} <= set(results)
    assert (tmp_path / "ava_detections.csv").is_file()

    # The saved model alone gives the same numbers.
    cfg = again.cfg.clone()
    model = Trainer.build_model(cfg)
    load_for_inference(model, str(tmp_path / "model_final.pth"))
    assert Trainer.test(cfg, model)["ava"] == pytest.approx(results, nan_ok=True)


def test_memory_hook_comes_before_the_checkpointer(folder, tmp_path):
    trainer = make_trainer(folder, tmp_path)
    kinds = [type(hook) for hook in trainer._hooks]
    assert kinds.index(MemoryHook) < kinds.index(PeriodicCheckpointer)


def test_tags_are_the_loss_of_their_step(folder, tmp_path):
    trainer = make_trainer(folder, tmp_path, "SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()")
    trainer.train()
    step = trainer.last_step
    for clip in step.batch:
        position = trainer.pool.slots.place(clip["video_id"], clip["timestamp"])
        assert trainer.pool._tags[position].item() == step.loss
    assert trainer.pool.err == pytest.approx(step.loss)


def test_without_memory_there_is_no_pool(folder, tmp_path):
    trainer = make_trainer(folder, tmp_path, "MODEL.INTERACTION.BLOCKS", "('P','O')")
    assert trainer.pool is None
    trainer.train()
    assert not list(tmp_path.glob("*.memory"))


def test_bad_loss_stops_with_clips_and_writes_nothing(folder, tmp_path):
    trainer = make_trainer(folder, tmp_path)
    with torch.no_grad():
        trainer.model.roi_heads.predictor.cls_score.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"iteration 0.*loss_pose.*train_\d at \d s"):
        trainer.train()
    assert len(trainer.pool) == 0 and trainer.pool.err == math.inf


def test_classes_of_config_and_data_must_agree(folder, tmp_path):
    with pytest.raises(ValueError, match="squares_train has 3 classes.*add up to 4"):
        make_trainer(folder, tmp_path, "MODEL.ROI_ACTION_HEAD.GROUP_SIZES", "(2,2)")


def test_wrong_weights_are_named(folder, tmp_path):
    trainer = make_trainer(folder, tmp_path)
    trainer.checkpointer.save("small")
    path = str(tmp_path / "small.pth")
    cfg = small_cfg(folder, "MODEL.INTERACTION.DIM", 8)
    with pytest.raises(CheckpointMismatch, match="does not fit.*instead of.*and .* more"):
        load_for_inference(Trainer.build_model(cfg), path)
    cfg = small_cfg(folder, "MODEL.INTERACTION.BLOCKS", "('P','O','M','P')")
    with pytest.raises(CheckpointMismatch, match="P_block_2.* is missing"):
        load_for_inference(Trainer.build_model(cfg), path)
    with pytest.raises(FileNotFoundError, match="no such weights"):
        load_for_inference(trainer.model, str(tmp_path / "nothing.pth"))


def test_a_run_is_resumed_with_its_own_model_only(folder, tmp_path):
    trainer = make_trainer(folder, tmp_path, "SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()")
    trainer.train()
    other = make_trainer(folder, tmp_path, "MODEL.INTERACTION.NAME", "ParallelInteraction")
    with pytest.raises(CheckpointMismatch, match="model_final.pth does not fit"):
        other.resume_or_load(resume=True)


def test_two_test_sets_have_files_of_their_own(folder, tmp_path):
    trainer = make_trainer(folder, tmp_path)
    trainer.cfg.DATASETS.TEST = (f"{folder.name}_val", f"{folder.name}_train")
    results = Trainer.test(trainer.cfg, trainer.model)
    assert len(results) == 2
    for name in results:
        assert (tmp_path / name / "ava_results.json").is_file()


def test_the_evaluator_is_that_of_the_data_set(folder, tmp_path):
    cfg = make_trainer(folder, tmp_path).cfg
    assert isinstance(Trainer.build_evaluator(cfg, cfg.DATASETS.TEST[0]), AVAEvaluator)
    MetadataCatalog.get("gestures_val").evaluator_type = "gestures"
    for name, kind in (("gestures_val", "'gestures'"), ("nobody_registered_val", "None")):
        with pytest.raises(ValueError, match=f"{name}.*evaluator_type {kind}; there are: ava"):
            Trainer.build_evaluator(cfg, name)


def test_precise_bn_does_not_disturb_the_pool(folder, tmp_path):
    options = ("TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 2)
    trainer = make_trainer(
        *(folder, tmp_path, "SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 1, "DATASETS.TEST", "()"),
        *options,
    )
    trainer.train()
    step = trainer.last_step
    for clip in step.batch:
        window = trainer.pool.read(clip["video_id"], clip["timestamp"] + 1, training=False)
        height, width = clip["proposals"].image_size
        scale = torch.tensor([width, height, width, height])
        expected = clip["proposals"].proposal_boxes.tensor / scale
        torch.testing.assert_close(window.boxes[1, : len(expected)], expected)


def test_layers_learn_more_slowly_from_the_last_to_the_first():
    """As BEiT counts: an embedding is a layer before the first block, a head one behind."""
    vit = "MODEL.VIDEO_BACKBONE.VIT"
    keys = ("MODEL.DEVICE", "cpu", f"{vit}.CHANNELS", 64, f"{vit}.DEPTH", 3, "SOLVER.BASE_LR", 1.0)
    cfg = setup_cfg(str(CONFIGS / "AVA" / "published" / "umt_vit_B.yaml"), [*keys])
    cfg.SOLVER.LAYER_DECAY, cfg.SOLVER.BIAS_LR_FACTOR = 0.5, 2.0
    model = Trainer.build_model(cfg)
    rates = {id(p): g["lr"] for g in parameter_groups(model, cfg) for p in g["params"]}
    network = model.backbone.network
    assert rates[id(network.patch_embed.proj.weight)] == 0.5**4
    assert [rates[id(x.attn.qkv.weight)] for x in network.blocks] == [0.5**3, 0.5**2, 0.5]
    assert rates[id(network.blocks[0].mlp.fc1.bias)] == 2 * 0.5**3
    assert rates[id(network.norm.weight)] == 1
    assert rates[id(model.roi_heads.predictor.cls_score.weight)] == 1
    with pytest.raises(ValueError, match="LAYER_DECAY 0.5: expected 1.0, for the backbone has no"):
        cfg = small_cfg(None, "SOLVER.LAYER_DECAY", 0.5)
        parameter_groups(Trainer.build_model(cfg), cfg)


def test_learning_rates_multiply():
    cfg = small_cfg(
        None,
        *(
            "SOLVER.BASE_LR",
            1.0,
            "SOLVER.BIAS_LR_FACTOR",
            2.0,
            "SOLVER.INTERACTION_LR_FACTOR",
            10.0,
        ),
        *("SOLVER.WEIGHT_DECAY", 0.5, "SOLVER.WEIGHT_DECAY_BIAS", 0.0),
        *("SOLVER.WEIGHT_DECAY_NORM", 0.25),
    )
    model = Trainer.build_model(cfg)
    groups = parameter_groups(model, cfg)
    found = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(found) == len(list(model.parameters()))
    block = model.roi_heads.interaction.blocks["M_block_1"]
    assert found[id(block.query.weight)] == (10.0, 0.5)
    assert found[id(block.query.bias)] == (20.0, 0.0)
    assert found[id(block.temporal_position_k)] == (10.0, 0.5)
    assert found[id(model.roi_heads.predictor.cls_score.bias)] == (2.0, 0.0)
    norm = model.backbone.blocks[0].multipathway_blocks[0].norm
    assert found[id(norm.weight)] == (1.0, 0.25)
