#!/usr/bin/env python3
"""Check this project against a folder of reference numbers of the released AIA model.

    tools/check_golden.py DIR

Every case runs through the modules that train and test: see tests/golden/.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from golden.check import main  # noqa: E402

from alphaaction_d2.apps.command_line import run_tool  # noqa: E402

if __name__ == "__main__":
    sys.exit(run_tool(main))
