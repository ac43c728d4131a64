#!/usr/bin/env python3
"""Find boxes of persons and objects in any videos with any detector of detectron2."""

import sys

from alphaaction_d2.apps.boxes import main, parse_args
from alphaaction_d2.apps.command_line import run_tool

if __name__ == "__main__":
    arguments = parse_args()
    sys.exit(run_tool(lambda: main(arguments)))
