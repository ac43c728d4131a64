#!/usr/bin/env python
"""Score files of results on EPIC-Kitchens-55; see alphaaction_d2/apps/evaluate.py."""

import sys

from without_torch import import_without_torch

if __name__ == "__main__":
    import_without_torch()
    from alphaaction_d2.apps.evaluate import EPIC55

    sys.exit(EPIC55.run())
