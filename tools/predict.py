#!/usr/bin/env python3
"""Find out who does what in many videos, as tables."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alphaaction import run_app  # noqa: E402

if __name__ == "__main__":
    sys.exit(run_app("predict"))
