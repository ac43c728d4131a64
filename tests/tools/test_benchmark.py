"""tools/benchmark.py: rows and their limits, and the tool as a user calls it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from benchmark import table  # noqa: E402
from benchmarks.measure import Row, interleaved_medians, num_threads  # noqa: E402


def benchmark(cwd: Path, *arguments: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, ROOT / "tools" / "benchmark.py", *arguments]
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("row", "ratio", "ok"),
    [
        (Row("a", 3, "s"), None, None),
        (Row("a", 3, "s", limit=3), None, True),
        (Row("a", 3, "s", limit=2.9), None, False),
        (Row("a", 3, "s", yardstick=2, limit=1.5), 1.5, True),
        (Row("a", 3, "s", yardstick=2, limit=1.4), 1.5, False),
        (Row("a", 3, "s", yardstick=2, limit=1.6, at_least=True), 1.5, False),
        (Row("a", 3, "s", limit=3, at_least=True), None, True),
        (Row("a", float("nan"), "s", limit=3), None, False),
    ],
)
def test_limits(row, ratio, ok):
    assert row.ratio == ratio and row.ok is ok
    text = table([row])
    assert ("MISSED" in text) is (ok is False)
    assert bool(re.search(r"\bok\b", text)) is (ok is True)


def test_medians_are_of_interleaved_runs():
    order = []
    medians = interleaved_medians([lambda: order.append("a"), lambda: order.append("b")], 3)
    assert "".join(order) == "ab" * 4  # the first round warms up
    assert len(medians) == 2 and min(medians) >= 0
    with pytest.raises(ValueError, match="repeats 0"):
        interleaved_medians([], 0)


def test_thread_count_comes_back():
    import torch

    before = torch.get_num_threads()
    with num_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_the_tool_measures_and_writes(tmp_path):
    result = benchmark(
        tmp_path, "--quick", "--rows", "interaction", "backbone", "--json", "rows.json"
    )
    assert result.returncode == 0, result.stdout + result.stderr
    written = json.loads((tmp_path / "rows.json").read_text())
    assert {"torch", "threads", "cores", "processor"} <= set(written["machine"])
    assert {row["area"] for row in written["rows"]} == {"interaction", "backbone"}
    header, _, *lines = result.stdout.splitlines()
    assert header.split() == ["row", "measured", "yardstick", "ratio", "limit"]
    assert len(lines) == len(written["rows"]) > 3
    for row, line in zip(written["rows"], lines):
        assert line.startswith(row["name"]) and row["value"] > 0
        if row["yardstick"] is not None:
            assert row["ratio"] == pytest.approx(row["value"] / row["yardstick"])


def test_an_unknown_area_is_one_line(tmp_path):
    result = benchmark(tmp_path, "--rows", "interaction", "nonsense")
    assert result.returncode == 2
    (line,) = [x for x in result.stderr.splitlines() if "rror" in x]
    assert line.startswith("error: --rows nonsense: not an area; known: ") and "backbone" in line
    assert "Traceback" not in result.stderr


def test_a_missed_limit_is_an_exit_code(monkeypatch, capsys):
    import benchmark as tool
    from benchmarks import interaction

    rows = [Row("slow", 2.0, "s", yardstick=1.0, yardstick_name="light", limit=1.5)]
    monkeypatch.setattr(interaction, "rows", lambda quick: iter(rows))
    assert tool.main(tool.parse_args(["--rows", "interaction"])) == 1
    assert tool.main(tool.parse_args(["--rows", "interaction", "--quick"])) == 0
    out = capsys.readouterr().out
    assert "MISSED" in out and "1 s light" in out


@pytest.mark.parametrize("quick", [False, True])
def test_notes_are_about_what_was_measured(monkeypatch, quick):
    from benchmarks import training

    def run(command, **options):
        lengths = [{"length": n, "seconds": 1.0, "bytes": 1e9} for n in (0, 60)]
        path = Path(command[command.index("--output") + 1], "memory_window.json")
        path.write_text(json.dumps({"methods": {"memory": lengths}}))

    monkeypatch.setattr(training.subprocess, "run", run)
    notes = {row.note for row in training.growing_window(quick)}
    assert len(notes) == 1 and ("256x340" in notes.pop()) is not quick


@pytest.mark.slow
@pytest.mark.parametrize("area", ["evaluation", "memory", "tracking", "training"])
def test_other_areas_have_rows(tmp_path, area):
    result = benchmark(tmp_path, "--quick", "--rows", area, "--json", "rows.json")
    assert result.returncode == 0, result.stderr[-2000:]
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert len(rows) >= 2 and all(row["value"] > 0 for row in rows)
