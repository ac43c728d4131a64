"""A training step as the memory window grows, measured by projects/AIA/memory_window.py."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Row

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "projects" / "AIA" / "memory_window.py"


def rows(quick: bool) -> Iterator[Row]:
    """Time and memory of the longest window beside those of the shortest (AIA, Fig. 5)."""
    options = ["--lengths", "0", "30", "60", "--repeats", "5"]
    if quick:
        small = str(ROOT / "configs" / "Small" / "aia.yaml")
        options = ["--lengths", "0", "4", "--repeats", "1", "--short-side", "48"]
        options += ["--config-file", small]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, str(SCRIPT), *options, "--output", folder],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        measured = json.loads(Path(folder, "memory_window.json").read_text())["methods"]["memory"]
    for what, key, unit, scale in (("time", "seconds", "s", 1), ("memory", "bytes", "GB", 1e-9)):
        values = [row[key] * scale for row in measured]
        longest = measured[-1]["length"]
        yield Row(
            f"training step, {what}: worst window up to {longest} s",
            max(values),
            unit,
            yardstick=values[0],
            yardstick_name="without a window",
            limit=1.1,
            note="SlowFast R50 4x16, dense IA, one clip of 256x340, float32",
        )
