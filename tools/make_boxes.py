#!/usr/bin/env python3
"""Find boxes of persons and objects in any videos with any detector of detectron2."""

from alphaaction_d2.apps.boxes import main, parse_args
from alphaaction_d2.apps.command_line import start

if __name__ == "__main__":
    start(parse_args, main)
