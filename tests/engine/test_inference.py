"""Delayed testing in one pass gives what a full window gives, and keeps bounded memory."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model

from alphaaction_d2 import register_datasets
from alphaaction_d2.engine.inference import (
    DelayedInference,
    Member,
    build_delayed_inference,
    build_stream,
    extract,
)
from alphaaction_d2.memory.pool import MemoryPool
from tests.helpers import model_input, small_cfg, write_dataset
from tests.modeling.test_igmn import igmn_cfg


@pytest.fixture(scope="module")
def model_and_cfg():
    torch.manual_seed(0)
    cfg = small_cfg(None, "MODEL.MEMORY.WINDOW", "(2,1)", "MODEL.MEMORY.DTYPE", "float32")
    model = build_model(cfg).eval()
    for name, parameter in model.named_parameters():
        if ".out." in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return model, cfg


def stream(cfg):
    """Two videos with gaps, a crowded second, an empty one."""
    torch.manual_seed(1)
    seconds = {"a": [(1, 2), (2, 0), (3, 7), (4, 1), (8, 2), (9, 1)], "b": [(0, 1), (1, 1)]}
    return [
        model_input(cfg, persons, 1, video_id=video, timestamp=t)
        for video, clips in seconds.items()
        for t, persons in clips
    ]


def two_passes(model, cfg, clips):
    """The literal procedure: fill a pool with everything, then classify with whole windows."""
    places = [(x["video_id"], x["timestamp"], len(x["proposals"])) for x in clips]
    pool = MemoryPool(cfg, model.roi_heads.num_channels, keyframes=places)
    with torch.no_grad():
        features = [model.extract([x])[0] for x in clips]
        for x, f in zip(clips, features):
            pool.update([pool.prepare(x, f.persons)], 1.0)
        results = []
        for x, f in zip(clips, features):
            window = pool.read(x["video_id"], x["timestamp"], training=False)
            results.append(model.classify([f], [window])[0])
    return results


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_equal_to_two_passes(model_and_cfg, batch):
    model, cfg = model_and_cfg
    clips = stream(cfg)
    expected = two_passes(model, cfg, copy.deepcopy(clips))
    delayed = build_delayed_inference(cfg, model)
    results = []
    with torch.no_grad():
        for i in range(0, len(clips), batch):
            results += delayed(copy.deepcopy(clips[i : i + batch]))
        results += delayed([])
    assert [(r["video_id"], r["timestamp"]) for r in results] == [
        (x["video_id"], x["timestamp"]) for x in clips
    ]
    for result, instances in zip(results, expected):
        torch.testing.assert_close(
            result["instances"].scores, instances.scores, atol=1e-6, rtol=1e-5
        )


def test_a_new_slot_does_not_push_out_one_that_is_still_needed():
    """Of five slots, second 6 takes the place of second 1, which clips 2 and 3 look at."""
    torch.manual_seed(0)
    cfg = small_cfg(None, "MODEL.MEMORY.WINDOW", "(2,2)", "MODEL.MEMORY.DTYPE", "float32")
    model = build_model(cfg).eval()
    for name, parameter in model.named_parameters():
        if ".out." in name:
            torch.nn.init.normal_(parameter, std=0.5)
    clips = [model_input(cfg, 2, 1, timestamp=t) for t in (1, 2, 3, 6)]
    expected = two_passes(model, cfg, copy.deepcopy(clips))
    delayed = build_delayed_inference(cfg, model)
    with torch.no_grad():
        results = [result for x in clips for result in delayed([x])] + delayed([])
    for result, instances in zip(results, expected, strict=True):
        torch.testing.assert_close(
            result["instances"].scores, instances.scores, atol=1e-6, rtol=1e-5
        )


@pytest.mark.parametrize("delay", [-1, 0])
def test_frames_between_slots_read_the_window_around_their_slot(delay):
    """Every fifth frame of 25 a second is remembered, in a slot of 0.2 s."""
    torch.manual_seed(0)
    options = ("MODEL.MEMORY.WINDOW", "(2,1)", "MODEL.MEMORY.DTYPE", "float32")
    options += ("MODEL.MEMORY.SLOTS_PER_SECOND", 5.0, "MODEL.MEMORY.DELAY", delay)
    cfg = small_cfg(None, *options)
    model = build_model(cfg).eval()
    for name, parameter in model.named_parameters():
        if ".out." in name:
            torch.nn.init.normal_(parameter, std=0.5)
    clips = [
        {**model_input(cfg, 2, 1, video_id=v, timestamp=k / 25), "frame_rate": 25.0}
        for v in "ab"
        for k in range(24)
    ]
    places = [(v, slot / 5, 2) for v in "ab" for slot in range(5)]
    pool = MemoryPool(cfg, model.roi_heads.num_channels, keyframes=places)
    expected = []
    with torch.no_grad():
        features = [model.extract([x])[0] for x in clips]
        for x, f in zip(clips, features):
            if round(x["timestamp"] * 25) % 5 == 0:
                pool.update([pool.prepare(x, f.persons)], 1.0)
        for x, f in zip(clips, features):
            slot = int(x["timestamp"] * 5 + 0.5)
            window = pool.read(x["video_id"], slot, training=False)
            if delay == 0:  # what is to come is not known
                window.valid[window.offsets > 0] = False
            expected.append(model.classify([f], [window])[0].scores)
    results = results_of(build_delayed_inference(cfg, model), clips, 3)
    assert [(r["video_id"], r["timestamp"]) for r in results] == [
        (x["video_id"], x["timestamp"]) for x in clips
    ]
    for result, scores in zip(results, expected, strict=True):
        torch.testing.assert_close(result["instances"].scores, scores, atol=1e-6, rtol=1e-5)


def clips_of_two_sizes(cfg):
    """Three videos, one of them upright; a clip that shows nobody."""
    torch.manual_seed(3)
    sizes = {"a": (48, 64), "b": (64, 48), "c": (48, 64)}
    return [
        model_input(cfg, persons, 1, size=sizes[video], video_id=video, timestamp=t)
        for video, counts in (("a", (2, 0, 1)), ("b", (3, 1)), ("c", (1, 2, 2)))
        for t, persons in enumerate(counts)
    ]


def results_of(delayed, clips, batch):
    found = []
    with torch.no_grad():
        for i in range(0, len(clips), batch):
            found += delayed(copy.deepcopy(clips[i : i + batch]))
        return found + delayed([])


class CountingModel(torch.nn.Module):
    """Keeps the sizes of the batches that are extracted."""

    def __init__(self, model):
        super().__init__()
        self.model, self.device, self.sizes = model, model.device, []
        self.score, self.postprocess = model.score, model.postprocess
        self.roi_heads = model.roi_heads

    def extract(self, clips):
        self.sizes.append(len(clips))
        return self.model.extract(clips)


@pytest.mark.parametrize("interaction", ["", "DenseSerialInteraction"])
def test_a_batch_goes_through_the_network_together(interaction):
    torch.manual_seed(0)
    cfg = small_cfg(None, "MODEL.MEMORY.WINDOW", "(2,1)", "MODEL.INTERACTION.NAME", interaction)
    model = build_model(cfg).eval()
    torch.nn.init.normal_(model.roi_heads.predictor.cls_score.weight)
    clips = clips_of_two_sizes(cfg)
    one_by_one = results_of(build_delayed_inference(cfg, model), clips, 1)
    counting = CountingModel(model)
    delayed = build_delayed_inference(cfg, model)
    delayed.members[0].model, delayed.together = counting, True
    together = results_of(delayed, clips, 8)
    assert counting.sizes == [6, 2], "pictures of one size, whatever video they are of"
    for a, b in zip(one_by_one, together, strict=True):
        assert (a["video_id"], a["timestamp"]) == (b["video_id"], b["timestamp"])
        torch.testing.assert_close(
            b["instances"].action_scores, a["instances"].action_scores, atol=1e-5, rtol=0
        )


def test_on_the_cpu_a_batch_changes_no_bit(model_and_cfg):
    model, cfg = model_and_cfg
    clips = clips_of_two_sizes(cfg)
    expected = [f.persons.roi_features for x in clips for f in model.extract([x])]
    found = [f.persons.roi_features for f in extract(model, clips)]
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_one_process_reads_the_videos(tmp_path):
    """Several would share out the clips of a video, and each decode what the others decode."""
    folder = write_dataset(tmp_path / "read_squares", seconds=3, videos=1)
    for workers, expected in ((0, 0), (1, 1), (3, 1)):
        cfg = small_cfg(folder, "DATALOADER.NUM_WORKERS", workers)
        register_datasets(cfg)
        stream = build_stream(cfg, DatasetCatalog.get(cfg.DATASETS.TEST[0]))
        assert stream.loader.num_workers == expected


def test_a_clip_comes_out_when_its_window_is_complete(model_and_cfg):
    model, cfg = model_and_cfg
    delayed = build_delayed_inference(cfg, model)
    out = []
    with torch.no_grad():
        for x in stream(cfg):
            out.append([(r["video_id"], r["timestamp"]) for r in delayed([x])])
    # One future second is waited for; a gap or a new video also completes what went before.
    assert out[:4] == [[], [("a", 1)], [("a", 2)], [("a", 3)]]
    assert out[4] == [("a", 4)] and out[6] == [("a", 9)]


def test_memory_is_bounded(model_and_cfg):
    model, cfg = model_and_cfg
    delayed = build_delayed_inference(cfg, model)
    with torch.no_grad():
        for t in range(60):
            delayed([model_input(cfg, 2, 0, timestamp=t)])
            assert len(delayed.pool) <= 2 * 5 and len(delayed._waiting) <= 2


def test_without_delay_the_future_is_empty(model_and_cfg):
    model, cfg = model_and_cfg
    pool = MemoryPool(cfg, model.roi_heads.num_channels)
    live = DelayedInference([Member(model, pool)], delay=0)
    with torch.no_grad():
        results = [live([x]) for x in stream(cfg)]
    assert [len(r) for r in results] == [1] * len(results)


def test_time_order_is_demanded(model_and_cfg):
    model, cfg = model_and_cfg
    delayed = build_delayed_inference(cfg, model)
    with torch.no_grad(), pytest.raises(ValueError, match="a: clip at 1 s comes after one at 5"):
        delayed([model_input(cfg, 1, 0, video_id="a", timestamp=5)])
        delayed([model_input(cfg, 1, 0, video_id="a", timestamp=1)])


def without_ids(cfg) -> list[dict]:
    """Two persons who stay for four seconds; one of them has an id for two of them."""
    torch.manual_seed(2)
    clips = [model_input(cfg, 2, 0, timestamp=t) for t in range(4)]
    for t, x in enumerate(clips):
        boxes = torch.tensor([[2.0, 4, 20, 44], [40, 4, 60, 44]])
        x["proposals"].proposal_boxes.tensor = boxes[[1, 0]] if t % 2 else boxes
        x["proposals"].person_ids = torch.tensor([-1, 7] if t == 2 else [-1, -1])
        x["first_new_id"] = 8
    return clips


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", ["", "DenseSerialInteraction"])
def test_persons_without_id_get_one(batch, name):
    cfg = small_cfg(None, "MODEL.MEMORY.WINDOW", "(2,1)", "MODEL.INTERACTION.NAME", name)
    model = build_model(cfg).eval()
    delayed = build_delayed_inference(cfg, model)
    clips = without_ids(cfg)
    results = []
    with torch.no_grad():
        for i in range(0, len(clips), batch):
            results += delayed(clips[i : i + batch])
        results += delayed([])
    found = []
    for result in results:
        rows = result["instances"]
        ids = {int(k): int(i) for k, i in zip(rows.person_index, rows.person_ids)}
        found.append([ids[k] for k in sorted(ids)])
    assert found == [[8, 9], [9, 8], [8, 7], [7, 8]]


def test_the_memory_holds_the_ids_that_were_found(model_and_cfg):
    model, cfg = model_and_cfg
    delayed = build_delayed_inference(cfg, model)
    with torch.no_grad():
        for x in without_ids(cfg)[:2]:
            delayed([x])
    window = delayed.pool.read("v", 1, training=False)
    stored = {int(i) for i in window.person_ids[window.valid]}
    assert stored == {8, 9}


def test_without_a_tracker_ids_stay_as_they_are(model_and_cfg):
    model, cfg = model_and_cfg
    cfg = cfg.clone()
    cfg.TRACKER_HEADS.TRACKER_NAME = ""
    delayed = build_delayed_inference(cfg, model)
    with torch.no_grad():
        results = delayed(without_ids(cfg)[:1]) + delayed([])
    assert set(results[0]["instances"].person_ids.tolist()) == {-1}


IDS = {  # of three persons who stand still, second by second
    "swapped": lambda t: [1, 2, 3] if t % 2 else [2, 3, 1],
    "fragmented": lambda t: [10 * t, 10 * t + 1, 10 * t + 2],
    "all alike": lambda t: [7, 7, 7],
    "unknown": lambda t: [-1, -1, -1],
    "large": lambda t: [2**40, 2**40 + t, -(2**40)],
}


@pytest.mark.parametrize("tracker", ["PersonTracker", ""])
@pytest.mark.parametrize("kind", IDS)
def test_wrong_identities_degrade_and_nothing_else(kind, tracker):
    cfg = igmn_cfg(None, "IGMN", "MODEL.MEMORY.WINDOW", "(4,4)")
    cfg.TRACKER_HEADS.TRACKER_NAME = tracker
    torch.manual_seed(0)
    delayed = build_delayed_inference(cfg, build_model(cfg).eval())
    boxes = torch.tensor([[2.0, 4, 20, 44], [22, 4, 38, 44], [40, 4, 60, 44]])
    clips = [model_input(cfg, 3, 0, timestamp=t) for t in range(10)]
    for t, x in enumerate(clips):
        x["proposals"].proposal_boxes.tensor = boxes
        x["proposals"].person_ids = torch.tensor(IDS[kind](t))
    with torch.no_grad():
        results = delayed(clips) + delayed([])
    assert len(results) == 10
    for result in results:
        rows = result["instances"]
        assert len(rows) == 9 and rows.scores.isfinite().all()
        ids = {int(k): int(i) for k, i in zip(rows.person_index, rows.person_ids)}
        assert not tracker or len(set(ids.values())) == 3  # at most once in a keyframe
