"""The data and demo areas of tools/benchmark.py, at tiny sizes: rows come out, and make sense."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data_rows(tmp_path_factory) -> dict[str, dict]:
    """Every row of the data area by its name."""
    return measured("data", tmp_path_factory.mktemp("data"))


def measured(area: str, folder: Path) -> dict[str, dict]:
    path = folder / "rows.json"
    command = [sys.executable, ROOT / "tools" / "benchmark.py", "--rows", area, "--quick"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, [*command, "--json", path])), env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {row["name"]: row for row in json.loads(path.read_text())["rows"]}


def only(rows: dict[str, dict], *words: str) -> dict:
    (row,) = (row for name, row in rows.items() if all(word in name for word in words))
    return row


@pytest.mark.parametrize("size", ["340x256", "640x360"])
@pytest.mark.parametrize("order", ["in order", "at random"])
def test_speed_beside_decoding(data_rows, order, size):
    row = only(data_rows, f"clips {order}", size)
    assert row["unit"] == "clips/s" and row["value"] > 0
    assert row["yardstick"] > 0 and row["ratio"] == row["value"] / row["yardstick"]


def test_testing_in_order_decodes_each_frame_once(data_rows):
    assert only(data_rows, "testing in order")["value"] == 1.0


def test_a_clip_at_random_decodes_its_window_at_least(data_rows):
    # Half a window may lie before the video's start; the rest of it comes out of the decoder.
    assert only(data_rows, "decoded for", "340x256")["value"] >= 32


def test_a_folder_of_pictures_beside_the_file(data_rows):
    row = only(data_rows, "from a folder of pictures", "340x256")
    assert row["value"] > 0 and row["yardstick"] > 0
    assert 32 <= float(row["note"].split()[0]) <= 65, "the clip's pictures, and the first"


@pytest.mark.slow
def test_the_demo_in_time_and_memory(tmp_path):
    rows = measured("demo", tmp_path)
    for dtype in ("bfloat16", "float32"):
        alone = only(rows, dtype, "prediction alone")
        whole = rows[alone["name"].removesuffix(", prediction alone")]
        assert 0 < alone["value"] < whole["value"], "drawing takes time, too"
    if Path("/proc/self/statm").exists():
        for part in ("predicting", "drawing"):
            row = only(rows, "memory", part)
            assert row["unit"] == "MB" and row["value"] > 50 and row["yardstick"] > 50
