"""Backbones side by side, and a memory that another network fills."""

from __future__ import annotations

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.modeling import build_backbone, build_model
from detectron2.structures import ImageList

from alphaaction_d2 import setup_cfg
from alphaaction_d2.engine.inference import build_frozen_model
from alphaaction_d2.modeling.backbone.joined import look_of
from alphaaction_d2.modeling.interaction.build import memory_channels
from tests.engine.test_resume import assert_equal
from tests.helpers import CONFIGS, build_trainer, model_input, small_cfg, write_dataset

SMALL = f"""\
_BASE_: "{CONFIGS}/Base-Small.yaml"
MODEL:
  SLOWFAST: {{STEM_CHANNELS: 4}}
"""
R3D = f"""\
_BASE_: "{CONFIGS}/Base-MapBackbone.yaml"
MODEL:
  VIDEO_BACKBONE: {{NAME: "r3d_18"}}
INPUT: {{NUM_FRAMES: 8, CLIP_FPS: 4.0}}
"""
SLOW = f"""\
_BASE_: "{CONFIGS}/Base-Small.yaml"
MODEL:
  PIXEL_MEAN: [0.0, 0.0, 0.0]
  SLOWFAST: {{STEM_CHANNELS: 6, TAU: 4}}
INPUT: {{NUM_FRAMES: 8, CLIP_FPS: 4.0}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "joined_squares")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Configurations: a small SlowFast, another library's network, a small one of other clips."""
    root = tmp_path_factory.mktemp("configs")
    texts = {"small": SMALL, "r3d": R3D, "slow": SLOW}
    for name, text in texts.items():
        (root / f"{name}.yaml").write_text(text)
    return {name: str(root / f"{name}.yaml") for name in texts}


def joined(files, folder=None, *opts, second="slow"):
    networks = tuple((files[name], "") for name in ("small", second))
    options = ("MODEL.BACKBONE.NAME", "build_joined_backbone", *opts)
    cfg = small_cfg(folder, *options)
    cfg.MODEL.JOINED_BACKBONE.NETWORKS = networks
    return cfg


def igmn(*opts):
    fusion = ("MODEL.INTERACTION.FUSION", "replace", "MODEL.INTERACTION.DIM_OUT", 16)
    return ("MODEL.INTERACTION.NAME", "IGMN", *fusion, *opts)


METHODS = {"aia": (), "igmn": igmn()}


def test_every_network_sees_its_own_clip(files):
    """Maps of both are what each makes of its frames, colours and padding alone."""
    cfg = joined(files, second="r3d")
    backbone = build_backbone(cfg).eval()
    assert list(backbone.output_shape()) == ["slow_1", "fast_1", "map_2"]
    assert backbone.output_shape()["map_2"].channels == 512
    mean, std = (
        torch.tensor(x).view(3, 1, 1, 1) for x in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)
    )
    video = torch.randint(0, 256, (3, cfg.INPUT.NUM_FRAMES, 48, 64)).float()
    with torch.no_grad():
        maps = backbone(((video - mean) / std)[None])
        theirs = 255 * torch.tensor([0.43216, 0.394666, 0.37645]).view(3, 1, 1, 1)
        spread = 255 * torch.tensor([0.22803, 0.22145, 0.216989]).view(3, 1, 1, 1)
        frames = list(backbone.looks[1].frames)
        assert len(frames) == 8 and frames[4] == cfg.INPUT.NUM_FRAMES // 2
        own = ((video[:, frames] - theirs) / spread)[None]
        expected = backbone.networks[1](torch.nn.functional.pad(own, (0, -64 % 16, 0, -48 % 16)))
    torch.testing.assert_close(maps["map_2"], expected["map"], rtol=1e-3, atol=1e-4)


def test_clips_of_several_sizes_are_padded_alike_for_every_network(files):
    """Padding has no colour, in none of the networks: each sees what it would see alone."""
    cfg = joined(files, second="r3d")
    model = build_model(cfg).eval()
    clips = [model_input(cfg, 1, 0), model_input(cfg, 1, 0, size=(40, 90))]
    looks = dict(zip(("small", "r3d"), model.backbone.looks))
    with torch.no_grad():
        maps = model._maps(model.preprocess(clips))
        for i, (name, look) in enumerate(looks.items()):
            own = setup_cfg(files[name], ["MODEL.DEVICE", "cpu"])
            network, mean, std = (
                model.backbone.networks[i],
                *(
                    torch.tensor(x).view(3, 1, 1, 1)
                    for x in (own.MODEL.PIXEL_MEAN, own.MODEL.PIXEL_STD)
                ),
            )
            seen = [(x["video"][:, list(look.frames)] - mean) / std for x in clips]
            padded = ImageList.from_tensors(seen, network.size_divisibility).tensor
            for key, expected in network(padded).items():
                found = maps[f"{key}_{i + 1}"]
                torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_clips_that_do_not_hold_a_networks_frames_are_refused(files):
    for options, what in (
        (("INPUT.NUM_FRAMES", 4), r"of -1.00 to 0.75 s, clips have 4 of -0.25 to 0.12 s"),
        (("INPUT.CLIP_FPS", 60.0), r"of -1.00 to 0.75 s, clips have 16 of -0.13 to 0.12 s"),
        (("INPUT.CLIP_FPS", 3.0), r"of -1.00 to 0.75 s, clips have 16 of -2.67 to 2.33 s"),
    ):
        cfg = joined(files, None, *options)
        cfg.MODEL.JOINED_BACKBONE.NETWORKS = ((files["r3d"], ""),)
        with pytest.raises(ValueError, match=f"NETWORKS: .*r3d.yaml looks at 8 frames {what}"):
            build_backbone(cfg)


@pytest.mark.parametrize("method", METHODS)
def test_training_evaluation_and_resume_of_a_joined_backbone(files, folder, tmp_path, method):
    options = (*METHODS[method], "SOLVER.MAX_ITER", 4, "SOLVER.CHECKPOINT_PERIOD", 2, "SEED", 1)
    frozen = ("MODEL.JOINED_BACKBONE.FROZEN", True, "DATALOADER.STORED_VARIANTS", 1)
    options += (*frozen, "DATALOADER.STORED_FOLDER", str(tmp_path / "store"))
    whole = build_trainer(joined(files, folder, *options), tmp_path / "whole")
    whole.resume_or_load(resume=False)
    whole.train()
    assert 0 <= whole._last_eval_results["ava"]["mAP@0.5"] <= 100
    first = build_trainer(joined(files, folder, *options), tmp_path / "parts")
    first.register_hooks([Killed()])
    first.resume_or_load(resume=False)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    again = build_trainer(joined(files, folder, *options), tmp_path / "parts", seed=5)
    again.resume_or_load(resume=True)
    assert again.start_iter == 2
    again.train()
    assert_equal(dict(whole.model.state_dict()), dict(again.model.state_dict()), "weights")


class Killed(HookBase):
    """Ends a run in its third step; the last checkpoint is of the second."""

    def after_step(self):
        if self.trainer.iter == 2:
            raise KeyboardInterrupt


def memory_of(files, *opts):
    return ("MODEL.MEMORY.FROZEN_CONFIG", files["slow"], "SOLVER.MAX_ITER", 2, "SEED", 1, *opts)


@pytest.mark.parametrize("method", METHODS)
def test_another_network_fills_the_memory(files, folder, tmp_path, method):
    """Its width is its own; training, evaluation and resuming work."""
    options = memory_of(files, *METHODS[method], "MODEL.MEMORY.DTYPE", "float32")
    trainer = build_trainer(small_cfg(folder, *options), tmp_path)
    trainer.resume_or_load(resume=False)
    assert trainer.pool.num_channels > trainer.model.roi_heads.num_channels
    assert len(trainer.pool) == len(trainer._keyframes)
    features = trainer.pool._features.clone()
    trainer.train()
    assert torch.equal(trainer.pool._features, features)
    assert 0 <= trainer._last_eval_results["ava"]["mAP@0.5"] <= 100
    assert trainer.model([model_input(trainer.cfg, 2, 1)]), "an input without a pool has losses"
    with pytest.raises(Exception, match="features of other weights or another configuration"):
        # a network of random weights is another one every time
        again = build_trainer(small_cfg(folder, *options, "SOLVER.MAX_ITER", 3), tmp_path, seed=2)
        again.resume_or_load(resume=True)


def test_resuming_a_memory_of_another_network(files, folder, tmp_path):
    network = build_frozen_model(small_cfg(folder, *memory_of(files)))
    weights = {
        f"backbone.{k.removeprefix('networks.0.')}": x
        for k, x in network.backbone.state_dict().items()
    }
    torch.save({"model": weights}, tmp_path / "slow.pth")
    options = memory_of(files, "MODEL.MEMORY.FROZEN_WEIGHTS", str(tmp_path / "slow.pth"))
    first = build_trainer(small_cfg(folder, *options), tmp_path)
    first.resume_or_load(resume=False)
    first.train()
    cfg = small_cfg(folder, *options, "SOLVER.MAX_ITER", 3)
    again = build_trainer(cfg, tmp_path, seed=2)
    again.resume_or_load(resume=True)
    assert again.start_iter == 2 and torch.equal(again.pool._features, first.pool._features)
    again.train()


def test_a_memory_whose_network_needs_other_clips_is_refused(files, folder, tmp_path):
    cfg = small_cfg(folder, *memory_of(files, "INPUT.CLIP_FPS", 60.0))
    trainer = build_trainer(cfg, tmp_path)
    with pytest.raises(ValueError, match="slow.yaml looks at 8 frames"):
        trainer.resume_or_load(resume=False)


def test_a_configuration_that_is_not_there_is_named(folder, tmp_path):
    cfg = small_cfg(folder, "MODEL.MEMORY.FROZEN_CONFIG", "nowhere.yaml")
    with pytest.raises(FileNotFoundError, match="MODEL.MEMORY.FROZEN_CONFIG: .*nowhere.yaml"):
        build_trainer(cfg, tmp_path)


def test_a_network_looks_at_its_own_clip_as_it_is(files):
    cfg = small_cfg()
    look = look_of(cfg, cfg, "itself")
    assert list(look.frames) == list(range(cfg.INPUT.NUM_FRAMES))
    assert list(look.gain) == [1, 1, 1] and list(look.offset) == [0, 0, 0]


def test_the_width_of_a_memory_needs_no_numbers(tmp_path):
    """pytorchvideo's MViT computes with its tables while it is built."""
    path = tmp_path / "mvit.yaml"
    base = f'_BASE_: "{CONFIGS}/Base-MapBackbone.yaml"'
    path.write_text(f'{base}\nMODEL: {{VIDEO_BACKBONE: {{NAME: "mvit_base_16x4"}}}}\n')
    assert memory_channels(small_cfg(None, "MODEL.MEMORY.FROZEN_CONFIG", str(path)), 5) == 768


def test_trained_parts_need_no_weights_to_begin_from(files, tmp_path):
    part = tmp_path / "part.yaml"
    begin = '{MODEL: {VIDEO_BACKBONE: {WEIGHTS: "nowhere.pth"}}}'
    part.write_text(f'_BASE_: "{files["r3d"]}"\n{begin[1:-1]}\n')
    cfg = joined(files, None, "MODEL.WEIGHTS", "trained.pth")
    cfg.MODEL.JOINED_BACKBONE.NETWORKS = ((files["small"], ""), (str(part), ""))
    assert len(build_backbone(cfg).networks) == 2
    cfg.MODEL.WEIGHTS = ""
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        build_backbone(cfg)
