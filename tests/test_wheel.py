"""What `pip install` gives: the commands and the configurations, far from any checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of what the repository tracks, or would."""
    if not (ROOT / ".git").exists():
        pytest.skip("no repository that tells which files belong to it")
    folder = tmp_path_factory.mktemp("wheel")
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "-qq", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, folder / "source"], check=True)
    (path,) = folder.glob("alphaaction_d2-*.whl")
    return path


@pytest.fixture(scope="module")
def alphaaction(wheel, tmp_path_factory):
    """A function that runs the installed command in a folder of its own."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "-qq", "install", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", target, wheel], check=True)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    environment = {**os.environ, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [target / "bin" / "alphaaction", *arguments],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )

    run.folder, run.site = elsewhere, target
    return run


@pytest.mark.slow
def test_a_wheel_has_real_copies_of_all_configurations(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        text = archive.read("alphaaction_d2/model_zoo/configs/Small/aia.yaml")
    assert text == (ROOT / "configs" / "Small" / "aia.yaml").read_bytes()
    configs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert {f"alphaaction_d2/model_zoo/{name}" for name in configs} <= names
    assert {"alphaaction.py", "alphaaction_d2/apps/install_detectron2.py"} <= names


@pytest.mark.slow
def test_the_installed_command(alphaaction):
    result = alphaaction("--help")
    assert result.returncode == 0 and "alphaaction demo" in result.stdout
    result = alphaaction("setup")
    assert result.returncode == 0 and "is used as it is" in result.stdout
    result = alphaaction("evaluate", "ava", "--help")
    assert result.returncode == 0 and "--ground-truth" in result.stdout
    # What `setup` builds carries the terms of the licence, which lie elsewhere than in a checkout.
    code = "import runpy, sys; names = runpy.run_path(sys.argv[1]); print(names['license_text']())"
    setup = alphaaction.site / "alphaaction_d2" / "apps" / "install_detectron2.py"
    result = subprocess.run(
        [sys.executable, "-c", code, setup],
        env={**os.environ, "PYTHONPATH": str(alphaaction.site)},
        capture_output=True,
        text=True,
    )
    assert "Apache License" in result.stdout, result.stderr


@pytest.mark.slow
def test_the_installed_command_trains_and_shows(alphaaction):
    """Videos, a model of a configuration that came with the wheel, an annotated video."""
    sizes = ("--num-train", "2", "--num-val", "1", "--seconds", "4", "--num-workers", "1")
    result = alphaaction("puppets", "--output", "puppets", *sizes)
    assert result.returncode == 0, result.stderr
    result = alphaaction(
        *("train", "--config-file", "Puppets/none", "DATASETS.FOLDERS", "('puppets',)"),
        *("SOLVER.MAX_ITER", "1", "SOLVER.IMS_PER_BATCH", "1", "TEST.EVAL_PERIOD", "0"),
        *("OUTPUT_DIR", "run", "DATASETS.TEST", "()"),
    )
    assert result.returncode == 0, result.stderr
    assert (alphaaction.folder / "run" / "model_final.pth").is_file()
    result = alphaaction(
        *("demo", "--config-file", "Puppets/none", "--weights", "run/model_final.pth"),
        *("--input", "puppets/videos/val_000.mp4", "--boxes", "puppets/boxes/val_persons.csv"),
        *("--output", "shown"),
    )
    assert result.returncode == 0, result.stderr
    assert (alphaaction.folder / "shown" / "report.html").is_file()
    (config,) = (alphaaction.folder / "run").glob("config.yaml")
    assert str(alphaaction.site) not in config.read_text()
