"""`alphaaction COMMAND`: one table, help at once, and no traceback for a mistake."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import alphaaction
from alphaaction_d2.apps import commands
from alphaaction_d2.apps.commands import COMMANDS, overview

ROOT = Path(__file__).resolve().parents[2]
SCREEN = 50  # lines; of 100 characters
# A Python in which a module is missing, and which says whether torch was imported.
WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import alphaaction
code = alphaaction.main({argv!r})
print("torch" if "torch" in sys.modules else "no torch")
sys.exit(code)
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_the_overview_needs_no_torch_and_tells_every_command():
    result = python("-c", WITHOUT.format(missing="detectron2", argv=["--help"]))
    assert result.returncode == 0 and result.stdout.endswith("no torch\n")
    for name, command in COMMANDS.items():
        assert f"  {name} " in result.stdout and command.help in result.stdout
    lines = overview().splitlines()
    assert len(lines) <= SCREEN and max(map(len, lines)) <= 100


def test_python_m_is_the_same_and_as_light():
    result = python("-X", "importtime", "-m", "alphaaction_d2", "--help")
    assert result.stdout == overview() + "\n" and result.returncode == 0
    assert "argparse" in result.stderr and "torch" not in result.stderr
    result = python("-m", "alphaaction_d2", "check", "no_such_folder")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("error: data set 'no_such_folder' is not")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_fits_a_screen_and_has_an_example(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", sys.argv)  # a command changes it
    with pytest.raises(SystemExit, match="0"):
        commands.run([name, "--help"])
    text = capsys.readouterr().out
    assert text.startswith(f"usage: alphaaction {name} ")
    # (those of train are detectron2's, which look otherwise)
    examples = [line for line in text.splitlines() if line.strip().startswith("alphaaction ")]
    assert any(line.startswith(f"    alphaaction {name} ") for line in examples) or name == "train"
    assert len(text.splitlines()) <= SCREEN


def test_what_needs_detectron2_says_how_to_get_it():
    code = "import importlib.util as u; f = u.find_spec\n"
    code += "u.find_spec = lambda name, *a: None if name == 'detectron2' else f(name, *a)\n"
    code += WITHOUT.format(missing="detectron2", argv=["train", "--help"])
    result = python("-c", code)
    assert result.returncode == 2
    assert result.stderr == "error: detectron2 is missing here: `alphaaction setup` installs it\n"


def test_no_such_command(capsys):
    assert alphaaction.main(["trian"]) == 2
    assert capsys.readouterr().err.startswith("error: no command 'trian': one of demo, ")


def test_every_module_has_what_a_command_needs():
    for name, command in COMMANDS.items():
        module = importlib.import_module(f"alphaaction_d2.apps.{command.module or name}")
        assert callable(module.parse_args) and callable(module.main)
