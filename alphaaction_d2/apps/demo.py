"""Who does what in any video: annotated video, timeline, table and report in one folder.

    alphaaction demo film.mp4
    alphaaction demo film.mp4 --config-file configs/AVA/aia_dense_R50_4x16.yaml \\
        --weights model.pth --boxes boxes.csv --output results

Without more the model is a published SlowFast for AVA's 80 actions, and persons are found by
RF-DETR (where transformers is installed) or torchvision; their weights are downloaded once. Boxes
may come from a file (docs/own_video.md) or from another detector; `--boxes whole-frame` takes the
whole picture as one person. Several videos, and folders of videos, may be given; one that cannot be
opened is reported and the others go on. Ctrl-C ends it and keeps what is known up to there.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from detectron2.config import CfgNode

from ..data import VideoError
from ..data.video import one_line, probe_video, video_name
from ..deploy import is_exported
from ..deploy.runner import RUNTIMES, fastest_runtime
from ..engine import AttentionPredictor, VideoPredictor
from ..engine.exported import ExportedPredictor
from ..engine.predictor import class_names
from ..formats.names import file_name
from ..formats.results import read_best_scores
from ..model_zoo.files import is_here
from ..model_zoo.table import find
from ..modeling.coco_detectors import has_weights, license_of
from ..visualization import VideoSection, write_report
from ..visualization.shown import MIN_SCORE, display_thresholds
from .command_line import INTERRUPTED, describe_error, tell_failed, tool_parser, typed_command
from .console import setup_console
from .video_arguments import add_model_and_boxes, box_sources, find_inputs, model_cfg
from .video_results import Stopped, process_video

logger = logging.getLogger(__name__)
Predictor = TypeVar("Predictor", bound=VideoPredictor)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument(
        "videos",
        nargs="*",
        metavar="VIDEO",
        help="video files; folders of them, of numbered pictures or of one-second clips "
        "(docs/own_data.md)",
    )
    parser.add_argument("--input", nargs="+", default=[], metavar="VIDEO", help="the same")
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="folder for the results; default: NAME_actions, after the video or the folder",
    )
    parser.add_argument(
        "--min-score",
        type=float,
        help="lowest that is shown; default: for each class what its evaluation found best "
        f"(ava_results.json beside the weights), else {MIN_SCORE}",
    )
    add_model_and_boxes(parser)
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        help="what computes a folder of `alphaaction export`, given as --weights "
        "(docs/deploy.md); default: openvino-bfloat16 where OpenVINO is, else onnxruntime",
    )
    args = parser.parse_args(argv)
    args.videos += args.input
    if not args.videos:
        parser.error("give a video")
    return args


def main(args: argparse.Namespace) -> int:
    setup_console()
    videos = find_inputs(args.videos)
    failed: list[str] = []
    usable = [video for video in videos if _opens(video, failed)]
    if not usable:
        return tell_failed(failed, len(videos))
    demo = Demo(args)
    first = Path(args.videos[0])
    if not os.path.lexists(first):  # a pattern
        first = Path(usable[0]).parent
    output = Path(args.output or f"{video_name(os.path.abspath(first))}_actions")
    sections: list[VideoSection] = []
    is_stopped = False
    for video in usable:
        folder = output
        if len(videos) > 1:
            folder = output / file_name(video_name(video), reserved=["report.html"])
        try:
            sections.append(demo.process(video, folder))
        except (VideoError, ValueError) as error:
            _tell(video, error, failed)
        except Stopped as stopped:
            sections.append(stopped.section)
            is_stopped = True
            break
        except KeyboardInterrupt:
            if not sections:
                raise
            is_stopped = True
            break
    if sections:
        warnings = ["Ended by Ctrl-C: what comes after is missing."] if is_stopped else []
        report = demo.report(output, sections, [*warnings, *failed], typed_command())
        logger.info("Report: %s", report)
    code = tell_failed(failed, len(videos))
    return INTERRUPTED if is_stopped else code


class Demo:
    """What is loaded once for many videos: a model, who finds the persons, what is shown."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.cfg = args, model_cfg(args)
        self.boxes_of = box_sources(args, self.cfg)
        logger.info("%s", used(self.cfg, args.boxes))
        form: Callable[[CfgNode], VideoPredictor] = AttentionPredictor
        runtime = vars(args).get("runtime")
        if is_exported(self.cfg.MODEL.WEIGHTS):
            form = functools.partial(ExportedPredictor, runtime=runtime or fastest_runtime())
        elif runtime:
            raise ValueError("--runtime is for a folder of `alphaaction export` as --weights")
        self.predictor = load_predictor(self.cfg, not args.boxes, form=form)
        self.names = class_names(self.cfg, self.predictor.model, args.label_map)
        self.min_scores: Sequence[float] = [args.min_score] * len(self.names)
        if args.min_score is None:
            weights = self.cfg.MODEL.WEIGHTS
            evaluation = Path(weights).parent / "ava_results.json"
            best = read_best_scores(evaluation, self.names) if weights else {}
            self.min_scores = display_thresholds(self.names, best)

    def process(self, video: str | Path, folder: Path) -> VideoSection:
        """Write the files of one video, see :func:`process_video`."""
        boxes, scores = self.boxes_of(str(video)), self.min_scores
        return process_video(self.predictor, video, boxes, folder, self.names, min_scores=scores)

    def report(
        self, folder: Path, sections: Sequence[VideoSection], warnings: Sequence[str], command: str
    ) -> Path:
        """Write the page about all videos; `command` is what was typed, if anything."""
        return write_report(
            folder,
            title="Actions in " + ", ".join(section.title for section in sections),
            subtitle=used(self.cfg, self.args.boxes),
            videos=sections,
            warnings=warnings,
            command=command,
            config=self.cfg.dump(),
            min_score=min(self.min_scores),
        )


def _opens(video: str | Path, failed: list[str]) -> bool:
    """Whether a video can be opened: of a list, the wrong ones are told before the first hour."""
    try:
        probe_video(video)
        return True
    except VideoError as error:
        _tell(video, error, failed)
        return False


def _tell(video: str | Path, error: Exception, failed: list[str]) -> None:
    line = describe_error(error)
    line = one_line(line if one_line(Path(video).name) in line else f"{video}: {line}")
    logger.error("%s", line)
    failed.append(line)


def used(cfg: CfgNode, boxes: list[str] | None) -> str:
    """Say which model and which boxes are used, under which licenses, and what is downloaded."""
    weights = cfg.MODEL.WEIGHTS
    published = find(weights)
    actions = weights or "a random network"
    if published is not None:
        licence = published.licence.partition(" (")[0]
        actions += f" ({published.score}; {licence}{_to_come(is_here(weights))})"
    persons = ", ".join(boxes or ())
    if not boxes:
        detector = cfg.MODEL.PERSON_DETECTOR
        persons = detector.CONFIG
        if not detector.WEIGHTS:
            come = _to_come(has_weights(detector.CONFIG))
            persons += f" ({license_of(detector.CONFIG)}{come})"
    return f"Actions: {actions}. Persons: {persons}"


def _to_come(is_there: bool) -> str:
    return "" if is_there else "; to be downloaded"


def load_predictor(
    cfg: CfgNode, with_detector: bool, form: Callable[[CfgNode], Predictor]
) -> Predictor:
    """Load the model and the detector into a predictor of that form; ValueError, with what to do
    without a network, where one of them cannot be had."""
    if not with_detector:
        cfg = cfg.clone()
        cfg.MODEL.PERSON_DETECTOR.CONFIG = ""
    try:
        return form(cfg)
    except OSError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{reason}; without a network give --weights FILE for the actions (docs/weights.md), "
            "and --boxes FILE or --boxes whole-frame for the persons"
        ) from error
