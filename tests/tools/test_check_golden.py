"""tools/check_golden.py: the reference folder passes, and what is wrong fails."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

sys.path.insert(0, str(Path(__file__).parent))

from check_golden import KINDS, check_case, find_cases, main  # noqa: E402
from golden_folder import Writer, write_folder  # noqa: E402
from golden_maps_folder import write_maps  # noqa: E402

SHARED = Path(os.environ.get("ALPHAACTION_SHARED", ROOT.parent / "shared"))
FOLDER = SHARED / "golden" / "data"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
def test_reference_case(name):
    (case,) = (case for case in find_cases(FOLDER, [name]) if case.name == name)
    check_case(case)
    assert case.ok, [x for x in case.comparisons.values() if not x.ok][:5]
    assert case.comparisons


def copy_case(shared: Path, folder: Path, name: str, new: str = "") -> dict[str, np.ndarray]:
    """Copy a case; returns its arrays, to be changed and saved again."""
    for suffix in ("json", "npz"):
        source = shared / "golden" / "data" / f"{name}.{suffix}"
        if source.is_file():
            shutil.copy(source, folder / f"{new or name}.{suffix}")
    path = folder / f"{new or name}.npz"
    return dict(np.load(path)) if path.is_file() else {}


WRONG = [
    ("a1_block_ln", "out/out"),
    ("a6_block_spatial_positions_ln", "mid/attention"),
    ("b2_ia_dense", "grad/param/dense_params.3"),
    ("b2_ia_dense", "param/M_block_1.temporal_position_k"),
    ("b5_ia_dense_order_OMP_dimout32", "mid/O_block_1.others"),
    ("c1_memory_read_train_penalty", "out/memory"),
    ("c2_memory_read_eval", "out/memory_boxes"),
    ("d1_action_loss", "out/loss_pose_action"),
    ("d1_action_loss", "mid/interaction_loss_elementwise"),
    ("e1_head_train_dense", "grad/slow"),
    ("e5_head_eval_dense", "out/scores"),
    ("e5_head_eval_dense", "mid/extended_boxes"),
    ("g3_box_operations", "out/clipped_and_emptied"),
    ("h2_pixel_transforms", "out/normalised"),
    ("h3_pipeline", "out/train_flip_boxes"),
    ("i1_memory_training_trace_dense", "out/final_pool_loss_tags"),
    ("i1_memory_training_trace_dense", "in/clip/movA/902/boxes"),
]


@pytest.mark.parametrize("name, key", WRONG)
def test_a_changed_array_fails(shared, tmp_path, name, key):
    arrays = copy_case(shared, tmp_path, name)
    arrays[key] = (arrays[key] * np.float32(1.01) + np.float32(1e-3)).astype(arrays[key].dtype)
    np.savez(tmp_path / f"{name}.npz", **arrays)
    (case,) = find_cases(tmp_path)
    check_case(case)
    assert not case.ok


def test_what_nobody_compares_fails(shared, tmp_path, capsys):
    arrays = copy_case(shared, tmp_path, "g1_box_extend")
    np.savez(tmp_path / "g1_box_extend.npz", **arrays, **{"out/news": np.zeros(3, np.float32)})
    assert main([str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "FAIL g1_box_extend" in printed and "out/news was not compared" in printed
    assert "1 cases, 1 failed" in printed


def test_unknown_and_broken_cases_fail_and_the_others_count(shared, tmp_path, capsys):
    copy_case(shared, tmp_path, "d7_post_processor")
    (tmp_path / "x1.json").write_text(json.dumps({"config": {"what": 1}}))
    arrays = copy_case(shared, tmp_path, "d1_action_loss", "y1")
    del arrays["in/labels"]
    np.savez(tmp_path / "y1.npz", **arrays)
    assert main([str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "ok   d7_post_processor" in printed
    assert "FAIL x1" in printed and "of no known kind" in printed
    assert "FAIL y1" in printed and "3 cases, 2 failed" in printed


def test_tables_are_compared(shared, tmp_path):
    name = "h1_frame_indices_and_sizes"
    copy_case(shared, tmp_path, name)
    table = json.loads((tmp_path / f"{name}.json").read_text())
    table["slow_fast"][0]["slow_indices"][0] += 1
    table["resize"][0]["output_width"] += 1
    (tmp_path / f"{name}.json").write_text(json.dumps(table))
    (case,) = find_cases(tmp_path)
    check_case(case)
    assert [x.key for x in case.comparisons.values() if not x.ok] == ["slow_fast 0", "resize 0"]


def test_other_sizes_and_names_pass(shared, tmp_path):
    """Fewer persons and channels under other names: kinds and sizes come from the files."""
    arrays = copy_case(shared, tmp_path, "d7_post_processor", "first")
    arrays = {key: value[:3] for key, value in arrays.items()}
    arrays["in/counts"] = np.array([2, 0, 1])
    np.savez(tmp_path / "first.npz", **arrays)
    arrays = copy_case(shared, tmp_path, "e9_roi_align_each_frame", "second")
    for key in ("in/features", "in/grad_projection", "out/pooled", "grad/features"):
        arrays[key] = arrays[key][:, 1:5]
    np.savez(tmp_path / "second.npz", **arrays)
    assert main([str(tmp_path)]) == 0


@pytest.mark.parametrize("seed", [0, 1])
def test_a_folder_nobody_has_seen_passes(tmp_path, seed):
    """Cases of a second implementation, whose sizes and values are others, of every kind."""
    write_folder(tmp_path, seed)
    write_maps(Writer(tmp_path, seed))
    kinds = set()
    for case in find_cases(tmp_path):
        kinds.add(check_case(case))
        problems = [x for x in case.comparisons.values() if not x.ok]
        assert case.ok, (case.name, problems[:5])
        assert case.worst.share < 0.2, (case.name, case.worst)
    # the recipe is that of the released configuration: it has no other sizes
    assert kinds == {kind for kind, _, _ in KINDS} - {"recipe"}


def test_other_recipes_pass(shared, tmp_path):
    """Other rates and another schedule than the released ones, by the rules of README 2.9."""
    name = "i2_optimizer_and_initialisation"
    copy_case(shared, tmp_path, name)
    recipe = json.loads((tmp_path / f"{name}.json").read_text())
    solver = recipe["solver"]
    solver |= {"BASE_LR": 0.002, "BIAS_LR_FACTOR": 3, "IA_LR_FACTOR": 4.0, "WEIGHT_DECAY": 1e-4}
    solver |= {"WEIGHT_DECAY_BIAS": 1e-5, "STEPS": [50, 80], "GAMMA": 0.5, "WARMUP_ITERS": 10}
    solver |= {"WARMUP_FACTOR": 0.1, "MAX_ITER": 100, "MOMENTUM": 0.85}
    recipe["momentum"] = 0.85
    for parameter, values in recipe["per_parameter"].items():
        rate = 0.002 * (4 if "ia_structure" in parameter else 1)
        values["lr"] = rate * (3 if "bias" in parameter else 1)
        values["weight_decay"] = 1e-5 if "bias" in parameter else 1e-4
    factors = {"0": 0.1, "5": 0.55, "10": 1, "49": 1, "50": 0.5, "80": 0.25, "99": 0.25}
    recipe["schedule_factor_at_iteration"] = factors
    (tmp_path / f"{name}.json").write_text(json.dumps(recipe))
    (case,) = find_cases(tmp_path)
    assert check_case(case) == "recipe" and case.ok, case.comparisons


def test_where_there_is_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no cases"):
        find_cases(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_cases(tmp_path / "x")
