#!/usr/bin/env python3
"""Train and evaluate action models; see `alphaaction_d2/apps/train.py` and `--help`."""

from __future__ import annotations

import sys

from alphaaction_d2.apps.command_line import run_tool
from alphaaction_d2.apps.train import argument_parser, run

if __name__ == "__main__":
    sys.exit(run_tool(lambda: run(argument_parser().parse_args())))
