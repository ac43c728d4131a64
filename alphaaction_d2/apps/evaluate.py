"""Score files of results: AVA, UCF101-24, EPIC-Kitchens-55.

Nothing here needs torch or detectron2, so that a score is there at once (tools/without_torch.py).
"""

from __future__ import annotations

import argparse
import logging
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..evaluation import epic55, ucf101_24
from ..evaluation.ava_protocol import evaluate_ava_files, results_as_json, results_as_text
from ..formats.ava import read_exclusions, read_video_list
from ..formats.epic55 import NUM_NOUNS, NUM_VERBS, read_epic_scores, read_epic_segments
from ..formats.label_map import read_label_map
from ..formats.ucf101_24 import read_ucf_annotations, read_ucf_detections
from ..formats.writing import write_atomically
from .command_line import run_tool


@dataclass(frozen=True)
class Command:
    """A command line that scores one data set's files.

    Attributes:
        description: what it does, for `--help`.
        arguments: name -> (placeholder, help) of the files that it must be given.
        options: (names, keywords) of its other arguments, as argparse takes them.
        score: from the arguments to the result as a table and as JSON.
    """

    description: str
    arguments: dict[str, tuple[str, str]]
    options: Sequence[tuple[tuple[str, ...], dict[str, Any]]]
    score: Callable[[argparse.Namespace], tuple[str, str]]

    def parse_args(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        parser = argparse.ArgumentParser(
            description=textwrap.dedent(self.description),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for name, (metavar, text) in self.arguments.items():
            parser.add_argument(f"--{name}", metavar=metavar, required=True, help=text)
        for names, keywords in self.options:
            parser.add_argument(*names, **keywords)
        help_output = "write all numbers to this file, too"
        parser.add_argument("--output", metavar="JSON", help=help_output)
        return parser.parse_args(argv)

    def main(self, args: argparse.Namespace) -> None:
        """Print the result, and write it where it is wanted."""
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
        text, numbers = self.score(args)
        if args.output:
            write_atomically(args.output, numbers)
        print(text)

    def run(self, argv: Sequence[str] | None = None) -> int:
        """Run the command; returns its exit code, 2 for input that can't be evaluated."""
        args = self.parse_args(argv)
        return run_tool(lambda: self.main(args))


def _score_ava(args: argparse.Namespace) -> tuple[str, str]:
    label_map = read_label_map(args.label_map)
    excluded = read_exclusions(args.exclusions) if args.exclusions else ()
    result = evaluate_ava_files(
        args.ground_truth, args.detections, label_map, excluded=excluded, protocol=args.protocol
    )
    return results_as_text(result, label_map), results_as_json(result, label_map)


AVA = Command(
    """\
    Score a CSV file of AVA detections: frame mAP at IoU 0.5, per class and per group of classes.

        python tools/evaluate_ava.py --ground-truth ava_val_v2.2.csv --detections results.csv \\
            --label-map ava_action_list_v2.2_for_activitynet_2019.pbtxt \\
            --exclusions ava_val_excluded_timestamps_v2.2.csv

    The published evaluators of AVA differ; --protocol names the one to follow, and the result says
    which it was.""",
    {
        "ground-truth": ("CSV", "rows video_id,timestamp,x1,y1,x2,y2,action_id,person_id"),
        "detections": ("CSV", "rows video_id,timestamp,x1,y1,x2,y2,action_id,score"),
        "label-map": ("PBTXT", "the classes to evaluate"),
    },
    [
        (
            ("--exclusions",),
            {"metavar": "CSV", "help": "rows video_id,timestamp of frames to leave out"},
        ),
        (
            ("--protocol", "--dialect"),  # what it was called before
            {
                "default": "official2018",
                "help": "official2018 (default; as in AlphAction), official2019, official2020, "
                "slowfast",
            },
        ),
    ],
    _score_ava,
)


def _score_ucf(args: argparse.Namespace) -> tuple[str, str]:
    detections = read_ucf_detections(args.detections)
    annotations = read_ucf_annotations(args.annotations, read_video_list(args.videos))
    result = ucf101_24.evaluate_ucf101_24(
        annotations, detections, args.protocol, frames=args.frames
    )
    return ucf101_24.ucf_results_as_text(result), ucf101_24.ucf_results_as_json(result)


UCF101_24 = Command(
    """\
    Score a CSV file of detections on UCF101-24: frame mAP at IoU 0.5.

        python tools/evaluate_ucf101_24.py --annotations pyannot.pkl --videos testlist01.txt \\
            --detections results.csv

    Published numbers come from three evaluators; --protocol names the one to follow, and the result
    says which it was:

        gurkirt  frames in which somebody acts (default)
        act      all frames of the test videos, as ACT and MOC count
        yowo     frames in which somebody acts, boxes a pixel larger, no second choice""",
    {
        "annotations": (
            "PKL",
            "pyannot.pkl of the corrected annotations; nothing in it is executed",
        ),
        "videos": ("TXT", "the test videos, one a line"),
        "detections": (
            "CSV",
            "rows video,frame,x1,y1,x2,y2,class,score; frames from 1, classes from 0, pixels",
        ),
    },
    [
        (
            ("--protocol",),
            {"default": "gurkirt", "help": "gurkirt (default), act (also MOC), yowo"},
        ),
        (
            ("--frames",),
            {"help": "annotated or all; default: what the protocol does (act: all)"},
        ),
    ],
    _score_ucf,
)


def _score_epic(args: argparse.Namespace) -> tuple[str, str]:
    training, validation = epic55.split_segments(read_epic_segments(args.labels))
    result = epic55.evaluate_epic55(
        read_epic_scores(args.verbs, validation, NUM_VERBS),
        read_epic_scores(args.nouns, validation, NUM_NOUNS),
        validation.verbs,
        validation.nouns,
        epic55.action_prior(training.verbs, training.nouns),
    )
    return epic55.epic_results_as_text(result), epic55.epic_results_as_json(result)


EPIC55 = Command(
    """\
    Score verb and noun models on EPIC-Kitchens-55: top-1 and top-5 of verbs, nouns and actions.

        python tools/evaluate_epic.py --labels EPIC_train_action_labels.csv --verbs verbs.npy \\
            --nouns nouns.npy

    As in Long-Term Feature Banks and AIA, participants 26 to 31 of the training labels are
    validated, and actions are scored with the prior of the others. The files of logits have a row a
    segment in the order of the labels (.npy), or "uids" and "logits" in any order (.npz).""",
    {
        "labels": ("CSV", "EPIC_train_action_labels.csv"),
        "verbs": ("FILE", "logits (segments, 125), .npy or .npz"),
        "nouns": ("FILE", "logits (segments, 352), .npy or .npz"),
    },
    [],
    _score_epic,
)
