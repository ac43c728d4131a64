"""What asynchronous memory costs: parameters and FLOPs of AIA's Table 1e, measured on our networks.

    projects/AIA/cost_table.py
    projects/AIA/cost_table.py --persons 15 --json cost_table.json

One clip in testing: the picture of the paper (256 x 340), `--persons` persons, five objects, a full
memory. A network without asynchronous update (AMU) has a second one beside it, the trained baseline
that fills the memory: its parameters and its pass over the clip count, too. FLOPs are fvcore's, a
multiplication with its addition being one.

The last column is a calculation: what a model costs when each person has a copy of every set and
all keys and values are computed, as the released code does it.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone, build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.analysis import FlopCountAnalysis
from memory_window import SECOND, build_clip, full_slot, picture_size
from tabulate import tabulate
from torch import nn

from alphaaction_d2 import setup_cfg
from alphaaction_d2.apps.command_line import run_tool
from alphaaction_d2.engine.inference import build_memory_pool

ROOT = Path(__file__).resolve().parents[2]
BASELINE = "configs/AVA/slowfast_R50_4x16.yaml"


@dataclass(frozen=True)
class PaperRow:
    """A row of Table 1e: configuration, ratios in the paper, and whether a second network runs."""

    config: str
    title: str
    parameters: float
    flops: float
    frozen: bool = False


ROWS = (
    PaperRow(BASELINE, "baseline", 1.0, 1.0),
    PaperRow("projects/AIA/configs/1e_lfb_without_amu.yaml", "LFB (w/o AMU)", 2.18, 2.12, True),
    PaperRow("projects/AIA/configs/1e_lfb_with_amu.yaml", "LFB (w/ AMU)", 1.18, 1.12),
    PaperRow("projects/AIA/configs/1e_ia_without_amu.yaml", "IA (w/o AMU)", 2.35, 2.15, True),
    PaperRow("projects/AIA/configs/1e_ia_with_amu.yaml", "IA (w/ AMU)", 1.35, 1.15),
)


@dataclass(frozen=True)
class Cost:
    """Numbers of parameters, frozen ones too, and of floating-point operations."""

    parameters: int
    flops: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.parameters + other.parameters, self.flops + other.flops)


@dataclass(frozen=True)
class Measured:
    """A row of the table: costs as configured, and as released."""

    title: str
    configured: Cost
    as_released: Cost


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--persons", type=int, default=5, help="in the clip; default: %(default)s")
    parser.add_argument("--short-side", type=int, default=256, help="of the picture, 3:4")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers")
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="configuration overrides KEY VALUE ..."
    )
    args = parser.parse_args(arguments)
    if args.persons < 1 or args.short_side < 32:
        parser.error("--persons must be 1 or more and --short-side 32 or more")
    return args


def measure_cost(cfg: CfgNode, persons: int) -> Cost:
    """Of one network and one clip, the memory being full."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(cfg).eval()
        clip = clip_with(build_clip(cfg), persons)
        pool = build_memory_pool(cfg, model)
        if pool is not None:
            before, after = cfg.MODEL.MEMORY.WINDOW
            for slot in range(SECOND - before, SECOND + after + 1):
                pool.update([full_slot(cfg, slot, model.roi_heads.num_channels)], loss=1.0)
            (clip,) = pool.attach([clip], training=False)
    flops = FlopCountAnalysis(model, [clip])
    flops.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with warnings.catch_warnings():  # of the tracer about itself
        warnings.simplefilter("ignore")
        return Cost(count_parameters(model), int(flops.total()))


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def clip_with(clip: dict, persons: int) -> dict:
    """The clip with so many persons instead of its own."""
    size = height, width = clip["proposals"].image_size
    corners = torch.rand(persons, 2, 2).sort(dim=1).values * torch.tensor([width, height])
    proposals = Instances(size, proposal_boxes=Boxes(corners.flatten(1)))
    proposals.objectness_logits = torch.ones(persons)
    proposals.person_ids = torch.arange(persons)
    return {**clip, "proposals": proposals}


def released_flops(cfg: CfgNode, channels: int, persons: int) -> int:
    """Of the interaction alone, as the released code computes it.

    Every person has the whole sets to itself, padded to their full size; objects and memory are
    projected after they have been copied; keys and values of all are computed.
    """
    node, memory = cfg.MODEL.INTERACTION, cfg.MODEL.MEMORY
    dim = node.DIM
    slots = {
        "P": node.MAX_PERSONS,
        "O": node.MAX_OBJECTS,
        "M": (sum(memory.WINDOW) + 1) * memory.MAX_PERSONS,
    }
    per_person = channels * dim  # the query's projection
    for kind in sorted(set(node.BLOCKS)):
        per_person += channels * dim * (1 if kind == "P" else slots[kind])
    for i, kind in enumerate(node.BLOCKS):
        out = channels if i == len(node.BLOCKS) - 1 else dim
        per_person += dim * dim + 2 * slots[kind] * dim * dim + 2 * slots[kind] * dim + dim * out
        per_person += dim * out if out != dim else 0  # the shortcut
    return persons * per_person


def measure(args: argparse.Namespace) -> Iterator[Measured]:
    """The rows of the table, in the paper's order."""
    costs: dict[tuple, Cost] = {}

    def cost(cfg: CfgNode) -> Cost:
        node = cfg.MODEL.INTERACTION
        key = (node.NAME, tuple(node.BLOCKS), node.DIM, node.TEMPORAL_POSITION)
        key = key if node.NAME else ()
        if key not in costs:
            costs[key] = measure_cost(cfg, args.persons)
        return costs[key]

    baseline = cost(load(args, BASELINE))
    for row in ROWS:
        cfg = load(args, row.config)
        configured = as_released = cost(cfg)
        if row.config != BASELINE:
            channels = build_channels(cfg)
            flops = baseline.flops + released_flops(cfg, channels, args.persons)
            as_released = replace(configured, flops=flops)
        more = baseline if row.frozen else Cost(0, 0)
        yield Measured(row.title, configured + more, as_released + more)


def load(args: argparse.Namespace, config: str) -> CfgNode:
    cfg = setup_cfg(str(ROOT / config), ["MODEL.DEVICE", "cpu", *args.opts])
    cfg.INPUT.MIN_SIZE_TRAIN = (args.short_side,)
    return cfg


def build_channels(cfg: CfgNode) -> int:
    """Width of the person features."""
    return sum(spec.channels for spec in build_backbone(cfg).output_shape().values())


def table(rows: Sequence[Measured]) -> str:
    """Ratios to the baseline beside the paper's; those off by more than 5 % have a star."""
    base = rows[0].configured
    lines = []
    for paper, row in zip(ROWS, rows):
        ratios = [
            (row.configured.parameters / base.parameters, paper.parameters),
            (row.configured.flops / base.flops, paper.flops),
            (row.as_released.flops / base.flops, paper.flops),
        ]
        starred = [f"{x:.2f}x{'*' if abs(x / y - 1) > 0.05 else ''}" for x, y in ratios]
        lines.append(
            [
                *(row.title, f"{row.configured.parameters / 1e6:.1f}", starred[0]),
                *(f"{paper.parameters:.2f}x", f"{row.configured.flops / 1e9:.2f}"),
                *(*starred[1:], f"{paper.flops:.2f}x"),
            ]
        )
    headers = [
        *("model", "params (M)", "ratio", "paper"),
        *("GFLOPs", "ratio", "as released", "paper"),
    ]
    aligned = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(lines, headers, tablefmt="github", colalign=aligned, disable_numparse=True)


def main(args: argparse.Namespace) -> None:
    rows = list(measure(args))
    height, width = picture_size(load(args, BASELINE))
    print(table(rows))
    print(
        f"\nOne clip of {width}x{height} with {args.persons} persons and a full memory. "
        "* more than 5 % from the paper's ratio."
    )
    if args.json:
        content = {"persons": args.persons, "picture": f"{width}x{height}"}
        content["rows"] = [asdict(row) for row in rows]
        args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_tool(lambda: main(parse_arguments())))
