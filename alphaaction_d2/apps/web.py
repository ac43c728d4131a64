"""Who does what in a film, in a browser: upload it, wait, look.

    alphaaction web
    alphaaction web --videos my_films --config-file configs/AVA/aia_dense_R50_4x16.yaml \\
        --weights model.pth

It does what `alphaaction demo` does, for one film after the other; who comes later waits. Only this
machine reaches the page, unless --host says otherwise; there are no accounts. What was uploaded and
found is removed when a page is closed, and at the end. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
from pathlib import Path

from .command_line import tool_parser
from .console import setup_console
from .video_arguments import add_model_and_boxes, model_cfg


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument(
        "--videos", nargs="+", default=[], metavar="DIR", help="films, or folders of them, to pick"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    parser.add_argument("--port", type=int, default=7860, help="0: any that is free (7860)")
    parser.add_argument("--max-mb", type=int, default=1000, help="of an upload (1000)")
    parser.add_argument("--max-minutes", type=float, default=30, help="of a film (30)")
    parser.add_argument("--min-score", type=float, help="lowest that is shown, as in the demo")
    add_model_and_boxes(parser)
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    setup_console()
    model_cfg(args)  # mistakes are told now
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else its files would stay
    with tempfile.TemporaryDirectory(prefix="alphaaction_web_") as folder:
        # Both are read when gradio is imported. It would tell its makers.
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder, "uploads"))
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        try:
            from .web_page import serve
        except ModuleNotFoundError as error:
            raise ValueError(f"{error}: pip install 'alphaaction_d2[web]'") from error
        serve(args, Path(folder, "results"))
