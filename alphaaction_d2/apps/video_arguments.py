"""What the tools that look at any video share: their arguments, and what these mean."""

from __future__ import annotations

import argparse
import glob
import itertools
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode

from ..data.video import (
    VIDEO_SUFFIXES,
    VideoError,
    find_videos,
    is_video_folder,
    one_line,
    video_name,
)
from ..deploy import is_exported
from ..engine.box_sources import BoxSource, KeyframeBoxes, WholeFrame
from ..engine.exported import exported_cfg
from ..formats.config_files import setup_cfg
from ..model_zoo.table import find
from ..modeling.coco_detectors import AUTO, person_score
from ..modeling.detector import resolve_detector

logger = logging.getLogger(__name__)

WHOLE_FRAME = "whole-frame"
# The best published detector for AVA that a CPU computes in about a second for each second of video
# and whose weights can be downloaded under a free license.
DEFAULT_MODEL = "AVA/published/pytorchvideo_slowfast_R50_8x8"
# The best ones whose weights are free: for a GPU, and for a CPU with patience.
BEST_MODELS = ("AVA/published/umt_vit_L", "AVA/published/umt_vit_B")
PERSON_SCORE = "INPUT.PERSON_SCORE_THRESH_TEST"
DETECTOR_HELP = (
    "auto (the default), torchvision:NAME, transformers:NAME, or a detectron2 configuration (file "
    "or name in its model zoo); and weights (file or address), which names do not need"
)


def add_model_and_boxes(parser: argparse.ArgumentParser) -> None:
    """Arguments that say which model, and where the persons are."""
    parser.add_argument(
        "--config-file",
        default=DEFAULT_MODEL,
        help=f"of the model; default: {DEFAULT_MODEL}, which is fast; best: {BEST_MODELS[0]}, then "
        f"{BEST_MODELS[1]}",
    )
    add_model(parser)
    parser.add_argument("--boxes", nargs="+", metavar="FILE", help=f"CSV files, or '{WHOLE_FRAME}'")
    parser.add_argument(
        "--person-detector", nargs="+", metavar=("CONFIG", "WEIGHTS"), help=DETECTOR_HELP
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Arguments that say which weights a configuration has."""
    parser.add_argument(
        "--weights",
        default="",
        help="file, address or name (docs/weights.md); default: the configuration's",
    )
    parser.add_argument(
        "--random", action="store_true", help="no weights, to try things out: results mean nothing"
    )
    parser.add_argument(
        "--label-map", default="", metavar="FILE", help="names of the classes; default: the model's"
    )
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs of the configuration"
    )


def model_cfg(args: argparse.Namespace) -> CfgNode:
    """The configuration that was asked for; ValueError if there are no weights for it, and random
    ones were not asked for."""
    if is_exported(args.weights):
        if "runtime" not in args:
            raise ValueError(f"{args.weights} is an exported model, which only `demo` runs")
        if args.config_file != DEFAULT_MODEL:
            raise ValueError(f"{args.weights} is an exported model: leave --config-file out")
        if args.random:
            raise ValueError("--random is without weights: leave it or --weights out")
        return exported_cfg(args.weights, args.opts)
    cfg = setup_cfg(args.config_file, args.opts)
    is_known = args.config_file in (DEFAULT_MODEL, *BEST_MODELS)  # to lose nothing by it
    is_said = {"TEST.DTYPE", "MODEL.CHANNELS_LAST"}.intersection(args.opts)
    if is_known and not is_said and _computes_bfloat16(cfg.MODEL.DEVICE):
        cfg.TEST.DTYPE, cfg.MODEL.CHANNELS_LAST = "bfloat16", True  # half the time
    published = find(args.config_file)
    if published is not None and not cfg.MODEL.WEIGHTS:
        cfg.MODEL.WEIGHTS = args.config_file
    if args.weights and args.random:
        raise ValueError("--random is without weights: leave it or --weights out")
    if args.random:
        cfg.MODEL.WEIGHTS = ""
    elif args.weights:
        cfg.MODEL.WEIGHTS = args.weights
    if not (cfg.MODEL.WEIGHTS or args.random):
        raise ValueError(
            f"{args.config_file} has no weights, and a random network would tell actions as "
            "confidently as a trained one: give --weights FILE (docs/weights.md), or --random"
        )
    return cfg


def _computes_bfloat16(device: str) -> bool:
    """Whether it is a CPU that computes with such numbers instead of imitating them."""
    flags = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    known = [getattr(torch.cpu, flag) for flag in flags if hasattr(torch.cpu, flag)]
    return device == "cpu" and any(is_supported() for is_supported in known)


def find_inputs(inputs: Sequence[str | Path]) -> list[Path | str]:
    """The videos that are meant: those given, those in folders of videos (not below these), those
    that fit a pattern, and the lines of a list (.txt); ValueError for a folder or pattern without
    videos, or two videos of one name."""
    paths: list[Path | str] = []
    for given in itertools.chain.from_iterable(map(_written_out, inputs)):
        folder = Path(given)
        if _is_one_video(folder) or not folder.is_dir():
            paths.append(given)
            continue
        found = sorted(path for paths in find_videos(folder).values() for path in paths)
        videos = [path for path in found if _is_one_video(path)]
        if not videos:
            raise ValueError(f"{folder}: no videos in this folder")
        if len(videos) < len(found):
            others = sorted({path.suffix or path.name for path in set(found) - set(videos)})
            logger.info("%s: left out what is no video: %s", folder, ", ".join(others[:5]))
        paths += videos
    by_name: dict[str, Path | str] = {}
    for path in paths:
        if (name := video_name(path)) in by_name:
            name, other = one_line(name), one_line(by_name[name])
            raise ValueError(
                f"several videos are called {name}: {other} and {one_line(path)}; their results "
                "need an output each"
            )
        by_name[name] = path
    return paths


def _written_out(given: str | Path) -> Sequence[str | Path]:
    """The paths that a list or a pattern stands for; any other path itself."""
    path = Path(given)
    if path.suffix.lower() == ".txt" and path.is_file():
        lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
        if not (videos := [line.strip() for line in lines if line.strip()]):
            raise ValueError(f"{path}: no videos in this list")
        return videos
    if not glob.has_magic(str(given)) or os.path.lexists(given):
        return [given]
    found = sorted(glob.glob(str(given), recursive=True))
    if not found:
        raise ValueError(f"{given}: nothing fits this pattern")
    return found


def _is_one_video(path: Path) -> bool:
    """Whether to take a path for a video; reading it says so if it is none."""
    try:
        return path.suffix.lower() in VIDEO_SUFFIXES or (path.is_dir() and is_video_folder(path))
    except (VideoError, OSError, ValueError):
        return True


def box_sources(args: argparse.Namespace, cfg: CfgNode) -> Callable[[str], BoxSource | None]:
    """What gives the boxes of a video, as command line and configuration say.

    A detector that the command line names, or the default one, is written into `cfg`; with it the
    score from which its persons count, unless that was given.
    """
    if args.person_detector and (args.boxes or len(args.person_detector) > 2):
        raise ValueError("--person-detector takes CONFIG and WEIGHTS, and no --boxes besides")
    node = cfg.MODEL.PERSON_DETECTOR
    if args.person_detector:
        node.CONFIG, *weights = args.person_detector
        node.WEIGHTS = weights[0] if weights else ""
    if args.boxes == [WHOLE_FRAME]:
        return lambda video: WholeFrame()
    if args.boxes:
        return lambda video: KeyframeBoxes.from_files(args.boxes, video_name(video))
    node.CONFIG = resolve_detector(node.CONFIG or AUTO, cfg.MODEL.DEVICE)
    if PERSON_SCORE not in args.opts and (score := person_score(node.CONFIG)) is not None:
        cfg.INPUT.PERSON_SCORE_THRESH_TEST = score
    return lambda video: None
