"""How tools end: with one line, whatever stops them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alphaaction_d2.apps.command_line import INTERRUPTED, run_tool

ROOT = Path(__file__).resolve().parents[2]
# Two processes load, and all of them get what a terminal sends to a command.
LOADING = """
import sys, time
from torch.utils.data import DataLoader
from alphaaction_d2.apps.command_line import run_tool

class Slow:
    def __len__(self):
        return 1000
    def __getitem__(self, index):
        time.sleep(0.2 if index else 0)
        return index

def main():
    for index in DataLoader(Slow(), batch_size=1, num_workers=2):
        print("ready", flush=True)

sys.exit(run_tool(main))
"""


def test_ctrl_c_ends_a_tool_and_its_workers_with_one_line(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", LOADING],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED == 130
    assert [x for x in errors.splitlines() if "CUDA" not in x] == ["interrupted"]
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nobody is left


@pytest.mark.parametrize("command", [["tools/demo.py"], ["alphaaction.py", "check"]])
def test_ctrl_c_while_the_package_is_imported(command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, ROOT / command[0], *command[1:], "--help"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(0.7)  # all imports take several seconds
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert (output, errors) == ("", "interrupted\n")


def test_what_an_interrupt_becomes_on_its_way_is_no_error(capsys):
    def main():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("a worker exited unexpectedly") from None

    before = signal.getsignal(signal.SIGINT)
    assert run_tool(main) == 130 and capsys.readouterr().err == "interrupted\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_jobs_in_the_background_go_on(capsys):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run_tool(lambda: signal.raise_signal(signal.SIGINT)) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == ""
