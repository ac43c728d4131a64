"""Train methods on the Puppets data set under equal conditions and compare them per group of
classes.

--table ideas: every interaction, on a backbone that stays as it is. --table update: what it is
worth that the memory is written while the backbone learns (AIA, Table 1e in small).
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from ..data.datasets import datasets_root
from ..data.datasets.puppets.generate import generate_puppets
from ..formats.results import group_classes, mean_ap, read_evaluation
from ..formats.writing import write_atomically
from ..visualization.charts import comparison_chart
from .console import setup_console
from .experiment import PUPPETS_CONFIGS, experiment_cfg, run_experiment

SECONDS = "s a step"  # the column of the table that is no AP


@dataclass(frozen=True)
class Comparison:
    """Runs that begin alike.

    Attributes:
        title: of the chart.
        start: configuration whose training all begin with, once for all seeds; a frozen memory is
            filled by it, too. Empty: the backbone that is kept beside the configurations.
        methods: name of a row -> configuration of Puppets.
    """

    title: str
    start: str
    methods: dict[str, str]


COMPARISONS = {
    "ideas": Comparison(
        "What each idea is good for",
        "",
        {
            "none": "without_interaction",
            "AIA without memory": "aia_without_memory",
            "AIA": "aia",
            "HGNN-s": "hgnn_s",
            "HGNN": "hgnn",
            "IGMN": "igmn",
            "IGMN tracked": "igmn_tracked",
            "IGMN as in its paper": "igmn_paper",
            "AIA + HGNN": "aia_identities",
        },
    ),
    "update": Comparison(
        "What updating the memory is good for",
        "update/start",
        {
            "no memory": "update/none",
            "frozen memory": "update/frozen",
            "updated": "update/updated",
            "updated, reweighted": "update/reweighted",
        },
    ),
}
TESTED = {"igmn_tracked": "igmn"}  # these test another's networks, and train none


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", default="output/compare", help="folder of the runs")
    parser.add_argument("--table", choices=list(COMPARISONS), default="ideas")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="one run per seed")
    parser.add_argument("--methods", nargs="+", help="some rows of the table; default: all")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs of the configuration"
    )
    args = parser.parse_args(argv)
    methods = COMPARISONS[args.table].methods
    unknown = [name for name in args.methods or () if name not in methods]
    if unknown:
        parser.error(f"--methods {unknown[0]!r}: table {args.table!r} has {', '.join(methods)}")
    wanted = [methods[name] for name in args.methods or methods]
    wanted += [TESTED[config] for config in wanted if config in TESTED]
    args.methods = [name for name, config in methods.items() if config in wanted]
    return args


def run(name: str, weights: str, seed: int, puppets: Path, output: Path, opts: list[str]) -> Path:
    """Train one configuration, or find the results of a finished run; gives its folder. All but
    `start` begin with the weights that `start` leaves."""
    cfg = experiment_cfg(
        PUPPETS_CONFIGS / f"{name}.yaml", opts, puppets, _folder(output, name, seed)
    )
    if name in TESTED:
        weights = _weights(_folder(output, TESTED[name], seed))
    cfg.MODEL.WEIGHTS = weights
    if cfg.MODEL.MEMORY.FROZEN_WEIGHTS:
        cfg.MODEL.MEMORY.FROZEN_WEIGHTS = weights
    cfg.DATALOADER.STORED_FOLDER = str(output / "features")
    cfg.SEED = seed
    return run_experiment(cfg, train=name not in TESTED).parent


def _folder(output: Path, name: str, seed: int) -> Path:
    return output / f"{name.replace('/', '_')}_seed{seed}"


def _weights(folder: Path) -> str:
    return str(folder / "model_final.pth")


def group_aps(folder: Path) -> dict[str, float]:
    """Read the AP in per cent of every group of classes that a run has reached."""
    groups = group_classes(read_evaluation(folder / "ava_results.json")[0])
    return {group: mean_ap(classes) for group, classes in groups.items()}


def seconds_a_step(folder: Path) -> float:
    """Read the median of a run's times of a step; NaN where nothing was trained."""
    if not (folder / "metrics.json").is_file():
        return math.nan
    lines = (folder / "metrics.json").read_text(encoding="utf-8").splitlines()
    return float(np.median([x["time"] for x in map(json.loads, lines) if "time" in x]))


def main(args: argparse.Namespace) -> int:
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    setup_console(output)
    puppets = generate_puppets(datasets_root() / "puppets")
    comparison = COMPARISONS[args.table]
    weights = str(PUPPETS_CONFIGS / "backbone.pth")
    if comparison.start:
        weights = _weights(run(comparison.start, "", 1, puppets, output, args.opts))
    table: dict[str, dict[str, list[float]]] = {}
    for method in args.methods:
        name = comparison.methods[method]
        folders = [run(name, weights, s, puppets, output, args.opts) for s in args.seeds]
        runs = [{**group_aps(x), SECONDS: seconds_a_step(x)} for x in folders]
        table[method] = {column: [r[column] for r in runs] for column in runs[0]}

    columns = list(next(iter(table.values())))
    digits = {SECONDS: 3}
    rows = [
        [method, *(_cell(values[c], digits.get(c, 1)) for c in columns)]
        for method, values in table.items()
    ]
    text = tabulate(rows, headers=["AP in %", *columns], tablefmt="github", disable_numparse=True)
    print(text)
    write_atomically(output / "compare.md", text + "\n")
    write_atomically(output / "compare.json", json.dumps(table, indent=1))
    means = {
        method: {group: float(np.mean(values[group])) for group in columns[:-1]}
        for method, values in table.items()
    }
    comparison_chart(
        output / "compare.png",
        means,
        title=comparison.title,
        subtitle=f"Puppets, {len(args.seeds)} seed(s), AP in % per group of classes",
    )
    return 0


def _cell(values: list[float], digits: int) -> str:
    if math.isnan(values[0]):
        return "-"
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"
