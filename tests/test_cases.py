"""Files and commands from public reports, run as they stand there: `cases/NN/case.md` has them.

What a command has to say is written here; the folder has the input and the command.
"""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from alphaaction_d2.apps import evaluate
from alphaaction_d2.apps.command_line import run_tool
from alphaaction_d2.data.video import iterate_frames, probe_video
from alphaaction_d2.formats.ava import read_ava_csv
from alphaaction_d2.formats.label_map import read_label_map
from alphaaction_d2.formats.pickles import UnsafePickleError, loads_numbers
from alphaaction_d2.formats.tables import DataFileError
from tests.helpers import CONFIGS, loaded_tool

TOOLS = CONFIGS.parent / "tools"
CLEAN = (0, "0 wrong, 0 unusual")
LOW = r"none of 12 detected persons scores INPUT\.PERSON_SCORE_THRESH_TEST 0\.8 \(highest 0\.45\)"
NO_PERSON = r"the class column has {}.*: in one of boxes it is empty for persons"
SAME_ROWS = r"(?s)12 24 30 0 0 2 .*12 24 30 0 0 2"
ADDRESS = r"{}: addresses and cameras are not read: record to a file first"
SCORED = r"mAP@0\.5 = 94\.44 % .* 3 classes with 15 ground-truth boxes"

# Case -> for every command its exit code and what it says, as patterns.
EXPECTED: dict[str, list[tuple]] = {
    "01": [
        (0, r"0\.00 %", "note: all boxes reach beyond 1: pixels"),
        (0, r"0\.00 %", "note: 6 rows have action_id 0: ids begin at 1"),
        (0, r"0\.00 %", r"no row is of a video .* \(clip_c\.mp4; the ground truth has clip_c\)"),
        (0, r"0\.00 %", "no row is at a ground-truth second .*: all are 900 s late"),
        (0, r"0\.00 %", "15 rows dropped, x2 <= x1 .*: width and height"),
        (0, r"100\.00 %", "no scores: the order of the detections is unknown"),
    ],
    "02": [(0, f"unusual .*{LOW}", "0 wrong, 1 unusual"), (0, r"0\.00 %", LOW), (0, LOW)],
    "04": [(1, NO_PERSON.format("numbers .0.")), (1, NO_PERSON.format("numbers .2, 1, 3."))],
    "05": [(0, "all times are multiples of 30: are they frame numbers", "0 wrong, 2 unusual")],
    "06": [(*CLEAN, r"train 2 12 24 30", r"val 1 6 12 15")],
    "07": [(0, "0 wrong", r"comma 2 12 24 30", r"tab 2 12 24 30")],
    "09": [(0, "0 wrong", r"entity 2 12 24 30", r"longid 2 12 24 30", r"names 2 12 24 30")],
    "11": [(*CLEAN, r"train 2 14 26 30", r"\(none of them\) 2 0")],
    "12": [(*CLEAN, r"train 2 12 24 30")],
    "14": [
        (0, r"frame_lists\.csv is not read; expected <split>\.csv", "0 wrong, 1", "train 2 11 22")
    ],
    "15": [(1, r"test\.CSV:1 1 columns", r"more\.csv\.gz", "train 2 12 24 30")],
    "16": [(*CLEAN, r"train 2 12 24 30")],
    "17": [
        (*CLEAN, "1 stand - 12 6"),
        (1, r"labels\.txt:1 'stand,1': expected names only"),
        (*CLEAN, "1 stand - 12 6", "2 walk - 12 6"),
    ],
    "19": [
        (2, r"^error: SLOWFAST_R101_K700\.pth\.tar: .*a web page \(HTML\)"),
        (2, r"^error: lfs\.pth: .*a Git LFS pointer.*git lfs pull"),
    ],
    "21": [
        (2, r"^error: lazy\.py: not a YAML configuration of KEY: VALUE"),
        (2, r"^error: list\.yaml: not a YAML configuration of KEY: VALUE"),
        (2, r"^error: tabs\.yaml:2: a tab"),
        (2, r"^error: m\.pth: not a text file"),
    ],
    "23": [(0, "the weights carry none either: .*--label-map FILE names them")],
    "24": [
        (1, ADDRESS.format(r"rtsp://127\.0\.0\.1:9/stream")),
        (1, ADDRESS.format(r"http://127\.0\.0\.1:9/a\.mp4")),
        (1, ADDRESS.format("0")),
    ],
    "25": [
        (0, "1 frame a second or less, clips want 25: each frame is seen 25 times, movement is not")
    ]
    * 2,
    "26": [CLEAN, (0, "mAP@0\\.5 = "), (0, "mAP@0\\.5 = ")],
    "28": [(0, r"15 rows twice: clip_c 1 s", "0 wrong, 1 unusual"), (0, SCORED)],
}
NEVER = re.compile(r"Traceback|weights_only=False|Error:")


def commands(case: Path) -> list[str]:
    """The commands of a case, without what is done with their output."""
    text = (case / "case.md").read_text()
    blocks = re.findall(r"^Command:\n+```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [re.split(r" \| |; ", block.replace("\n", " "))[0] for block in blocks]


@pytest.fixture(autouse=True)
def log(monkeypatch, caplog) -> pytest.LogCaptureFixture:
    """What the package logs, whatever tools have been run before in this process."""
    monkeypatch.setattr(logging.getLogger("alphaaction_d2"), "propagate", True)
    caplog.set_level(logging.INFO)
    return caplog


@pytest.fixture
def call(shared, tmp_path, monkeypatch, capsys, caplog) -> Callable[[str, str], tuple[int, str]]:
    """Run a command in a copy of a case's folder; its exit code, and all that it says."""
    before = set(DatasetCatalog)

    def run(case: str, command: str) -> tuple[int, str]:
        folder = tmp_path / case
        if not folder.exists():
            shutil.copytree(shared / "cases" / case, folder, copy_function=shutil.copyfile)
            (folder / "base_model").symlink_to(shared / "cases" / "base_model")
        monkeypatch.chdir(folder)
        for name in set(DatasetCatalog) - before:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        tool, *arguments = shlex.split(command.replace("$C", str(CONFIGS)))[1:]
        caplog.clear()
        if tool == "$T/evaluate_ava.py":
            code = run_tool(lambda: evaluate.main(evaluate.parse_args(["ava", *arguments])))
        else:
            with loaded_tool(TOOLS / tool.removeprefix("$T/")) as call_tool:
                code = call_tool(*arguments)
        printed = capsys.readouterr()
        # lines of tables are as wide as the terminal
        said = re.sub(r"[ \n]+", " ", f"{printed.out} {caplog.text}")
        return code, f"{printed.err}{said}"

    yield run
    for name in set(DatasetCatalog) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize(
    "case, number",
    [(case, i) for case, expected in EXPECTED.items() for i in range(len(expected))],
)
def test_command(call, shared, case, number):
    found = commands(shared / "cases" / case)
    assert len(found) == len(EXPECTED[case])
    code, *patterns = EXPECTED[case][number]
    exit_code, said = call(case, found[number])
    for pattern in patterns:
        assert re.search(pattern, said), said[-3000:]
    assert exit_code == code and not NEVER.search(said), said[-3000:]


@pytest.mark.parametrize("folder", ["data", "data_strings", "data_objects", "data_tuples"])
def test_proposals_as_scripts_write_them(call, folder):
    """Case 18: scores as text, arrays of text or objects, keys that are pairs."""
    code, said = call("18", f"$PY $T/check_dataset.py --no-decode {folder}")
    assert code == 0 and re.search("0 wrong, .*val 1 6 12 15 [1-9]", said)


def test_the_proposals_of_acar(call):
    code, said = call("18", "$PY $T/check_dataset.py --no-decode data_acar")
    assert code == 0 and re.search("0 wrong, .*val 1 6 12 15 [1-9]", said)


def test_the_rate_of_raw_streams(shared, caplog):
    """Case 13: what the stream says, or 25 with a warning."""
    folder = shared / "cases" / "13"
    for name, rate, last in (("vui30.h264", 30, 5.967), ("pi40.h264", 25, 9.56)):
        path = str(folder / name)
        assert probe_video(path).average_fps == rate
        assert [t for t, _ in iterate_frames(path)][-1] == pytest.approx(last, abs=1e-3)
        assert ("25 frames a second assumed" in caplog.text) == (rate == 25)


# ---- files that are meant to do harm ----


def test_hostile_configurations(call, shared, tmp_path):
    paths = sorted((shared / "cases" / "hostile").glob("*.yaml"))
    assert len(paths) > 20
    for path in paths:
        start = time.perf_counter()
        code, said = call("hostile", f"$PY $T/train_net.py --config-file {path.name}")
        assert time.perf_counter() - start < 2, path
        (line,) = said.strip().splitlines()
        assert code == 2 and line.startswith("error: "), path
        assert path.name in line or "aia.yaml" in line or path.name == "config_date.yaml", line
    assert not list(tmp_path.rglob("executed"))


@pytest.mark.parametrize(
    "name, read, refused",
    [
        ("dos/labels_blank_lines_200k/l.txt", read_label_map, False),
        ("dos/pickle_tuple_key/b.pkl", lambda path: loads_numbers(path.read_bytes()), True),
        ("hex_action_id.csv", read_ava_csv, True),
    ],
)
def test_hostile_data(shared, name, read, refused):
    start = time.perf_counter()
    with pytest.raises((DataFileError, UnsafePickleError)) if refused else nullcontext() as caught:
        read(shared / "cases" / "hostile" / name)
    assert time.perf_counter() - start < 2
    assert not refused or len(str(caught.value).splitlines()) == 1
