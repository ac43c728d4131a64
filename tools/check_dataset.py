#!/usr/bin/env python3
"""Read a data set and say what is wrong with it, what is unusual, and what training will see."""

import sys

from alphaaction_d2.apps.check import main, parse_args
from alphaaction_d2.apps.command_line import run_tool

if __name__ == "__main__":
    arguments = parse_args()
    sys.exit(run_tool(lambda: main(arguments)))
