#!/usr/bin/env python
"""Writes the Puppets data set: small rendered videos with AVA-style tables, ready to train on.

Example:
    python tools/make_puppets.py --output datasets/puppets
"""

from __future__ import annotations

import argparse
import logging
import sys

from alphaaction_d2.data.datasets.puppets.generate import PuppetParams, generate_puppets


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = PuppetParams()
    parser.add_argument("--output", default="datasets/puppets", help="folder of the data set")
    parser.add_argument("--num-train", type=int, default=default.num_train, help="training videos")
    parser.add_argument("--num-val", type=int, default=default.num_val, help="validation videos")
    parser.add_argument("--seed", type=int, default=default.seed, help="another seed, other videos")
    parser.add_argument("--seconds", type=int, default=default.seconds, help="length of a video")
    parser.add_argument("--width", type=int, default=default.width, help="pixels")
    parser.add_argument(
        "--height", type=int, default=default.height, help="pixels; 384x256 shows the same, larger"
    )
    parser.add_argument("--fps", type=int, default=default.fps, help="frames per second")
    parser.add_argument("--num-workers", type=int, default=2, help="processes that render")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs the tool and returns its exit code."""
    args = parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        generate_puppets(
            args.output,
            num_train=args.num_train,
            num_val=args.num_val,
            seed=args.seed,
            seconds=args.seconds,
            width=args.width,
            height=args.height,
            fps=args.fps,
            num_workers=args.num_workers,
        )
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
