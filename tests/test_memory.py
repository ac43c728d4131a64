"""The memory pool against the released model's numbers (golden/README 2.3) and by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from alphaaction_d2.memory import (
    MemoryFileError,
    MemoryPool,
    MemoryWrite,
    read_weights,
    slot_of,
)
from alphaaction_d2.modeling.memory_window import insert_clips
from alphaaction_d2.structures import MemoryWindow
from tests.modeling.golden import GoldenCase, assert_close

CASES = [
    "c1_memory_read_train_penalty",
    "c2_memory_read_eval",
    "c3_memory_read_train_no_penalty",
    "c4_memory_read_asymmetric_rate2",
    "c5_memory_read_first_iteration_after_resume",
    "c6_memory_read_movie_not_in_pool",
]
EXACT = CASES[1:3]


def write(video: str, slot: int, features: torch.Tensor, scores=None, ids=None) -> MemoryWrite:
    n = len(features)
    return MemoryWrite(
        video_id=video,
        slot=slot,
        features=features,
        boxes=torch.rand(n, 4),
        person_ids=torch.arange(n) if ids is None else torch.tensor(ids),
        scores=torch.ones(n) if scores is None else torch.tensor(scores),
    )


def small_pool(**kwargs) -> MemoryPool:
    options = {"num_channels": 3, "window": (2, 2), "max_persons": 2, "dtype": torch.float32}
    return MemoryPool(**{**options, **kwargs})


@pytest.mark.parametrize("name", CASES)
def test_read_as_released(shared, name):
    case = GoldenCase(shared / "golden" / "data", name)
    config = case.config
    pool = MemoryPool(
        num_channels=config["feature_dim"],
        window=tuple(config["length_before_after"]),
        stride=config["memory_rate"],
        max_persons=config["max_per_sec"],
        reweight=config["use_penalty"],
        dtype=torch.float32,
    )
    counts = case.counts("in/pool_counts")
    tags = "in/pool_loss_tags"
    columns = (
        case.arrays["in/pool_movie_ids"].tolist(),
        case.counts("in/pool_timestamps"),
        case["in/pool_features"].split(counts),
        case.counts(tags) if tags in case.arrays.files else [1.0] * len(counts),
    )
    for movie, second, features, tag in zip(*columns):
        pool.update([write(movie, second, features)], tag)
    pool.err = config["cur_loss"] or 0.0

    windows = [
        pool.read(movie, second, training=config["training"])
        for movie, second in zip(
            case.arrays["in/query_movie_ids"].tolist(), case.counts("in/query_timestamps")
        )
    ]
    counts = case.counts("in/cur_counts")
    persons = []
    for features in case["in/cur_features"].split(counts):
        clip = Instances((128, 160), roi_features=features)
        clip.proposal_boxes = Boxes(torch.zeros(len(features), 4))
        clip.person_ids = torch.full((len(features),), -1)
        clip.objectness_logits = torch.ones(len(features))
        persons.append(clip)
    window = insert_clips(MemoryWindow.stack(windows), persons, random_subset=False)
    memory = window.features.flatten(1, 2)
    if name in EXACT:
        assert torch.equal(memory, case["out/memory"])
    else:
        assert_close(memory, case["out/memory"])


def test_weights_by_hand():
    weights = read_weights(np.array([2.0, 1.0, 0.5, 0.0]), err=1.0)
    np.testing.assert_allclose(weights, [0.5, 1.0, 0.5, 0.0])
    assert not read_weights(np.array([1.0]), math.inf).any(), "before the first step nothing counts"
    assert not read_weights(np.array([1.0]), 0.0).any()


def test_window_layout():
    pool = small_pool(reweight=False)
    for slot in (8, 9, 10, 12, 20):
        pool.update([write("v", slot, torch.full((1, 3), float(slot)))], 1.0)
    window = pool.read("v", 10, training=True)
    assert window.offsets.tolist() == [-2, -1, 0, 1, 2]
    assert window.features[:, 0, 0].tolist() == [8, 9, 0, 0, 12], "the centre stays empty"
    assert window.valid[:, 0].tolist() == [True, True, False, False, True]
    assert not pool.read("other", 10, training=True).valid.any()
    assert not pool.read("v", -50, training=True).valid.any()


def test_rewriting_a_slot_reuses_rows_and_leaves_neighbours_alone():
    pool = small_pool(max_persons=5)
    pool.update([write("v", 1, torch.ones(3, 3)), write("v", 2, torch.full((2, 3), 2.0))], 1.0)
    pool.update([write("v", 1, torch.full((1, 3), 5.0))], 1.0)
    assert len(pool) == 3
    window = pool.read("v", 3, training=False)
    assert window.valid.sum(dim=1).tolist() == [1, 2, 0, 0, 0]
    assert window.features[0, 0].tolist() == [5, 5, 5]
    assert torch.equal(window.features[1, :2], torch.full((2, 3), 2.0))
    pool.update([write("v", 1, torch.zeros(0, 3))], 1.0)
    assert not pool.read("v", 3, training=False).valid[0].any()


def test_crowded_slot_best_in_testing_random_in_training():
    pool = small_pool()
    features = torch.arange(4.0)[:, None].expand(4, 3)
    pool.update([write("v", 0, features, scores=[0.1, 0.9, 0.5, 0.8])], 1.0)
    pool.err = 1.0
    best = pool.read("v", 1, training=False).features[1, :, 0]
    assert best.tolist() == [1, 3]
    seen = {tuple(pool.read("v", 1, training=True).features[1, :, 0].tolist()) for _ in range(60)}
    assert len(seen) == 6, "every pair of four persons turns up"


def test_windows_are_copies():
    pool = small_pool()
    pool.update([write("v", 0, torch.ones(1, 3))], 1.0)
    window = pool.read("v", 1, training=False)
    window.features.zero_()
    assert pool.read("v", 1, training=False).features.sum() == 3


def test_forget_bounds_memory():
    pool = small_pool()
    for slot in range(500):
        pool.update([write("v", slot, torch.full((2, 3), float(slot)))], 1.0)
        pool.forget("v", before=slot - 2)
    assert len(pool) == 6
    assert len(pool._features) < 200, "rows of forgotten slots are used again"
    assert pool.read("v", 500, training=False).features[:2, 0, 0].tolist() == [498, 499]


def test_file_round_trip(tmp_path):
    pool = small_pool()
    torch.manual_seed(0)
    for slot in (3, 1, -4, 7):
        pool.update(
            [write("b", slot, torch.rand(slot % 3, 3), scores=[0.5] * (slot % 3))], slot + 5
        )
    pool.update([write("a", 2, torch.rand(2, 3), ids=[4, -1])], 0.25)
    pool.err = 0.75
    pool.save(tmp_path / "pool")
    again = small_pool()
    again.load(tmp_path / "pool")
    assert again.err == pool.err and len(again) == len(pool)
    for video in ("a", "b"):
        for slot in range(-8, 12):
            one, two = (p.read(video, slot, training=False) for p in (pool, again))
            for field in ("features", "valid", "person_ids", "boxes", "weights"):
                assert torch.equal(getattr(one, field), getattr(two, field))
    assert not list(tmp_path.glob("*.partial"))


def test_bad_files_are_refused_with_the_reason(tmp_path):
    path = tmp_path / "pool"
    with pytest.raises(MemoryFileError, match="no such memory file"):
        small_pool().load(path)
    path.write_bytes(b"not a pool")
    with pytest.raises(MemoryFileError, match="damaged"):
        small_pool().load(path)
    torch.save({"model": {}}, path)
    with pytest.raises(MemoryFileError, match="not a memory pool"):
        small_pool().load(path)
    small_pool(num_channels=7).save(path)
    with pytest.raises(MemoryFileError, match="7 channels, the model has 3"):
        small_pool().load(path)


def test_half_precision_never_overflows():
    clip = Instances((10, 20), roi_features=torch.full((1, 3), 1e6))
    clip.proposal_boxes = Boxes(torch.tensor([[2.0, 1.0, 10.0, 5.0]]))
    clip.person_ids = torch.tensor([7])
    clip.objectness_logits = torch.ones(1)
    entry = MemoryWrite.from_clip({"video_id": "v", "timestamp": 3}, clip, torch.float16)
    assert entry.features.isfinite().all()
    torch.testing.assert_close(entry.boxes, torch.tensor([[0.1, 0.1, 0.5, 0.5]]))
    assert replace(entry, slot=4).video_id == "v" and entry.slot == slot_of(2.9) == 3
