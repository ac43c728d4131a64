"""Backbones by their configuration keys, in lower case."""

from __future__ import annotations

from detectron2.config import CfgNode, get_cfg

from alphaaction_d2.config import add_alphaaction_config
from alphaaction_d2.modeling.backbone import Slow, SlowFast


def backbone_cfg(num_frames: int = 64, **keys: object) -> CfgNode:
    """The defaults but for `keys` of MODEL.SLOWFAST."""
    cfg = get_cfg()
    add_alphaaction_config(cfg)
    cfg.INPUT.NUM_FRAMES = num_frames
    for key, value in keys.items():
        cfg.merge_from_list([f"MODEL.SLOWFAST.{key.upper()}", value])
    return cfg


def slowfast(**keys: object) -> SlowFast:
    return SlowFast(backbone_cfg(**keys))


def slow(**keys: object) -> Slow:
    """With stem pooling as pytorchvideo's networks have it."""
    return Slow(backbone_cfg(**{"lateral": "pytorchvideo", **keys}))


SIZES = {"depth": 18, "num_frames": 16, "tau": 4, "stem_channels": 8, "norm": "BN"}


def small(**keys: object) -> SlowFast:
    """A SlowFast of 16 frames that is built and run in no time."""
    return slowfast(**{**SIZES, "alpha": 2, "beta_inv": 4, **keys})


def small_slow(**keys: object) -> Slow:
    return slow(**{**SIZES, **keys})
