#!/usr/bin/env python3
"""Train and evaluate action models with detectron2's command line."""

from alphaaction_d2.apps.command_line import start
from alphaaction_d2.apps.train import argument_parser, run

if __name__ == "__main__":
    start(argument_parser().parse_args, run)
