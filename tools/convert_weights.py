#!/usr/bin/env python3
"""Convert published weights to a checkpoint of this project.

    tools/convert_weights.py --from pyslowfast SLOWFAST_8x8_R50.pkl slowfast_r50_8x8.pth

MODEL.WEIGHTS takes the published files as they are, too; what this tool adds is a list of what
lands where, the configuration that fits, and a file that loads without unpickling.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import torch

from alphaaction_d2.apps.command_line import run_tool
from alphaaction_d2.checkpoint.checkpointer import read_checkpoint
from alphaaction_d2.checkpoint.sources import PIXELS, SOURCES, convert, describe, part_of, recognise
from alphaaction_d2.formats.writing import write_atomically


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--from",
        dest="source",
        choices=SOURCES,
        help="who published the weights (default: recognised by their names)",
    )
    parser.add_argument(
        "--trust-pickle",
        action="store_true",
        help="also read a file that holds more than tensors: reading it may run any code",
    )
    parser.add_argument("input", metavar="IN", help="the published file")
    parser.add_argument("output", metavar="OUT", help="the checkpoint to write (.pth)")
    return parser.parse_args(arguments)


def convert_file(
    path: str, output: str, source: str | None = None, trust_pickle: bool = False
) -> list[str]:
    """Convert one file; returns the report, line by line."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if Path(output).exists() and Path(output).samefile(path):
        raise ValueError(f"{output}: is the input; name another file")
    weights = read_checkpoint(path, trust_pickle=trust_pickle)["model"]
    recognised = recognise(weights)
    if recognised is None or source not in (None, recognised):
        known = f"those of {recognised}" if recognised else "of no known source"
        wanted = source or " or ".join(SOURCES)
        example = next(iter(weights))
        raise ValueError(f"{path}: names such as {example} are {known}, not of {wanted}")
    converted = convert(weights, recognised)
    data = {"model": converted.weights}
    write_atomically(output, lambda file: torch.save(data, file))
    return report(recognised, converted.weights, converted.left_over, output)


def report(
    source: str, weights: dict[str, torch.Tensor], left_over: dict[str, str], output: str
) -> list[str]:
    """What landed where, what did not, and which configuration it fits."""
    lines = [f"{output}: {len(weights)} tensors from {source}"]
    counts = Counter(map(part_of, weights))
    lines += [f"  {part}: {count}" for part, count in sorted(counts.items())]
    lines += [f"  left over, {reason}: {name}" for name, reason in sorted(left_over.items())]
    lines.append("It fits configurations with")
    lines += [f"  {key}: {value!r}" for key, value in describe(weights).items()]
    mean, std = PIXELS[source]
    lines.append(f"  MODEL.PIXEL_MEAN {list(mean)} and MODEL.PIXEL_STD {list(std)}")
    lines.append("and the TAU, ALPHA and strides that its owner names; weights do not tell them.")
    return lines


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    for line in convert_file(args.input, args.output, args.source, args.trust_pickle):
        print(line)


if __name__ == "__main__":
    sys.exit(run_tool(main))
