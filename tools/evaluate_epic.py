#!/usr/bin/env python
"""Scores verb and noun models on EPIC-Kitchens-55: top-1 and top-5 of verbs, nouns and actions.

    python tools/evaluate_epic.py --labels EPIC_train_action_labels.csv --verbs verbs.npy \
        --nouns nouns.npy

As in Long-Term Feature Banks and AIA, participants 26 to 31 of the training labels are validated,
and actions are scored with the prior of the others. The files of logits have a row a segment in the
order of the labels (.npy), or "uids" and "logits" in any order (.npz).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from without_torch import import_without_torch, run_scoring


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--labels", metavar="CSV", required=True, help="EPIC_train_action_labels.csv"
    )
    parser.add_argument(
        "--verbs", metavar="FILE", required=True, help="logits (segments, 125), .npy or .npz"
    )
    parser.add_argument(
        "--nouns", metavar="FILE", required=True, help="logits (segments, 352), .npy or .npz"
    )
    parser.add_argument("--output", metavar="JSON", help="write all numbers to this file, too")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code, 2 for input that can't be evaluated."""
    args = parse_args(argv)
    from alphaaction_d2.evaluation import epic55

    def score() -> str:
        training, validation = epic55.split_segments(epic55.read_epic_segments(args.labels))
        result = epic55.evaluate_epic55(
            epic55.read_epic_scores(args.verbs, validation, epic55.NUM_VERBS),
            epic55.read_epic_scores(args.nouns, validation, epic55.NUM_NOUNS),
            validation.verbs,
            validation.nouns,
            epic55.action_prior(training.verbs, training.nouns),
        )
        if args.output:
            Path(args.output).write_text(epic55.epic_results_as_json(result), encoding="utf-8")
        return epic55.epic_results_as_text(result)

    return run_scoring(score)


if __name__ == "__main__":
    import_without_torch()
    sys.exit(main())
