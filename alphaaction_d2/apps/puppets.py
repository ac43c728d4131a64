"""Write the Puppets data set: small rendered videos with AVA-style tables, ready to train on.

Where the configurations look for it:

    alphaaction puppets --output datasets/puppets
"""

from __future__ import annotations

import argparse
from dataclasses import fields

from ..data.datasets.puppets.generate import generate_puppets
from ..data.datasets.puppets.scripts import PuppetParams
from .command_line import tool_parser
from .console import setup_console

PARAMETERS = {
    "num_train": "training videos",
    "num_val": "validation videos",
    "seed": "another seed, other videos",
    "seconds": "length of a video",
    "width": "pixels",
    "height": "pixels; 384x256 shows the same, larger",
    "fps": "frames per second",
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument("--output", default="datasets/puppets", help="folder of the data set")
    for field in fields(PuppetParams):
        option = f"--{field.name.replace('_', '-')}"
        parser.add_argument(option, type=int, default=field.default, help=PARAMETERS[field.name])
    parser.add_argument("--num-workers", type=int, default=2, help="processes that render")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    setup_console()
    parameters = {name: getattr(args, name) for name in PARAMETERS}
    generate_puppets(args.output, num_workers=args.num_workers, **parameters)
