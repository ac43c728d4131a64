"""Real input from end to end: train_net.py learns two annotated clips, demo.py shows them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLIPS = ("chaplin_policeman", "store_aisle")
CLASSES = {
    12: ("stand", "POSE"),
    14: ("walk", "POSE"),
    59: ("touch", "OBJECT"),
    80: ("watch", "PERSON"),
}


def run(*command: object, cwd: Path) -> str:
    """Run one of our tools as a user does; its output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(shared, tmp_path_factory) -> Path:
    """The two clips as own data; training and validation are the same keyframes."""
    videos = shared / "videos"
    root = tmp_path_factory.mktemp("real") / "real"
    for name in ("videos", "annotations", "boxes"):
        (root / name).mkdir(parents=True)
    rows = []
    for clip in CLIPS:
        shutil.copy(videos / "clips" / f"{clip}.mp4", root / "videos")
        rows += (videos / "annotations" / f"{clip}_ava.csv").read_text().split()
    for split in ("train", "val"):
        (root / "annotations" / f"{split}.csv").write_text("\n".join(rows) + "\n")
    boxes = dict.fromkeys(",".join(r.split(",")[:6]) + ",,1.0," + r.split(",")[7] for r in rows)
    (root / "boxes" / "val_persons.csv").write_text("\n".join(boxes) + "\n")
    labels = [
        f'label {{\n  name: "{name}"\n  label_id: {i}\n  label_type: {group}\n}}\n'
        for i, (name, group) in CLASSES.items()
    ]
    (root / "label_map.pbtxt").write_text("".join(labels))
    return root


def data(folder: Path) -> list[object]:
    return [
        *("DATASETS.FOLDERS", f"('{folder}',)", "DATASETS.TRAIN", "('real_train',)"),
        *("DATASETS.TEST", "('real_val',)", "DATALOADER.NUM_WORKERS", 0, "MODEL.DEVICE", "cpu"),
    ]


@pytest.mark.slow
def test_small_model_learns_the_clips(folder, tmp_path):
    config = ROOT / "configs" / "Small" / "aia.yaml"
    output = tmp_path / "output"
    # Ten keyframes are learned by heart here; a test of the path, not of what it is good for.
    run(
        ROOT / "tools" / "train_net.py",
        *("--config-file", config, *data(folder), "OUTPUT_DIR", output),
        *("SOLVER.MAX_ITER", 150, "SOLVER.IMS_PER_BATCH", 5, "SOLVER.WARMUP_ITERS", 20),
        *("INPUT.BOX_JITTER", "(0.02,0.02,0.02,0.02)", "DATALOADER.ASPECT_RATIO_GROUPING", False),
        cwd=tmp_path,
    )
    results = json.loads((output / "ava_results.json").read_text())
    assert results["mAP@0.5"] > 0.9, results

    shown = run(
        ROOT / "tools" / "demo.py",
        *("--config-file", config, "--weights", output / "model_final.pth"),
        *("--input", *(folder / "videos" / f"{clip}.mp4" for clip in CLIPS)),
        *("--boxes", folder / "boxes" / "val_persons.csv", "--output", tmp_path / "demo"),
        *("--opts", *data(folder)),
        cwd=tmp_path,
    )
    assert "Report" in shown
    result = json.loads((tmp_path / "demo" / "chaplin_policeman" / "results.json").read_text())
    found = result["keyframes"][3]["persons"]
    assert len(found) == 2 and all(p["scores"][11] > 0.5 for p in found), "both stand at 3 s"
    for clip in CLIPS:
        for name in ("annotated.mp4", "timeline.png", "results.csv"):
            assert (tmp_path / "demo" / clip / name).stat().st_size > 0


@pytest.mark.slow
def test_slowfast_r50_with_dense_ia_trains_and_shows(folder, tmp_path):
    config = ROOT / "configs" / "AVA" / "aia_dense_R50_4x16.yaml"
    size = ("INPUT.MIN_SIZE_TRAIN", "(128,)", "INPUT.MIN_SIZE_TEST", 128)
    run(
        ROOT / "tools" / "train_net.py",
        *("--config-file", config, *data(folder), "OUTPUT_DIR", tmp_path / "output", *size),
        *("SOLVER.MAX_ITER", 1, "SOLVER.IMS_PER_BATCH", 1, "DATASETS.TEST", "()"),
        *("SOLVER.REFERENCE_IMS_PER_BATCH", 0),
        *("SOLVER.BASE_LR", 1e-6, "DATALOADER.ASPECT_RATIO_GROUPING", False),
        cwd=tmp_path,
    )
    run(
        ROOT / "tools" / "demo.py",
        *("--config-file", config, "--weights", tmp_path / "output" / "model_final.pth"),
        *("--input", folder / "videos" / "store_aisle.mp4", "--output", tmp_path / "demo"),
        *("--boxes", folder / "boxes" / "val_persons.csv", "--opts", *size),
        *("MODEL.DEVICE", "cpu", "DATASETS.TRAIN", "()", "DATASETS.TEST", "()"),
        cwd=tmp_path,
    )
    assert (tmp_path / "demo" / "report.html").is_file()
