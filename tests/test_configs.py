"""Every configuration file builds the model it describes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from alphaaction_d2 import setup_cfg

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(ROOT.glob("configs/*/*.yaml")) + sorted(ROOT.glob("projects/*/configs/*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(ROOT)))
def test_config_builds(path):
    cfg = setup_cfg(str(path), ["MODEL.DEVICE", "cpu"])
    with torch.device("meta"):  # shapes only: no time and memory for weights
        model = build_model(_on_meta(cfg))
    assert cfg.OUTPUT_DIR != "./output", "every configuration has an output folder of its own"
    interaction = model.roi_heads.interaction
    assert (interaction is None) == (cfg.MODEL.INTERACTION.NAME == "")
    if interaction is not None and hasattr(interaction, "blocks"):
        kinds = [name[0] for name in interaction.blocks]
        assert kinds == list(cfg.MODEL.INTERACTION.BLOCKS)


def _on_meta(cfg):
    cfg = cfg.clone()
    cfg.MODEL.DEVICE = "meta"
    return cfg


def test_children_are_short():
    """A child states the difference; what is shared belongs into a base."""
    for path in CONFIGS:
        if not path.name.startswith("Base"):
            assert len(path.read_text().splitlines()) <= 30, path
