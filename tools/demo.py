#!/usr/bin/env python3
"""Find out who does what in any video, and draw it."""

from alphaaction_d2.apps.command_line import start
from alphaaction_d2.apps.demo import main, parse_args

if __name__ == "__main__":
    start(parse_args, main)
