"""The non-local baseline: what it computes, and that it behaves like every interaction module."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

from alphaaction_d2.modeling.interaction import NonLocalInteraction
from alphaaction_d2.structures import ClipFeatures
from tests.helpers import model_input, small_cfg

NL = ("MODEL.INTERACTION.NAME", "NonLocalInteraction")
SIZE = (48, 64)


def clip(features: torch.Tensor, scene: torch.Tensor) -> ClipFeatures:
    boxes = Boxes(torch.zeros(len(features), 4))
    persons = Instances(SIZE, proposal_boxes=boxes, roi_features=features)
    objects = Instances(SIZE, boxes=boxes[:0], roi_features=features[:0])
    return ClipFeatures(persons, objects, scene)


def random_clips(counts: list[int], channels: int = 6) -> list[ClipFeatures]:
    return [clip(torch.randn(n, channels), torch.randn(channels, 3, 3)) for n in counts]


def build(**options) -> NonLocalInteraction:
    torch.manual_seed(0)
    module = NonLocalInteraction(dim_in=6, dim_inner=4, dim_out=6, init_std=0.5, **options)
    torch.nn.init.normal_(module.block.out.weight)  # starts at zero, which hides everything
    return module


def test_attention_by_hand():
    """Two channels, a picture of 1 x 2 cells, all matrices the identity: a softmax of two."""
    module = NonLocalInteraction(dim_in=2, dim_inner=2, dim_out=2, layer_norm=False)
    block = module.block
    for layer in (module.person_projection, module.scene_projection, block.query, block.key):
        torch.nn.init.eye_(layer.weight)
    torch.nn.init.eye_(block.value.weight)
    torch.nn.init.eye_(block.out.weight)
    person = torch.tensor([[1.0, 2.0]])
    cells = torch.tensor([[3.0, 0.5], [1.0, 4.0]])  # cell x channel
    with torch.no_grad():
        (out,), losses = module([clip(person, cells.T[:, None, :])], None)
    # q.k is 1*3 + 2*0.5 = 4 and 1*1 + 2*4 = 9, divided by sqrt(2).
    first = 1 / (1 + math.exp(5 / math.sqrt(2)))
    expected = person[0] + first * cells[0] + (1 - first) * cells[1]  # shortcut; ReLU of positives
    torch.testing.assert_close(out, expected)
    assert losses == {}


@pytest.mark.parametrize("counts", [[2, 0, 3], [0], [0, 0], [1]])
def test_every_parameter_takes_part(counts):
    module = build()
    out, _ = module(random_clips(counts), None)
    assert out.shape == (sum(counts), 6)
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_gradients_reach_everything_that_matters():
    module = build()
    clips = random_clips([2, 1])
    for x in clips:
        x.scene.requires_grad_()
        x.persons.roi_features.requires_grad_()
    out, _ = module(clips, None)
    (out * torch.randn_like(out)).sum().backward()
    for x in clips:
        assert x.scene.grad.abs().min() > 0, "every cell is attended to"
        assert x.persons.roi_features.grad.abs().max() > 0
    for name, p in module.named_parameters():
        # A softmax ignores what all keys share: the bias of the keys has no gradient.
        assert p.grad.abs().max() > (-1 if name == "block.key.bias" else 0), name


def test_each_person_sees_the_own_picture_and_nobody_else():
    module = build().eval()
    clips = random_clips([2, 1])
    with torch.no_grad():
        together, _ = module(clips, None)
        alone = [module([clip(x.persons.roi_features[i : i + 1], x.scene)], None)[0]
                 for x in clips for i in range(len(x.persons))]  # fmt: skip
    torch.testing.assert_close(together, torch.cat(alone))
    with torch.no_grad():
        other, _ = module([clip(clips[0].persons.roi_features, clips[1].scene)], None)
    assert not torch.allclose(other, together[:2])


def test_a_new_module_starts_like_its_shortcut():
    module = NonLocalInteraction(dim_in=6, dim_inner=4, dim_out=4)
    clips = random_clips([2])
    out, _ = module(clips, None)
    torch.testing.assert_close(out, module.person_projection(clips[0].persons.roi_features))


@pytest.mark.parametrize("counts", [[(2, 1), (0, 0), (3, 2)], [(0, 0)]])
def test_model_trains(counts):
    torch.manual_seed(0)
    cfg = small_cfg(None, *NL)
    model = build_model(cfg)
    assert isinstance(model.roi_heads.interaction, NonLocalInteraction)
    losses = model([model_input(cfg, persons, objects) for persons, objects in counts])
    sum(losses.values()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


@pytest.mark.parametrize("fusion", ["add", "concat"])
def test_model_tests(fusion):
    torch.manual_seed(0)
    cfg = small_cfg(None, *NL, "MODEL.INTERACTION.FUSION", fusion)
    model = build_model(cfg).eval()
    torch.nn.init.normal_(model.roi_heads.interaction.block.out.weight, std=0.5)
    inputs = [model_input(cfg, 3, 2), model_input(cfg, 0, 1), model_input(cfg, 1, 0)]
    with torch.no_grad():
        results = [x["instances"] for x in model(inputs)]
        without_objects = [{**x, "objects": x["objects"][:0]} for x in inputs]
        again = [x["instances"] for x in model(without_objects)]
    assert [len(x) for x in results] == [9, 0, 3]  # three classes a person
    for one, other in zip(results, again):
        torch.testing.assert_close(one.scores, other.scores)
