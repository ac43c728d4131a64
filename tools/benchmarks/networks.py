"""What a clip costs in other libraries' networks: `python tools/benchmark.py networks`.

Each is built at random and sees one clip of its own length, a square of its own short side. The
time is the processor time of all threads, which other programs hardly change, of the fastest pass
in testing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import torch
from detectron2.modeling import build_backbone
from tabulate import tabulate

from alphaaction_d2 import setup_cfg
from alphaaction_d2.apps.command_line import tool_parser
from alphaaction_d2.model_zoo.networks import NETWORKS


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.prog += " networks"
    parser.add_argument("--names", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--passes", type=int, default=2, help="default: %(default)s")
    parser.add_argument("opts", nargs="*", help="KEY VALUE pairs of the configurations, after --")
    return parser.parse_args(argv)


def row(name: str, passes: int, opts: Sequence[str]) -> list[object]:
    """The network's line of the table."""
    cfg = setup_cfg("Base-MapBackbone", ["MODEL.VIDEO_BACKBONE.NAME", name, *opts])
    backbone = build_backbone(cfg).eval()
    side, multiple = cfg.INPUT.MIN_SIZE_TEST, backbone.size_divisibility
    padded = -(-side // multiple) * multiple
    clip = torch.rand(1, 3, cfg.INPUT.NUM_FRAMES, padded, padded)
    seconds = []
    with torch.inference_mode():
        for _ in range(passes):
            start = time.process_time()
            (found,) = backbone(clip).values()
            seconds.append(time.process_time() - start)
    parameters = sum(x.numel() for x in backbone.parameters())
    parameters += sum(x.numel() for key, x in backbone.named_buffers() if "running" not in key)
    return [
        name,
        f"{cfg.INPUT.NUM_FRAMES} x {padded} x {padded}",
        " x ".join(map(str, found.shape[1:])),
        backbone.output_shape()["map"].stride,
        f"{parameters / 1e6:.1f} M",
        f"{min(seconds):.1f}",
    ]


def main(argv: Sequence[str]) -> int:
    args = parse_args(argv)
    rows = []
    for name in args.names:
        rows.append(row(name, args.passes, args.opts))
        print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
    headers = ["network", "clip", "map (C, t, h, w)", "stride", "parameters", "CPU s a clip"]
    print(tabulate(rows, headers, disable_numparse=True, tablefmt="github"))
    return 0
