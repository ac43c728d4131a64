"""The video transformer: any size of picture, keys, and training what follows it."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model

from alphaaction_d2 import setup_cfg
from alphaaction_d2.modeling.backbone import build_video_transformer_backbone
from alphaaction_d2.modeling.backbone.video_transformer import VideoTransformer, sines
from tests.helpers import CONFIGS, model_input

VIT = "MODEL.VIDEO_BACKBONE.VIT"
SMALL = (f"{VIT}.CHANNELS", 64, f"{VIT}.DEPTH", 2, "MODEL.DEVICE", "cpu")


def cfg_of(name: str, *keys: object):
    return setup_cfg(str(CONFIGS / "AVA" / f"{name}.yaml"), [*SMALL, *keys])


def backbone(*keys: object):
    torch.manual_seed(0)
    return build_video_transformer_backbone(cfg_of("published/umt_vit_B", *keys), None)


def test_what_is_left_beside_the_last_tubes_is_cut_off():
    network = backbone().eval()
    assert network.output_shape()["map"].channels == 64
    assert network.output_shape()["map"].stride == network.size_divisibility == 16
    clip = torch.randn(2, 3, 8, 50, 95)
    with torch.no_grad():
        found = network(clip)["map"]
        assert found.shape == (2, 64, 8, 3, 5)
        assert found.equal(network(clip[..., :48, :80])["map"])
        assert not found.allclose(network(clip[..., 2:, 15:])["map"], atol=1e-3)


def test_positions_tell_places_apart():
    """On a grey clip nothing else does; at the size of training they are the table itself."""
    network = VideoTransformer(4, 2, 64, 1).eval()
    with torch.no_grad():
        maps = network(torch.zeros(1, 3, 4, 32, 48))
    assert maps.flatten(2)[0].t().unique(dim=0).shape[0] == 2 * 2 * 3
    table = network.positions.permute(0, 2, 3, 1).flatten(0, 2)
    assert table.equal(sines(2 * 14**2, 64))
    assert table[0, :4].tolist() == [0, 1, 0, 1]  # sine and cosine of 0, in turn
    assert table[9, 0].item() == pytest.approx(0.412118, abs=1e-6)  # sin(9)


def test_training_leaves_out_what_is_beside_a_shortcut():
    """Clip by clip, oftener in later blocks; what is left is larger, so that the mean stays."""
    network = backbone(f"{VIT}.DEPTH", 3, f"{VIT}.DROP_PATH", 0.5).network
    assert [x.drop.p for x in network.blocks] == [0, 0.25, 0.5]
    block = network.blocks[2]
    x = torch.randn(1, 5, 64).expand(400, -1, -1)
    with torch.no_grad():
        first = block.eval()(x)[0] - x[0]  # of attention and of the rest
        found = block.train()(x) - x
    kept = found.flatten(1).abs().amax(1) > 0
    assert 0.65 < kept.float().mean() < 0.85  # neither of the two is kept with 0.25
    with torch.no_grad():
        both = x[0] + 2 * block.attn(block.norm1(x[:1]))[0]
        both = both + 2 * block.mlp(block.norm2(both)) - x[0]
    assert any(torch.allclose(y, both, atol=1e-5) for y in found)
    assert not any(torch.allclose(y, first, atol=1e-5) for y in found)
    assert backbone().network.blocks[1].drop.p == 0


@pytest.mark.parametrize(
    "keys, expected",
    [
        ((f"{VIT}.DROP_PATH", 1.0), "VIT.DROP_PATH 1.0: expected a number from 0 to 0.99"),
        ((f"{VIT}.CHANNELS", 100), "VIT.CHANNELS 100: expected a multiple of 64"),
        ((f"{VIT}.DEPTH", 0), "VIT.DEPTH 0: expected a whole number from 1"),
        ((f"{VIT}.TUBELET", 3), "clips of 8 x .*takes multiples of 3 x 16 x 16: see INPUT.NUM_F"),
        (("MODEL.VIDEO_BACKBONE.WEIGHTS", "a.pth"), "WEIGHTS 'a.pth': .* are MODEL.WEIGHTS"),
        (("MODEL.VIDEO_BACKBONE.LAYER", "norm"), "LAYER 'norm': .* does not read this key"),
    ],
)
def test_odd_values_are_told(keys, expected):
    with pytest.raises(ValueError, match=expected):
        backbone(*keys)


@pytest.mark.parametrize("name", ["aia_dense_umt_vit_B", "igmn_umt_vit_B"])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_step_of_what_follows(name, frozen):
    torch.manual_seed(0)
    small = ("MODEL.INTERACTION.DIM", 16, "MODEL.ROI_ACTION_HEAD.FC_DIM", 16)
    small += ("MODEL.INTERACTION.DIM_OUT", 16) if name.startswith("igmn") else ()
    keys = (*small, "MODEL.VIDEO_BACKBONE.FROZEN", frozen, "MODEL.MEMORY.WINDOW", "(2, 2)")
    cfg = cfg_of(name, *keys)
    model = build_model(cfg)
    losses = model([model_input(cfg, 3, 2), model_input(cfg, 1, 0)])
    assert {"loss_pose", "loss_object", "loss_person"} <= set(losses)
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    trunk = [x.grad for x in model.backbone.parameters()]
    assert model.backbone.frozen == frozen
    assert all((grad is None) == frozen for grad in trunk)
    if not frozen:
        assert any(grad.abs().max() > 0 for grad in trunk)
    assert model.roi_heads.predictor.cls_score.weight.grad.abs().max() > 0
