"""Actions in any video: annotated video, timeline, table and report in one folder.

    alphaaction demo --config-file configs/AVA/aia_dense_R50_4x16.yaml --weights model.pth \\
        --input film.mp4 --boxes boxes.csv --output results

Boxes come from a file (rows video_id,timestamp,x1,y1,x2,y2,class,score[,person_id], see README
"Boxes"), or from a detector: `--person-detector CONFIG WEIGHTS`, any of detectron2, as for
`alphaaction boxes`. `--boxes whole-frame` takes the whole picture as one person. Several videos may
be given; one that cannot be opened is reported and the others go on.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from pathlib import Path

from ..data import VideoError
from ..data.video import one_line, probe_video, video_name
from ..engine import AttentionPredictor
from ..engine.predictor import class_names
from ..formats.names import file_name
from ..visualization import VideoSection, write_report
from .command_line import describe_error, tell_failed, tool_parser, typed_command
from .console import setup_console
from .video_arguments import add_model_and_boxes, box_sources, model_cfg
from .video_results import process_video

logger = logging.getLogger(__name__)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="VIDEO",
        help="video files; folders of numbered pictures or of one-second clips (docs/own_data.md)",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--min-score", type=float, default=0.3, help="lowest score that is shown")
    add_model_and_boxes(parser)
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> int:
    setup_console()
    cfg = model_cfg(args)
    boxes_of = box_sources(args, cfg)
    predictor = AttentionPredictor(cfg)
    names = class_names(cfg, predictor.model, args.label_map)

    output = Path(args.output)
    name, count = Counter(map(video_name, args.input)).most_common(1)[0]
    if count > 1:
        raise ValueError(f"several videos are called {one_line(name)}; rename one")
    sections: list[VideoSection] = []
    failed: list[str] = []
    for video in args.input:
        try:
            probe_video(video)  # a broken video is a broken video, whether it has boxes or not
            boxes = boxes_of(video)
            folder = output
            if len(args.input) > 1:
                folder = output / file_name(video_name(video), reserved=["report.html"])
            sections.append(
                process_video(predictor, video, boxes, folder, names, min_score=args.min_score)
            )
        except (VideoError, ValueError) as error:
            line = describe_error(error)
            line = one_line(line if one_line(Path(video).name) in line else f"{video}: {line}")
            logger.error("%s", line)
            failed.append(line)
    if sections:
        report = write_report(
            output,
            title="Actions in " + ", ".join(section.title for section in sections),
            videos=sections,
            warnings=failed,
            command=typed_command(),
            config=cfg.dump(),
            min_score=args.min_score,
        )
        logger.info("Report: %s", report)
    return tell_failed(failed, len(args.input))
