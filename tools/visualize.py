#!/usr/bin/env python3
"""Draw what a model looks at, or compare two evaluations class by class."""

from alphaaction_d2.apps.command_line import start
from alphaaction_d2.apps.visualize import main, parse_args

if __name__ == "__main__":
    start(parse_args, main)
