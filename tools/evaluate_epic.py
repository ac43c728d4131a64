#!/usr/bin/env python
"""Score files of results on EPIC-Kitchens-55."""

import sys

from without_torch import import_without_torch

if __name__ == "__main__":
    import_without_torch()
    from alphaaction_d2.apps.evaluate import score_epic55

    sys.exit(score_epic55())
