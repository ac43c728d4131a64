"""One training run with its evaluation: what `make demo` and `make compare` are built from."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng
from tabulate import tabulate

from ..data.datasets import register_datasets
from ..engine.trainer import Trainer
from ..formats.config_files import setup_cfg
from ..formats.writing import write_atomically
from ..model_zoo import get_config_file

PUPPETS_CONFIGS = Path(get_config_file("Puppets/none")).parent

logger = logging.getLogger(__name__)


def experiment_cfg(
    config_file: str | Path, opts: list[str], puppets: Path, output: Path
) -> CfgNode:
    """The configuration of a run on the Puppets in that folder."""
    cfg = setup_cfg(str(config_file), opts)
    cfg.DATASETS.FOLDERS = (str(puppets),)
    cfg.OUTPUT_DIR = str(output)
    return cfg


def run_experiment(cfg: CfgNode, result: str = "ava_results.json", train: bool = True) -> Path:
    """Train and evaluate, or take the results of the same run from `cfg.OUTPUT_DIR`: where
    `result`, the evaluator's file, is, if there is a test set (one at most).

    An interrupted run is resumed. What another configuration left in the folder is not used.
    `cfg.SEED` >= 0 makes the run repeatable.
    """
    folder = Path(cfg.OUTPUT_DIR)
    folder.mkdir(parents=True, exist_ok=True)
    results, record = folder / result, folder / "config.yaml"
    same = record.is_file() and record.read_text(encoding="utf-8") == cfg.dump()
    # Results alone do not say so: training that was stopped in its last step was evaluated, too.
    finished = [results] * bool(cfg.DATASETS.TEST) + [folder / "model_final.pth"] * train
    if same and all(file.is_file() for file in finished):
        logger.info("%s: finished before", folder)
        return results
    if not same:
        for file in (*finished, folder / "last_checkpoint"):
            file.unlink(missing_ok=True)
        record.write_text(cfg.dump(), encoding="utf-8")
    register_datasets(cfg)
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=same)
    trainer.train() if train else trainer.test(cfg, trainer.model)
    return results


def compare_by_seed(
    output: Path,
    header: str,
    methods: Sequence[str],
    seeds: Sequence[int],
    measure: Callable[[str, int], dict[str, float]],
) -> str:
    """Write `compare.{md,json}` of what methods reach, seed by seed, and give the text.

    Args:
        header: of the first column, which says what is measured.
        measure: of a method and a seed: what is measured -> a number in per cent.
    """
    table: dict[str, dict[str, list[float]]] = {}
    for method in methods:
        for seed in seeds:
            start = time.process_time()
            for what, value in measure(method, seed).items():
                table.setdefault(what, {}).setdefault(method, []).append(value)
            spent = time.process_time() - start
            print(f"{method}, seed {seed}: {spent:.0f} s of processor time")
    rows = [
        [what, *(", ".join(f"{x:.1f}" for x in values[method]) for method in methods)]
        for what, values in table.items()
    ]
    text = tabulate(rows, headers=[header, *methods], tablefmt="github", disable_numparse=True)
    write_atomically(output / "compare.md", text + "\n")
    write_atomically(output / "compare.json", json.dumps(table, indent=1) + "\n")
    return text
