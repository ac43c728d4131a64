#!/usr/bin/env python3
"""Draw what a model looks at, or compare two evaluations class by class."""

import sys

from alphaaction_d2.apps.command_line import run_tool
from alphaaction_d2.apps.visualize import main, parse_args

if __name__ == "__main__":
    arguments = parse_args()
    sys.exit(run_tool(lambda: main(arguments)))
