#!/usr/bin/env python
"""Install detectron2 where nothing else is installed yet; afterwards `alphaaction setup` does it.

python tools/install_detectron2.py [--force] [--wheel-dir DIR]
"""

import runpy
from pathlib import Path

if __name__ == "__main__":
    script = Path(__file__).resolve().parents[1] / "alphaaction_d2/apps/install_detectron2.py"
    runpy.run_path(str(script), run_name="__main__")
