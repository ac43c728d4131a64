"""Every row of AIA's Table 1 trains: its interaction on the small network of the other tests."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from alphaaction_d2 import setup_cfg
from alphaaction_d2.engine.inference import build_memory_pool
from tests.helpers import model_input, small_cfg
from tests.projects.tables import table_rows


@functools.cache
def interaction(path: Path) -> tuple[str, str]:
    node = setup_cfg(str(path)).MODEL.INTERACTION
    return node.NAME, str(tuple(node.BLOCKS))


@pytest.mark.parametrize(
    "name_and_blocks", sorted({interaction(path) for path in table_rows("AIA").values()}), ids=str
)
def test_one_step(name_and_blocks):
    torch.manual_seed(0)
    name, blocks = name_and_blocks
    cfg = small_cfg(None, "MODEL.INTERACTION.NAME", name, "MODEL.INTERACTION.BLOCKS", blocks)
    model = build_model(cfg)
    batch = [model_input(cfg, persons, objects) for persons, objects in ((2, 1), (0, 0), (1, 3))]
    pool = build_memory_pool(cfg, model)
    assert (pool is not None) == (bool(name) and "Non" not in name and "M" in blocks)
    if pool is not None:
        batch = pool.attach(batch, training=True)
    losses = model(batch)
    sum(losses.values()).backward()
    assert not [key for key, p in model.named_parameters() if p.grad is None]
    assert all(p.grad.isfinite().all() for p in model.parameters())
