"""The model of a LazyConfig is that of the YAML configuration."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

from alphaaction_d2 import setup_cfg
from tests.helpers import CONFIGS

NAME = "aia_dense_R50_4x16"


@pytest.fixture
def lazy():
    return LazyConfig.load(str(CONFIGS / "lazy" / f"{NAME}.py"))


def from_yaml(*keys: object) -> torch.nn.Module:
    cfg = setup_cfg(str(CONFIGS / "AVA" / f"{NAME}.yaml"), list(keys))
    return build_model(cfg)


def test_same_names_and_shapes(lazy):
    found = instantiate(lazy.model).state_dict()
    expected = from_yaml("MODEL.DEVICE", "cpu").state_dict()
    assert {n: x.shape for n, x in found.items()} == {n: x.shape for n, x in expected.items()}


def test_same_losses_and_scores(lazy):
    """With fewer layers, which makes the arguments that are changed look at each other."""
    lazy.model.backbone.resnet.depth = 18
    lazy.model.roi_heads.interaction.dropout = 0.0
    keys = ("MODEL.SLOWFAST.DEPTH", 18, "MODEL.INTERACTION.DROPOUT", 0.0)
    torch.manual_seed(0)
    ours, expected = instantiate(lazy.model), from_yaml("MODEL.DEVICE", "cpu", *keys)
    ours.load_state_dict(expected.state_dict())
    size = (64, 64)
    persons = Instances(size, proposal_boxes=Boxes(torch.tensor([[3.0, 5.0, 40.0, 60.0]])))
    annotated = Instances(size, gt_boxes=persons.proposal_boxes)
    annotated.gt_classes = torch.eye(80)[:1]
    objects = Instances(size, boxes=Boxes(torch.zeros(0, 4)), scores=torch.zeros(0))
    clip = {
        "video": torch.randint(0, 256, (3, 64, *size), dtype=torch.uint8),
        "proposals": persons,
        "objects": objects,
        "instances": annotated,
    }
    for name, value in expected.train()([dict(clip)]).items():
        torch.testing.assert_close(ours.train()([dict(clip)])[name], value, rtol=0, atol=0)
    with torch.no_grad():
        found, wanted = (x.eval()([dict(clip)])[0]["instances"] for x in (ours, expected))
    assert len(found) == 80 and torch.equal(found.scores, wanted.scores)
