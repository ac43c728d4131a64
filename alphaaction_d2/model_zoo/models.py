"""Whole configurations and models by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .files import get_checkpoint_url, get_config_file
from .table import find

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from torch import nn

# What is imported below needs the zoo itself, for the names in configurations.


def get_config(name: str, trained: bool = False) -> CfgNode:
    """The configuration of a name, `trained` with MODEL.WEIGHTS set to the published weights of it;
    RuntimeError where there is none."""
    from ..formats.config_files import setup_cfg

    file = get_config_file(name)
    if file.endswith(".py"):
        raise RuntimeError(f"{name}: load {file} with detectron2's LazyConfig")
    cfg = setup_cfg(file)
    if trained:
        entry = find(name)
        # without an address the name itself finds the file, or says where to get it
        has_file = entry is not None and not entry.address
        cfg.MODEL.WEIGHTS = name if has_file else get_checkpoint_url(name)
    return cfg


def get(name: str, trained: bool = False, device: str | None = None) -> nn.Module:
    """Build the model of a name, in training mode as in detectron2, on a GPU if there is one.

    Args:
        trained: with the published weights, which must cover all of it; else with those of the
            configuration's MODEL.WEIGHTS, if it has some.

    Raises:
        RuntimeError: see :func:`get_config`.
        ValueError, OSError: the weights cannot be had, or do not fit.
    """
    from detectron2.modeling import build_model

    from ..checkpoint.checkpointer import load_for_inference

    cfg = get_config(name, trained)
    cfg.MODEL.DEVICE = device or cfg.MODEL.DEVICE
    model = build_model(cfg)
    if cfg.MODEL.WEIGHTS:
        load_for_inference(model, cfg.MODEL.WEIGHTS)
    return model
