#!/usr/bin/env python3
"""Read a data set and say what is wrong with it, what is unusual, and what training will see."""

from alphaaction_d2.apps.check import main, parse_args
from alphaaction_d2.apps.command_line import start

if __name__ == "__main__":
    start(parse_args, main)
