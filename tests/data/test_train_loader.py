"""The stream of training clips: complete, shared out, repeatable, independent of who loads."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from alphaaction_d2.data.randomness import derived_seed, seed_everything, seeded
from alphaaction_d2.data.train_loader import (
    TrainLoader,
    group_batches,
    keyframe_stream,
    repeats_from_config,
)
from tests.helpers import small_cfg


def keyframes(count: int = 11) -> list[dict]:
    return [{"number": i, "width": 4 if i % 3 else 2, "height": 3} for i in range(count)]


def random_clip(keyframe: dict) -> dict:
    """A mapper that draws from both generators."""
    return {"number": keyframe["number"], "draws": (np.random.rand(), torch.rand(()).item())}


def loader(count: int = 11, **options) -> TrainLoader:
    defaults = {"repeats": np.ones(count), "batch_size": 4, "seed": 5}
    return TrainLoader(keyframes(count), random_clip, **{**defaults, **options})


def take(iterable, number: int) -> list:
    return list(itertools.islice(iterable, number))


def test_every_epoch_has_everything_once_in_another_order():
    stream = take(keyframe_stream(np.ones(7), seed=1), 21)
    epochs = [stream[:7], stream[7:14], stream[14:]]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert stream != take(keyframe_stream(np.ones(7), seed=2), 21)


def test_repeats_come_as_often_as_asked_on_average():
    stream = take(keyframe_stream(np.array([1.0, 2.5, 0.0, 0.5]), seed=1), 4000)
    share = np.bincount(stream, minlength=4) / 1000
    np.testing.assert_allclose(share, [1.0, 2.5, 0.0, 0.5], atol=0.06)
    with pytest.raises(ValueError, match="no keyframes"):
        next(keyframe_stream(np.zeros(3), seed=1))


def test_batches_are_of_one_orientation_and_lose_nothing():
    is_wide = [i % 3 > 0 for i in range(11)]
    batches = take(group_batches(keyframe_stream(np.ones(11), 0), is_wide, 4), 20)
    assert all(len({is_wide[index] for index, _ in batch}) == 1 for batch in batches)
    serials = [serial for batch in batches for _, serial in batch]
    assert len(set(serials)) == len(serials)
    missing = set(range(max(serials))) - set(serials)
    assert len(missing) < 8, "only what waits for its batch to be full"
    mixed = take(group_batches(keyframe_stream(np.ones(11), 0), None, 4), 3)
    assert [serial for batch in mixed for _, serial in batch] == list(range(12))


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_share_out_what_one_process_sees(workers):
    alone = take(loader(num_workers=workers), 6)
    shares = [take(loader(rank=rank, world_size=2), 6) for rank in (0, 1)]
    assert [a + b for a, b in zip(*shares)] == alone
    with pytest.raises(ValueError, match="IMS_PER_BATCH 4 cannot be shared by 3"):
        loader(world_size=3)


@pytest.mark.parametrize("workers", [0, 2])
def test_goes_on_where_it_stopped(workers):
    whole = loader()
    batches = take(whole, 9)
    part = loader(num_workers=workers)
    assert take(part, 4) == batches[:4]
    state = part.state_dict()
    assert state == {"seed": 5, "batches": 4}, "what was loaded ahead does not count"
    resumed = loader(seed=99, num_workers=workers)
    resumed.load_state_dict(state)
    assert take(resumed, 5) == batches[4:]


def test_from_the_start_and_with_another_mapper():
    whole = take(loader(num_workers=2), 6)
    part = loader(num_workers=2)
    assert take(part, 4) == whole[:4]
    again = part.from_start()
    assert again.num_workers == 0 and take(again, 3) == whole[:3]
    assert part.state_dict() == {"seed": 5, "batches": 4}, "this one stays where it was"
    part.prepare_with(lambda keyframe: keyframe["number"])
    numbers = [[x["number"] for x in batch] for batch in whole]
    assert part.num_workers == 0 and take(part, 2) == numbers[4:6]


def test_loading_leaves_the_global_generators_alone():
    seed_everything(3)
    expected = np.random.rand(), torch.rand(()).item()
    seed_everything(3)
    take(loader(), 2)
    assert (np.random.rand(), torch.rand(()).item()) == expected
    with seeded(derived_seed(1, 2)):
        first = torch.rand(3)
    with seeded(derived_seed(1, 2)):
        assert torch.equal(torch.rand(3), first)
    assert derived_seed(1, 2) != derived_seed(2, 1) != derived_seed(1, 2, 0)


def test_samplers_of_the_configuration():
    def repeats(name, records):
        cfg = small_cfg(None, "DATALOADER.SAMPLER_TRAIN", name)
        cfg.DATALOADER.RANDOM_SUBSET_RATIO = 0.5
        return repeats_from_config(cfg, records, seed=1)

    records = [{"annotations": [{"category_id": int(i == 0)}]} for i in range(8)]
    assert repeats("TrainingSampler", records).tolist() == [1] * 8
    assert repeats("RandomSubsetTrainingSampler", records).sum() == 4
    often = repeats("RepeatFactorTrainingSampler", records)
    assert often[0] == pytest.approx(2.0) and often[1:].tolist() == [1] * 7
    with pytest.raises(ValueError, match="SAMPLER_TRAIN 'Other'"):
        repeats("Other", records)
