#!/usr/bin/env python3
"""Find out who does what in any video, and draw it."""

import sys

from alphaaction_d2.apps.command_line import run_tool
from alphaaction_d2.apps.demo import main, parse_args

if __name__ == "__main__":
    arguments = parse_args()
    sys.exit(run_tool(lambda: main(arguments)))
