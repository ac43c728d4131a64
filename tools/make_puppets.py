#!/usr/bin/env python3
"""Write the Puppets data set: small rendered videos with AVA-style tables, ready to train on."""

from alphaaction_d2.apps.command_line import start
from alphaaction_d2.apps.puppets import main, parse_args

if __name__ == "__main__":
    start(parse_args, main)
