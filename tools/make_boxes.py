#!/usr/bin/env python3
"""Find boxes of persons and objects in any videos with any detector of detectron2."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alphaaction import run_app  # noqa: E402

if __name__ == "__main__":
    sys.exit(run_app("boxes"))
