"""Which classes a model has, where its configuration does not say."""

from __future__ import annotations

import contextlib

from detectron2.config import CfgNode

from ..checkpoint.checkpointer import saved_groups
from ..config import says_classes, set_classes
from ..data.datasets import register_datasets


def with_classes(cfg: CfgNode, weights: str = "") -> CfgNode:
    """Give the configuration, or a copy, with its classes: its own, else those of the weights, if
    these are to be used as they are, else of the data; where nobody knows, AVA's stay meant."""
    if says_classes(cfg):
        return cfg
    cfg = cfg.clone()
    groups = saved_groups(weights) if weights else None
    if groups is not None:
        set_classes(cfg, groups)
    else:
        with contextlib.suppress(FileNotFoundError):  # data that is gone
            register_datasets(cfg)
    return cfg
