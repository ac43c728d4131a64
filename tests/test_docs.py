"""What the documents say about the repository is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "alphaaction_d2"
DOCUMENTS = sorted(
    path for pattern in ("*.md", "docs/*.md", "projects/*/*.md") for path in ROOT.glob(pattern)
)
# `some/path.py`, `some/room/`: as they stand, or below the package.
PATH = re.compile(r"`([A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*/?[A-Za-z0-9_-]*(?:\.py|\.yaml|/))`")


def missing_paths(text: str) -> list[str]:
    paths = PATH.findall(text)
    return [p for p in paths if not any((base / p).exists() for base in (ROOT, PACKAGE))]


def test_architecture_names_what_is_there():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert len(PATH.findall(text)) > 20
    assert missing_paths(text) == []


def test_a_missing_path_is_found():
    assert missing_paths("see `modeling/nowhere.py`") == ["modeling/nowhere.py"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document):
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", document.read_text(encoding="utf-8"))
    assert [x for x in links if not (document.parent / x).exists()] == []


def test_the_site_shows_every_document():
    shown = re.findall(r"^ +- (?:[^:\n]+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    paths = {path.relative_to(ROOT).as_posix() for path in DOCUMENTS}
    pages = {"index.md" if p == "README.md" else p.removeprefix("docs/") for p in paths}
    assert set(shown) == pages


@pytest.mark.slow
def test_the_notebook_runs_as_it_stands(tmp_path):
    cells = json.loads((ROOT / "docs" / "tour.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    script = tmp_path / "tour.py"
    script.write_text("import matplotlib\nmatplotlib.use('Agg')\n" + "\n".join(code))
    run = subprocess.run(
        [sys.executable, script], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr
    assert "mAP@0.5" in run.stdout and "person 1: " in run.stdout
