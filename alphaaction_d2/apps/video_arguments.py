"""What the tools that look at any video share: their arguments, and what these mean."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from detectron2.config import CfgNode

from ..data.video import video_name
from ..engine.box_sources import BoxSource, KeyframeBoxes, WholeFrame
from ..formats.config_files import setup_cfg

WHOLE_FRAME = "whole-frame"
DETECTOR_HELP = (
    "auto (the default), torchvision:NAME, transformers:NAME, or a detectron2 configuration (file "
    "or name in its model zoo); and weights (file or address), which names do not need"
)


def add_model_and_boxes(parser: argparse.ArgumentParser) -> None:
    """Arguments that say which model, and where the persons are."""
    parser.add_argument("--config-file", required=True, help="configuration of the model")
    parser.add_argument("--weights", default="", help="checkpoint; default: MODEL.WEIGHTS")
    parser.add_argument(
        "--label-map", default="", metavar="FILE", help="names of the classes; default: the model's"
    )
    parser.add_argument("--boxes", nargs="+", metavar="FILE", help=f"CSV files, or '{WHOLE_FRAME}'")
    parser.add_argument(
        "--person-detector", nargs="+", metavar=("CONFIG", "WEIGHTS"), help=DETECTOR_HELP
    )
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs of the configuration"
    )


def model_cfg(args: argparse.Namespace) -> CfgNode:
    """The configuration that was asked for."""
    cfg = setup_cfg(args.config_file, args.opts)
    if args.weights:
        cfg.MODEL.WEIGHTS = args.weights
    return cfg


def box_sources(args: argparse.Namespace, cfg: CfgNode) -> Callable[[str], BoxSource | None]:
    """What gives the boxes of a video, as command line and configuration say.

    A detector that the command line names is written into `cfg`.
    """
    if args.person_detector and (args.boxes or len(args.person_detector) > 2):
        raise ValueError("--person-detector takes CONFIG and WEIGHTS, and no --boxes besides")
    if args.person_detector:
        cfg.MODEL.PERSON_DETECTOR.CONFIG, *weights = args.person_detector
        cfg.MODEL.PERSON_DETECTOR.WEIGHTS = weights[0] if weights else ""
    if args.boxes == [WHOLE_FRAME]:
        return lambda video: WholeFrame()
    if args.boxes:
        return lambda video: KeyframeBoxes.from_files(args.boxes, video_name(video))
    if not cfg.MODEL.PERSON_DETECTOR.CONFIG:
        raise ValueError(
            'where are the persons? Give one of: --boxes FILE (see README, "Boxes"), '
            "--person-detector CONFIG WEIGHTS (a detectron2 detector), "
            f"--boxes {WHOLE_FRAME} (the whole picture is one person)"
        )
    return lambda video: None
