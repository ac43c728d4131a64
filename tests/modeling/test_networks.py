"""Other libraries' video networks as backbones."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torchvision.models import get_model, get_model_weights

from alphaaction_d2 import setup_cfg
from alphaaction_d2.model_zoo.networks import NETWORKS
from tests.helpers import CONFIGS, model_input

TORCHVISION = [name for name, x in NETWORKS.items() if x.library == "torchvision"]
SMALL = ("MODEL.INTERACTION.DIM", 8, "MODEL.ROI_ACTION_HEAD.FC_DIM", 8)


def network_cfg(name: str, *opts: object) -> CfgNode:
    builder = f"build_{NETWORKS[name].library}_video_backbone"
    cfg = setup_cfg(
        str(CONFIGS / "Base-MapBackbone.yaml"),
        ["MODEL.BACKBONE.NAME", builder, "MODEL.VIDEO_BACKBONE.NAME", name, *SMALL, *opts],
    )
    cfg.MODEL.DEVICE = "cpu"
    return cfg


@pytest.mark.parametrize("name", TORCHVISION)
def test_described_as_torchvision_describes_it(name):
    ours = NETWORKS[name]
    weights = next(iter(get_model_weights(name)))
    theirs = weights.transforms()
    assert (ours.mean, ours.std) == (tuple(theirs.mean), tuple(theirs.std))
    assert ours.short_side == theirs.resize_size[0]
    frames, step, fps = ours.clip
    told = weights.meta["_docs"]
    assert f"clip_len={frames}`" in told and f"frame_rate={fps / step:g}`" in told


@pytest.mark.parametrize("name", ["r3d_18", "swin3d_t", "s3d", "mvit_v1_b", "mvit_v2_s"])
def test_trains_and_tests(name):
    cfg = network_cfg(
        name,
        "INPUT.NUM_FRAMES",
        16 if name == "s3d" else 4,
        "MODEL.INTERACTION.NAME",
        "DenseSerialInteraction",
    )
    torch.manual_seed(0)
    model = build_model(cfg)
    sum(model([model_input(cfg, 2, 1)]).values()).backward()
    assert all(x.grad is not None for x in model.backbone.parameters() if x.requires_grad)
    assert len(model.eval()([model_input(cfg, 2, 1)])[0]["instances"]) == 160


def test_map_is_what_the_library_computes():
    cfg = network_cfg("swin3d_t", "INPUT.NUM_FRAMES", 4)
    backbone = build_model(cfg).backbone.eval()
    original = get_model("swin3d_t", weights=None).eval()
    left = original.load_state_dict(backbone.network.state_dict(), strict=False)
    assert {x.partition(".")[0] for x in left.missing_keys} == {"head"}
    clips = torch.rand(2, 3, 4, 64, 96)
    found = []
    original.avgpool.register_forward_pre_hook(lambda m, x: found.append(x[0]))
    original(clips)
    with torch.no_grad():
        assert torch.equal(backbone(clips)["map"], found[0])
    assert backbone.output_shape()["map"].stride == 32
