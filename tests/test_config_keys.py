"""The list of configuration keys: every key is explained."""

from __future__ import annotations

import ast
from pathlib import Path

CONFIG = Path(__file__).resolve().parents[1] / "alphaaction_d2" / "config.py"


def unexplained_keys(source: str) -> list[str]:
    """Keys without a comment on their line, above it, or above the keys right before them."""
    lines = source.splitlines()
    found = []
    functions = [x for x in ast.parse(source).body if isinstance(x, ast.FunctionDef)]
    for node in ast.walk(ast.Module([x for x in functions if "add" in x.name], [])):
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute)):
            continue
        key = ast.unparse(node.targets[0])
        if not key.startswith("cfg.") or ast.unparse(node.value) == "CN()":
            continue
        above = node.lineno - 2
        while lines[above].strip().startswith("cfg."):
            above -= 1
        commented = lines[above].strip().startswith("#") or "  # " in lines[node.lineno - 1]
        if not commented:
            found.append(key)
    return found


def test_every_key_is_explained():
    assert unexplained_keys(CONFIG.read_text(encoding="utf-8")) == []


def test_a_key_without_a_comment_is_found():
    source = "def add(cfg):\n    cfg.A.B = 1\n    # what C is\n    cfg.A.C = 2\n    cfg.A.D = 3\n"
    assert unexplained_keys(source) == ["cfg.A.B"]
