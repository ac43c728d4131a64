"""Write a trained model as graphs that run without torch.

    alphaaction export AVA/aia_dense_R50_4x16 --weights model.pth --output model
    alphaaction export config.yaml --weights model.pth --output model --calibrate film.mp4

The folder has two ONNX graphs (clip and boxes to features; features and memory to scores), the same
as torch.export's files (.pt2), and model.json, which says what they are to be fed with.
`alphaaction_d2.deploy` runs it with onnxruntime or OpenVINO, and `alphaaction demo --weights model`
(docs/deploy.md).
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from detectron2.modeling import build_model

from ..checkpoint.checkpointer import load_for_inference
from ..engine.classes import with_classes
from ..engine.export import export_model
from ..engine.predictor import class_names
from ..engine.quantise import quantise
from .command_line import tool_parser
from .console import setup_console
from .video_arguments import add_model, model_cfg

logger = logging.getLogger(__name__)


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument("config_file", metavar="CONFIG", help="of the model: a file or a name")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the graphs")
    parser.add_argument(
        "--calibrate",
        nargs="+",
        default=[],
        metavar="VIDEO",
        help="films like those that it will see: also write the features' graph in 8 bits",
    )
    add_model(parser)
    return parser.parse_args(arguments)


def main(args: argparse.Namespace) -> None:
    setup_console()
    cfg = model_cfg(args)
    cfg = with_classes(cfg, cfg.MODEL.WEIGHTS).clone()
    cfg.defrost()
    # A graph has the layout and precision of whoever runs it.
    cfg.MODEL.DEVICE, cfg.MODEL.COMPILE, cfg.MODEL.CHANNELS_LAST = "cpu", (), False
    cfg.MODEL.PERSON_DETECTOR.CONFIG = ""
    model = build_model(cfg).eval()
    load_for_inference(model, cfg.MODEL.WEIGHTS)
    folder = Path(args.output)
    export_model(cfg, model, class_names(cfg, model, args.label_map), folder)
    if args.calibrate:
        quantise(folder, args.calibrate)
    sizes = (f"{x.name} ({x.stat().st_size / 1e6:.1f} MB)" for x in sorted(folder.iterdir()))
    logger.info("%s: %s", folder, ", ".join(sizes))
