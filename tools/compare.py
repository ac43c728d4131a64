#!/usr/bin/env python3
"""Train methods on the Puppets data set and compare them."""

import sys

from alphaaction_d2.apps.command_line import run_tool
from alphaaction_d2.apps.compare import main, parse_args

if __name__ == "__main__":
    arguments = parse_args()
    sys.exit(run_tool(lambda: main(arguments)))
