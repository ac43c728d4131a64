#!/usr/bin/env python3
"""Convert published weights to a checkpoint of this project."""

from alphaaction_d2.apps.command_line import start
from alphaaction_d2.apps.convert import main, parse_args

if __name__ == "__main__":
    start(parse_args, main)
