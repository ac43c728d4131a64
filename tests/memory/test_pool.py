"""The memory pool by hand (against the released model's numbers: tests/golden)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from alphaaction_d2.memory.file import state_checksum
from alphaaction_d2.memory.pool import (
    MemoryFileError,
    MemoryPool,
    MemoryWrite,
    read_weights,
)
from alphaaction_d2.memory.slots import Clock
from alphaaction_d2.memory.window import empty_window, insert_clips, weighted
from alphaaction_d2.structures import MemoryWindow


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


def small_pool(keyframes=None, **kwargs) -> MemoryPool:
    """With places for `keyframes`, or a ring."""
    options = {"num_channels": 3, "window": (2, 2), "max_persons": 2, "dtype": torch.float32}
    return MemoryPool(**{**options, "keyframes": keyframes, **kwargs})


def test_weights_by_hand():
    with np.errstate(all="raise"):
        weights = read_weights(np.array([2.0, 1.0, 0.5, 0.0]), err=1.0)
    np.testing.assert_allclose(weights, [0.5, 1.0, 0.5, 0.0])
    assert not read_weights(np.array([1.0]), math.inf).any(), "before the first step nothing counts"
    assert not read_weights(np.array([1.0]), 0.0).any()


def test_window_layout():
    pool = small_pool([("v", slot, 1) for slot in (8, 9, 10, 12, 20)], reweight=False)
    for slot in (8, 9, 10, 12, 20):
        pool.update([write("v", slot, torch.full((1, 3), float(slot)))], 1.0)
    window = pool.read("v", 10, training=True)
    assert window.offsets.tolist() == [-2, -1, 0, 1, 2]
    assert window.features[:, 0, 0].tolist() == [8, 9, 0, 0, 12], "the centre stays empty"
    assert window.valid[:, 0].tolist() == [True, True, False, False, True]
    assert not pool.read("other", 10, training=True).valid.any()
    assert not pool.read("v", -50, training=True).valid.any()


def test_stride_and_half_windows():
    keyframes = [("v", slot, 1) for slot in range(30)]
    pool = small_pool(keyframes, window=(3, 1), stride=4, reweight=False)
    for slot in range(30):
        pool.update([write("v", slot, torch.full((1, 3), float(slot)))], 1.0)
    window = pool.read("v", 15, training=False)
    assert window.offsets.tolist() == [-12, -8, -4, 0, 4]
    assert window.features[:, 0, 0].tolist() == [3, 7, 11, 0, 19]
    assert window.centre == 3
    alone = small_pool(keyframes, window=(0, 0)).read("v", 3, training=False)
    assert alone.valid.shape == (1, 2) and not alone.valid.any()
    with pytest.raises(ValueError, match="WINDOW"):
        small_pool(window=(-1, 2))


def test_a_frozen_pool_keeps_its_centre():
    pool = small_pool([("v", 5, 1)], fresh_centre=False)
    pool.update([write("v", 5, torch.ones(1, 3))], 1.0)
    assert pool.read("v", 5, training=False).valid[2].tolist() == [True, False]


def test_rewriting_a_slot_leaves_neighbours_alone():
    pool = small_pool([("v", 1, 3), ("v", 2, 2)], max_persons=5)
    pool.update([write("v", 1, torch.ones(3, 3)), write("v", 2, torch.full((2, 3), 2.0))], 1.0)
    pool.update([write("v", 1, torch.full((1, 3), 5.0))], 1.0)
    assert len(pool) == 3
    window = pool.read("v", 3, training=False)
    assert window.valid.sum(dim=1).tolist() == [1, 2, 0, 0, 0]
    assert window.features[0, 0].tolist() == [5, 5, 5]
    assert torch.equal(window.features[1, :2], torch.full((2, 3), 2.0))
    pool.update([write("v", 1, torch.zeros(0, 3))], 1.0)
    assert not pool.read("v", 3, training=False).valid[0].any()


def test_a_keyframe_that_nobody_announced_is_refused():
    pool = small_pool([("v", 1, 1)])
    with pytest.raises(KeyError, match="slot 1 of w is not one of"):
        pool.update([write("w", 1, torch.ones(1, 3))], 1.0)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -1.0])
def test_a_bad_loss_stores_nothing(loss):
    pool = small_pool([("v", 1, 1)])
    with pytest.raises(ValueError, match="refused"):
        pool.update([write("v", 1, torch.ones(1, 3))], loss)
    assert len(pool) == 0


def test_features_that_are_no_numbers_are_not_stored(caplog):
    pool = small_pool([("v", 0, 1), ("v", 1, 1)])
    pool.update([write("v", 0, torch.ones(1, 3)), write("v", 1, torch.ones(1, 3))], 1.0)
    for bad in (math.nan, math.inf):
        pool.update(
            [write("v", 0, torch.full((1, 3), bad)), write("v", 1, torch.full((1, 3), 2.0))], 1.0
        )
    assert caplog.text.count("features of v in slot 0 are not finite and were not stored") == 2
    assert pool._features[1:].tolist() == [[1.0] * 3, [2.0] * 3], "what was there stays"


def test_crowded_slot_best_in_testing_random_in_training():
    pool = small_pool([("v", 0, 4)])
    features = torch.arange(4.0)[:, None].expand(4, 3)
    pool.update([write("v", 0, features, scores=[0.1, 0.9, 0.5, 0.8])], 1.0)
    pool.err = 1.0
    best = pool.read("v", 1, training=False).features[1, :, 0]
    assert best.tolist() == [1, 3]
    seen = {tuple(pool.read("v", 1, training=True).features[1, :, 0].tolist()) for _ in range(60)}
    assert {frozenset(pair) for pair in seen} == {
        frozenset(pair) for pair in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
    }


def test_of_too_many_persons_a_slot_keeps_the_best():
    pool = small_pool()  # a ring of two persons a slot
    features = torch.arange(4.0)[:, None].expand(4, 3)
    pool.update([write("v", 0, features, scores=[0.1, 0.9, 0.5, 0.8])], 1.0)
    assert len(pool) == 2
    assert pool.read("v", 1, training=False).features[1, :, 0].tolist() == [1, 3]


@pytest.mark.parametrize("keyframes", [[("v", 3.9, 1), ("v", 4.2, 1), ("v", 5.0, 1)], None])
def test_segments_share_a_slot(keyframes):
    pool = small_pool(keyframes, shared_slots=True, reweight=False)
    for uid, slot in ((7, 4), (8, 4), (9, 5)):
        pool.update([write("v", slot, torch.full((1, 3), float(uid)), ids=[uid])], 1.0)
    window = pool.read("v", 5, training=True)
    assert window.person_ids[1].tolist() == [7, 8], "side by side"
    assert window.features[1, :, 0].tolist() == [7, 8]
    pool.update([write("v", 4, torch.full((1, 3), 70.0), ids=[7])], 1.0)
    window = pool.read("v", 5, training=True)
    assert sorted(window.features[1, :, 0].tolist()) == [8, 70], "the earlier entry is replaced"
    assert len(pool) == 3
    for slot in range(6, 12):  # a ring forgets who was there before
        if keyframes is None:
            pool.update([write("v", slot, torch.ones(1, 3), ids=[slot])], 1.0)
            assert pool.read("v", slot + 1, training=False).valid[1].tolist() == [True, False]


def test_windows_are_copies():
    pool = small_pool()
    pool.update([write("v", 0, torch.ones(1, 3))], 1.0)
    window = pool.read("v", 1, training=False)
    window.features.zero_()
    assert pool.read("v", 1, training=False).features.sum() == 3


def test_a_ring_holds_the_latest_slots_of_one_video():
    pool = small_pool()
    size = pool.num_bytes
    for slot in range(-3, 500):
        pool.update([write("v", slot, torch.full((2, 3), float(slot)))], 1.0)
    assert len(pool) == 10 and pool.num_bytes == size
    window = pool.read("v", 500, training=False)
    assert window.features[:2, 0, 0].tolist() == [498, 499]
    assert pool.read("v", 497, training=False).features[:, 0, 0].tolist() == [495, 496, 0, 498, 499]
    assert not pool.read("v", 3, training=False).valid.any(), "long forgotten"
    pool.update([write("w", 500, torch.ones(1, 3))], 1.0)
    assert not pool.read("v", 500, training=False).valid.any(), "another video begins"
    assert pool.read("w", 501, training=False).valid.sum() == 1


def filled_pool() -> MemoryPool:
    keyframes = [("b", 3, 2), ("b", 1, 2), ("b", -4, 2), ("b", 7, 2), ("a", 2, 2)]
    pool = small_pool(keyframes)
    torch.manual_seed(0)
    for slot in (3, 1, -4, 7):
        persons = slot % 3
        pool.update([write("b", slot, torch.rand(persons, 3), scores=[0.5] * persons)], slot + 5)
    pool.update([write("a", 2, torch.rand(2, 3), ids=[4, -1])], 0.25)
    pool.err = 0.75
    return pool


def test_file_round_trip(tmp_path):
    pool = filled_pool()
    checksum = pool.save(tmp_path / "pool")
    again = filled_pool()
    again._counts.zero_()
    again.err = 0.1
    again.load(tmp_path / "pool", checksum)
    assert again.err == pool.err and len(again) == len(pool)
    for video in ("a", "b"):
        for slot in range(-8, 12):
            one, two = (p.read(video, slot, training=False) for p in (pool, again))
            for field in ("features", "valid", "person_ids", "boxes", "weights"):
                assert torch.equal(getattr(one, field), getattr(two, field))
    assert [path.name for path in tmp_path.iterdir()] == ["pool"], "nothing else is left"
    assert pool.save(tmp_path / "pool") == checksum, "the checksum is of the contents"


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.7, 0.9])
def test_damage_is_found_or_harmless(tmp_path, share):
    path = tmp_path / "pool"
    pool = filled_pool()
    pool.save(path)
    data = bytearray(path.read_bytes())
    data[int(share * len(data))] ^= 0x55
    path.write_bytes(data)
    reader = small_pool([("b", 3, 2), ("b", 1, 2), ("b", -4, 2), ("b", 7, 2), ("a", 2, 2)])
    try:
        reader.load(path)
    except MemoryFileError as error:
        assert "damaged" in str(error) and "--rebuild-memory" in str(error)
        assert len(reader) == 0 and reader.err == math.inf, "the pool is as it was"
    else:  # a byte between the records that nobody reads
        assert torch.equal(reader._features, pool._features) and reader.err == pool.err


def test_damaged_numbers_are_found(tmp_path):
    """A record whose bytes changed, in a file that torch still opens."""
    path = tmp_path / "pool"
    pool = filled_pool()
    pool.save(path)
    data = path.read_bytes()
    features = pool._features.numpy().tobytes()
    position = data.index(features)
    damaged = bytearray(data)
    damaged[position + 13] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(MemoryFileError, match="checksum does not fit"):
        filled_pool().load(path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(MemoryFileError, match="damaged memory file"):
        filled_pool().load(path)


def test_bad_files_are_refused_with_the_reason(tmp_path):
    path = tmp_path / "pool"
    pool = filled_pool()
    with pytest.raises(MemoryFileError, match="no such memory file"):
        pool.load(path)
    path.write_bytes(b"not a pool")
    with pytest.raises(MemoryFileError, match="damaged"):
        pool.load(path)
    torch.save({"model": {}}, path)
    with pytest.raises(MemoryFileError, match="not a memory pool"):
        pool.load(path)
    keyframes = [("b", 3, 2)]
    small_pool(keyframes, num_channels=7).save(path)
    with pytest.raises(MemoryFileError, match="7 channels, the model has 3"):
        pool.load(path)
    small_pool(keyframes, dtype=torch.float16).save(path)
    with pytest.raises(MemoryFileError, match="float16"):
        pool.load(path)
    small_pool(keyframes).save(path)
    with pytest.raises(MemoryFileError, match="other videos: 1 in the file, 2 in the data.*a;"):
        pool.load(path)
    small_pool([("b", 3, 2), ("b", 1, 2), ("b", -4, 2), ("b", 7, 1), ("a", 2, 2)]).save(path)
    with pytest.raises(MemoryFileError, match="other keyframes or persons"):
        pool.load(path)
    pool.save(path)
    with pytest.raises(MemoryFileError, match="another checkpoint"):
        pool.load(path, checksum="0" * 64)


def persons(features: torch.Tensor, ids: list[int]) -> Instances:
    boxes = Boxes(torch.tensor([[2.0, 1.0, 10.0, 5.0]]).expand(len(ids), 4))
    return Instances(
        (10, 20),
        roi_features=features,
        proposal_boxes=boxes,
        person_ids=torch.tensor(ids),
        objectness_logits=torch.ones(len(ids)),
    )


def test_the_checksum_is_of_contents_not_of_strides():
    for value in (torch.ones(1, 1), torch.rand(3, 4), torch.zeros(0, 4)):
        others = [value.t().clone().t()]
        if value.numel() == 1:
            others.append(torch.tensor(1.0).expand(1, 1))  # stride 0
        for other in others:
            assert state_checksum({"x": other}) == state_checksum({"x": value})
    assert state_checksum({"x": torch.ones(1)}) != state_checksum({"x": torch.ones(1, 1)})


@pytest.mark.parametrize("part", ["checksum", "format", "state", "version"])
def test_files_that_lack_a_part_are_refused(tmp_path, shared, part):
    pool = small_pool([("v", 0, 1)])
    path = shared / f"cases/hostile/memory_key_{part}.memory"
    with pytest.raises(MemoryFileError, match=rf"{path.name}: .*--rebuild-memory"):
        pool.load(path)


def test_half_precision_never_overflows():
    pool = small_pool(dtype=torch.float16)
    clip = persons(torch.full((1, 3), 1e6, requires_grad=True), [7])
    entry = pool.prepare({"video_id": "v", "timestamp": 2.9}, clip)
    assert entry.features.isfinite().all() and not entry.features.requires_grad
    torch.testing.assert_close(entry.boxes, torch.tensor([[0.1, 0.1, 0.5, 0.5]]))
    assert entry.video_id == "v" and entry.slot == 3 and entry.person_ids.tolist() == [7]


@pytest.mark.parametrize(
    "rate, slots", [(1.0, [0, 1, 1, 2, 902]), (2.0, [1, 1, 3, 3, 1804]), (0.2, [0, 0, 0, 0, 180])]
)
def test_the_clock_rounds_to_the_nearest_slot(rate, slots):
    pool = small_pool(slots_per_second=rate)
    assert [pool.clock.slot_of(t) for t in (0.49, 0.5, 1.4, 1.5, 902)] == slots
    with pytest.raises(ValueError, match="SLOTS_PER_SECOND 0.0 must be larger than 0"):
        small_pool(slots_per_second=0.0)


def test_windows_are_measured_in_slots():
    times = [10.0, 10.5, 11.0, 12.5]
    pool = small_pool([("v", t, 1) for t in times], slots_per_second=2.0)
    for t in times:
        clip = persons(torch.full((1, 3), t), [1])
        pool.update([pool.prepare({"video_id": "v", "timestamp": t}, clip)], 1.0)
    (x,) = pool.attach([{"video_id": "v", "timestamp": 11.1}], training=False)
    assert x["memory"].offsets.tolist() == [-2, -1, 0, 1, 2]
    assert x["memory"].features[:, 0, 0].tolist() == [10.0, 10.5, 0.0, 0.0, 0.0]


def test_keyframes_that_share_a_slot_are_refused():
    keyframes = [("v", 3.0, 1), ("w", 3.25, 1), ("v", 3.25, 1)]
    message = (
        "of v at 3.0 s and 3.25 s fall into one slot; set MODEL.MEMORY.SLOTS_PER_SECOND to 4.0"
    )
    with pytest.raises(ValueError, match=message):
        small_pool(keyframes)
    pool = small_pool([("v", 3.0, 2), *keyframes], slots_per_second=4.0)
    # The same keyframe twice, as of two data sets, is one place with room for the larger number.
    pool.update([write("v", 12, torch.ones(2, 3))], 1.0)
    assert len(pool) == 2


# ------------------------------------------------------------------ what the model makes of it
def filled_centre(fresh: bool) -> MemoryWindow:
    """The window of a clip that the pool has seen before, with two fresh persons now."""
    pool = small_pool([("v", slot, 2) for slot in (4, 5)], fresh_centre=fresh, reweight=fresh)
    pool.update([write("v", 4, torch.full((1, 3), 4.0)), write("v", 5, torch.ones(2, 3))], 1.0)
    assert pool.err == math.inf
    window = MemoryWindow.stack([pool.read("v", 5, training=True)])
    assert window.fresh_centre.tolist() == [fresh]
    now = persons(torch.full((1, 3), 7.0, requires_grad=True), [8])
    return insert_clips(weighted(window, torch.float32), [now], random_subset=True)


def test_the_clip_itself_is_in_the_centre_even_when_nothing_else_counts():
    """Before the first step, whose loss is unknown, every slot of the pool has weight 0."""
    window = filled_centre(fresh=True)
    assert window.weights.tolist() == [[0.0] * 5]
    assert window.valid[0].tolist() == [[False] * 2] * 2 + [[True, False]] + [[False] * 2] * 2
    assert window.features[0].sum(dim=(1, 2)).tolist() == [0, 0, 21, 0, 0]
    assert not window.features.requires_grad
    assert window.person_ids[0, 2, 0] == 8
    torch.testing.assert_close(window.boxes[0, 2, 0], torch.tensor([0.1, 0.1, 0.5, 0.5]))


def test_a_centre_that_another_network_filled_stays():
    window = filled_centre(fresh=False)
    assert window.valid[0, 2].tolist() == [True, True]
    assert window.features[0, :, 0, 0].tolist() == [0, 4, 1, 0, 0]


@pytest.mark.parametrize(
    ("rate", "clock", "frames"),
    [(25.0, 5.0, [0, 5, 10, 15, 20]), (25.0, 4.0, [0, 6, 13, 19]), (5.0, 5.0, list(range(25)))],
)
def test_of_the_frames_of_a_slot_one_is_remembered(rate, clock, frames):
    clock = Clock(clock)
    keyframes = [{"timestamp": k / rate, "frame_rate": rate} for k in range(25)]
    remembered = [k for k, x in enumerate(keyframes) if clock.remembers(x)]
    assert remembered[: len(frames)] == frames
    slots = [clock.slot_of(keyframes[k]["timestamp"]) for k in remembered]
    assert slots == sorted({clock.slot_of(x["timestamp"]) for x in keyframes})[: len(slots)]
    assert all(clock.remembers({"timestamp": k / rate}) for k in range(25)), "no frames: all are"


def test_a_slot_of_weight_0_is_empty_and_others_are_scaled():
    pool = small_pool([("v", slot, 1) for slot in (4, 6, 7)])
    pool.update([write("v", 4, torch.ones(1, 3))], 2.0)
    pool.update([write("v", 6, torch.ones(1, 3))], 0.25)
    pool.update([write("v", 7, torch.ones(1, 3))], 0.0)  # a loss of 0 has no ratio
    pool.err = 1.0
    window = weighted(pool.read("v", 5, training=True), torch.float32)
    assert window.features[:, 0, 0].tolist() == [0, 0.5, 0, 0.25, 0]
    assert window.valid[:, 0].tolist() == [False, True, False, True, False]


def test_of_a_crowd_the_best_or_a_random_few_enter_the_centre():
    window = empty_window(1, (1, 1), 2, 3, torch.device("cpu"))
    crowd = persons(torch.arange(4.0)[:, None].expand(4, 3), [0, 1, 2, 3])
    crowd.objectness_logits = torch.tensor([0.1, 0.9, 0.5, 0.8])
    best = insert_clips(window, [crowd], random_subset=False)
    assert best.person_ids[0, 1].tolist() == [1, 3] and best.features[0, 1, :, 0].tolist() == [1, 3]
    drawn = {
        tuple(insert_clips(window, [crowd], random_subset=True).person_ids[0, 1].tolist())
        for _ in range(60)
    }
    assert drawn == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}


def crowd(own_tracks_first: bool, keyframes=((1, 8), (2, 8), (3, 8))) -> MemoryPool:
    """Eight persons a slot, of ids 10 to 17; higher ids have higher scores."""
    places = [("v", t, n) for t, n in keyframes]
    pool = MemoryPool(
        num_channels=1,
        window=(2, 2),
        max_persons=3,
        own_tracks_first=own_tracks_first,
        keyframes=places if keyframes else None,
    )
    for t in (1, 2, 3):
        ids = torch.arange(10, 18)
        nothing = torch.zeros(8, 1), torch.zeros(8, 4)
        pool.update([MemoryWrite("v", t, *nothing, ids, torch.linspace(0, 1, 8))], 1.0)
    return pool


def persons_with(*ids: int) -> Instances:
    """The first is the best."""
    scores = -torch.arange(len(ids)).float()
    return Instances((1, 1), person_ids=torch.tensor(ids), objectness_logits=scores)


def ids_at(window, offset: int) -> set[int]:
    slot = int((window.offsets == offset).nonzero())
    return set(window.person_ids[slot][window.valid[slot]].tolist())


@pytest.mark.parametrize("training", [True, False])
def test_own_tracks_are_read_from_a_crowded_slot(training):
    for seed in range(5):
        torch.manual_seed(seed)
        window = crowd(True).read("v", 2, training, persons_with(11, 15))
        for offset in (-1, 1):
            found = ids_at(window, offset)
            assert {11, 15} <= found and len(found) == 3


def test_of_too_many_the_same_ones_are_read_from_all_slots():
    chosen = set()
    for seed in range(8):
        torch.manual_seed(seed)
        window = crowd(True).read("v", 2, True, persons_with(*range(10, 18)))
        assert ids_at(window, -1) == ids_at(window, 1)
        chosen.add(frozenset(ids_at(window, 1)))
    assert len(chosen) > 1, "which ones they are is drawn"
    window = crowd(True).read("v", 2, False, persons_with(12, 10, -1, 16, 17))
    assert ids_at(window, 1) == {12, 10, 16}, "the best ones in testing; nobody has id -1"


def test_a_stream_remembers_enough_for_own_tracks():
    window = crowd(True, ()).read("v", 2, False, persons_with(10))
    assert ids_at(window, -1) == {10, 16, 17}
    assert ids_at(crowd(False, ()).read("v", 2, False, persons_with(10)), -1) == {15, 16, 17}


def test_without_the_option_nobody_is_preferred():
    torch.manual_seed(0)
    expected = crowd(False).read("v", 2, True).person_ids
    torch.manual_seed(0)
    assert torch.equal(crowd(False).read("v", 2, True, persons_with(11, 15)).person_ids, expected)


def test_attach_knows_who_is_in_the_clip():
    x = {"video_id": "v", "timestamp": 2.0, "proposals": persons_with(11, 15)}
    (x,) = crowd(True).attach([x], training=True)
    assert {11, 15} <= ids_at(x["memory"], 1)
