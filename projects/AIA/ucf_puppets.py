#!/usr/bin/env python3
"""UCF101-24 in miniature: short Puppets videos of one action each, in its official files.

    projects/AIA/ucf_puppets.py generate datasets/ucf_puppets
    projects/AIA/ucf_puppets.py compare --output output/ucf_puppets --seeds 1 2 3

=============  =============================================================================
class          what decides
=============  =============================================================================
Carry, Salute  the frame itself
Greet, Return  the same wave; it is returned if a bystander, who is there in any case, has
               flashed in the first half second
=============  =============================================================================

Greet and Return differ in nothing but the flash, for which the other two toss a coin. The actor
acts from the first frame on and rests, unannotated, in the last second. Bystanders are never
annotated: they are what a detector finds, too, and training learns to leave alone.

`compare` trains C2D and AIA and prints, for each seed, AP of frames for both pairs of classes, and
video mAP.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import pickle
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from alphaaction_d2.apps.command_line import run_tool
from alphaaction_d2.apps.console import setup_console
from alphaaction_d2.apps.experiment import compare_by_seed, experiment_cfg, run_experiment
from alphaaction_d2.data.datasets.puppets.drawing import object_boxes, person_box, render_frame
from alphaaction_d2.data.datasets.puppets.scripts import (
    STAGE_HEIGHT,
    Cell,
    Event,
    PuppetParams,
    VideoScript,
    draw_cast,
)
from alphaaction_d2.data.video import VideoWriter
from alphaaction_d2.formats.ucf101_24 import FRAME_RATE
from alphaaction_d2.formats.writing import write_atomically

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "UCF101-24" / "miniature"
CLASSES = {"Carry": "carry", "Greet": "wave", "Return": "wave", "Salute": "salute"}
SEEN, REMEMBERED = ("Carry", "Salute"), ("Greet", "Return")
METHODS = ("c2d", "aia")
WIDTH, HEIGHT = 96, 64
SECONDS = 4  # of which nobody acts in the last
ACTOR, BYSTANDER = 1, 2
TRAIN, TEST = 48, 6  # videos a class
RESULTS = "ucf101_24_results.json"


# --------------------------------------------------------------------------------------- the videos


def generate(root: Path, seed: int = 0, counts: Sequence[int] = (TRAIN, TEST)) -> Path:
    """Write the data set; a folder that is complete stays as it is.

    Args:
        counts: videos of each class, for training and for testing.
    """
    record = {"seed": seed, "counts": list(counts), "version": 1}
    made = root / "ucf_puppets.json"
    if made.is_file() and json.loads(made.read_text()) == record:
        return root
    if root.exists() and any(root.iterdir()) and not made.is_file():
        raise ValueError(f"{root} exists and is no miniature of UCF101-24; choose another folder")
    shutil.rmtree(root, ignore_errors=True)
    (root / "boxes").mkdir(parents=True)
    cv2.setNumThreads(1)
    entries, tested = {}, []
    for split, count in zip(("train", "test"), counts):
        rows: dict[str, list[list]] = {"persons": [], "objects": []}
        for number, name in enumerate(CLASSES):
            for i in range(count):
                # as officially, the first groups are for testing
                group = 1 + i + (counts[1] if split == "train" else 0)
                video = f"{name}/v_{name}_g{group:02d}_c01"
                rng = np.random.default_rng([seed, split == "test", number, i])
                entries[video] = write_video(root, video, name, rng, rows)
                tested += [video] if split == "test" else []
        for role, table in rows.items():
            with (root / "boxes" / f"{split}_{role}.csv").open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(table)
    (root / "pyannot.pkl").write_bytes(pickle.dumps(entries, protocol=2))
    (root / "testlist01.txt").write_text("".join(f"{video}\n" for video in tested))
    write_atomically(made, json.dumps(record))
    return root


def write_video(
    root: Path, video: str, name: str, rng: np.random.Generator, rows: dict[str, list[list]]
) -> dict:
    """Render one video, add what a detector finds to `rows`, and give its annotation."""
    script = plan(name, rng)
    num_frames, stop = round(SECONDS * FRAME_RATE), round((SECONDS - 1) * FRAME_RATE)
    path = root / "videos" / f"{video}.avi"
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, FRAME_RATE, WIDTH, HEIGHT, crf=12, repeatable=True) as writer:
        for k in range(num_frames):
            writer.write(render_frame(script, k / FRAME_RATE))
    boxes = np.array([person_box(script, ACTOR, k / FRAME_RATE) for k in range(stop)])
    boxes = np.round(boxes * [WIDTH, HEIGHT, WIDTH, HEIGHT])
    boxes[:, 2:] -= boxes[:, :2]
    for k in range(num_frames):
        moment = k / FRAME_RATE
        head = [video, f"{moment:.3f}"]
        for person in (ACTOR, BYSTANDER):
            if rng.random() >= 0.015:  # else the detector misses the puppet
                score = rng.uniform(0.82, 1.0) if rng.random() < 0.97 else rng.uniform(0.5, 0.8)
                box = detected(person_box(script, person, moment), rng)
                rows["persons"].append([*head, *box, "", f"{score:.3f}"])
        for thing, box in object_boxes(script, moment):
            score = f"{rng.uniform(0.6, 1):.3f}"
            rows["objects"].append([*head, *detected(box, rng), thing, score])
    label = list(CLASSES).index(name)
    tube = {"label": label, "sf": 0, "ef": stop, "boxes": boxes.astype(np.uint8)}
    return {"numf": num_frames, "label": label, "annotations": [tube]}


def detected(box: Sequence[float], rng: np.random.Generator) -> list[str]:
    """A box as a detector finds it: every side is off by about 3 % of the size."""
    x1, y1, x2, y2 = box
    off = rng.normal(0, 0.03, 4).clip(-0.08, 0.08) * [x2 - x1, y2 - y1, x2 - x1, y2 - y1]
    return [f"{v:.4f}" for v in (np.array(box) + off).clip(0, 1)]


def plan(name: str, rng: np.random.Generator) -> VideoScript:
    """Write the script of one video; what is random is so for all classes alike."""
    cast, _ = draw_cast(rng)
    actor = replace(cast[0], person_id=ACTOR)
    bystander = replace(cast[-1], person_id=BYSTANDER)
    stage = PuppetParams(seconds=SECONDS + 1, width=WIDTH, height=HEIGHT)
    width = stage.stage_width
    side = 1 if rng.random() < 0.5 else -1
    x, y = (float(v) for v in width / 2 + side * np.array([1, -1]) * rng.uniform(20, 34, 2))
    facing = 1 if rng.random() < 0.5 else -1
    phases = [float(v) for v in rng.random(SECONDS + 2)]
    chest = float(rng.uniform(20, width - 20)), STAGE_HEIGHT - 4
    red, green, blue = (int(v) for v in rng.integers(70, 150, 3))
    flashes = bool(rng.random() < 0.5)
    if name in REMEMBERED:
        flashes = name == "Return"
    cells = {
        ACTOR: tuple(
            Cell("stand", x, x, CLASSES[name] if second < SECONDS - 1 else "", facing, phase)
            for second, phase in enumerate(phases)
        ),
        BYSTANDER: tuple(Cell("stand", y, y) for _ in phases),
    }
    return VideoScript(
        video_id=name,
        params=stage,
        background=(red, green, blue),
        puppets=(actor, bystander),
        look_alikes=(ACTOR, BYSTANDER),
        cells=cells,
        chest=chest,
        chest_colour=(100, 70, 40),
        balls=(),
        events=(Event("flash", 0, BYSTANDER, y, 1, ""),) if flashes else (),
    )


# ----------------------------------------------------------------------------------- the comparison


def train(method: str, seed: int, data: Path, output: Path) -> dict[str, float]:
    """Train and test a model, or find it done; its numbers in per cent.

    AIA begins from the backbone that C2D has trained, as the paper from one of Kinetics.
    """
    cfg = experiment_cfg(CONFIGS / f"{method}.yaml", [], data, output / f"{method}_seed{seed}")
    cfg.DATASETS.TRAIN = (f"{data.name}_train",)
    cfg.DATASETS.TEST = (f"{data.name}_test",)
    cfg.SEED = seed
    if method != "c2d":
        cfg.MODEL.WEIGHTS = str(output / f"c2d_seed{seed}" / "model_final.pth")
    results = json.loads(run_experiment(cfg, RESULTS).read_text())
    ap = results["AP_per_class"]
    found = {
        "frames, seen": np.mean([ap[name] for name in SEEN]),
        "frames, remembered": np.mean([ap[name] for name in REMEMBERED]),
    }
    for tubes, numbers in results["video"].items():
        classes = results["video_AP_per_class"][tubes]
        found[f"tubes at 0.5, {tubes}, remembered"] = np.mean([classes[x] for x in REMEMBERED])
        found |= {f"video {x}, {tubes}": value for x, value in numbers.items()}
    return {what: 100 * float(value) for what, value in found.items()}


def compare(output: Path, seeds: Sequence[int], data: Path) -> str:
    """Train everything and make a table, which is also written as `compare.{md,json}`."""
    measure = functools.partial(train, data=data, output=output)
    return compare_by_seed(output, "%, by seed", METHODS, seeds, measure)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("generate", help="write the videos and their files")
    make.add_argument("folder", type=Path)
    make.add_argument("--seed", type=int, default=0)
    both = commands.add_parser("compare", help="train C2D and AIA and compare them")
    both.add_argument("--output", type=Path, default=Path("output/ucf_puppets"))
    both.add_argument("--seeds", type=int, nargs="+", default=[1])
    args = parser.parse_args(argv)

    def run() -> None:
        if args.command == "generate":
            print(generate(args.folder, seed=args.seed))
            return
        setup_console(args.output)
        print(compare(args.output, args.seeds, generate(args.output / "data" / "ucf_puppets")))

    return run_tool(run)


if __name__ == "__main__":
    raise SystemExit(main())
