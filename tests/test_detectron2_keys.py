"""Keys and calls that mean nothing to what is built are refused, not ignored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import ImageList

from alphaaction_d2.config import _UNREAD, add_alphaaction_config
from alphaaction_d2.data.dataset_mapper import build_augmentations
from alphaaction_d2.formats.config_files import all_keys
from tests.helpers import model_input, small_cfg


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("MODEL.LOAD_PROPOSALS", True, "boxes/ files"),
        ("MODEL.MASK_ON", True, "no masks"),
        ("MODEL.PROPOSAL_GENERATOR.NAME", "RRPN", "boxes/ files"),
        ("DATASETS.PROPOSAL_FILES_TEST", ("a.pkl",), "boxes/ files"),
        ("TEST.DETECTIONS_PER_IMAGE", 10, "ROI_ACTION_HEAD.SCORE_THRESH_TEST"),
        ("VIS_PERIOD", 20, "visualize.py"),
        ("MODEL.ROI_HEADS.NUM_CLASSES", 5, "GROUP_SIZES"),
        ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 64, "neither sampled"),
        ("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7, "MODEL.ROI_ACTION_HEAD"),
        ("MODEL.RESNETS.DEPTH", 101, "MODEL.SLOWFAST"),
        ("MODEL.BACKBONE.FREEZE_AT", 5, "FROZEN of MODEL.SLOWFAST"),
        ("MODEL.VIDEO_BACKBONE.NAME", "swin3d_t", "MODEL.BACKBONE.NAME null"),
        ("MODEL.VIDEO_BACKBONE.WEIGHTS", "a.pth", "MODEL.WEIGHTS is the key"),
        ("MODEL.VIDEO_BACKBONE.FROZEN", True, "MODEL.SLOWFAST.FROZEN is the key"),
    ],
)
def test_a_key_that_nothing_reads_is_refused(key, value, named):
    cfg = small_cfg()
    *sections, name = key.split(".")
    node = cfg
    for section in sections:
        node = node[section]
    default, node[name] = node[name], value
    with pytest.raises(ValueError) as caught:
        build_model(cfg)
    message = str(caught.value)
    assert message.startswith(f"{key} {value!r}") and named in message and "\n" not in message
    assert f"leave it at {default!r}" in message


def test_what_is_so_anyway_is_fine():
    cfg = small_cfg()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "PrecomputedProposals"
    cfg.TEST.AUG.MIN_SIZES = (100,)  # of something that is not switched on
    build_model(cfg)


def test_the_table_names_keys():
    cfg = get_cfg()
    add_alphaaction_config(cfg)
    known = set(all_keys(cfg))
    for part in _UNREAD.values():
        for key in part:
            newer = key == "DATALOADER.REPEAT_SQRT"
            assert newer or key in known or any(name.startswith(f"{key}.") for name in known), key


def test_size_zero_does_not_scale():
    """detectron2's way of saying so."""
    cfg = small_cfg(None, "INPUT.MIN_SIZE_TEST", 0)
    (scale,) = build_augmentations(cfg, is_train=False)
    picture = np.zeros((50, 70, 3), np.uint8)
    assert scale.get_transform(picture).apply_image(picture) is picture


def test_padding_constraints_of_a_backbone_count():
    model = build_model(small_cfg())
    clips = [model_input(small_cfg(), 1, 0, size=(40, 64))]
    assert model.preprocess(clips).tensor.shape[-2:] != (96, 96)
    kind = type("Square", (type(model.backbone),), {"padding_constraints": {"square_size": 96}})
    model.backbone.__class__ = kind
    assert model.preprocess(clips).tensor.shape[-2:] == (96, 96)


def test_backbones_of_pictures_are_refused():
    cfg = small_cfg(None, "MODEL.BACKBONE.NAME", "build_resnet_backbone")
    with pytest.raises(ValueError, match="'build_resnet_backbone' is a backbone of pictures"):
        build_model(cfg)


def test_our_heads_in_detectron2s_model():
    cfg = small_cfg(None, "MODEL.META_ARCHITECTURE", "GeneralizedRCNN")
    cfg.MODEL.BACKBONE.NAME = "build_resnet_backbone"
    model = build_model(cfg).eval()
    with pytest.raises(TypeError, match="set MODEL.META_ARCHITECTURE to ActionRCNN"):
        model([{"image": torch.zeros(3, 64, 64)}])
    images = ImageList.from_tensors([torch.zeros(3, 64, 64)])
    with pytest.raises(ValueError, match=r"map 'res4' .*backbone of videos"):
        model.roi_heads.pool(images, {"res4": torch.zeros(1, 1024, 4, 4)}, [], [])
