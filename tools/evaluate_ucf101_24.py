#!/usr/bin/env python
"""Scores a CSV file of detections on UCF101-24: frame mAP at IoU 0.5.

    python tools/evaluate_ucf101_24.py --annotations pyannot.pkl --videos testlist01.txt \
        --detections results.csv

Published numbers come from three evaluators; --protocol names the one to follow, and the result
says which it was:

    gurkirt  frames in which somebody acts (default)
    act      all frames of the test videos, as ACT and MOC count
    yowo     frames in which somebody acts, boxes a pixel larger, no second choice
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
        "--annotations",
        metavar="PKL",
        required=True,
        help="pyannot.pkl of the corrected annotations; nothing in it is executed",
    )
    parser.add_argument(
        "--videos", metavar="TXT", required=True, help="the test videos, one a line"
    )
    parser.add_argument(
        "--detections",
        metavar="CSV",
        required=True,
        help="rows video,frame,x1,y1,x2,y2,class,score; frames from 1, classes from 0, pixels",
    )
    parser.add_argument(
        "--protocol", default="gurkirt", help="gurkirt (default), act (also MOC), yowo"
    )
    parser.add_argument(
        "--frames", help="annotated or all; default: what the protocol does (act: all)"
    )
    parser.add_argument("--output", metavar="JSON", help="write all numbers to this file, too")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code, 2 for input that can't be evaluated."""
    args = parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    from alphaaction_d2.evaluation.ucf101_24 import (
        evaluate_ucf101_24,
        ucf_results_as_json,
        ucf_results_as_text,
    )
    from alphaaction_d2.formats.ava import read_video_list
    from alphaaction_d2.formats.ucf101_24 import read_ucf_annotations, read_ucf_detections

    def score() -> str:
        detections = read_ucf_detections(args.detections)
        annotations = read_ucf_annotations(args.annotations, read_video_list(args.videos))
        result = evaluate_ucf101_24(annotations, detections, args.protocol, frames=args.frames)
        if args.output:
            Path(args.output).write_text(ucf_results_as_json(result), encoding="utf-8")
        return ucf_results_as_text(result)

    return run_scoring(score)


if __name__ == "__main__":
    import_without_torch()
    sys.exit(main())
