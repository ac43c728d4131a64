"""detectron2's model zoo in a Python without pkg_resources."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "pkg_resources":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from alphaaction_d2.modeling.detector import ZOO_EXAMPLE, find_config
path, weights = find_config(ZOO_EXAMPLE)
assert "pkg_resources" not in sys.modules
print(path, weights)
"""


def test_the_zoo_is_found_without_pkg_resources():
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    path, weights = done.stdout.split()
    assert Path(path).is_file() and path.endswith(".yaml")
    assert weights.startswith("https://") and weights.endswith(".pkl")
