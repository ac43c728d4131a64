"""The loading area of tools/benchmark.py, at a tiny size: rows come out, and make sense."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_rows_of_the_loading_area(tmp_path):
    path = tmp_path / "rows.json"
    command = [sys.executable, ROOT / "tools" / "benchmark.py", "--rows", "loading", "--quick"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, [*command, "--json", path])), env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    read, buffer, *memory = json.loads(path.read_text())["rows"]
    assert read["name"].startswith("read a data set") and 0 < read["value"] < 20
    assert "20 keyframes, 2 videos" in read["note"]
    assert buffer["unit"] == "s" and buffer["value"] > 0
    # two processes with twenty keyframes more are no larger, whatever else they do meanwhile
    assert all(row["unit"] == "MB" and abs(row["value"]) < 100 for row in memory)
