#!/usr/bin/env python3
"""Write the Puppets data set: small rendered videos with AVA-style tables, ready to train on."""

import sys

from alphaaction_d2.apps.puppets import main

if __name__ == "__main__":
    sys.exit(main())
