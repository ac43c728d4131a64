"""Score files of results: AVA, UCF101-24, EPIC-Kitchens-55.

Nothing here needs torch or detectron2, so that a score is there at once (tools/without_torch.py).
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from typing import Any

from ..evaluation import epic55, ucf101_24
from ..evaluation.ava_protocol import evaluate_ava_files, results_as_json, results_as_text
from ..formats.ava import read_exclusions, read_video_list
from ..formats.epic55 import NUM_NOUNS, NUM_VERBS, read_epic_scores, read_epic_segments
from ..formats.label_map import read_label_map
from ..formats.ucf101_24 import read_ucf_annotations, read_ucf_detections
from ..formats.writing import write_atomically
from .command_line import run_tool, tool_parser

_CSV = {"metavar": "CSV", "required": True}
_FILE = {"metavar": "FILE", "required": True}

_AVA = """\
Score a CSV file of AVA detections: frame mAP at IoU 0.5, per class and per group of classes.

    python tools/evaluate_ava.py --ground-truth ava_val_v2.2.csv --detections results.csv \\
        --label-map ava_action_list_v2.2_for_activitynet_2019.pbtxt \\
        --exclusions ava_val_excluded_timestamps_v2.2.csv

The published evaluators of AVA differ; --protocol names the one to follow, and the result says
which it was.
"""
_UCF101_24 = """\
Score a CSV file of detections on UCF101-24: frame mAP at IoU 0.5.

    python tools/evaluate_ucf101_24.py --annotations pyannot.pkl --videos testlist01.txt \\
        --detections results.csv

Published numbers come from three evaluators; --protocol names the one to follow, and the result
says which it was:

    gurkirt  frames in which somebody acts (default)
    act      all frames of the test videos, as ACT and MOC count
    yowo     frames in which somebody acts, boxes a pixel larger, no second choice
"""
_EPIC55 = """\
Score verb and noun models on EPIC-Kitchens-55: top-1 and top-5 of verbs, nouns and actions.

    python tools/evaluate_epic.py --labels EPIC_train_action_labels.csv --verbs verbs.npy \\
        --nouns nouns.npy

As in Long-Term Feature Banks and AIA, participants 26 to 31 of the training labels are validated,
and actions are scored with the prior of the others. The files of logits have a row a segment in the
order of the labels (.npy), or "uids" and "logits" in any order (.npz).
"""


def score_ava(argv: Sequence[str] | None = None) -> int:
    """Run tools/evaluate_ava.py; returns its exit code, 2 for input that can't be evaluated."""
    detections = "rows video_id,timestamp,x1,y1,x2,y2,action_id,score"
    exclusions = "rows video_id,timestamp of frames to leave out"
    protocols = "official2018 (default; as in AlphAction), official2019, official2020, slowfast"
    options: dict[tuple[str, ...], dict[str, Any]] = {
        ("--ground-truth",): {**_CSV, "help": detections.replace("score", "person_id")},
        ("--detections",): {**_CSV, "help": detections},
        ("--label-map",): {**_FILE, "metavar": "PBTXT", "help": "the classes to evaluate"},
        ("--exclusions",): {"metavar": "CSV", "help": exclusions},
        # the second name is what it was called before
        ("--protocol", "--dialect"): {"default": "official2018", "help": protocols},
    }

    def score(args: argparse.Namespace) -> tuple[str, str]:
        label_map = read_label_map(args.label_map)
        excluded = read_exclusions(args.exclusions) if args.exclusions else ()
        files = (args.ground_truth, args.detections, label_map)
        result = evaluate_ava_files(*files, excluded=excluded, protocol=args.protocol)
        return results_as_text(result, label_map), results_as_json(result, label_map)

    return _run(_AVA, options, score, argv)


def score_ucf101_24(argv: Sequence[str] | None = None) -> int:
    """Run tools/evaluate_ucf101_24.py; returns its exit code."""
    annotations = "pyannot.pkl of the corrected annotations; nothing in it is executed"
    detections = "rows video,frame,x1,y1,x2,y2,class,score; frames from 1, classes from 0, pixels"
    protocols = "gurkirt (default), act (also MOC), yowo"
    options: dict[tuple[str, ...], dict[str, Any]] = {
        ("--annotations",): {**_FILE, "metavar": "PKL", "help": annotations},
        ("--videos",): {**_FILE, "metavar": "TXT", "help": "the test videos, one a line"},
        ("--detections",): {**_CSV, "help": detections},
        ("--protocol",): {"default": "gurkirt", "help": protocols},
        ("--frames",): {"help": "annotated or all; default: what the protocol does (act: all)"},
    }

    def score(args: argparse.Namespace) -> tuple[str, str]:
        found = read_ucf_detections(args.detections)
        truth = read_ucf_annotations(args.annotations, read_video_list(args.videos))
        result = ucf101_24.evaluate_ucf101_24(truth, found, args.protocol, frames=args.frames)
        return ucf101_24.ucf_results_as_text(result), ucf101_24.ucf_results_as_json(result)

    return _run(_UCF101_24, options, score, argv)


def score_epic55(argv: Sequence[str] | None = None) -> int:
    """Run tools/evaluate_epic.py; returns its exit code."""
    logits = "logits (segments, {}), .npy or .npz"
    options: dict[tuple[str, ...], dict[str, Any]] = {
        ("--labels",): {**_CSV, "help": "EPIC_train_action_labels.csv"},
        ("--verbs",): {**_FILE, "help": logits.format(NUM_VERBS)},
        ("--nouns",): {**_FILE, "help": logits.format(NUM_NOUNS)},
    }

    def score(args: argparse.Namespace) -> tuple[str, str]:
        training, validation = epic55.split_segments(read_epic_segments(args.labels))
        result = epic55.evaluate_epic55(
            read_epic_scores(args.verbs, validation, NUM_VERBS),
            read_epic_scores(args.nouns, validation, NUM_NOUNS),
            validation.verbs,
            validation.nouns,
            epic55.action_prior(training.verbs, training.nouns),
        )
        return epic55.epic_results_as_text(result), epic55.epic_results_as_json(result)

    return _run(_EPIC55, options, score, argv)


def _run(
    description: str,
    options: dict[tuple[str, ...], dict[str, Any]],
    score: Callable[[argparse.Namespace], tuple[str, str]],
    argv: Sequence[str] | None,
) -> int:
    """Parse a command line, and print what `score` makes of it; it also gives that as JSON."""
    parser = tool_parser(description)
    for names, keywords in options.items():
        parser.add_argument(*names, **keywords)
    parser.add_argument("--output", metavar="JSON", help="write all numbers to this file, too")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")

    def main() -> None:
        text, numbers = score(args)
        if args.output:
            write_atomically(args.output, numbers)
        print(text)

    return run_tool(main)
