#!/usr/bin/env python3
"""Read a data set and say what is wrong with it, what is unusual, and what training will see."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alphaaction import run_app  # noqa: E402

if __name__ == "__main__":
    sys.exit(run_app("check"))
