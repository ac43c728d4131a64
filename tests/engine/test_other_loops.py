"""Our models in detectron2's own loops."""

from __future__ import annotations

import logging
import re

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer, PeriodicCheckpointer
from detectron2.data import (
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from detectron2.solver import build_lr_scheduler
from detectron2.structures import Boxes, Instances
from detectron2.utils.analysis import activation_count_operators
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from detectron2.utils.visualizer import Visualizer
from torch import nn

import alphaaction_d2
from alphaaction_d2 import register_datasets
from alphaaction_d2.checkpoint import ActionCheckpointer
from alphaaction_d2.data import ActionDatasetMapper
from alphaaction_d2.data.randomness import derived_seed, seed_everything
from alphaaction_d2.engine import Trainer, attach_memory, build_delayed_inference
from tests.helpers import CONFIGS, build_trainer, small_cfg, write_dataset

EMPTY = "THE MEMORY IS EMPTY in"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("loops") / "loops")


@pytest.fixture
def cfg(folder, tmp_path):
    cfg = small_cfg(folder, "SOLVER.MAX_ITER", 6, "OUTPUT_DIR", str(tmp_path))
    register_datasets(cfg)
    seed_all_rng(0)
    return cfg


def do_train(cfg, model, checkpointer=DetectionCheckpointer, resume=False, seen=None, **saved):
    """The loop of detectron2's tools/plain_train_net.py."""
    model.train()
    optimizer = Trainer.build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    checkpointer = checkpointer(
        model, cfg.OUTPUT_DIR, optimizer=optimizer, scheduler=scheduler, **saved
    )
    loaded = checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    start = loaded.get("iteration", -1) + 1
    periodic = PeriodicCheckpointer(checkpointer, 3, max_iter=cfg.SOLVER.MAX_ITER)
    loader = build_detection_train_loader(cfg, mapper=ActionDatasetMapper(cfg, is_train=True))
    losses = []
    with EventStorage(start):
        for data, iteration in zip(loader, range(start, cfg.SOLVER.MAX_ITER)):
            loss = sum(model(data).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            periodic.step(iteration)
            losses.append(float(loss.detach()))
            if seen is not None:
                seen.extend(data)
    return losses


def test_a_plain_loop_without_memory_says_so_once(cfg, caplog):
    do_train(cfg, build_model(cfg))
    (record,) = [r for r in caplog.records if EMPTY in r.message]
    assert record.levelno == logging.WARNING and f"{EMPTY} training" in record.message
    assert "attach_memory(cfg, model)" in record.message


def test_with_one_line_the_pool_fills_and_is_read(cfg, caplog):
    model, seen = build_model(cfg), []
    pool = attach_memory(cfg, model)
    losses = do_train(cfg, model, seen=seen)
    assert len(pool) > 0 and pool.err == pytest.approx(losses[-1])
    assert any(x["memory"].valid.any() for x in seen)
    assert EMPTY not in caplog.text
    # The loss depends on what was read.
    batch = next(x for x in seen if x["memory"].valid.any())
    last = {k: v for k, v in batch.items() if k != "memory"}
    for block in model.roi_heads.interaction.modules():
        if isinstance(block, nn.Dropout):
            block.p = 0.0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".out." in name:
                parameter.normal_(std=0.5)
        remembered = sum(model([last]).values())
        pool.clear()
        assert not torch.equal(remembered, sum(model([last]).values()))
        assert len(pool) == 0  # nothing is written without gradients


def test_the_same_numbers_as_the_trainer(cfg, tmp_path):
    """The same batches through both loops leave the same pool."""
    trainer = build_trainer(cfg.clone(), tmp_path / "trainer")
    trainer.resume_or_load(resume=False)
    seed_all_rng(1)
    model = build_model(cfg)
    model.load_state_dict(trainer.model.state_dict())
    pool = attach_memory(cfg, model)
    batches = []
    run_step = trainer._trainer.run_step
    trainer._trainer.run_step = lambda: (run_step(), batches.append(trainer.last_step.batch))
    trainer.train()
    optimizer = Trainer.build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    for iteration, batch in enumerate(batches):
        seed_everything(derived_seed(trainer._trainer.data_loader.seed, iteration, 0))
        losses = model(batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        scheduler.step()
    for name, table in trainer.pool.state_dict().items():
        if isinstance(table, torch.Tensor):
            torch.testing.assert_close(pool.state_dict()[name], table)


def test_our_checkpointer_keeps_the_pool_there(cfg):
    model = build_model(cfg)
    pool = attach_memory(cfg, model)
    do_train(cfg, model, ActionCheckpointer, pool=pool)
    again = build_model(cfg)
    empty = attach_memory(cfg, again)
    do_train(cfg, again, ActionCheckpointer, resume=True, pool=empty)
    assert len(empty) == len(pool) and empty.err == pool.err


def test_testing_in_detectron2s_loop(cfg, folder, caplog):
    model = build_model(cfg)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".out." in name:
                parameter.normal_(std=0.5)
    name = f"{folder.name}_val"
    expected = Trainer.test(cfg, model)
    assert EMPTY not in caplog.text
    evaluator = Trainer.build_evaluator(cfg, name)
    delayed = build_delayed_inference(cfg, model)
    found = inference_on_dataset(delayed, Trainer.build_test_loader(cfg, name), evaluator)
    assert found["ava"] == pytest.approx(expected["ava"], nan_ok=True)
    plain = build_detection_test_loader(cfg, name, mapper=ActionDatasetMapper(cfg, is_train=False))
    assert EMPTY not in caplog.text
    with pytest.raises(ValueError, match="clips still wait.*Trainer.build_test_loader"):
        inference_on_dataset(delayed, plain, evaluator)
    inference_on_dataset(model, plain, evaluator)
    (record,) = [r for r in caplog.records if EMPTY in r.message]
    assert "build_delayed_inference(cfg, model)" in record.message


def test_one_picture_needs_no_memory(cfg, caplog):
    model = build_model(cfg).eval()
    for _ in range(2):
        model([{"image": torch.zeros(3, 48, 64, dtype=torch.uint8)}])
    assert EMPTY not in caplog.text


class OtherModel(nn.Module):
    """A model of somebody else's: no `extract`, no ROI heads, no backbone."""

    def __init__(self, cfg):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, batched_inputs):
        if self.training:
            return {"loss": self.weight.sum() + sum(len(x["instances"]) for x in batched_inputs)}
        assert batched_inputs
        results = []
        for x in batched_inputs:
            persons = x["proposals"]
            found = Instances((x["height"], x["width"]))
            found.pred_boxes = Boxes(persons.proposal_boxes.tensor)
            found.scores = self.weight[:1].expand(len(persons)).sigmoid()
            found.pred_classes = torch.zeros(len(persons), dtype=torch.int64)
            results.append({"instances": found})
        return results


def test_a_model_of_another_kind_is_trained_and_tested(cfg, tmp_path, caplog):
    META_ARCH_REGISTRY._obj_map["OtherModel"] = OtherModel
    try:
        cfg.MODEL.META_ARCHITECTURE = "OtherModel"
        trainer = build_trainer(cfg, tmp_path)
        trainer.resume_or_load(resume=False)
        with caplog.at_level(logging.INFO):
            trainer.train()
    finally:
        del META_ARCH_REGISTRY._obj_map["OtherModel"]
    assert "mAP@0.5" in trainer._last_eval_results["ava"]
    assert "OtherModel has no extract(): tested batch by batch" in caplog.text


def watched_batches(loader, seen):
    """The batches of a loader, each kept in `seen`."""
    for batch in loader:
        seen.extend(batch)
        yield batch


def test_the_own_project_of_the_docs(folder, tmp_path, monkeypatch):
    """The example is run as it stands, but for the configuration."""
    text = (CONFIGS.parent / "docs" / "training.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(import alphaaction_d2.*?)```", text, re.DOTALL)
    cfg = small_cfg(
        folder, "SOLVER.MAX_ITER", 3, "TEST.EVAL_PERIOD", 3, "SOLVER.OPTIMIZER", "AdamW"
    )
    cfg.OUTPUT_DIR = str(tmp_path)
    monkeypatch.setattr(alphaaction_d2, "setup_cfg", lambda *_: cfg)
    names, seen = {}, []
    loader = Trainer.build_train_loader
    watched = classmethod(lambda cls, cfg: watched_batches(loader(cfg), seen))
    monkeypatch.setattr(Trainer, "build_train_loader", watched)
    exec(example.replace(", ...]", "]"), names)
    trainer = names["trainer"]
    assert isinstance(trainer, DefaultTrainer) and isinstance(trainer.optimizer, torch.optim.AdamW)
    assert trainer.iter >= 2 and "mAP@0.5" in trainer._last_eval_results["ava"]
    # The one that was given to the model is the one that its steps wrote to.
    assert any(x["memory"].valid.any() for x in seen)


def test_tools_that_look_at_pictures(cfg, folder):
    """What detectron2's visualize_data and analyze_model do, on a clip of ours."""
    metadata = MetadataCatalog.get(f"{folder.name}_train")
    assert metadata.thing_classes == ["left", "right", "bright"]
    x = next(iter(Trainer.build_train_loader(cfg)))[0]
    picture = x["image"]
    assert picture.shape == (3, 48, 64) and picture.dtype == torch.uint8
    assert picture.data_ptr() - x["video"].data_ptr() == x["video"].stride(1) * 8  # no copy
    labels = [
        ", ".join(metadata.thing_classes[k] for k in row.nonzero()[:, 0])
        for row in x["instances"].gt_classes
    ]
    drawn = Visualizer(picture.permute(1, 2, 0).numpy(), metadata).overlay_instances(
        labels=labels, boxes=x["instances"].gt_boxes
    )
    assert drawn.get_image().shape[2] == 3
    counts = activation_count_operators(build_model(cfg).eval(), [x])
    assert counts["conv"] > 0
