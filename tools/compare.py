#!/usr/bin/env python3
"""Train methods on the Puppets data set and compare them."""

from alphaaction_d2.apps.command_line import start
from alphaaction_d2.apps.compare import main, parse_args

if __name__ == "__main__":
    start(parse_args, main)
