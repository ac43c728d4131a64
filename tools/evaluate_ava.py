#!/usr/bin/env python
"""Scores a CSV file of AVA detections: frame mAP at IoU 0.5, per class and per group of classes.

    python tools/evaluate_ava.py --ground-truth ava_val_v2.2.csv --detections results.csv \
        --label-map ava_action_list_v2.2_for_activitynet_2019.pbtxt \
        --exclusions ava_val_excluded_timestamps_v2.2.csv

The published evaluators of AVA differ; --dialect names the one to follow, and the result says which
it was.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from without_torch import import_without_torch, run_scoring


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--ground-truth",
        metavar="CSV",
        required=True,
        help="rows video_id,timestamp,x1,y1,x2,y2,action_id,person_id",
    )
    parser.add_argument(
        "--detections",
        metavar="CSV",
        required=True,
        help="rows video_id,timestamp,x1,y1,x2,y2,action_id,score",
    )
    parser.add_argument(
        "--label-map", metavar="PBTXT", required=True, help="the classes to evaluate"
    )
    parser.add_argument(
        "--exclusions", metavar="CSV", help="rows video_id,timestamp of frames to leave out"
    )
    parser.add_argument(
        "--dialect",
        default="official2018",
        help="official2018 (default; as in AlphAction), official2019, official2020, slowfast",
    )
    parser.add_argument("--output", metavar="JSON", help="write all numbers to this file, too")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code, 2 for input that can't be evaluated."""
    args = parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    from alphaaction_d2.evaluation import evaluate_ava_files, results_as_json, results_as_text
    from alphaaction_d2.formats.ava import read_exclusions, read_label_map

    def score() -> str:
        label_map = read_label_map(args.label_map)
        result = evaluate_ava_files(
            args.ground_truth,
            args.detections,
            label_map,
            excluded=read_exclusions(args.exclusions) if args.exclusions else (),
            dialect=args.dialect,
        )
        if args.output:
            Path(args.output).write_text(results_as_json(result, label_map), encoding="utf-8")
        return results_as_text(result, label_map)

    return run_scoring(score)


if __name__ == "__main__":
    import_without_torch()
    sys.exit(main())
