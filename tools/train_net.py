#!/usr/bin/env python3
"""Train and evaluate action models with detectron2's command line."""

from alphaaction_d2.apps.command_line import start
from alphaaction_d2.apps.train import main, parse_args

if __name__ == "__main__":
    start(parse_args, main)
