#!/usr/bin/env python3
"""Train and evaluate action models with detectron2's command line."""

import sys

from alphaaction_d2.apps.command_line import run_tool
from alphaaction_d2.apps.train import argument_parser, run

if __name__ == "__main__":
    arguments = argument_parser().parse_args()
    sys.exit(run_tool(lambda: run(arguments)))
