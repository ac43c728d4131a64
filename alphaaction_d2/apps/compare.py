"""Train methods on the Puppets data set under equal conditions and compare them per group of
classes."""

from __future__ import annotations

import argparse
import json
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

METHODS = {
    "none": "none",
    "AIA without memory": "aia_without_memory",
    "AIA": "aia",
    "HGNN-s": "hgnn_s",
    "HGNN": "hgnn",
    "IGMN": "igmn",
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="output/compare", help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="one run per seed")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs of the configuration"
    )
    return parser.parse_args(argv)


def run(method: str, seed: int, puppets: Path, output: Path, opts: list[str]) -> dict[str, float]:
    """Train one method, or take the results of a finished run; AP in per cent per group.

    All methods with interaction start from the backbone of "none" and leave it as it is.
    """
    name = METHODS[method]
    config = PUPPETS_CONFIGS / f"{name}.yaml"
    cfg = experiment_cfg(config, opts, puppets, output / f"{name}_seed{seed}")
    if method != "none":
        cfg.MODEL.WEIGHTS = str(output / f"{METHODS['none']}_seed{seed}" / "model_final.pth")
    cfg.SEED = seed
    results = run_experiment(cfg)
    groups = group_classes(read_evaluation(results)[0])
    return {group: mean_ap(classes) for group, classes in groups.items()}


def main(args: argparse.Namespace) -> int:
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    setup_console(output)
    puppets = generate_puppets(datasets_root() / "puppets")
    if "none" not in args.methods:
        args.methods.insert(0, "none")  # the others start from its backbone
    table: dict[str, dict[str, list[float]]] = {}
    for method in args.methods:
        runs = [run(method, seed, puppets, output, args.opts) for seed in args.seeds]
        table[method] = {group: [r[group] for r in runs] for group in runs[0]}

    groups = list(next(iter(table.values())))
    rows = [[method, *(_cell(values[g]) for g in groups)] for method, values in table.items()]
    text = tabulate(rows, headers=["AP in %", *groups], tablefmt="github", disable_numparse=True)
    print(text)
    write_atomically(output / "compare.md", text + "\n")
    write_atomically(output / "compare.json", json.dumps(table, indent=1))
    means = {
        method: {group: float(np.mean(aps)) for group, aps in of_group.items()}
        for method, of_group in table.items()
    }
    comparison_chart(
        output / "compare.png",
        means,
        title="What each idea is good for",
        subtitle=f"Puppets, {len(args.seeds)} seed(s), AP in % per group of classes",
    )
    return 0


def _cell(values: list[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"
