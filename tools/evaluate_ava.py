#!/usr/bin/env python
"""Score files of results on AVA."""

import sys

from without_torch import import_without_torch

if __name__ == "__main__":
    import_without_torch()
    from alphaaction_d2.apps.evaluate import score_ava

    sys.exit(score_ava())
