"""Every row of IGMN's Table 1 has a configuration that differs from the model in what it says."""

from __future__ import annotations

import pytest

from alphaaction_d2 import setup_cfg
from tests.projects.tables import table_rows

ROWS = table_rows("IGMN")


def load(row: str):
    return setup_cfg(str(ROWS[row]))


def differences(a, b, where="") -> dict:
    """Keys in which two configurations differ, with both values."""
    found = {}
    for key in a:
        name = f"{where}{key}"
        if isinstance(a[key], dict):
            found.update(differences(a[key], b[key], f"{name}."))
        elif a[key] != b[key] and key != "OUTPUT_DIR":
            found[name] = b[key]
    return found


HGNN = {"MODEL.INTERACTION.NAME": "HGNN"}
SIMPLE = {**HGNN, "MODEL.HGNN.AGGREGATOR": "", "MODEL.HGNN.DOWN_SAMPLE": False}
EXPECTED = {
    "1_hgnn": HGNN,
    "1a_hgnn_1": {**HGNN, "MODEL.HGNN.NUM_LAYERS": 1},
    "1a_hgnn_2": {**HGNN, "MODEL.HGNN.NUM_LAYERS": 2},
    "1a_hgnn_3": HGNN,
    "1a_hgnn_s_1": {**SIMPLE, "MODEL.HGNN.NUM_LAYERS": 1},
    "1a_hgnn_s_2": {**SIMPLE, "MODEL.HGNN.NUM_LAYERS": 2},
    "1a_hgnn_s_3": SIMPLE,
    "1b_baseline": {"MODEL.INTERACTION.NAME": ""},
    "1b_hgnn": HGNN,
    "1b_hgnn_frozen": {**HGNN, "MODEL.HGNN.UPDATE_MEMORY": False},
    "1c_hgnn_gcn": {**SIMPLE, "MODEL.HGNN.AGGREGATOR": "gcn"},
    "1d_semantic": {"MODEL.DAM.IDENTITY": False},
    "1d_identity": {"MODEL.DAM.SEMANTIC": False},
    "1d_igmn": {},
    "1e_without_cls": {"MODEL.DAM.LOSSES": ("sem_prior", "idt_prior")},
    "1e_without_prior": {"MODEL.DAM.LOSSES": ("sem_cls", "idt_cls")},
    "1e_without_aux": {"MODEL.DAM.LOSSES": ()},
    "1f_box_1.0": {"MODEL.ROI_ACTION_HEAD.BOX_EXTEND_TEST": (0.0, 0.0)},
    "1f_box_1.25": {},
    "1f_box_1.5": {"MODEL.ROI_ACTION_HEAD.BOX_EXTEND_TEST": (0.5, 0.5)},
}


def test_the_recipe_is_the_papers():
    cfg = load("1d_igmn")
    node = cfg.SOLVER
    assert (node.IMS_PER_BATCH, node.BASE_LR, node.WEIGHT_DECAY) == (12, 0.003, 0.0005)
    assert (node.MOMENTUM, node.MAX_ITER, node.STEPS) == (0.9, 140000, (93000, 120000))
    assert tuple(cfg.MODEL.MEMORY.WINDOW) == (30, 30) and cfg.INPUT.MAX_BOX_SCALE_TRAIN == 1.5
    assert (cfg.MODEL.DAM.LOSS_WEIGHT, cfg.MODEL.DAM.MARGIN) == (0.5, 0.1)
    assert cfg.MODEL.HGNN.NUM_LAYERS == 3


def test_every_row_is_in_the_readme():
    assert set(ROWS) == set(EXPECTED)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_changes_what_it_says(row):
    changed = differences(load("1d_igmn"), load(row))
    assert {key: tuple(v) if isinstance(v, list) else v for key, v in changed.items()} == EXPECTED[
        row
    ]
