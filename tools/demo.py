#!/usr/bin/env python3
"""Actions in any video: annotated video, timeline, table and report in one folder.

    tools/demo.py --config-file configs/AVA/aia_dense_R50_4x16.yaml --weights model.pth \\
        --input film.mp4 --boxes boxes.csv --output results

Boxes come from a file (rows video_id,timestamp,x1,y1,x2,y2,class,score[,person_id], see README
"Boxes"); `--boxes whole-frame` takes the whole picture as one person. Several videos may be given;
one that cannot be opened is reported and the others go on.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections import Counter
from pathlib import Path

from detectron2.utils.logger import setup_logger

from alphaaction_d2 import register_datasets, setup_cfg
from alphaaction_d2.data import VideoError
from alphaaction_d2.data.keyframe_boxes import KeyframeBoxes, whole_frame_boxes
from alphaaction_d2.data.video import probe_video
from alphaaction_d2.engine import VideoPredictor
from alphaaction_d2.engine.command_line import describe_error, run_tool
from alphaaction_d2.engine.predictor import BoxSource, class_names
from alphaaction_d2.engine.video_results import VideoFolder, process_video
from alphaaction_d2.visualization import write_report

WHOLE_FRAME = "whole-frame"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="configuration of the model")
    parser.add_argument("--weights", default="", help="checkpoint; default: MODEL.WEIGHTS")
    parser.add_argument("--input", required=True, nargs="+", metavar="VIDEO", help="video files")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--boxes", required=True, nargs="+", metavar="FILE", help=f"CSV files, or '{WHOLE_FRAME}'"
    )
    parser.add_argument("--min-score", type=float, default=0.3, help="lowest score that is shown")
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs of the configuration"
    )
    return parser.parse_args()


def box_source(boxes: list[str], video: str) -> BoxSource:
    """The boxes of one video."""
    if boxes == [WHOLE_FRAME]:
        return whole_frame_boxes
    return KeyframeBoxes.from_files(boxes, Path(video).stem)


def main(args: argparse.Namespace) -> int:
    setup_logger(name="alphaaction_d2")
    logger = logging.getLogger("alphaaction_d2.demo")
    cfg = setup_cfg(args.config_file, args.opts)
    if args.weights:
        cfg.MODEL.WEIGHTS = args.weights
    try:
        register_datasets(cfg)
    except FileNotFoundError as error:
        logger.info("Class names: %s", error)
    predictor = VideoPredictor(cfg)
    names = class_names(cfg)

    output = Path(args.output)
    stems = Counter(Path(video).stem for video in args.input)
    if stems.most_common(1)[0][1] > 1:
        raise ValueError(f"several videos are called {stems.most_common(1)[0][0]}; rename one")
    folders: list[VideoFolder] = []
    failed: list[str] = []
    for video in args.input:
        try:
            probe_video(video)  # a broken video is a broken video, whether it has boxes or not
            boxes = box_source(args.boxes, video)
            folder = output / Path(video).stem if len(args.input) > 1 else output
            folders.append(
                process_video(predictor, video, boxes, folder, names, min_score=args.min_score)
            )
        except (VideoError, ValueError) as error:
            line = describe_error(error)
            line = line if Path(video).name in line else f"{video}: {line}"
            logger.error("%s", line)
            failed.append(line)
    if folders:
        report = write_report(
            output,
            title="Actions in " + ", ".join(x.result.video_id for x in folders),
            videos=[x.section() for x in folders],
            warnings=failed,
            command=shlex.join(["tools/demo.py", *sys.argv[1:]]),
            config=cfg.dump(),
            downloads=[path for x in folders for path in (x.csv, x.json)],
            min_score=args.min_score,
        )
        logger.info("Report: %s", report)
    if failed:
        print(
            f"{len(failed)} of {len(args.input)} videos failed:",
            *failed,
            sep="\n  ",
            file=sys.stderr,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    arguments = parse_args()
    sys.exit(run_tool(lambda: main(arguments)))
