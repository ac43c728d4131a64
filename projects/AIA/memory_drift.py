"""How far features have drifted by the time the memory is read (AIA, Sec. 3.3).

    projects/AIA/memory_drift.py --weights output/compare_update/update_start_seed1/model_final.pth

Trains `configs/Puppets/update/updated.yaml` for some hundred steps at several learning rates, and
looks at persons of the same clips again and again: how much their features have changed after so
many steps, and how many steps lie between the writing of a slot and its reading. Draws
memory_drift.png and writes the numbers to memory_drift.json.

The change is the root mean square of the difference, relative to that between two persons at the
same moment: at 1 a stored person looks to the network of now like somebody else. Features are
compared as training stores them, with the batch's own statistics.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import Tensor

from alphaaction_d2.apps.command_line import run_tool
from alphaaction_d2.apps.experiment import PUPPETS_CONFIGS, experiment_cfg
from alphaaction_d2.data.datasets import datasets_root, register_datasets
from alphaaction_d2.data.datasets.puppets.generate import generate_puppets
from alphaaction_d2.engine.trainer import Trainer

AGES = (5, 10, 25, 50, 75, 100, 150, 200)
NUM_CLIPS = 48
COLOURS = ("#b3392f", "#d99a00", "#0f8b8d", "#555555")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args.output.mkdir(parents=True, exist_ok=True)
    puppets = generate_puppets(datasets_root() / "puppets")
    rates = {}
    for rate in args.rates:
        cfg = experiment_cfg(
            PUPPETS_CONFIGS / "update" / "updated.yaml", args.opts, puppets, args.output / str(rate)
        )
        cfg.MODEL.WEIGHTS = args.weights
        cfg.SOLVER.BASE_LR = rate
        rates[rate] = {"factor": cfg.SOLVER.INTERACTION_LR_FACTOR, **measure(cfg, args.start)}
        change = rates[rate]["change_when_read"]
        print(
            f"rate {rate:g}: slots are read {rates[rate]['age']:.0f} steps old, change {change:.2f}"
        )
    result = {"first_step": args.start, "batch": cfg.SOLVER.IMS_PER_BATCH, "rates": rates}
    (args.output / "memory_drift.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(result, args.output / "memory_drift.png")
    print(f"Drawn: {args.output / 'memory_drift.png'}")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draw how far features drift until they are read.")
    parser.add_argument("--weights", required=True, help="that training begins from")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.003, 0.001], help="BASE_LR")
    parser.add_argument("--start", type=int, default=300, help="step of the first look")
    parser.add_argument("--output", type=Path, default=Path("output/memory_drift"))
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs of the configuration"
    )
    args = parser.parse_args(argv)
    if args.start < 1:
        parser.error("--start must be 1 or more")
    return args


def measure(cfg: CfgNode, start: int) -> dict:
    """Train once and look.

    Returns:
        `age`: mean number of steps between writing and reading; `ages`: its deciles; `change`:
        number of steps -> change of a person's features; `change_when_read`: at the mean age.
    """
    cfg.SOLVER.MAX_ITER = start + AGES[-1] + 1
    cfg.SOLVER.STEPS, cfg.DATASETS.TEST = (), ()
    register_datasets(cfg)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    watch = Watch(start)
    trainer.register_hooks([watch])
    trainer.train()
    change = {age: change_of(watch.looks[0], x) for age, x in sorted(watch.looks.items())}
    ages = np.concatenate(watch.ages)
    mean = float(ages.mean())
    return {
        "age": mean,
        "ages": np.quantile(ages, np.arange(1, 10) / 10).tolist(),
        "change": change,
        "change_when_read": float(np.interp(mean, list(change), list(change.values()))),
    }


def change_of(before: Tensor, now: Tensor) -> float:
    """Compare features (R, C) of the same persons: 0 for no change, 1 for that to others."""
    moved = (now - before).pow(2).sum(dim=1).mean()
    spread = (before - before.mean(dim=0)).pow(2).sum(dim=1).mean()
    # The mean square difference of two persons drawn at random is twice the variance.
    return float((moved / (2 * spread)).sqrt())


class Watch(HookBase):
    """Notes when slots are written and how old they are when read; looks at some clips."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.looks: dict[int, Tensor] = {}
        self.ages: list[np.ndarray] = []
        self.written: dict[tuple[str, int], int] = {}

    def before_train(self) -> None:
        loader = self.trainer.data_loader
        chosen = np.linspace(0, len(loader.keyframes) - 1, NUM_CLIPS).astype(int)
        np.random.seed(0)
        self.clips = [loader.mapper(copy.deepcopy(loader.keyframes[i])) for i in chosen]

    def after_step(self) -> None:
        pool, step = self.trainer.pool, self.trainer.iter
        places = [
            (str(x["video_id"]), pool.clock.slot_of(x["timestamp"]))
            for x in self.trainer.last_step.batch
        ]
        if step >= self.start:
            read = [
                self.written[video, slot + int(offset)]
                for video, slot in places
                for offset in pool.offsets
                if offset and (video, slot + int(offset)) in self.written
            ]
            self.ages.append(step - np.array(read, dtype=float))
        self.written.update(dict.fromkeys(places, step))
        if step - self.start in (0, *AGES):
            self.looks[step - self.start] = self.look()

    @torch.no_grad()
    def look(self) -> Tensor:
        """Compute (R, C): the persons of the clips, with the batch's statistics, as in training."""
        model = self.trainer.model
        running = {name: x.clone() for name, x in model.named_buffers()}
        persons = [x.persons.roi_features for x in model.extract(self.clips)]
        for name, x in model.named_buffers():  # nobody has looked
            x.copy_(running[name])
        return torch.cat(persons)


def draw(result: dict, path: Path) -> None:
    """One panel: change over age, and where slots are read."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7.5, 4), layout="constrained")
    for (rate, row), colour in zip(result["rates"].items(), COLOURS):
        ages = [float(x) for x in row["change"]]
        axis.plot(ages, list(row["change"].values()), marker="o", markersize=3, color=colour)
        text = f" rate {float(rate):g}: {row['change_when_read']:.2f} when read"
        axis.plot(row["age"], row["change_when_read"], "o", markersize=9, color=colour)
        lowest = rate == min(result["rates"], key=float)
        axis.annotate(text, (row["age"], row["change_when_read"]), color=colour,
                      xytext=(8, -14) if lowest else (-8, 10), ha="left" if lowest else "right",
                      textcoords="offset points")  # fmt: skip
    first = next(iter(result["rates"].values()))
    axis.axvspan(first["ages"][0], first["ages"][-1], color="#888888", alpha=0.15, linewidth=0)
    axis.text(first["ages"][0], 0.02, " 80 % of the slots that are read", color="#626a76")
    axis.axhline(1, color="#16181d", linewidth=0.8, linestyle=":")
    axis.text(2, 1.02, "somebody else", color="#626a76")
    axis.set(xlim=(0, AGES[-1]), ylim=(0, None), xlabel="steps since the slot was written")
    axis.set_ylabel("change of a person's features,\nof that between two persons")
    axis.set_title("How old the memory is, and what has become of it", loc="left", weight="bold")
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(run_tool(main))
