"""What mkdocs needs to be told: documents outside of docs/ are pages, too (`make docs`).

Documents link to each other by their places in the repository, so that they can be read there. On
the site README is the first page; links to files that are no page, such as configurations, become
plain text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "projects/*/README.md"]
LINK = re.compile(r"(?P<text>!?\[[^\]]*\])\((?P<path>(?!\w+:)[^)#\s]+)(?P<part>#[^)\s]*)?\)")


def place(path: str) -> str:
    """Say where on the site a file of the repository is."""
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def on_files(files: Files, config) -> Files:
    """Add the documents that are not in docs/, and their pictures."""
    documents = [path for pattern in ELSEWHERE for path in sorted(ROOT.glob(pattern))]
    pictures = sorted(ROOT.glob("projects/*/*.png"))
    for path in documents + pictures:
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, place(name), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
    """Point links to where their targets are on the site."""
    source = Path(page.file.abs_src_path).relative_to(ROOT)

    def on_site(link: re.Match) -> str:
        target = posixpath.normpath(posixpath.join(source.parent.as_posix(), link["path"]))
        if files.get_file_from_path(place(target)) is None:
            return link["text"].strip("![]")
        start = posixpath.dirname(page.file.src_uri)
        path = posixpath.relpath(place(target), start or ".")
        return f"{link['text']}({path}{link['part'] or ''})"

    return LINK.sub(on_site, markdown)
