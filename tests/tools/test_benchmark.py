"""tools/benchmark.py: rows and their limits, and what every area measures, at tiny sizes."""

from __future__ import annotations

import itertools
import json
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from alphaaction_d2.apps.command_line import run_tool

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import benchmark as tool  # noqa: E402
from benchmarks import gpu, interaction, profile, training  # noqa: E402
from benchmarks.measure import Row, interleaved_medians, num_threads  # noqa: E402


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Measure an area as the command does, once; gives the rows, by name, and the whole file."""
    files: dict[str, dict] = {}

    def measure(area: str) -> dict[str, dict]:
        if area not in files:
            path = tmp_path_factory.mktemp(area) / "rows.json"
            assert tool.main(tool.parse_args(["--quick", "--rows", area, "--json", str(path)])) == 0
            files[area] = json.loads(path.read_text())
        rows = files[area]["rows"]
        assert {row["area"] for row in rows} == {area} and all(row["value"] > 0 for row in rows)
        return {row["name"]: row for row in rows}

    return measure


def only(rows: dict[str, dict], *words: str) -> dict:
    (row,) = (row for name, row in rows.items() if all(word in name for word in words))
    return row


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
    text = tool.table([row])
    assert ("MISSED" in text) is (ok is False)
    assert bool(re.search(r"\bok\b", text)) is (ok is True)


def test_medians_are_of_interleaved_runs():
    order = []
    medians = interleaved_medians([lambda: order.append("a"), lambda: order.append("b")], 3)
    assert "".join(order) == "ab" * 4  # the first round warms up
    assert len(medians) == 2
    with pytest.raises(ValueError, match="repeats 0"):
        interleaved_medians([], 0)


def test_thread_count_comes_back():
    before = torch.get_num_threads()
    with num_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_the_file_and_the_table_say_the_same(monkeypatch, tmp_path, capsys):
    rows = [
        Row("first", 3.0, "s", yardstick=2.0, yardstick_name="copying", note="4 clips"),
        Row("second", 0.25, "GB", limit=0.5),
    ]
    monkeypatch.setattr(interaction, "rows", lambda quick: iter(rows))
    path = tmp_path / "rows.json"
    assert tool.main(tool.parse_args(["--rows", "interaction", "--json", str(path)])) == 0
    header, _, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["row", "measured", "yardstick", "ratio", "limit"]
    assert re.split(r"\s{2,}", first.strip()) == ["first (4 clips)", "3 s", "2 s copying", "1.50"]
    assert re.split(r"\s{2,}", second.strip()) == ["second", "0.25 GB", "<= 0.5 GB", "ok"]
    written = json.loads(path.read_text())
    assert {"torch", "threads", "cores", "processor"} <= set(written["machine"])
    assert [(x["name"], x["ratio"], x["ok"]) for x in written["rows"]] == [
        ("first", 1.5, None),
        ("second", None, True),
    ]


def test_an_unknown_area_is_one_line(capsys):
    args = tool.parse_args(["--rows", "interaction", "nonsense"])
    assert run_tool(lambda: tool.main(args)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --rows nonsense: not an area; known: ") and "backbone" in line


def test_a_missed_limit_is_an_exit_code(monkeypatch, capsys):
    rows = [Row("slow", 2.0, "s", yardstick=1.0, yardstick_name="light", limit=1.5)]
    monkeypatch.setattr(interaction, "rows", lambda quick: iter(rows))
    assert tool.main(tool.parse_args(["--rows", "interaction"])) == 1
    assert tool.main(tool.parse_args(["--rows", "interaction", "--quick"])) == 0
    out = capsys.readouterr().out
    assert "MISSED" in out and "1 s light" in out


@pytest.mark.parametrize("quick", [False, True])
def test_notes_are_about_what_was_measured(monkeypatch, quick):
    def run(command, **options):
        lengths = [{"length": n, "seconds": 1.0, "bytes": 1e9} for n in (0, 60)]
        path = Path(command[command.index("--output") + 1], "memory_window.json")
        path.write_text(json.dumps({"methods": {"memory": lengths}}))

    monkeypatch.setattr(training.subprocess, "run", run)
    notes = {row.note for row in training.growing_window(quick)}
    assert len(notes) == 1 and ("256x340" in notes.pop()) is not quick


# ------------------------------------------------------------------------------------------- areas


@pytest.mark.parametrize(
    "area",
    [
        *("backbone", "interaction"),
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("evaluation", "graph", "memory")),
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("tracking", "training")),
    ],
)
def test_an_area_has_rows(measured, area):
    assert len(measured(area)) >= 2


@pytest.mark.parametrize("size", ["340x256", "640x360"])
@pytest.mark.parametrize("order", ["in order", "at random"])
def test_speed_beside_decoding(measured, order, size):
    row = only(measured("data"), f"clips {order}", size)
    assert row["unit"] == "clips/s" and row["yardstick"] > 0


def test_testing_in_order_decodes_each_frame_once(measured):
    assert only(measured("data"), "testing in order")["value"] == 1.0


def test_a_clip_at_random_decodes_its_window_at_least(measured):
    # Half a window may lie before the video's start; the rest of it comes out of the decoder.
    assert only(measured("data"), "decoded for", "340x256")["value"] >= 32


def test_a_folder_of_pictures_beside_the_file(measured):
    row = only(measured("data"), "from a folder of pictures", "340x256")
    assert row["yardstick"] > 0
    assert 32 <= float(row["note"].split()[0]) <= 65, "the clip's pictures, and the first"


@pytest.mark.slow
def test_what_annotations_cost_in_loading_processes(tmp_path):
    path = tmp_path / "rows.json"
    assert tool.main(tool.parse_args(["--quick", "--rows", "loading", "--json", str(path)])) == 0
    read, buffer, *memory = json.loads(path.read_text())["rows"]
    assert read["name"].startswith("read a data set") and 0 < read["value"] < 20
    assert "20 keyframes, 2 videos" in read["note"]
    assert buffer["unit"] == "s" and buffer["value"] > 0
    # two processes with twenty keyframes more are no larger, whatever else they do meanwhile
    assert all(row["unit"] == "MB" and abs(row["value"]) < 100 for row in memory)


@pytest.mark.slow
def test_the_demo_in_time_and_memory(measured):
    rows = measured("demo")
    for dtype in ("bfloat16", "float32"):
        alone = only(rows, dtype, "prediction alone")
        whole = rows[alone["name"].removesuffix(", prediction alone")]
        assert alone["value"] < whole["value"], "drawing takes time, too"
    if Path("/proc/self/statm").exists():
        for part in ("predicting", "drawing"):
            row = only(rows, "memory", part)
            assert row["unit"] == "MB" and row["value"] > 50 and row["yardstick"] > 50


# ---------------------------------------------------------------------------------------- commands


@pytest.mark.parametrize(
    "config", ["Small/aia", pytest.param("Puppets/igmn", marks=pytest.mark.slow)]
)
def test_the_parts_of_a_step(config, tmp_path):
    opts = ["INPUT.MIN_SIZE_TRAIN", "(48,)", "SOLVER.IMS_PER_BATCH", "2"]
    cfg = profile.training_cfg(config, tmp_path, (64, 48), opts)
    seconds = profile.profile(cfg, 2)
    assert list(seconds) == list(profile.PARTS)
    stored = cfg.DATALOADER.STORED_VARIANTS > 0
    assert all((x == 0) is (stored and part in ("backbone", "RoI")) for part, x in seconds.items())


def test_what_is_measured_on_a_gpu(tmp_path, capsys, monkeypatch):
    """On the CPU, at tiny sizes: the script runs, and keeps to its time (here every look at the
    clock takes a tenth of a second, on a busy machine, too)."""
    ticks = itertools.count(step=0.1)
    clock = SimpleNamespace(monotonic=lambda: next(ticks), perf_counter=time.perf_counter)
    monkeypatch.setattr(gpu, "time", clock)
    file = tmp_path / "rows.json"
    small = ["--size", "64", "48", "--batches", "1", "2", "--minutes", "0.15", "--json", str(file)]
    assert gpu.main(["--device", "cpu", "--config", "Small/aia", *small]) == 0
    assert next(ticks) < 10
    rows = json.loads(file.read_text())["rows"]
    assert len(rows) == 1 + 2 * 2 * 3 and rows[0]["what"] == "decoding, one core"
    assert all(row["clips/s"] > 0 and row["runs"] >= 1 for row in rows)
    assert "| testing, backbone" in capsys.readouterr().out
    assert gpu.measured(lambda: pytest.fail("too late"), 1, -0.1, "cpu") == {"note": "no time left"}


def test_a_gpu_that_is_not_there_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run_tool(lambda: gpu.main([])) == 2
    assert "--device cpu shows that the script runs" in capsys.readouterr().err
