#!/usr/bin/env python
"""Score files of results on UCF101-24."""

import sys

from without_torch import import_without_torch

if __name__ == "__main__":
    import_without_torch()
    from alphaaction_d2.apps.evaluate import score_ucf101_24

    sys.exit(score_ucf101_24())
