"""Evaluate a model on a data set, or score files of results of AVA, UCF101-24, EPIC-Kitchens-55.

    alphaaction evaluate --config-file output/config.yaml MODEL.WEIGHTS output/model_final.pth
    alphaaction evaluate ava --ground-truth val.csv --detections results.csv --label-map list.pbtxt

The first is `alphaaction train --eval-only`, with the same arguments. Scoring files needs neither
torch nor detectron2, so that a score is there at once.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..evaluation import epic55, tubes, ucf101_24
from ..evaluation.ava_protocol import evaluate_ava, read_rows, results_as_json, results_as_text
from ..evaluation.average_precision import AVA_PROTOCOLS
from ..formats.ava import read_exclusions, write_ava_results
from ..formats.ava_scores import average_scores, read_ava_scores
from ..formats.epic55 import (
    NUM_NOUNS,
    NUM_VERBS,
    read_epic_classes,
    read_epic_scores,
    read_epic_segments,
    split_segments,
)
from ..formats.label_map import read_label_map
from ..formats.ucf101_24 import read_ucf_detections, read_ucf_split
from ..formats.writing import write_atomically
from .command_line import import_models, tool_parser

_CSV = {"metavar": "CSV", "required": True}
_FILE = {"metavar": "FILE", "required": True}

_AVA = """\
Score a CSV file of AVA detections: frame mAP at IoU 0.5, per class and per group of classes.

    alphaaction evaluate ava --ground-truth ava_val_v2.2.csv --detections results.csv \\
        --label-map ava_action_list_v2.2_for_activitynet_2019.pbtxt \\
        --exclusions ava_val_excluded_timestamps_v2.2.csv

--average a/ava_detections.npz b/ava_detections.npz scores the mean of several models' scores, which
every evaluation leaves beside its CSV.

The published evaluators of AVA differ; --protocol names the one to follow, and the result says
which it was.
"""
_UCF101_24 = """\
Score a CSV file of detections on UCF101-24: frame mAP at IoU 0.5, and video mAP.

    alphaaction evaluate ucf101-24 --annotations pyannot.pkl --videos testlist01.txt \\
        --detections results.csv

Published numbers come from three evaluators; --protocol names the one to follow, and the result
says which it was:

    gurkirt  frames in which somebody acts (default)
    act      all frames of the test videos, as ACT and MOC count
    yowo     frames in which somebody acts, boxes a pixel larger, no second choice

Tubes for the video mAP are made by the online linking of Singh et al. and, where rows have a
person_id, of the rows of each person.
"""
_EPIC55 = """\
Score verb and noun models on EPIC-Kitchens-55: top-1 and top-5 of verbs, nouns and actions.

    alphaaction evaluate epic-kitchens-55 --labels EPIC_train_action_labels.csv --verbs verbs.npy \\
        --nouns nouns.npy

As in Long-Term Feature Banks and AIA, participants 26 to 31 of the training labels are validated,
and actions are scored with the prior of the others. The files of logits have a row a segment in the
order of the labels (.npy), or "uids" and "logits" in any order (.npz).
"""


Options = dict[tuple[str, ...], dict[str, Any]]  # of an argument parser, by names

_DETECTIONS = "rows video_id,timestamp,x1,y1,x2,y2,action_id,score"
_PROTOCOLS = f"{', '.join(AVA_PROTOCOLS)}; default official2018, as in AlphAction"
_AVA_OPTIONS: Options = {
    ("--ground-truth",): {"metavar": "CSV", "help": _DETECTIONS.replace("score", "person_id")},
    ("--detections",): {"metavar": "CSV", "help": _DETECTIONS},
    ("--average",): {
        "metavar": "NPZ",
        "nargs": "+",
        "help": "ava_detections.npz of several evaluations, whose mean scores take the place of "
        "--detections",
    },
    ("--write-detections",): {
        "metavar": "CSV",
        "help": "write the detections that are scored, such as the mean ones for a test server; "
        "without --ground-truth nothing else is done",
    },
    ("--label-map",): {"metavar": "PBTXT", "help": "the classes to evaluate"},
    ("--exclusions",): {
        "metavar": "CSV",
        "help": "rows video_id,timestamp of frames to leave out",
    },
    # the second name is what it was called before
    ("--protocol", "--dialect"): {"default": "official2018", "help": _PROTOCOLS},
}
_UCF_DETECTIONS = (
    "rows video,frame,x1,y1,x2,y2,class,score[,person_id]; frames from 1, classes from 0, pixels"
)
_UCF101_24_OPTIONS: Options = {
    ("--annotations",): {
        **_FILE,
        "metavar": "PKL",
        "help": "pyannot.pkl of the corrected annotations, or UCF101v2-GT.pkl; nothing in it is "
        "executed",
    },
    ("--videos",): {
        "metavar": "TXT",
        "help": "the test videos, one a line; UCF101v2-GT.pkl knows them itself",
    },
    ("--detections",): {**_CSV, "help": _UCF_DETECTIONS},
    ("--protocol",): {"default": "gurkirt", "help": "gurkirt (default), act (also MOC), yowo"},
    ("--frames",): {"help": "annotated or all; default: what the protocol does (act: all)"},
}
_LOGITS = "logits (segments, {}), .npy or .npz (as training writes)"
_EPIC55_OPTIONS: Options = {
    ("--labels",): {**_CSV, "help": "EPIC_train_action_labels.csv"},
    ("--verbs",): {**_FILE, "help": _LOGITS.format(NUM_VERBS)},
    ("--nouns",): {**_FILE, "help": _LOGITS.format(NUM_NOUNS)},
}


def _score_ava(args: argparse.Namespace) -> tuple[str, str]:
    if bool(args.detections) == bool(args.average):
        raise ValueError("expected one of --detections and --average")
    if bool(args.ground_truth) != bool(args.label_map):
        raise ValueError("expected --ground-truth and --label-map, both or none")
    if not args.ground_truth and (args.output or not args.write_detections):
        raise ValueError("expected --ground-truth to score with, or --write-detections alone")
    if args.average:
        detections = average_scores([read_ava_scores(path) for path in args.average])
    else:
        detections = read_rows(args.detections, "results", args.protocol)
    if args.write_detections:
        write_ava_results(args.write_detections, detections)
    if not args.ground_truth:
        return f"Wrote {args.write_detections}", ""
    label_map = read_label_map(args.label_map)
    excluded = read_exclusions(args.exclusions) if args.exclusions else ()
    truth = read_rows(args.ground_truth, "annotations", args.protocol)
    rules = {"excluded": excluded, "protocol": args.protocol}
    result = evaluate_ava(truth, detections, label_map, **rules)
    return results_as_text(result, label_map), results_as_json(result, label_map)


def _score_ucf101_24(args: argparse.Namespace) -> tuple[str, str]:
    found = read_ucf_detections(args.detections)
    truth = read_ucf_split(args.annotations, "test", args.videos)
    result = ucf101_24.evaluate_ucf101_24(truth, found, args.protocol, frames=args.frames)
    video = tubes.evaluate_all_tubes(truth, found, args.protocol)
    text = f"{ucf101_24.ucf_results_as_text(result)}\n{tubes.video_results_as_text(video)}"
    return text, ucf101_24.ucf_results_as_json(result, **tubes.video_results_as_dict(video))


def _score_epic55(args: argparse.Namespace) -> tuple[str, str]:
    training, validation = split_segments(read_epic_segments(args.labels))
    verbs = _number_of_classes(args.labels, "verb", NUM_VERBS)
    nouns = _number_of_classes(args.labels, "noun", NUM_NOUNS)
    result = epic55.evaluate_epic55(
        read_epic_scores(args.verbs, validation, verbs),
        read_epic_scores(args.nouns, validation, nouns),
        validation.verbs,
        validation.nouns,
        epic55.action_prior(training.verbs, training.nouns, verbs, nouns),
    )
    return epic55.epic_results_as_text(result), epic55.epic_results_as_json(result)


def _number_of_classes(labels: str, kind: str, official: int) -> int:
    """Count the classes of the list beside the labels; without one there are the official ones."""
    classes = Path(labels).with_name(f"EPIC_{kind}_classes.csv")
    return len(read_epic_classes(classes)) if classes.is_file() else official


# By data set: help, options, and what gives a text and all numbers as JSON.
SCORES: dict[str, tuple[str, Options, Callable[[argparse.Namespace], tuple[str, str]]]] = {
    "ava": (_AVA, _AVA_OPTIONS, _score_ava),
    "ucf101-24": (_UCF101_24, _UCF101_24_OPTIONS, _score_ucf101_24),
    "epic-kitchens-55": (_EPIC55, _EPIC55_OPTIONS, _score_epic55),
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and argv[0].startswith("--") and argv[0] != "--help":
        import_models()
        from . import train

        args = train.parse_args(["--eval-only", *argv])
        args.run = train.main
        return args
    parser = tool_parser(__doc__)
    kinds = parser.add_subparsers(required=True, metavar="DATA SET", title="files of results")
    for name, (description, options, score) in SCORES.items():
        kind = kinds.add_parser(
            name,
            help=description.partition(":")[0],
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for names, keywords in options.items():
            kind.add_argument(*names, **keywords)
        kind.add_argument("--output", metavar="JSON", help="write all numbers to this file, too")
        kind.set_defaults(run=_print_score, score=score)
    return parser.parse_args(argv)


def _print_score(args: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    text, numbers = args.score(args)
    if args.output:
        write_atomically(args.output, numbers)
    print(text)


def main(args: argparse.Namespace) -> int | None:
    return args.run(args)
