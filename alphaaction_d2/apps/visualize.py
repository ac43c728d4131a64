"""Pictures of what a model looks at, and of what one model does better than another.

    alphaaction visualize attention --config-file configs/AVA/igmn_R50_4x16.yaml \\
        --weights model.pth --input film.mp4 --boxes boxes.csv --at 12 15 --output attention
    alphaaction visualize compare hgnn/ava_results.json igmn/ava_results.json \\
        --names HGNN IGMN --output compare.png

`attention`: per person, the attention to persons and objects of the keyframe (AIA, Fig. 4), the
maps of the dual attention module over it (IGMN, Fig. 5), and the attention to the memory over
time. Boxes as for `alphaaction demo`.
`compare`: average precision per class of two evaluations of the same data (IGMN, Fig. 6).
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

from ..data.video import probe_video, video_name
from ..engine import AttentionPredictor
from ..engine.predictor import class_names
from ..formats.results import VideoResult, read_evaluation
from ..visualization.charts import class_gain_chart
from .attention_pictures import KeyframeChoice, write_attention_pictures
from .command_line import tool_parser
from .console import setup_console
from .video_arguments import add_model_and_boxes, box_sources, model_cfg
from .video_results import ATTENTION_KEYFRAMES, keyframe_result

logger = logging.getLogger(__name__)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("attention", help="what a model looks at in a video")
    command.add_argument(
        "--input",
        required=True,
        metavar="VIDEO",
        help="video file; folder of numbered pictures or of one-second clips (docs/own_data.md)",
    )
    command.add_argument("--output", required=True, metavar="DIR", help="folder for the pictures")
    command.add_argument(
        "--at",
        type=int,
        nargs="+",
        default=[],
        metavar="SECOND",
        help=f"keyframes; default: {ATTENTION_KEYFRAMES} with many persons and high scores",
    )
    add_model_and_boxes(command)
    command.set_defaults(run=attention)
    command = commands.add_parser("compare", help="two evaluations, class by class")
    command.add_argument("results", nargs=2, metavar="JSON", help="ava_results.json of two runs")
    command.add_argument("--names", nargs=2, metavar="NAME", help="default: their folders")
    command.add_argument("--output", required=True, metavar="PNG", help="file to write")
    command.set_defaults(run=compare)
    return parser.parse_args(argv)


def attention(args: argparse.Namespace) -> None:
    """What a model looks at."""
    cfg = model_cfg(args)
    boxes = box_sources(args, cfg)(args.input)
    info = probe_video(args.input)
    predictor = AttentionPredictor(cfg)
    if not predictor.has_attention:
        raise ValueError(
            f"{args.config_file}: MODEL.INTERACTION.NAME {cfg.MODEL.INTERACTION.NAME!r} attends to "
            "nothing; use a model of AIA, HGNN or IGMN"
        )
    names = class_names(cfg, predictor.model, args.label_map)
    wanted, keyframes, chosen = set(args.at), [], []
    choice = KeyframeChoice(ATTENTION_KEYFRAMES)
    for x in predictor(args.input, boxes):
        keyframe = keyframe_result(x, names)
        if keyframe.timestamp in wanted:
            chosen.append(keyframe)
        choice.add(keyframe)
        keyframes.append(replace(keyframe, attention=None))
        if wanted and keyframe.timestamp >= max(wanted):
            break  # the rest of the video changes nothing
    result = VideoResult(video_name(args.input), info.width, info.height, names, keyframes)
    _check_wanted(args.input, sorted(wanted), result)
    chosen = chosen if wanted else choice.chosen
    if not chosen:
        raise ValueError(f"{args.input}: nobody is in this video, as far as its boxes say")
    files = write_attention_pictures(args.input, Path(args.output), chosen, result)
    for what, path in files.items():
        logger.info("%s: %s", what, path)


def _check_wanted(video: str, wanted: list[int], result: VideoResult) -> None:
    """Raise ValueError unless somebody is there at all of these seconds."""
    occupied = [k.timestamp for k in result.keyframes if k.persons]
    missing = [second for second in wanted if second not in occupied]
    if missing:
        nearest = sorted(sorted(occupied, key=lambda t: abs(t - missing[0]))[:5])
        where = ", ".join(f"{t:g}" for t in nearest)
        raise ValueError(
            f"{video}: nobody at second {', '.join(map(str, missing))}"
            + (f"; somebody is there at {where}" if where else ", nor before")
        )


def compare(args: argparse.Namespace) -> None:
    """Two runs, class by class."""
    (before, protocol), (after, other) = map(read_evaluation, args.results)
    if protocol != other:
        raise ValueError(
            f"{args.results[0]} was measured by {protocol}, {args.results[1]} by {other}: these "
            "numbers cannot be compared"
        )
    names = args.names or [Path(path).resolve().parent.name for path in args.results]
    path = class_gain_chart(args.output, before, after, tuple(names), protocol=protocol)
    logger.info("Wrote %s", path)


def main(args: argparse.Namespace) -> None:
    setup_console()
    args.run(args)
