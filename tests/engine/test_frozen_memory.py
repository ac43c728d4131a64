"""A memory filled by another network, and one that is filled again."""

from __future__ import annotations

import pytest
import torch

from alphaaction_d2.checkpoint.checkpointer import load_for_inference
from alphaaction_d2.engine import Trainer
from alphaaction_d2.engine.inference import build_frozen_model
from alphaaction_d2.memory.pool import MemoryFileError
from tests.helpers import build_trainer, small_cfg, write_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "frozen_squares")


def make_trainer(folder, output, *opts):
    cfg = small_cfg(
        folder,
        *("SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.MAX_ITER", 3, "SEED", 1),
        *("MODEL.INTERACTION.NAME", "SerialInteraction", "MODEL.INTERACTION.BLOCKS", "('M','M')"),
        *opts,
    )
    return build_trainer(cfg, output)


@pytest.fixture(scope="module")
def baseline(folder, tmp_path_factory):
    """A trained network without interaction."""
    output = tmp_path_factory.mktemp("baseline")
    trainer = make_trainer(folder, output, "MODEL.INTERACTION.NAME", "", "DATASETS.TEST", "()")
    trainer.train()
    return str(output / "model_final.pth")


def test_another_network_fills_the_memory_once(folder, baseline, tmp_path):
    options = ("MODEL.MEMORY.FROZEN_WEIGHTS", baseline, "MODEL.MEMORY.DTYPE", "float32")
    trainer = make_trainer(folder, tmp_path, *options)
    trainer.resume_or_load(resume=False)
    pool = trainer.pool
    assert len(pool) == len(trainer._keyframes), "everybody is in it before the first step"
    features = pool._features.clone()

    # What it holds is what that network sees.
    cfg = trainer.cfg
    network = build_frozen_model(cfg)
    assert network.roi_heads.interaction is None
    loader = Trainer.build_test_loader(cfg, f"{folder.name}_train")
    clip = next(x[0] for x in loader if x)
    with torch.no_grad():
        expected = network.extract([clip])[0].persons.roi_features
    window = pool.read(clip["video_id"], pool.clock.slot_of(clip["timestamp"]), training=True)
    centre = window.features[window.centre][: len(expected)]
    torch.testing.assert_close(centre, expected)
    assert window.weights.tolist() == [1.0] * 5, "no loss tags"

    trainer.train()
    assert torch.equal(pool._features, features), "training does not touch it"
    assert (tmp_path / "frozen.memory").is_file()
    assert not list(tmp_path.glob("model_*.memory"))

    again = make_trainer(folder, tmp_path, *options, "SOLVER.MAX_ITER", 4)
    again.resume_or_load(resume=True)
    assert again.start_iter == 3 and torch.equal(again.pool._features, features)
    again.train()
    assert 0 <= again._last_eval_results["ava"]["mAP@0.5"] <= 100

    other = torch.load(baseline, weights_only=True)
    other["model"]["backbone.blocks.0.multipathway_blocks.0.conv.weight"] += 1e-3
    torch.save(other, tmp_path / "other.pth")
    for changed in (
        ("MODEL.MEMORY.FROZEN_WEIGHTS", str(tmp_path / "other.pth")),
        ("INPUT.SAMPLING_RATE", 2),
    ):
        stranger = make_trainer(folder, tmp_path, *options, *changed, "SOLVER.MAX_ITER", 5)
        with pytest.raises(MemoryFileError, match="frozen.memory: features of other weights.*--r"):
            stranger.resume_or_load(resume=True)


def test_testing_remembers_what_the_frozen_network_sees(folder, baseline, tmp_path):
    options = ("MODEL.MEMORY.FROZEN_WEIGHTS", baseline, "SOLVER.MAX_ITER", 1)
    trainer = make_trainer(folder, tmp_path, *options)
    trainer.resume_or_load(resume=False)
    for name, parameter in trainer.model.named_parameters():
        if ".out." in name:  # blocks that matter
            torch.nn.init.normal_(parameter, std=0.5)
    cfg, model = trainer.cfg, trainer.model

    def detections(weights):
        other = cfg.clone()
        other.defrost()
        other.MODEL.MEMORY.FROZEN_WEIGHTS = weights
        Trainer.test(other, model)
        return (tmp_path / "ava_detections.csv").read_bytes()

    first = detections(baseline)
    assert detections(baseline) == first
    changed = torch.load(baseline, weights_only=True)
    for name, value in changed["model"].items():
        if name.endswith("conv.weight"):
            changed["model"][name] = -value
    torch.save(changed, tmp_path / "changed.pth")
    assert detections(str(tmp_path / "changed.pth")) != first


def test_weights_that_do_not_fit_are_refused(folder, tmp_path):
    trainer = make_trainer(folder, tmp_path, "MODEL.MEMORY.FROZEN_WEIGHTS", "nowhere.pth")
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        trainer.resume_or_load(resume=False)


def test_a_damaged_memory_is_refused_and_can_be_rebuilt(folder, tmp_path):
    trainer = make_trainer(folder, tmp_path, "DATASETS.TEST", "()")
    trainer.train()
    memory = tmp_path / "model_final.memory"
    whole = memory.read_bytes()
    memory.write_bytes(whole[: len(whole) // 2])
    options = ("DATASETS.TEST", "()", "SOLVER.MAX_ITER", 5)
    with pytest.raises(MemoryFileError, match="damaged.*--rebuild-memory"):
        make_trainer(folder, tmp_path, *options).resume_or_load(resume=True)
    memory.unlink()
    with pytest.raises(MemoryFileError, match="no such memory file.*--rebuild-memory"):
        make_trainer(folder, tmp_path, *options).resume_or_load(resume=True)

    again = make_trainer(folder, tmp_path, *options)
    again.resume_or_load(resume=True, rebuild_memory=True)
    assert again.start_iter == 3 and again.pool.err == trainer.pool.err
    assert len(again.pool) == len(again._keyframes)
    window = again.pool.read("train_0", 2, training=True)
    assert window.weights[window.valid.any(dim=1)].tolist() == [1.0] * int(
        window.valid.any(dim=1).sum()
    ), "as trustworthy as the last step"
    again.train()
    assert (tmp_path / "model_final.memory").is_file()
    fresh = make_trainer(folder, tmp_path, *options)
    fresh.resume_or_load(resume=True)


def test_the_memory_of_another_checkpoint_is_refused(folder, tmp_path):
    trainer = make_trainer(folder, tmp_path, "DATASETS.TEST", "()")
    trainer.train()
    trainer.pool.err = 0.123
    trainer.pool.save(tmp_path / "model_final.memory")
    with pytest.raises(MemoryFileError, match="memory of another checkpoint"):
        make_trainer(folder, tmp_path, "DATASETS.TEST", "()").resume_or_load(resume=True)


def test_rebuilding_is_what_the_loaded_weights_see(folder, tmp_path):
    """Not the weights at the start: the fill comes after loading."""
    trainer = make_trainer(folder, tmp_path, "DATASETS.TEST", "()", "SOLVER.BASE_LR", 0.05)
    trainer.train()
    again = make_trainer(folder, tmp_path, "DATASETS.TEST", "()", "SOLVER.MAX_ITER", 4)
    again.resume_or_load(resume=True, rebuild_memory=True)
    model = Trainer.build_model(again.cfg).eval()
    load_for_inference(model, str(tmp_path / "model_final.pth"))
    loader = Trainer.build_test_loader(again.cfg, f"{folder.name}_train")
    clip = next(x[0] for x in loader if x)
    with torch.no_grad():
        expected = model.extract([clip])[0].persons.roi_features
    window = again.pool.read(
        clip["video_id"], again.pool.clock.slot_of(clip["timestamp"]) + 1, training=False
    )
    found = window.features[window.centre - 1][: len(expected)].float()
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-3)
