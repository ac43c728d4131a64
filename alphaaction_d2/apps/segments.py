"""What is done to what in a film: the verbs, nouns and actions of its segments.

    alphaaction segments --verbs verb.yaml verbs.pth --nouns noun.yaml nouns.pth \\
        --input P26_01.MP4 --boxes boxes.csv --features features.pkl --output results

The models are those of EPIC-Kitchens (docs/epic_kitchens.md), of which one alone will do. Segments
come from a table as its labels; without one, windows slide over the film. Boxes have the class
"hand" for hands; the noun model's memory is what `alphaaction boxes --features` writes. The results
are segments.csv and timeline.png.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from ..checkpoint.checkpointer import load_for_inference
from ..data.datasets.epic55 import read_hands_and_objects, segment_dict
from ..data.video import VideoInfo, probe_video, video_name
from ..engine.inference import build_delayed_inference, build_stream
from ..engine.predictor import class_names
from ..evaluation.epic55 import action_prior
from ..formats.config_files import setup_cfg
from ..formats.epic55 import read_epic_segments, split_segments
from ..formats.writing import write_csv
from ..visualization.segment_chart import Bar, segment_chart
from .command_line import tool_parser
from .console import setup_console

logger = logging.getLogger(__name__)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    for kind in ("verbs", "nouns"):
        parser.add_argument(
            f"--{kind}", nargs=2, metavar=("CONFIG", "WEIGHTS"), help=f"the model of {kind}"
        )
    parser.add_argument("--input", required=True, metavar="VIDEO", help="the film")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--boxes", nargs="+", default=[], metavar="FILE", help="hands and objects")
    parser.add_argument("--features", metavar="PKL", help="of detected objects, for nouns")
    parser.add_argument(
        "--segments", metavar="CSV", help="labels as EPIC-Kitchens', of which the film's rows count"
    )
    parser.add_argument(
        "--every", type=float, default=1.0, help="seconds from window to window, without --segments"
    )
    parser.add_argument(
        "--prior", metavar="CSV", help="EPIC's labels: actions count as often as training has them"
    )
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs")
    return parser.parse_args(argv)


def spans_of(args: argparse.Namespace, info: VideoInfo, seconds: float) -> list[tuple]:
    """Give start and stop of each segment: of the table, or of windows of so many seconds."""
    if args.segments:
        segments = read_epic_segments(args.segments)
        segments = segments[segments.videos == video_name(args.input)]
        if not len(segments):
            raise ValueError(f"{args.segments}: no segment of a video {video_name(args.input)!r}")
        return list(zip(segments.starts.tolist(), segments.stops.tolist()))
    if not args.every > 0:
        raise ValueError(f"--every {args.every}: give the seconds between windows, above 0")
    end = seconds if info.end is None else info.end
    middles = np.arange(info.begin + args.every / 2, max(end, args.every), args.every)
    return [(t - args.every / 2, t + args.every / 2) for t in middles.tolist()]


def score_segments(cfg: CfgNode, segments: list[dict]) -> tuple[list[str], np.ndarray]:
    """Ask a model for all segments, as data sets are tested: the names of its classes, and
    probabilities (segments, classes) in the order of `image_id`."""
    model = build_model(cfg).eval()
    load_for_inference(model, cfg.MODEL.WEIGHTS)
    names = class_names(cfg, model)
    delayed = build_delayed_inference(cfg, model).eval()
    found = {}
    with torch.no_grad():
        for batch in build_stream(cfg, segments):
            for result in delayed(batch):
                scores = result["instances"].action_scores[0]
                found[result["image_id"]] = scores.double().cpu().numpy()
    return names, np.stack([found[i] for i in sorted(found)])


def main(args: argparse.Namespace) -> None:
    setup_console()
    kinds = {kind: getattr(args, kind) for kind in ("verbs", "nouns") if getattr(args, kind)}
    if not kinds:
        raise ValueError("give a model: --verbs CONFIG WEIGHTS, --nouns CONFIG WEIGHTS, or both")
    cfgs = {}
    for kind, (config, weights) in kinds.items():
        cfgs[kind] = cfg = setup_cfg(config, ["MODEL.WEIGHTS", weights, *args.opts])
        if cfg.MODEL.ROI_HEADS.NAME != "SegmentHeads":
            raise ValueError(f"{config}: no model of segments (MODEL.ROI_HEADS.NAME SegmentHeads)")
        if cfg.MODEL.MEMORY.DETECTOR_CHANNELS and cfg.MODEL.INTERACTION.NAME:
            if not args.features:
                raise ValueError(
                    f"{config}: its memory is a detector's: give --features FILE, which "
                    "`alphaaction boxes --features` writes"
                )
            cfg.MODEL.MEMORY.DETECTOR_FILES = (args.features,)
    info, video = probe_video(args.input), video_name(args.input)
    node = cfg.INPUT
    spans = spans_of(args, info, node.NUM_FRAMES * node.SAMPLING_RATE / node.CLIP_FPS)
    boxes = read_hands_and_objects(args.boxes, {video: info})
    segments = [segment_dict(video, info, i, span, *boxes) for i, span in enumerate(spans)]
    logger.info("%s: %d segments", video, len(segments))
    answers = {kind: score_segments(cfg, segments) for kind, cfg in cfgs.items()}

    lanes = {kind: best(spans, names, scores) for kind, (names, scores) in answers.items()}
    if len(answers) == 2:
        lanes["actions"] = actions(spans, answers, args.prior)
    rows = [["start", "stop", *(x for lane in lanes for x in (lane[:-1], "score"))]]
    for (start, stop), *bars in zip(spans, *lanes.values()):
        cells = [x for _, _, what, score in bars for x in (what, f"{score:.4f}")]
        rows.append([f"{start:.2f}", f"{stop:.2f}", *cells])
    output = Path(args.output)
    write_csv(output / "segments.csv", rows)
    chart = segment_chart(output / "timeline.png", video, lanes)
    logger.info("Results: %s, %s", output / "segments.csv", chart)


def best(spans: list[tuple], names: list[str], scores: np.ndarray) -> list[Bar]:
    """Give the most probable class of each segment."""
    top = scores.argmax(axis=1)
    return [(*span, names[c], float(row[c])) for span, c, row in zip(spans, top.tolist(), scores)]


def actions(
    spans: list[tuple], answers: dict[str, tuple[list[str], np.ndarray]], labels: str | None
) -> list[Bar]:
    """Give the best pair of verb and noun; with labels by LFB's prior, see `evaluation/epic55`."""
    (verbs, of_verbs), (nouns, of_nouns) = answers["verbs"], answers["nouns"]
    prior: np.ndarray | float = 1.0
    if labels:
        training, _ = split_segments(read_epic_segments(labels))
        prior = action_prior(training.verbs, training.nouns, len(verbs), len(nouns))
    bars = []
    for span, v, n in zip(spans, of_verbs, of_nouns):
        pairs = v[:, None] * n * prior
        verb, noun = np.unravel_index(pairs.argmax(), pairs.shape)
        score = float(pairs[verb, noun] / pairs.sum()) if labels else float(pairs[verb, noun])
        bars.append((*span, f"{verbs[verb]} {nouns[noun]}", score))
    return bars
