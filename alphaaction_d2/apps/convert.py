"""Convert published weights to a checkpoint of this project, or results to a COCO file.

    alphaaction convert --from pyslowfast SLOWFAST_8x8_R50.pkl slowfast_r50_8x8.pth
    alphaaction convert --to coco film_actions/results.json actions.json

MODEL.WEIGHTS takes the published files as they are, too; what this adds is a list of what lands
where, the configuration that fits, and a file that loads without unpickling.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from ..checkpoint.checkpointer import CLASS_GROUPS, CLASS_NAMES
from ..checkpoint.describe import describe, part_of
from ..checkpoint.reading import read_checkpoint
from ..checkpoint.sources import SOURCES, Converted, convert, recognise
from ..formats.results import coco_content, read_results_json
from ..formats.writing import write_atomically
from .command_line import tool_parser


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
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
    parser.add_argument(
        "--to", choices=["coco"], help="IN is a results.json, or a folder with any number of them"
    )
    parser.add_argument("--min-score", type=float, default=0, help="lowest that goes --to (0)")
    parser.add_argument("input", metavar="IN", help="the published file")
    parser.add_argument("output", metavar="OUT", help="the checkpoint to write (.pth)")
    return parser.parse_args(arguments)


def main(args: argparse.Namespace) -> None:
    if args.to:
        folder = Path(args.input)
        files = sorted(folder.rglob("results.json")) if folder.is_dir() else [folder]
        if not files:
            raise ValueError(f"{folder}: no results.json in it; `alphaaction demo` writes them")
        content = coco_content([read_results_json(x) for x in files], args.min_score)
        write_atomically(args.output, json.dumps(content, ensure_ascii=False))
        print(f"{args.output}: {', '.join(f'{len(x)} {name}' for name, x in content.items())}")
        return
    if not Path(args.input).is_file():
        raise FileNotFoundError(f"{args.input}: no such file")
    if Path(args.output).exists() and Path(args.output).samefile(args.input):
        raise ValueError(f"{args.output}: is the input; name another file")
    checkpoint = read_checkpoint(args.input, trust_pickle=args.trust_pickle)
    weights = checkpoint["model"]
    source = recognise(weights)
    if source is None or args.source not in (None, source):
        known = f"those of {source}" if source else "of no known source"
        wanted = args.source or " or ".join(SOURCES)
        example = next(iter(weights))
        raise ValueError(f"{args.input}: names such as {example} are {known}, not of {wanted}")
    converted = convert(weights, source)
    content = {"model": converted.weights}
    content |= {key: checkpoint[key] for key in (CLASS_NAMES, CLASS_GROUPS) if key in checkpoint}
    write_atomically(args.output, lambda file: torch.save(content, file))
    print("\n".join(report(source, converted, args.output)))


def report(source: str, converted: Converted, output: str) -> list[str]:
    """What landed where, what did not, and which configuration it fits."""
    weights = converted.weights
    mean, std = SOURCES[source].pixel_mean, SOURCES[source].pixel_std
    parts = sorted(Counter(map(part_of, weights)).items())
    left_over = sorted(converted.left_over.items())
    return [
        f"{output}: {len(weights)} tensors from {source}",
        *(f"  {part}: {count}" for part, count in parts),
        *(f"  left over, {reason}: {name}" for name, reason in left_over),
        "It fits configurations with",
        *(f"  {key}: {value!r}" for key, value in describe(weights).items()),
        f"  MODEL.PIXEL_MEAN {list(mean)} and MODEL.PIXEL_STD {list(std)}",
        "and the TAU, ALPHA and strides that its owner names; weights do not tell them.",
    ]
