#!/usr/bin/env python
"""Score files of results on AVA; see alphaaction_d2/apps/evaluate.py."""

import sys

from without_torch import import_without_torch

if __name__ == "__main__":
    import_without_torch()
    from alphaaction_d2.apps.evaluate import AVA

    sys.exit(AVA.run())
