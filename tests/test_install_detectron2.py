"""`alphaaction setup` on a small stand-in for the package that carries detectron2."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "alphaaction_d2" / "apps" / "install_detectron2.py"
TOOL = ROOT / "tools" / "install_detectron2.py"  # runs it

SOURCES = {
    "LabGym/__init__.py": "import LabGym.detectron2\n",
    "LabGym/tools.py": "SECRET = 1\n",
    "LabGym/detectron2/__init__.py": "from .layers import area\n__version__ = '0.6'\n",
    "LabGym/detectron2/layers/__init__.py": (
        "import logging\n"
        "import LabGym.detectron2.layers.boxes as boxes\n"
        "from LabGym.detectron2.layers.boxes import area\n"
        "logger = logging.getLogger('LabGym.detectron2')\n"
    ),
    "LabGym/detectron2/layers/boxes.py": "def area(w, h):\n    return w * h\n",
    "LabGym/detectron2/model_zoo/configs/Base.yaml": "VERSION: 2\n",
    "labgym-3.1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: LabGym\nVersion: 3.1.2\n",
    "labgym-3.1.2.dist-info/WHEEL": (
        "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    ),
}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install_detectron2", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_source(folder: Path, sources: dict[str, str]) -> Path:
    path = folder / "labgym-3.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in sources.items():
            archive.writestr(name, text)
    return path


def run_script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOL), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_wheel_holds_detectron2_alone_under_its_own_name(script, tmp_path):
    wheel = script.build_wheel(write_source(tmp_path, SOURCES), tmp_path / "out")
    assert wheel.name == "detectron2-0.6+pure-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == {
            "detectron2/__init__.py",
            "detectron2/layers/__init__.py",
            "detectron2/layers/boxes.py",
            "detectron2/model_zoo/configs/Base.yaml",
        }
        layers = archive.read("detectron2/layers/__init__.py").decode()
        unchanged = archive.read("detectron2/layers/boxes.py").decode()
    assert "import detectron2.layers.boxes as boxes\n" in layers
    assert "getLogger('detectron2')" in layers
    assert "LabGym" not in layers
    assert layers.splitlines()[-1].startswith("# Changed for this wheel")
    assert unchanged == SOURCES["LabGym/detectron2/layers/boxes.py"]


def test_record_lists_every_file_with_hash_and_size(script, tmp_path):
    wheel = script.build_wheel(write_source(tmp_path, SOURCES), tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        record = f"{script.DIST_INFO}/RECORD"
        rows = list(csv.reader(io.StringIO(archive.read(record).decode())))
        assert {row[0] for row in rows} == names
        for name, digest, size in rows:
            if name == record:
                assert (digest, size) == ("", "")
                continue
            content = archive.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            assert (digest, size) == (f"sha256={expected.decode()}", str(len(content)))


def test_metadata_licence_and_notice(script, tmp_path):
    wheel = script.build_wheel(write_source(tmp_path, SOURCES), tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        texts = {
            name: archive.read(f"{script.DIST_INFO}/{name}").decode()
            for name in ("METADATA", "LICENSE", "NOTICE", "WHEEL")
        }
    metadata = Parser().parsestr(texts["METADATA"])
    assert (metadata["Name"], metadata["Version"]) == ("detectron2", "0.6+pure")
    assert metadata["License"] == "Apache-2.0"
    required = metadata.get_all("Requires-Dist")
    assert "fvcore>=0.1.5,<0.1.6" in required
    assert not any(line.startswith(("black", "torch")) for line in required)
    assert "Apache License" in texts["LICENSE"]
    assert texts["LICENSE"].endswith("END OF TERMS AND CONDITIONS\n")
    assert "alphaaction_d2 authors" not in texts["LICENSE"]
    assert "Copyright (c) Facebook, Inc. and its affiliates." in texts["NOTICE"]
    assert script.SOURCE_REQUIREMENT in texts["NOTICE"]
    assert "Tag: py3-none-any" in texts["WHEEL"]


def test_equal_input_gives_an_equal_wheel(script, tmp_path):
    first = script.build_wheel(write_source(tmp_path, SOURCES), tmp_path / "first")
    reordered = write_source(tmp_path, dict(reversed(SOURCES.items())))
    second = script.build_wheel(reordered, tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()


def test_pip_installs_the_wheel_and_python_imports_it(script, tmp_path):
    wheel = script.build_wheel(write_source(tmp_path, SOURCES), tmp_path)
    target = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "-qq", "install", "--no-deps", "--no-index"]
        + ["--target", str(target), str(wheel)],
        check=True,
    )
    code = (
        "import detectron2, importlib.metadata as m;"
        "print(detectron2.__file__, detectron2.area(2, 3), m.version('detectron2'))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(target)},
    ).stdout
    assert printed.split() == [str(target / "detectron2" / "__init__.py"), "6", "0.6+pure"]


def test_a_left_over_name_is_refused(script, tmp_path):
    source = write_source(
        tmp_path, {**SOURCES, "LabGym/detectron2/data.py": "from LabGym import detectron2\n"}
    )
    with pytest.raises(script.InstallError, match=r"LabGym/detectron2/data\.py still names LabGym"):
        script.build_wheel(source, tmp_path / "out")


def test_a_package_without_detectron2_is_refused(script, tmp_path):
    source = write_source(tmp_path, {"LabGym/__init__.py": ""})
    with pytest.raises(script.InstallError, match=r"no LabGym/detectron2/__init__\.py in it"):
        script.build_wheel(source, tmp_path / "out")


def test_a_wrong_checksum_names_both_sums(script, tmp_path):
    source = write_source(tmp_path, SOURCES)
    got = hashlib.sha256(source.read_bytes()).hexdigest()
    with pytest.raises(script.InstallError) as caught:
        script.verify_checksum(source)
    message = str(caught.value)
    assert f"expected {script.SOURCE_SHA256}, got {got}" in message
    assert "\n" not in message
    script.verify_checksum(source, expected=got)


def test_a_failed_download_is_one_line(tmp_path):
    # An index that is not there stands for a machine without a network.
    result = run_script(
        *("--wheel-dir", str(tmp_path / "out")),
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS=str(tmp_path),
    )
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("install_detectron2: could not download labgym==3.1.2 (ERROR: ")
    assert "https://detectron2.readthedocs.io/tutorials/install.html" in line
    assert not (tmp_path / "out").exists()


def test_a_wrong_file_from_the_index_is_refused(tmp_path):
    write_source(tmp_path, SOURCES)
    result = run_script(
        *("--wheel-dir", str(tmp_path / "out")),
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS=str(tmp_path),
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "labgym-3.1.2-py3-none-any.whl is not the file this script was written for" in line


def test_an_installed_detectron2_is_left_alone(tmp_path):
    package = tmp_path / "site" / "detectron2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    result = run_script(PYTHONPATH=str(package.parent), PIP_NO_INDEX="1")
    assert result.returncode == 0
    assert f"in {package} is used as it is" in result.stdout
    assert list(package.iterdir()) == [package / "__init__.py"]


def test_a_mere_folder_named_detectron2_does_not_count(script, tmp_path, monkeypatch):
    (tmp_path / "detectron2").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "detectron2", raising=False)
    assert script.installed_detectron2() is None
