"""Install the pure-Python part of detectron2 0.6 from a package index.

detectron2 is not on PyPI. Where its official installation
(https://detectron2.readthedocs.io/tutorials/install.html) is out of reach, this script takes the
Apache-licensed copy of its Python files that the package ``labgym`` carries, gives it its own
import root back, builds a proper wheel of it and installs that with pip. The compiled extras
(``detectron2._C``: rotated boxes, deformable convolution, fast COCO evaluation) are not in it;
alphaaction_d2 needs none of them.

A detectron2 that is already installed, of any origin, is left as it is.

    alphaaction setup                  # install into this Python
    alphaaction setup --force          # replace an installed detectron2
    alphaaction setup --wheel-dir DIR  # only build the wheel

Needs nothing but Python's standard library and pip; in a checkout, tools/install_detectron2.py runs
this file where nothing else is installed yet.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

OFFICIAL_INSTALLATION = "https://detectron2.readthedocs.io/tutorials/install.html"

SOURCE_REQUIREMENT = "labgym==3.1.2"
SOURCE_SHA256 = "a2900cff8a3fb508e1975f19b5f9abd9f261966db87b0c332697fb4138c1cb2b"
SOURCE_ROOT = "LabGym/detectron2/"

VERSION = "0.6+pure"
DIST_INFO = f"detectron2-{VERSION}.dist-info"
WHEEL_NAME = f"detectron2-{VERSION}-py3-none-any.whl"

# detectron2's own list, without black (a developer's tool: it formats LazyConfig.to_py's output)
# and, as there, without torch and torchvision, whose build is the user's choice.
REQUIREMENTS = (
    "Pillow>=7.1",
    "matplotlib",
    "pycocotools>=2.0.2",
    "termcolor>=1.1",
    "yacs>=0.1.8",
    "tabulate",
    "cloudpickle",
    "tqdm>4.29.0",
    "tensorboard",
    "fvcore>=0.1.5,<0.1.6",
    "iopath>=0.1.7,<=0.1.10",
    "omegaconf>=2.1,<2.4",
    "hydra-core>=1.1",
    "packaging",
)

METADATA = f"""\
Metadata-Version: 2.1
Name: detectron2
Version: {VERSION}
Summary: detectron2 0.6 without its compiled extension
Home-page: https://github.com/facebookresearch/detectron2
Author: FAIR
License: Apache-2.0
License-File: LICENSE
License-File: NOTICE
Requires-Python: >=3.7
{"".join(f"Requires-Dist: {requirement}" + chr(10) for requirement in REQUIREMENTS)}
The Python files of detectron2 0.6, without its compiled extension (detectron2._C).
See NOTICE beside this file for where they come from and what was changed.
"""

WHEEL = """\
Wheel-Version: 1.0
Generator: alphaaction_d2 tools/install_detectron2.py
Root-Is-Purelib: true
Tag: py3-none-any
"""

NOTICE = f"""\
detectron2
Copyright (c) Facebook, Inc. and its affiliates.
Licensed under the Apache License, Version 2.0; see LICENSE beside this file.

These are the Python files and model zoo configurations of detectron2 0.6
(https://github.com/facebookresearch/detectron2), taken from the folder {SOURCE_ROOT} of the
Python package {SOURCE_REQUIREMENT} (sha256 of its wheel: {SOURCE_SHA256}),
whose authors had changed the import root from detectron2 to LabGym.detectron2.

Changed by tools/install_detectron2.py of alphaaction_d2:
- the import root is detectron2 again; each file changed in this way says so in its last line;
- this metadata was written anew, with detectron2's requirements except black.
Nothing else was changed, and nothing else of that package is included.
"""

CHANGE_MARK = b"\n# Changed for this wheel: the import root is detectron2 again (see its NOTICE).\n"


class InstallError(ValueError):
    """What went wrong and what to do, in one line."""


def installed_detectron2() -> str | None:
    """Describe the detectron2 that this Python imports, or return None if there is none."""
    spec = importlib.util.find_spec("detectron2")
    if spec is None or spec.origin is None:  # a mere folder of that name has no origin
        return None
    try:
        version = importlib.metadata.version("detectron2")
    except importlib.metadata.PackageNotFoundError:
        version = "of unknown version"
    return f"detectron2 {version} in {Path(spec.origin).parent}"


def run_pip(*arguments: str, purpose: str) -> None:
    """Run pip quietly; raise InstallError with the last line of its complaint if it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")] or lines
        reason = errors[-1] if errors else f"pip ended with status {result.returncode}"
        raise InstallError(
            f"could not {purpose} ({reason}): check the network and pip's settings, "
            f"or install detectron2 as described at {OFFICIAL_INSTALLATION}"
        )


def verify_checksum(path: Path, expected: str = SOURCE_SHA256) -> None:
    """Raise InstallError unless the file's SHA-256 is the expected one."""
    got = hashlib.sha256(path.read_bytes()).hexdigest()
    if got != expected:
        raise InstallError(
            f"{path.name} is not the file this script was written for: "
            f"sha256 expected {expected}, got {got}"
        )


def download_source(folder: Path) -> Path:
    """Download the package that carries detectron2 into a folder and return the verified wheel."""
    # It declares an old Python and many requirements of its own; only its files are wanted.
    run_pip(
        *("download", "--no-deps", "--ignore-requires-python", "--only-binary=:all:"),
        *("--dest", str(folder), SOURCE_REQUIREMENT),
        purpose=f"download {SOURCE_REQUIREMENT}",
    )
    (path,) = folder.glob("*.whl")
    verify_checksum(path)
    return path


def rewrite_import_root(source: bytes) -> bytes:
    """Turn ``LabGym.detectron2`` back into ``detectron2`` in the text of a Python file."""
    rewritten = re.sub(rb"\bLabGym\.detectron2\b", b"detectron2", source)
    return rewritten if rewritten == source else rewritten.rstrip(b"\n") + CHANGE_MARK


def read_sources(source: Path) -> dict[str, bytes]:
    """Read detectron2's files from the carrying wheel, by their names in the new one
    (``detectron2/...``), Python files rewritten; InstallError where there are none, or a name of
    its import root is left."""
    files = {}
    with zipfile.ZipFile(source) as archive:
        for name in archive.namelist():
            if not name.startswith(SOURCE_ROOT) or name.endswith("/"):
                continue
            content = archive.read(name)
            if name.endswith(".py"):
                content = rewrite_import_root(content)
            if b"LabGym" in content:
                raise InstallError(f"{source.name}: {name} still names LabGym after the rewriting")
            files["detectron2/" + name[len(SOURCE_ROOT) :]] = content
    if "detectron2/__init__.py" not in files:
        raise InstallError(f"{source.name}: no {SOURCE_ROOT}__init__.py in it")
    return files


def license_text() -> bytes:
    """The text of the Apache License, without the appendix that names this project's authors."""
    beside = Path(__file__).resolve().parents[2] / "LICENSE"  # in a checkout
    paths = [beside] if beside.is_file() else []
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        files = importlib.metadata.files("alphaaction_d2") or []
        paths += [Path(str(file.locate())) for file in files if file.name == "LICENSE"]
    if not paths:
        raise InstallError("alphaaction_d2 has lost its LICENSE: install it again")
    terms, end, _ = paths[0].read_text(encoding="utf-8").partition("END OF TERMS AND CONDITIONS\n")
    return (terms + end).encode()


def build_wheel(source: Path, folder: Path) -> Path:
    """Build the detectron2 wheel from the carrying wheel; equal input gives an equal file."""
    files = dict(sorted(read_sources(source).items()))
    files[f"{DIST_INFO}/LICENSE"] = license_text()
    files[f"{DIST_INFO}/NOTICE"] = NOTICE.encode()
    files[f"{DIST_INFO}/METADATA"] = METADATA.encode()
    files[f"{DIST_INFO}/WHEEL"] = WHEEL.encode()
    files[f"{DIST_INFO}/RECORD"] = record(files, f"{DIST_INFO}/RECORD").encode()

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / WHEEL_NAME
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            # Fixed date, system and mode, and no compression, whose bytes depend on the zlib.
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # Unix, also when built elsewhere
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return path


def record(files: dict[str, bytes], own_name: str) -> str:
    """The wheel's list of files with hash and size; its own line has neither."""
    lines = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}\n")
    return "".join(lines) + f"{own_name},,\n"


def install_wheel(wheel: Path, *, force: bool) -> None:
    """Install the wheel, and of its requirements what is missing."""
    if force:
        options = ("--no-deps", "--force-reinstall")
        run_pip("install", *options, str(wheel), purpose=f"install {wheel.name}")
    run_pip("install", str(wheel), purpose=f"install {wheel.name} and what it requires")


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--force", action="store_true", help="replace an installed detectron2")
    parser.add_argument(
        "--wheel-dir", type=Path, metavar="DIR", help="only build the wheel, into this folder"
    )
    return parser.parse_args(arguments)


def main(options: argparse.Namespace) -> None:
    present = installed_detectron2()
    if present and not options.force and options.wheel_dir is None:
        print(f"{present} is used as it is (--force replaces it)")
        return
    with tempfile.TemporaryDirectory() as temporary:
        source = download_source(Path(temporary))
        wheel = build_wheel(source, options.wheel_dir or Path(temporary) / "wheel")
        if options.wheel_dir is not None:
            print(f"built {wheel}")
            return
        install_wheel(wheel, force=options.force)
    print(f"installed detectron2 {VERSION}")
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("torchvision") is None:
        print("detectron2 needs torch and torchvision too: pip install torch torchvision")


if __name__ == "__main__":
    try:
        main(parse_args())
    except InstallError as error:
        sys.exit(f"install_detectron2: {error}")
