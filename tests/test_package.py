"""The package as a whole: which part may import which, what is declared, what a user is told."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "alphaaction_d2"

# Rooms of the package (the first name below alphaaction_d2) by floor: a room imports from floors
# below its own, and of its neighbours only what is listed.
FLOORS = (
    {"structures", "found_boxes", "config", "version"},
    {"formats", "model_zoo"},
    {"modeling", "memory", "data", "evaluation", "checkpoint", "tracking", "visualization"},
    {"deploy"},
    {"engine"},
    {"apps"},
)
NEIGHBOURS = {
    # configurations by name; and what `model_zoo.get` builds a whole model with, when it is called
    "formats": {"model_zoo.files", "model_zoo.networks"},
    "model_zoo": {"formats.config_files", "formats.writing", "checkpoint.checkpointer"},
    # how keys are checked
    "structures": {"config", "found_boxes"},
    # what the model makes of a window; detectors' weights
    "modeling": {"memory.window", "checkpoint"},
}


def _may_import() -> dict[str, set[str]]:
    below: set[str] = set()
    allowed = {}
    for floor in FLOORS:
        allowed |= {room: below | NEIGHBOURS.get(room, set()) for room in floor}
        below = below | floor
    return allowed


MAY_IMPORT = _may_import()
OUTSIDE = {"tools", "projects", "tests"}  # the package never imports these

# structures.py is the vocabulary of all parts: arrays, tensors and detectron2's structures, nothing
# else.
THIRD_PARTY_OF_STRUCTURES = {"numpy", "torch", "detectron2"}


def imported_modules(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Yield line and absolute dotted name of everything that a file imports, anywhere in it.

    `from a import b` yields `a.b`: whether b is a module or a name in one makes no difference here.
    Calls of `import_module` and `__import__` count when their argument is written out.
    """
    parts = path.relative_to(root).with_suffix("").parts
    package = ".".join(parts[:-1])  # also right for __init__.py, whose package is its folder
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            base = resolve_name(relative, package) if node.level else relative
            for alias in node.names:
                yield node.lineno, base if alias.name == "*" else f"{base}.{alias.name}"
        elif isinstance(node, ast.Call) and node.args:
            function = node.func
            name = getattr(function, "attr", getattr(function, "id", None))
            argument = node.args[0]
            if name in {"import_module", "__import__"} and isinstance(argument, ast.Constant):
                if isinstance(argument.value, str):
                    yield node.lineno, resolve_name(argument.value, package)


def import_violations(root: Path) -> list[str]:
    """List what breaks the import rule in the package under root, one line each."""
    violations = []
    for path in sorted((root / PACKAGE).rglob("*.py")):
        inside = path.relative_to(root / PACKAGE)
        part = Path(inside.parts[0]).stem
        if part in ("__init__", "__main__"):
            allowed = set(MAY_IMPORT)  # which register every part, and start any command
        elif part in MAY_IMPORT:
            allowed = MAY_IMPORT[part] | {part}
        else:
            violations.append(f"{PACKAGE}/{inside}: {part} is not in MAY_IMPORT of this test")
            continue
        for line, name in imported_modules(path, root):
            where = f"{PACKAGE}/{inside}:{line}"
            top, _, rest = name.partition(".")
            if top in OUTSIDE:
                violations.append(f"{where}: the package must not import {name}")
            elif top == PACKAGE:
                if part in MAY_IMPORT and not any(f"{rest}.".startswith(f"{x}.") for x in allowed):
                    violations.append(f"{where}: {part} must not import {name}")
            elif part == "structures":
                if top not in THIRD_PARTY_OF_STRUCTURES | sys.stdlib_module_names:
                    violations.append(f"{where}: structures must not import {name}")
    return violations


def write_tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


LEGAL_TREE = {
    "alphaaction_d2/__init__.py": "from .config import add\nfrom . import engine, modeling\n",
    "alphaaction_d2/config.py": "from detectron2.config import CfgNode\n",
    "alphaaction_d2/structures.py": "import torch\nfrom dataclasses import dataclass\n",
    "alphaaction_d2/memory/pool.py": "from ..structures import MemoryWindow\n",
    "alphaaction_d2/data/__init__.py": "from .video import read\n",
    "alphaaction_d2/data/video/reader.py": "from .file import read\n",
    "alphaaction_d2/data/video/file.py": "import av\nfrom ...structures import Frames\n",
    "alphaaction_d2/data/datasets/ava.py": "from ..video import read\nfrom ...formats import ava\n",
    "alphaaction_d2/modeling/roi_heads.py": "def f():\n    from ..memory.window import weighted\n",
    "alphaaction_d2/engine/hooks.py": "from .. import memory\n",
    "alphaaction_d2/engine/trainer.py": "import alphaaction_d2.data.video.file\n",
    "tools/train_net.py": "from alphaaction_d2.engine import trainer\n",
}


def test_imports_run_one_way():
    assert (ROOT / PACKAGE / "__init__.py").is_file()
    assert import_violations(ROOT) == []


def test_a_legal_tree_has_no_violations(tmp_path):
    write_tree(tmp_path, LEGAL_TREE)
    assert import_violations(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("modeling/x.py", "from alphaaction_d2.data import video", "x.py:1: modeling must not"),
        (
            "modeling/x.py",
            "import alphaaction_d2.memory.pool as m",
            "modeling must not import alphaaction_d2.memory.pool",
        ),
        ("modeling/x.py", "from .. import evaluation", "import alphaaction_d2.evaluation"),
        ("modeling/deep/x.py", "from ...engine.hooks import MemoryHook", "engine.hooks.MemoryHook"),
        ("modeling/deep/__init__.py", "from ...data import video", "data.video"),
        ("modeling/__init__.py", "from ..data import video", "data.video"),
        ("data/x.py", "def f():\n    from ..modeling import y", "x.py:2: data must not"),
        ("data/x.py", "if TYPE_CHECKING:\n    from ..memory import M", "data must not"),
        ("data/x.py", "import torch\nfrom ..engine import *", "x.py:2: data must not"),
        ("data/x.py", "importlib.import_module('alphaaction_d2.engine')", "data must not"),
        ("memory/x.py", "from ..modeling import y", "memory must not"),
        ("memory/x.py", "import alphaaction_d2", "memory must not import alphaaction_d2"),
        ("evaluation/x.py", "from ..visualization import draw", "evaluation must not"),
        ("visualization/x.py", "from ..engine import predictor", "visualization must not"),
        ("tracking/x.py", "from ..visualization import draw", "tracking must not"),
        ("checkpoint/x.py", "from ..modeling import y", "checkpoint must not"),
        ("config.py", "from .structures import y", "config must not"),
        ("formats/x.py", "from ..data import video", "formats must not"),
        ("engine/x.py", "from ..apps import train", "engine must not"),
        ("structures.py", "import torch\nimport cv2", "structures.py:2: structures must not"),
        ("engine/x.py", "import tools.train_net", "the package must not import tools.train_net"),
        ("__init__.py", "from projects.AIA import x", "the package must not import projects"),
        ("helpers.py", "import torch", "helpers is not in MAY_IMPORT"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, name, text, complaint):
    write_tree(tmp_path, {**LEGAL_TREE, f"alphaaction_d2/{name}": text + "\n"})
    (violation,) = import_violations(tmp_path)
    assert complaint in violation


# What is imported under another name than the one it is installed by.
INSTALLED_AS = {
    "huggingface_hub": "transformers",  # which needs it
    **dict.fromkeys(("fastapi", "starlette", "uvicorn"), "gradio"),  # which is made of these
    "cv2": "opencv-python-headless",
    "PIL": "Pillow",
    "yaml": "pyyaml",
}


@pytest.fixture
def setup_arguments(monkeypatch) -> dict:
    """The arguments with which setup.py calls setup()."""
    calls = []
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: calls.append(arguments))
    runpy.run_path(str(ROOT / "setup.py"))
    (arguments,) = calls
    return arguments


def requirement_name(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0]


def test_metadata(setup_arguments):
    version = runpy.run_path(str(ROOT / PACKAGE / "version.py"))["__version__"]
    assert setup_arguments["name"] == PACKAGE
    assert setup_arguments["version"] == version
    assert setup_arguments["license"] == "Apache-2.0"
    assert PACKAGE in setup_arguments["packages"]
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Copyright 2026 The alphaaction_d2 authors" in text


def test_every_folder_with_code_is_packaged(setup_arguments):
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / PACKAGE).rglob("*.py")}
    assert {".".join(folder.parts) for folder in folders} == set(setup_arguments["packages"])


def test_every_file_without_code_is_packaged(setup_arguments):
    # (configurations are linked into the package when setup.py runs, as it has just done)
    found = os.walk(ROOT / PACKAGE, followlinks=True)
    files = {Path(folder, name) for folder, _, names in found for name in names}
    code = (".py", ".pyc")  # configurations of the lazy kind have .py, too
    files = {x for x in files if x.suffix not in code or x.suffix == ".py" and "configs" in x.parts}
    packaged = {
        path
        for package, patterns in setup_arguments["package_data"].items()
        for pattern in patterns
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    assert files == packaged


def test_what_the_package_imports_is_declared(setup_arguments):
    declared = {requirement_name(text).lower() for text in setup_arguments["install_requires"]}
    assert "torch" in declared
    # What is not needed is imported inside functions: tests/modeling/test_coco_detectors.py.
    extras = setup_arguments["extras_require"]
    used = [
        text
        for extra in ("backbones", "cluster", "export", "openvino", "web")
        for text in extras[extra]
    ]
    declared |= {requirement_name(text).lower() for text in used}
    assert "detectron2" not in declared  # no index has it: `alphaaction setup`
    undeclared = {
        f"{path.relative_to(ROOT)}: {top}"
        for path in (ROOT / PACKAGE).rglob("*.py")
        for _, name in imported_modules(path, ROOT)
        if (top := name.partition(".")[0])
        not in {PACKAGE, "alphaaction", "detectron2"} | sys.stdlib_module_names
        and INSTALLED_AS.get(top, top).lower() not in declared
    }
    assert undeclared == set()


def import_with_missing(module: str) -> str:
    """Import the package in a new Python that lacks a module; return its traceback."""
    code = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import alphaaction_d2
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 1
    return result.stderr


def test_without_detectron2_two_lines_say_how_to_get_it():
    *_, before, first, second = import_with_missing("detectron2").splitlines()
    assert first.startswith("ImportError: alphaaction_d2 needs detectron2")
    assert "`alphaaction setup`" in first
    assert "https://detectron2.readthedocs.io/tutorials/install.html" in second
    assert before.startswith(" ")  # the last line of the traceback: there is no third line
    assert "During handling" not in before


def test_another_missing_module_keeps_its_own_name():
    # detectron2 itself imports torch: advice about detectron2 would mislead.
    message = import_with_missing("torch")
    assert "No module named 'torch'" in message
    assert "install_detectron2" not in message


def test_the_tests_are_ours_beside_another_checkout(tmp_path):
    """detectron2's checkout has a package `tests`, too, and people put it on their path."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").touch()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", "import tests; print(tests.__file__)"]
    root = Path(__file__).resolve().parents[1]
    found = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert Path(found.stdout.strip()) == root / "tests" / "__init__.py"
