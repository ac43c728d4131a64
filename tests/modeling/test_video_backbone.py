"""What others know of a backbone, ours or a stranger."""

from __future__ import annotations

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_model
from torch import nn

from alphaaction_d2.modeling.backbone import has_frozen_normalisation, stands_still
from tests.helpers import model_input, small_cfg
from tests.modeling.networks import small


@BACKBONE_REGISTRY.register()
class PatchesAndCells(Backbone):
    """A stranger: only what detectron2 asks of a backbone; maps of two strides, no powers of 2."""

    def __init__(self, cfg, input_shape) -> None:
        super().__init__()
        self.patches = nn.Conv3d(3, 6, (2, 14, 14), (2, 14, 14))
        self.cells = nn.Conv3d(3, 4, (4, 12, 12), (4, 12, 12))

    def output_shape(self):
        return {
            "patches": ShapeSpec(channels=6, stride=14),
            "cells": ShapeSpec(channels=4, stride=12),
        }

    def forward(self, clips):
        return {"patches": self.patches(clips), "cells": self.cells(clips)}


def test_a_stranger_trains_and_tests():
    cfg = small_cfg(None, "MODEL.BACKBONE.NAME", "PatchesAndCells")
    torch.manual_seed(0)
    model = build_model(cfg)
    assert model.roi_heads.num_channels == 10
    inputs = [model_input(cfg, 2, 1, size=(60, 90)), model_input(cfg, 1, 0, size=(64, 70))]
    losses = model(inputs)
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.backbone.parameters())
    found = model.eval()(inputs)
    assert [len(set(x["instances"].person_ids.tolist())) for x in found] == [2, 1]
    assert not stands_still(model.backbone) and not has_frozen_normalisation(model.backbone)


def test_frozen():
    moving, frozen = small(), small(frozen=True)
    assert not stands_still(moving) and stands_still(frozen)
    assert not any(p.requires_grad for p in frozen.parameters())
    assert moving.train().training and not frozen.train().training
    assert not has_frozen_normalisation(moving)
    assert has_frozen_normalisation(small(norm="FrozenBN"))


def test_pictures_are_padded_to_what_all_strides_divide():
    network = small()
    assert network.size_divisibility == 16
    network._out_feature_strides = {"slow": 14, "fast": 4}
    assert network.size_divisibility == 28
