"""A megabyte of any format is read or refused within 2 seconds and 500 MB."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("hostile_files.py")


def measured(*names: str) -> dict[str, tuple[float, float, str]]:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peaks of memory are measured on Linux")
    done = subprocess.run([sys.executable, SCRIPT, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(found: dict[str, tuple[float, float, str]]) -> None:
    slow = {name: x for name, x in found.items() if x[0] > 2}
    large = {name: x for name, x in found.items() if x[1] > 500}
    odd = {name: x[2] for name, x in found.items() if not x[2].startswith(("read", "refused"))}
    assert (slow, large, odd) == ({}, {}, {})


def test_those_that_were_slow_or_large_once():
    found = measured(": classes", "laughs", "exponent", "commas", "bomb", "doubled")
    assert len(found) > 30
    check(found)
    assert found["settings: laughs"][2].startswith("refused")
    assert found["boxes: a gzip bomb"][2].startswith("refused")


@pytest.mark.slow
def test_a_megabyte_of_anything():
    found = measured()
    assert len(found) > 300
    check(found)
