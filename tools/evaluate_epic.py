#!/usr/bin/env python
"""Score files of results on EPIC-Kitchens-55."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alphaaction import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["evaluate", "epic-kitchens-55", *sys.argv[1:]]))
