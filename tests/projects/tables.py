"""What the READMEs of the projects promise: a configuration for each row of the papers' tables."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

PROJECTS = Path(__file__).resolve().parents[2] / "projects"


def table_rows(project: str) -> dict[str, Path]:
    """Rows of a project's README -> the configuration that each leads to."""
    text = (PROJECTS / project / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| \[(\w[\w.]*)\]\((\S+\.yaml)\) \|", text, re.M)
    return {row: (PROJECTS / project / path).resolve() for row, path in found}


def documented_commands() -> Iterator[list[str]]:
    """Arguments of the training commands in the READMEs."""
    for path in PROJECTS.glob("*/README.md"):
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for command in re.findall(r"^python tools/train_net\.py (.*)$", text, re.M):
            yield shlex.split(command)
