#!/usr/bin/env python3
"""Generate videos, train, evaluate and show the result."""

from alphaaction_d2.apps.command_line import start
from alphaaction_d2.apps.make_demo import main, parse_args

if __name__ == "__main__":
    start(parse_args, main)
