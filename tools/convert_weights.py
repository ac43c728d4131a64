#!/usr/bin/env python3
"""Convert published weights to a checkpoint of this project."""

import sys

from alphaaction_d2.apps.command_line import run_tool
from alphaaction_d2.apps.convert import main, parse_args

if __name__ == "__main__":
    arguments = parse_args()
    sys.exit(run_tool(lambda: main(arguments)))
