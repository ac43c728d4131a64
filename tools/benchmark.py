#!/usr/bin/env python3
"""Measure speed and memory beside yardsticks taken in the same run.

    python tools/benchmark.py
    python tools/benchmark.py --rows interaction backbone --json benchmark.json
    python tools/benchmark.py profile --help    where the time of a training step goes
    python tools/benchmark.py gpu --help        what a GPU does, in eight minutes
    python tools/benchmark.py networks --help   what a clip costs in other libraries' networks

Every area (a module in tools/benchmarks) has several rows. The exit code is 0 when all limits are
kept, 1 when one is missed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.measure import Row, machine_facts
from tabulate import tabulate

from alphaaction_d2.apps.command_line import run_tool, tool_parser

COMMANDS = ("profile", "gpu", "networks")  # modules of tools/benchmarks, commands of their own
NOT_AREAS = {"__init__", "measure", *COMMANDS}


def area_names() -> list[str]:
    """The modules of tools/benchmarks that have rows."""
    folder = Path(__file__).resolve().parent / "benchmarks"
    return sorted({path.stem for path in folder.glob("*.py")} - NOT_AREAS)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="NAME",
        help=f"areas to measure; default all: {', '.join(area_names())}",
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes and no limits: does the tool itself work?"
    )
    parser.add_argument("--json", metavar="FILE", help="also write all rows, with machine facts")
    return parser.parse_args(argv)


def measure(areas: Sequence[str], quick: bool) -> list[tuple[str, Row]]:
    """Every row with its area. `quick` takes the limits off: tiny sizes say nothing about them."""
    measured = []
    for area in areas:
        for row in importlib.import_module(f"benchmarks.{area}").rows(quick):
            measured.append((area, replace(row, limit=None) if quick else row))
            print(f"{area}: {row.name}: {format_figure(row.value, row.unit)}", file=sys.stderr)
    return measured


def format_figure(value: float, unit: str) -> str:
    """Four digits and the unit."""
    return f"{value:.4g} {unit}".strip()


def table(rows: Sequence[Row]) -> str:
    """All rows, aligned."""
    verdicts = {None: "", True: "ok", False: "MISSED"}
    lines = []
    for row in rows:
        yardstick = limit = ""
        if row.yardstick is not None:
            yardstick = f"{format_figure(row.yardstick, row.unit)} {row.yardstick_name}".strip()
        if row.limit is not None:
            unit = row.unit if row.ratio is None else ""
            limit = (">= " if row.at_least else "<= ") + format_figure(row.limit, unit)
        name = row.name + (f" ({row.note})" if row.note else "")
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        value = format_figure(row.value, row.unit)
        lines.append([name, value, yardstick, ratio, limit, verdicts[row.ok]])
    headers = ["row", "measured", "yardstick", "ratio", "limit", ""]
    return tabulate(lines, headers, disable_numparse=True)


def main(args: argparse.Namespace) -> int:
    known = area_names()
    areas = list(dict.fromkeys(args.rows or known))
    unknown = [area for area in areas if area not in known]
    if unknown:
        raise ValueError(f"--rows {' '.join(unknown)}: not an area; known: {', '.join(known)}")
    if args.json:  # a folder that is not there should not be found out after all the measuring
        Path(args.json).touch()
    measured = measure(areas, args.quick)
    rows = [row for _, row in measured]
    print(table(rows))
    if args.json:
        fields = [{"area": area, **asdict(r), "ratio": r.ratio, "ok": r.ok} for area, r in measured]
        content = {"machine": machine_facts(), "quick": args.quick, "rows": fields}
        Path(args.json).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    missed = [row.name for row in rows if row.ok is False]
    if missed:
        print(f"missed: {'; '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        command = importlib.import_module(f"benchmarks.{sys.argv[1]}")
        sys.exit(run_tool(lambda: command.main(sys.argv[2:])))
    sys.exit(run_tool(lambda: main(parse_args())))
