"""Training steps: as the memory window grows, and of IGMN beside AIA."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Row

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "projects" / "AIA" / "memory_window.py"


def rows(quick: bool) -> Iterator[Row]:
    """See the module's docstring."""
    yield from growing_window(quick)
    yield igmn_beside_aia(quick)


def igmn_beside_aia(quick: bool) -> Row:
    """One whole step with a full memory window; steps of both models take turns."""
    spec = importlib.util.spec_from_file_location("memory_window", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    if quick:
        files = [ROOT / "configs" / "Puppets" / f"{name}.yaml" for name in ("aia", "igmn")]
        options = ["--short-side", "48"]
    else:
        names = ("aia_dense_R50_4x16", "igmn_R50_4x16")
        files, options = [ROOT / "configs" / "AVA" / f"{name}.yaml" for name in names], []
    steps, configs = [], []
    for file in files:
        args = script.parse_arguments(["--config-file", str(file), *options])
        configs.append(script.load_config(args))
        steps.append(script.build_step(configs[-1], "memory", sum(configs[-1].MODEL.MEMORY.WINDOW)))
    aia, igmn = script.interleaved_medians(steps, 1 if quick else 7, configs[0])
    return Row(
        "training step of IGMN",
        igmn,
        "s",
        yardstick=aia,
        yardstick_name="dense serial AIA",
        limit=1.25,
        note=""
        if quick
        else "SlowFast R50 4x16, one clip of 256x340, memory 61 x 5, processor time",
    )


def growing_window(quick: bool) -> Iterator[Row]:
    """Time and memory of the longest window beside those of the shortest (AIA, Fig. 5)."""
    options = ["--lengths", "0", "30", "60", "--repeats", "5"]
    if quick:
        small = str(ROOT / "configs" / "Small" / "aia.yaml")
        options = ["--lengths", "0", "4", "--repeats", "1", "--short-side", "48"]
        options += ["--config-file", small]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, str(SCRIPT), *options, "--output", folder],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        measured = json.loads(Path(folder, "memory_window.json").read_text())["methods"]["memory"]
    for what, key, unit, scale in (("time", "seconds", "s", 1), ("memory", "bytes", "GB", 1e-9)):
        values = [row[key] * scale for row in measured]
        longest = measured[-1]["length"]
        yield Row(
            f"training step, {what}: worst window up to {longest} s",
            max(values),
            unit,
            yardstick=values[0],
            yardstick_name="without a window",
            limit=1.1,
            note="" if quick else "SlowFast R50 4x16, dense IA, one clip of 256x340, float32",
        )
