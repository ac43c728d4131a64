#!/usr/bin/env python3
"""A miniature of EPIC-Kitchens-55 in its official files, in which each memory of AIA is needed.

    projects/AIA/kitchen.py generate datasets/kitchen
    projects/AIA/kitchen.py compare --output output/kitchen --seeds 1 2 3

Two gloved hands before a worktop do something to a thing. What the two seconds around the middle of
a segment do not show:

=====  ==================  =========================================================================
model  classes             what decides
=====  ==================  =========================================================================
verb   wash, cut, stir     the movement of the hands
verb   open, close         the same movement: first open, then, two segments later, close: the model
                           has to remember the segments around
noun   pan, board, cup     a thing between the hands
noun   salt, sugar, flour  a jar that the hands cover; it is to be seen before and after the clip,
                           where the detector's features of `noun_lfb` tell what it is
=====  ==================  =========================================================================

`compare` trains SlowFast and AIA on verbs and on nouns and prints, for each seed, top-1 of the
classes that can be seen, of those that memory decides, of all, and of the actions made of both.
"""

from __future__ import annotations

import argparse
import csv
import json
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from alphaaction_d2.apps.command_line import run_tool
from alphaaction_d2.apps.console import setup_console
from alphaaction_d2.apps.experiment import compare_by_seed, experiment_cfg, run_experiment
from alphaaction_d2.data.datasets.epic55 import LABELS
from alphaaction_d2.data.video import VideoWriter
from alphaaction_d2.evaluation.epic55 import action_prior, evaluate_epic55, top_k_hits
from alphaaction_d2.formats.epic55 import (
    read_epic_classes,
    read_epic_scores,
    read_epic_segments,
    split_segments,
)
from alphaaction_d2.formats.writing import write_atomically

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "EPIC-Kitchens" / "miniature"
VERBS = ("wash", "cut", "stir", "open", "close")
NOUNS = ("pan", "board", "cup", "salt", "sugar", "flour")
REMEMBERED = {"verb": (3, 4), "noun": (3, 4, 5)}  # classes that memory decides
METHODS = ("slowfast", "aia")
WIDTH, HEIGHT, FPS = 64, 48, 10
PERIOD = 6.0  # seconds from segment to segment
HIDDEN = 1.7  # seconds around the middle in which a jar is hidden: no clip of training goes beyond
SEGMENTS = 12  # of a video
CHANNELS = 24  # of the detector's features
DETECTOR_SEED = 55  # the detector is the same for all data
_WOOD, _GLOVE = (150, 132, 110), (66, 90, 176)
_COLOURS = {  # RGB of what a thing looks like
    "pan": (40, 40, 44),
    "board": (214, 176, 98),
    "cup": (226, 226, 232),
    "salt": (186, 60, 52),
    "sugar": (70, 160, 78),
    "flour": (150, 76, 160),
}


@dataclass(frozen=True)
class Segment:
    """What is done around `middle` (s), at `place` (a fraction of the width)."""

    middle: float
    half: float
    verb: str
    noun: str
    place: float
    phase: float

    @property
    def hidden(self) -> bool:
        return NOUNS.index(self.noun) in REMEMBERED["noun"]

    def shows_thing(self, seconds: float) -> bool:
        """Whether its thing is to be seen then: a jar only beside the clip."""
        away = abs(seconds - self.middle)
        return away < PERIOD / 2 and (not self.hidden or away > HIDDEN)


def plan(rng: np.random.Generator) -> list[Segment]:
    """Plan a video: other verbs at random, and open and close in turn, two segments apart."""
    verbs: list[str] = []
    while len(verbs) < SEGMENTS:
        if rng.random() < 0.45 and len(verbs) <= SEGMENTS - 3:
            verbs += ["open", str(rng.choice(VERBS[:3])), "close"]
        # so that what was closed is not taken for what is opened next
        verbs += [str(x) for x in rng.choice(VERBS[:3], size=2)]
    return [
        Segment(
            middle=PERIOD * (i + 0.5) + float(rng.uniform(-0.3, 0.3)),
            half=float(rng.uniform(0.4, 0.6)),
            verb=verb,
            noun=str(rng.choice(NOUNS)),
            place=float(rng.uniform(0.35, 0.65)),
            phase=float(rng.random()),
        )
        for i, verb in enumerate(verbs[:SEGMENTS])
    ]


# ------------------------------------------------------------------------------- what is to be seen


def hands_at(segment: Segment, seconds: float) -> list[tuple[float, float]]:
    """Centres of the two hands as fractions; at rest at the lower edge, where nobody sees them."""
    away = abs(seconds - segment.middle)
    reach = float(np.clip((1.9 - away) / 0.4, 0, 1))
    beat = np.sin(2 * np.pi * (1.6 * (seconds - segment.middle) + segment.phase))
    turn = np.cos(2 * np.pi * (1.6 * (seconds - segment.middle) + segment.phase))
    dx, dy = {
        "wash": (0.11 * beat, 0.0),
        "cut": (0.0, 0.13 * beat),
        "stir": (0.08 * beat, 0.10 * turn),
        "open": (0.05 * beat, -0.22),
        "close": (0.05 * beat, -0.22),
    }[segment.verb]
    gap = 0.07 if segment.hidden else 0.16
    y = 1.15 - reach * (0.62 - dy)
    return [(segment.place + side * gap + reach * dx, y) for side in (-1, 1)]


def thing_box(segment: Segment) -> tuple[float, float, float, float]:
    """Give the box of the thing as fractions."""
    w, h = (0.16, 0.2) if segment.hidden else (0.24, 0.2)
    x, y = segment.place - w / 2, 0.42
    return (x, y, x + w, y + h)


def hand_boxes(segment: Segment, seconds: float) -> list[tuple[float, float, float, float]]:
    """Give the boxes of the hands that are in the picture, as fractions."""
    boxes = []
    for x, y in hands_at(segment, seconds):
        box = np.clip([x - 0.12, y - 0.16, x + 0.12, y + 0.16], 0, 1)
        if box[3] - box[1] > 0.1 and box[2] - box[0] > 0.1:
            boxes.append(tuple(map(float, box)))
    return boxes


def draw(segments: list[Segment], seconds: float, grain: np.ndarray) -> np.ndarray:
    """Draw the worktop as somebody sees it who works there; (H, W, 3) uint8 RGB.

    Args:
        grain: (H, W, 3) of the worktop.
    """
    segment = segments[min(int(seconds / PERIOD), len(segments) - 1)]
    picture = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    picture[:] = _WOOD
    picture[: HEIGHT // 4] = (196, 200, 204)
    size = np.array([WIDTH, HEIGHT])
    if segment.shows_thing(seconds):
        x1, y1, x2, y2 = (
            (np.array(thing_box(segment)) * [*size, *size]).round().astype(int).tolist()
        )
        colour = _COLOURS[segment.noun]
        if segment.noun in ("pan", "cup"):
            centre, axes = ((x1 + x2) // 2, (y1 + y2) // 2), ((x2 - x1) // 2, (y2 - y1) // 2)
            cv2.ellipse(picture, centre, axes, 0, 0, 360, colour, -1)
        else:
            cv2.rectangle(picture, (x1, y1), (x2, y2), colour, -1)
    for x, y in hands_at(segment, seconds):
        centre = tuple((np.array([x, y]) * size).round().astype(int).tolist())
        cv2.ellipse(picture, centre, (int(0.12 * WIDTH), int(0.16 * HEIGHT)), 0, 0, 360, _GLOVE, -1)
        cv2.line(picture, centre, (centre[0], HEIGHT), _GLOVE, 6)
    return np.clip(picture + grain, 0, 255).astype(np.uint8)


def detected_features(
    segments: list[Segment], seconds: float, rng: np.random.Generator
) -> np.ndarray:
    """What a detector would say of the things in the picture: (n, CHANNELS) float32."""
    looks = np.random.default_rng(DETECTOR_SEED).normal(size=(len(NOUNS) + 1, CHANNELS))
    segment = segments[min(int(seconds / PERIOD), len(segments) - 1)]
    seen = [NOUNS.index(segment.noun)] if segment.shows_thing(seconds) else []
    seen += [len(NOUNS)] * int(rng.random() < 0.5)  # the tiles behind, taken for something
    noise = rng.normal(0, 0.3, (len(seen), CHANNELS))
    return (looks[seen] + noise).astype(np.float32)


# ---------------------------------------------------------------------------------------- the files


def generate(root: Path, train: int = 30, val: int = 12, seed: int = 0) -> Path:
    """Write the folder, or return at once when it holds the same already.

    Raises:
        ValueError: it holds something else.
    """
    record = root / "kitchen.json"
    parameters = {"version": 1, "train": train, "val": val, "seed": seed}
    if root.exists():
        if record.is_file() and json.loads(record.read_text()) == parameters:
            return root
        if not record.is_file() and any(root.iterdir()):
            raise ValueError(
                f"{root} exists and is no kitchen of this script: choose another folder"
            )
        shutil.rmtree(root)
    rows: list[list] = []
    for split, number, first, last in (("train", train, 1, 25), ("val", val, 26, 31)):
        boxes, features, names = [], [], []
        for i in range(number):
            participant = f"P{first + i % (last - first + 1):02d}"
            video = f"{participant}_{1 + i // (last - first + 1):02d}"
            rng = np.random.default_rng([seed, first, i])
            segments = plan(rng)
            write_video(root / "videos" / participant / f"{video}.MP4", segments, rng)
            moments = np.arange(0, PERIOD * SEGMENTS, 0.5)
            boxes += [row for t in moments for row in box_rows(video, segments, float(t), rng)]
            seconds = range(int(PERIOD * SEGMENTS))
            found = {30 * s: detected_features(segments, s, rng) for s in seconds}
            features.append({frame: x if len(x) else [] for frame, x in found.items()})
            names.append(video)
            for segment in segments:
                rows.append(label_row(len(rows), participant, video, segment))
        write_csv(root / "boxes" / f"{split}.csv", boxes)
        write_csv(root / "frame_lists" / f"{split}.csv", [[name] for name in names])
        write_atomically(root / "noun_lfb" / f"{split}_lfb.pkl", pickle.dumps(features, protocol=2))
    annotations = root / "annotations"
    for kind, classes in (("verb", VERBS), ("noun", NOUNS)):
        table = [[i, name, str([name])] for i, name in enumerate(classes)]
        header = [f"{kind}_id", "class_key", f"{kind}s"]
        write_csv(annotations / f"EPIC_{kind}_classes.csv", [header, *table])
    write_csv(annotations / LABELS, [_HEADER, *rows])
    record.write_text(json.dumps(parameters))
    return root


_HEADER = (
    "uid participant_id video_id narration start_timestamp stop_timestamp start_frame stop_frame "
    "verb verb_class noun noun_class all_nouns all_noun_classes"
).split()


def label_row(uid: int, participant: str, video: str, segment: Segment) -> list:
    """Make a row of `EPIC_train_action_labels.csv`."""
    times = [segment.middle - segment.half, segment.middle + segment.half]
    stamps = [f"{int(t // 3600):02d}:{int(t // 60 % 60):02d}:{t % 60:05.2f}" for t in times]
    verb, noun = VERBS.index(segment.verb), NOUNS.index(segment.noun)
    return [
        *(uid, participant, video, f"{segment.verb} {segment.noun}", *stamps),
        *(round(t * FPS) for t in times),
        *(segment.verb, verb, segment.noun, noun, str([segment.noun]), str([noun])),
    ]


def box_rows(
    video: str, segments: list[Segment], seconds: float, rng: np.random.Generator
) -> list[list]:
    """Make the rows of a box file at one moment."""
    segment = segments[min(int(seconds / PERIOD), len(segments) - 1)]
    found = [("hand", box) for box in hand_boxes(segment, seconds)]
    if segment.shows_thing(seconds):
        found.append(("thing", thing_box(segment)))
    return [
        [video, f"{seconds:.1f}", *(f"{x:.4f}" for x in box), name, f"{rng.uniform(0.6, 1):.3f}"]
        for name, box in found
    ]


def write_video(path: Path, segments: list[Segment], rng: np.random.Generator) -> None:
    """Draw a video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grain = rng.normal(0, 6, (HEIGHT, WIDTH, 3))
    scratch = path.with_suffix(".mp4")  # the writer goes by the ending as it is usually written
    with VideoWriter(scratch, FPS, WIDTH, HEIGHT, crf=12, gop=FPS, repeatable=True) as writer:
        for frame in range(int(PERIOD * SEGMENTS * FPS)):
            writer.write(draw(segments, frame / FPS, grain))
    scratch.rename(path)


def write_csv(path: Path, rows: list[list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


# ----------------------------------------------------------------------------------- the comparison


def train(kind: str, method: str, seed: int, kitchen: Path, output: Path) -> Path:
    """Train a model, or find it trained; returns its file of logits.

    AIA begins from the backbone that SlowFast has trained, as the paper from one of Kinetics.
    """
    folder = output / f"{kind}_{method}_seed{seed}"
    cfg = experiment_cfg(CONFIGS / f"{kind}_{method}.yaml", [], kitchen, folder)
    cfg.DATASETS.TRAIN = (f"{kitchen.name}_{kind}s_train",)
    cfg.DATASETS.TEST = (f"{kitchen.name}_{kind}s_val",)
    cfg.SEED = seed
    if method != "slowfast":
        cfg.MODEL.WEIGHTS = str(output / f"{kind}_slowfast_seed{seed}" / "model_final.pth")
    result = f"epic_{kind}s.npz"
    run_experiment(cfg, result)
    return folder / result


def accuracies(kitchen: Path, files: dict[str, Path]) -> dict[str, float]:
    """Compute top-1 in per cent: of classes that are seen, remembered, of all, and of actions."""
    annotations = kitchen / "annotations"
    training, validation = split_segments(read_epic_segments(annotations / LABELS))
    numbers = {
        kind: len(read_epic_classes(annotations / f"EPIC_{kind}_classes.csv")) for kind in files
    }
    logits = {
        kind: read_epic_scores(path, validation, numbers[kind]) for kind, path in files.items()
    }
    labels = {"verb": validation.verbs, "noun": validation.nouns}
    found = {}
    for kind in files:
        memory = np.isin(labels[kind], REMEMBERED[kind])
        for what, rows in (("seen", ~memory), ("remembered", memory), ("all", memory | True)):
            hits = top_k_hits(logits[kind][rows], labels[kind][rows], (1,))[1]
            found[f"{kind}s {what}"] = 100 * hits / rows.sum() if rows.any() else np.nan
    prior = action_prior(training.verbs, training.nouns, numbers["verb"], numbers["noun"])
    both = evaluate_epic55(
        logits["verb"], logits["noun"], validation.verbs, validation.nouns, prior
    )
    found["actions"] = both.percent("action", 1)
    found["actions without prior"] = both.percent("action without prior", 1)
    return found


def compare(output: Path, seeds: list[int], kitchen: Path) -> str:
    """Train everything and make a table, which is also written as `compare.{md,json}`."""

    def measure(method: str, seed: int) -> dict[str, float]:
        files = {kind: train(kind, method, seed, kitchen, output) for kind in ("verb", "noun")}
        return accuracies(kitchen, files)

    return compare_by_seed(output, "top-1 in %, by seed", METHODS, seeds, measure)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("generate", help="write the videos and their files")
    make.add_argument("folder", type=Path)
    make.add_argument("--seed", type=int, default=0)
    both = commands.add_parser("compare", help="train SlowFast and AIA and compare them")
    both.add_argument("--output", type=Path, default=Path("output/kitchen"))
    both.add_argument("--seeds", type=int, nargs="+", default=[1])
    args = parser.parse_args(argv)

    def run() -> None:
        if args.command == "generate":
            print(generate(args.folder, seed=args.seed))
            return
        setup_console(args.output)
        kitchen = generate(args.output / "data" / "kitchen")
        print(compare(args.output, args.seeds, kitchen))

    return run_tool(run)


if __name__ == "__main__":
    raise SystemExit(main())
