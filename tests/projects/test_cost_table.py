"""projects/AIA/cost_table.py: what is counted, on small networks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "projects" / "AIA"))

import cost_table  # noqa: E402
from cost_table import ROWS, Cost, Measured, measure_cost, released_flops, table  # noqa: E402

from tests.helpers import small_cfg  # noqa: E402

SMALL = [
    *("MODEL.SLOWFAST.STEM_CHANNELS", "8", "MODEL.SLOWFAST.NUM_STAGES", "2"),
    *("MODEL.SLOWFAST.DEPTH", "18", "MODEL.MEMORY.WINDOW", "(2,2)"),
    *("MODEL.ROI_ACTION_HEAD.FC_DIM", "16", "INPUT.NUM_FRAMES", "16"),
]


def test_interaction_is_counted_by_hand():
    """One O-block with two persons and the configured objects, on top of the baseline."""
    persons, options = 2, ("MODEL.INTERACTION.BLOCKS", "('O',)")
    cfg, plain = small_cfg(None, *options), small_cfg(None, "MODEL.INTERACTION.NAME", "")
    for c in (cfg, plain):
        c.INPUT.MIN_SIZE_TRAIN = (48,)
    more, base = measure_cost(cfg, persons), measure_cost(plain, persons)
    d, objects = cfg.MODEL.INTERACTION.DIM, cfg.INPUT.MAX_OBJECTS
    channels = cost_table.build_channels(cfg)
    linear = (channels * d + d) * 2 + 3 * (d * d + d) + (d * channels + channels) * 2
    assert more.parameters - base.parameters == linear  # the last two: out and shortcut
    projections = (persons + objects) * channels * d
    attention = persons * (3 * d * d + 2 * objects * d)
    out = persons * 2 * d * channels
    # besides, the offsets of keys and values, the norm, and objects that are pooled
    rest = more.flops - base.flops - projections - attention - out
    assert 0 <= rest < 0.2 * (projections + attention + out)


def test_memory_and_persons_cost():
    cfg = small_cfg(None)
    cfg.INPUT.MIN_SIZE_TRAIN = (48,)
    small, persons = measure_cost(cfg, 1), measure_cost(cfg, 4)
    cfg.MODEL.MEMORY.WINDOW = (4, 4)
    window = measure_cost(cfg, 1)
    assert small.flops < persons.flops and small.flops < window.flops
    assert small.parameters == persons.parameters


def test_released_way_of_computing():
    cfg = small_cfg(None)
    cfg.MODEL.INTERACTION.BLOCKS = ("P", "M")
    cfg.MODEL.INTERACTION.DIM, cfg.MODEL.INTERACTION.MAX_PERSONS = 3, 2
    cfg.MODEL.MEMORY.WINDOW, cfg.MODEL.MEMORY.MAX_PERSONS = (1, 1), 2
    projections = 10 * 3 * (1 + 1 + 6)  # query, keys of persons, six places of memory
    first = 9 + 2 * 2 * 9 + 2 * 2 * 3 + 9
    last = 9 + 2 * 6 * 9 + 2 * 6 * 3 + 3 * 10 + 3 * 10  # with a shortcut
    assert released_flops(cfg, 10, 5) == 5 * (projections + first + last)


def test_table_marks_what_is_off():
    costs = [Cost(100, 1000), Cost(218, 2120), Cost(118, 1120), Cost(235, 2150), Cost(135, 1150)]
    rows = [Measured(r.title, c, c) for r, c in zip(ROWS, costs)]
    assert "*" not in table(rows)
    rows[4] = Measured("IA (w/ AMU)", Cost(143, 1150), costs[4])
    assert table(rows).count("*") == 1 and "1.43x*" in table(rows)


@pytest.mark.slow
def test_the_script(monkeypatch, tmp_path, capsys):
    """A second network is added where the memory is frozen, and nothing else."""
    out = tmp_path / "costs.json"
    arguments = ["--persons", "2", "--short-side", "32", "--json", str(out), "--opts", *SMALL]
    cost_table.main(cost_table.parse_arguments(arguments))
    printed = capsys.readouterr().out
    assert all(row.title in printed and f"{row.parameters:.2f}x" in printed for row in ROWS)
    rows = json.loads(out.read_text())["rows"]
    base, lfb_frozen, lfb, ia_frozen, ia = (row["configured"] for row in rows)
    for frozen, updated in ((lfb_frozen, lfb), (ia_frozen, ia)):
        for key in ("parameters", "flops"):
            assert frozen[key] - updated[key] == base[key]
    assert lfb["parameters"] < ia["parameters"] and base["flops"] < lfb["flops"]


def test_bad_arguments(capsys):
    with pytest.raises(SystemExit):
        cost_table.parse_arguments(["--persons", "0"])
    assert "--persons must be 1 or more" in capsys.readouterr().err
