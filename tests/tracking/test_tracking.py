"""Identities over keyframes: association, the tracker, streams, data sets, and their scores."""

from __future__ import annotations

import csv
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.structures import Boxes, Instances
from detectron2.tracking import TRACKER_HEADS_REGISTRY, BaseTracker
from hypothesis import given, settings
from hypothesis import strategies as st

from alphaaction_d2 import add_alphaaction_config
from alphaaction_d2.data.datasets.puppets.generate import tabulate
from alphaaction_d2.data.datasets.puppets.scripts import PuppetParams, plan_video
from alphaaction_d2.structures import FoundBoxes, as_proposals
from alphaaction_d2.tracking.association import (
    assign,
    association_cost,
    cosine_similarity,
    motion_overlap,
    overlap,
)
from alphaaction_d2.tracking.linking import (
    IdentityLinker,
    build_identity_linker,
    first_new_id,
    link_dataset,
)
from alphaaction_d2.tracking.tracker import PersonTracker

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from benchmarks.identity_scores import IdentityScores, identity_scores  # noqa: E402

SIZE = (100, 200)  # height, width


def at(*lefts: float, width: float = 20, top: float = 20, height: float = 60) -> np.ndarray:
    """Boxes of persons who stand side by side, by their left edges."""
    return np.array([[x, top, x + width, top + height] for x in lefts], float).reshape(-1, 4)


def proposals(boxes: np.ndarray, ids=-1, scores=1.0, size=SIZE, **fields) -> Instances:
    """Make proposals of boxes in pixels."""
    found = as_proposals(FoundBoxes.of(boxes, scores, ids), boxes, size)
    for name, value in fields.items():
        found.set(name, value)
    return found


def ids_of(keyframes: list, linker: IdentityLinker | None = None, **tracker) -> list[list[int]]:
    """Ids of keyframes, each (seconds, boxes[, given ids[, features]])."""
    linker = linker or IdentityLinker(lambda h, w, first: PersonTracker(first_id=first, **tracker))
    results = []
    for time, boxes, *more in keyframes:
        given_ids = more[0] if more else -1
        features = {"roi_features": torch.tensor(more[1])} if len(more) > 1 else {}
        ids = linker("v", time, proposals(boxes, given_ids, **features))
        results.append(ids.tolist())
    return results


def tracker_cfg(**keys) -> CfgNode:
    """The keys of `TRACKER_HEADS`, as trackers of either origin read them."""
    cfg = CfgNode()
    cfg.TRACKER_HEADS = CfgNode(
        {
            "TRACKER_NAME": "PersonTracker",
            "KEEP_GIVEN_IDS": True,
            "TRACK_IOU_THRESHOLD": 0.5,
            "BOX_MARGIN": 0.5,
            "MAX_GAP": 2.0,
            "MOTION": True,
            "APPEARANCE_WEIGHT": 0.0,
            "MIN_COSINE": -1.0,
            "VIDEO_HEIGHT": 0,
            "VIDEO_WIDTH": 0,
            "FIRST_ID": 1,
            "MAX_LOST_FRAME_COUNT": 1,
            "MIN_INSTANCE_PERIOD": 0,
            **keys,
        }
    )
    return cfg


# ---------------------------------------------------------------------------------- association


def test_overlap_by_hand():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 0]])
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10]])
    expected = [[1, 50 / 150, 0], [0, 0, 0]]
    np.testing.assert_allclose(overlap(boxes, others), expected, atol=1e-12)
    # Side by side, each box twice as wide and high: 10 x 20 in common, 2 x 400 - 200 together.
    np.testing.assert_allclose(overlap(boxes, others[2:], 0.5), [[200 / 600], [0]])
    # The larger side decides: 10 x 20 and 20 x 20 grow by 10 on each side.
    np.testing.assert_allclose(
        overlap([[0, 0, 10, 20]], [[10, 0, 30, 20]], 0.5), [[20 * 40 / (30 + 40 - 20) / 40]]
    )


def test_each_track_has_its_own_margin():
    box = np.array([[0, 0, 10, 10]])
    others = np.array([[10, 0, 20, 10]] * 2)
    np.testing.assert_allclose(overlap(box, others, np.array([0.0, 0.5])), [[0, 1 / 3]])


def test_overlap_of_nobody():
    assert overlap(at(), at(1, 2)).shape == (0, 2)
    assert overlap(at(1), at()).shape == (1, 0)


def test_motion_takes_the_better_of_staying_and_going_on():
    last, velocity = at(0, 0), np.array([[15.0, 0], [15.0, 0]])
    stays, goes, other = motion_overlap(at(0, 30, 300), last, velocity, np.array([2.0, 2.0]), 0)
    assert stays.tolist() == [1, 1]
    assert goes.tolist() == [1, 1]
    assert other.tolist() == [0, 0]


def test_margins_shrink_with_gaps_below_a_second():
    last, still = at(0), np.zeros((1, 2))
    beside = at(20)
    for gap, margin in ((0.1, 0.05), (0.5, 0.25), (1.0, 0.5), (3.0, 0.5)):
        (found,) = motion_overlap(beside, last, still, np.array([gap]), 0.5)
        np.testing.assert_allclose(found, overlap(beside, last, margin)[0])


def test_gate_rises_with_the_gap():
    overlaps = np.full((1, 4), 0.5)
    cost = association_cost(overlaps, np.array([0.1, 1.0, 2.0, 3.0]), min_iou=0.4)
    # 0.4 ** 2 = 0.16, 0.4, 0.4 ** (1 / 2) = 0.63, 0.4 ** (1 / 3) = 0.74
    np.testing.assert_allclose(cost, [[0.52, 0.7, np.inf, np.inf]])


def test_no_overlap_is_never_a_link():
    assert np.isinf(association_cost(np.zeros((1, 1)), np.ones(1), min_iou=0.0)).all()
    assert np.isinf(association_cost(np.full((1, 1), np.nan), np.ones(1), min_iou=0.0)).all()


def test_appearance_in_the_cost():
    overlaps, gaps = np.full((1, 3), 0.75), np.ones(3)
    cosines = np.array([[1.0, 0.5, np.nan]])
    cost = association_cost(overlaps, gaps, 0.1, cosines, appearance_weight=2.0)
    np.testing.assert_allclose(cost, [[0.45, 1.45, 2.45]])
    cost = association_cost(overlaps, gaps, 0.1, cosines, min_cosine=0.6)
    np.testing.assert_allclose(cost, [[0.45, np.inf, 0.45]])  # what is not known forbids nothing


def test_cosine_similarity_by_hand():
    features = np.array([[3.0, 4.0], [0.0, 0.0]])
    others = np.array([[6.0, 8.0], [4.0, -3.0], [np.nan, 1.0]])
    found = cosine_similarity(features, others)
    np.testing.assert_allclose(found[:, :2], [[1, 0], [0, 0]], atol=1e-12)
    assert np.isnan(found[0, 2])


def test_assignment_links_as_many_as_it_can():
    # Best pair first would leave the second person alone.
    assert assign(np.array([[0.1, 0.9], [0.2, np.inf]])) == [(0, 1), (1, 0)]
    assert assign(np.full((2, 3), np.inf)) == []
    assert assign(np.zeros((0, 3))) == []


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_assignment_agrees_with_trying_all(data):
    rows, columns = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    entry = st.one_of(st.just(np.inf), st.integers(0, 8).map(lambda x: x / 4))
    cost = np.array([[data.draw(entry) for _ in range(columns)] for _ in range(rows)])

    def value(choice) -> tuple[int, float]:
        pairs = [(i, j) for i, j in enumerate(choice) if j is not None and cost[i, j] < np.inf]
        return -len(pairs), sum(cost[i, j] for i, j in pairs)

    slots = [*range(columns), *[None] * rows]
    best = min(value(choice) for choice in itertools.permutations(slots, rows))
    pairs = assign(cost)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    count, total = -len(pairs), sum(cost[i, j] for i, j in pairs)
    assert (count, total) == (best[0], pytest.approx(best[1]))


# ------------------------------------------------------------------------------------ the tracker


def test_who_stays_keeps_the_id_whatever_the_order():
    assert ids_of([(0, at(10, 100)), (1, at(101, 12)), (2, at(14, 99))]) == [[1, 2], [2, 1], [1, 2]]


def test_persons_who_cross_keep_their_ids():
    path = [(t, at(20 + 20 * t, 160 - 20 * t)) for t in range(8)]
    assert ids_of(path) == [[1, 2]] * 8
    # They meet at 3.5 s. Who is expected to stay only is mistaken for the other one.
    assert ids_of(path, motion=False) != [[1, 2]] * 8


def test_a_missed_keyframe_is_bridged():
    assert ids_of([(0, at(10, 100)), (1, at(100)), (2, at(10, 100))]) == [[1, 2], [2], [1, 2]]
    # The keyframe itself may be missing, or be empty.
    assert ids_of([(0, at(10)), (2, at(10))]) == [[1], [1]]
    assert ids_of([(0, at(10)), (1, at()), (2, at(10))]) == [[1], [], [1]]


def test_who_returns_after_the_longest_gap_is_somebody_new():
    assert ids_of([(0, at(10)), (3, at(10)), (4, at(10))]) == [[1], [2], [2]]
    assert ids_of([(0, at(10)), (3, at(10))], max_gap=3.0) == [[1], [1]]
    assert ids_of([(0, at(10)), (1, at(10))], max_gap=0.5) == [[1], [2]]


def test_ids_are_not_used_again():
    keyframes = [(5 * i, at(10, 100)) for i in range(4)]
    assert ids_of(keyframes) == [[1, 2], [3, 4], [5, 6], [7, 8]]


def test_of_two_tracks_in_one_place_the_later_one_goes_on():
    # Whoever stood there has been called 7 since.
    assert ids_of([(0, at(10)), (1, at(10), [7]), (2, at(10))]) == [[1], [7], [7]]


def test_who_is_suddenly_elsewhere_is_somebody_new():
    assert ids_of([(0, at(0)), (1, at(150))]) == [[1], [2]]


def test_the_same_box_twice_is_two_persons():
    assert ids_of([(t, at(10, 10)) for t in range(3)]) == [[1, 2]] * 3


def test_empty_keyframes_only():
    assert ids_of([(0, at()), (1, at()), (2, at(5))]) == [[], [], [1]]


def test_fifty_persons():
    rng = np.random.default_rng(0)
    corners = np.stack(np.meshgrid(np.arange(10) * 20, np.arange(5) * 20), -1).reshape(-1, 2)
    boxes = np.concatenate([corners, corners + 15], axis=1).astype(float)
    keyframes, expected = [], []
    for t in range(5):
        order = rng.permutation(50) if t else np.arange(50)
        keyframes.append((t, boxes[order] + rng.normal(0, 0.5, (50, 4))))
        expected.append((order + 1).tolist())
    assert ids_of(keyframes) == expected


def test_dense_frames():
    # 25 frames a second; two persons pass each other, each hidden for a third of a second.
    keyframes, expected = [], []
    for frame in range(100):
        x = frame / 25 * 40
        seen = [0] if 45 <= frame < 53 else [0, 1]
        keyframes.append((frame / 25, at(10 + x, 170 - x)[seen]))
        expected.append([i + 1 for i in seen])
    assert ids_of(keyframes) == expected


def test_the_same_keyframe_twice():
    assert ids_of([(0, at(10, 60)), (1, at(12, 60)), (1, at(60, 12))]) == [[1, 2], [1, 2], [2, 1]]


def test_time_order():
    with pytest.raises(ValueError, match="a keyframe at 1 s comes after one at 2 s"):
        ids_of([(2, at(10)), (1, at(10))])


def test_given_ids_are_kept_and_continued():
    # Person 7 comes with an id, then without; a newcomer never gets an id that is given.
    found = ids_of([(0, at(10), [7]), (1, at(10, 100), [-1, -1]), (2, at(10, 100), [-1, 9])])
    assert found == [[7], [7, 8], [7, 9]]
    # 7 is given to somebody else meanwhile: whoever stands where 7 stood is somebody new.
    assert ids_of([(0, at(10), [7]), (1, at(10, 100), [-1, 7])]) == [[7], [8, 7]]


def test_an_id_given_twice_stays_with_the_better_score():
    linker = IdentityLinker()
    given_ids, scores = np.array([3, 3]), np.array([0.8, 0.9])
    found = linker("v", 0, proposals(at(10, 100), given_ids, scores), first_id=4)
    assert found.tolist() == [4, 3]


def test_new_ids_stay_clear_of_announced_ones():
    linker = IdentityLinker()
    found = [
        linker("v", t, proposals(at(10, 100 + 40 * t), given_ids), first_new_id([7]))
        for t, given_ids in enumerate([[-1, -1], [-1, 7]])
    ]
    assert [ids.tolist() for ids in found] == [[8, 9], [8, 7]]


def test_first_new_id():
    assert [first_new_id(x) for x in ([], [-1], [-5], [0], [4, -1, 2])] == [1, 1, 1, 1, 5]


def test_fragmented_and_swapped_given_ids_are_taken_as_they_are():
    given_ids = [[1, 2], [2, 1], [5, 5], [-3, 1]]
    found = ids_of([(t, at(10, 100), ids) for t, ids in enumerate(given_ids)])
    assert found[:2] == given_ids[:2]
    assert found[2][0] == 5
    assert found[3][1] == 1
    assert all(len(set(ids)) == 2 and min(ids) >= 0 for ids in found)


def test_boxes_without_area_and_numbers_link_to_nobody():
    strange = np.array([[10, 10, 10, 10], [np.nan] * 4, [0, 0, np.inf, 5], [50, 50, 40, 40]])
    found = ids_of([(t, np.concatenate([at(10), strange])) for t in range(3)])
    assert [ids[0] for ids in found] == [1, 1, 1]
    assert all(len(set(ids)) == 5 for ids in found)


RED, BLUE = [1.0, 0.0, 0.1], [0.0, 1.0, 0.1]


def test_appearance_tells_apart_whom_boxes_do_not():
    # Both stand in the middle; then they have changed places.
    keyframes = [(0, at(50, 62), [-1, -1], [RED, BLUE]), (1, at(50, 62), [-1, -1], [BLUE, RED])]
    assert ids_of(keyframes) == [[1, 2], [1, 2]]
    assert ids_of(keyframes, appearance_weight=1.0) == [[1, 2], [2, 1]]


def test_a_least_similarity_ends_tracks_at_cuts():
    keyframes = [(0, at(50), [-1], [RED]), (1, at(50), [-1], [BLUE])]
    assert ids_of(keyframes) == [[1], [1]]
    assert ids_of(keyframes, min_cosine=0.5) == [[1], [2]]


def test_features_that_are_not_numbers_do_not_spread():
    bad = [float("nan")] * 3
    keyframes = [(t, at(50), [-1], [x]) for t, x in enumerate([RED, bad, RED, BLUE])]
    assert ids_of(keyframes, min_cosine=0.5) == [[1], [1], [1], [2]]


def test_detectron2_calls_it_like_its_own():
    tracker = PersonTracker()
    for _ in range(3):  # no times: a second between updates
        persons = Instances(SIZE, pred_boxes=Boxes(torch.tensor(at(10, 100))))
        persons.scores = torch.tensor([0.9, 0.8])
        tracked = tracker.update(persons)
        assert tracked.ID == [1, 2]
        assert tracked.scores is persons.scores
        assert not persons.has("ID")


def test_only_live_tracks_are_held():
    tracker = PersonTracker(max_gap=2.0)
    rng = np.random.default_rng(0)
    for t in range(200):
        persons = Instances(SIZE, pred_boxes=Boxes(torch.tensor(at(*rng.uniform(0, 180, 3)))))
        persons.timestamps = torch.full((3,), float(t))
        tracker.update(persons)
        assert len(tracker._tracks.live) <= 9  # three newcomers a second, held for two more


@pytest.mark.parametrize(
    ("key", "value"),
    [("TRACK_IOU_THRESHOLD", 1.5), ("BOX_MARGIN", -1.0), ("APPEARANCE_WEIGHT", -0.1)],
)
def test_bad_values_are_named(key, value):
    with pytest.raises(ValueError, match=f"TRACKER_HEADS.{key} {value}"):
        PersonTracker.from_config(tracker_cfg(**{key: value}))


# --------------------------------------------------------------------------------- its properties

coordinate = st.integers(0, 180)
persons_strategy = st.lists(st.tuples(coordinate, st.integers(-1, 4)), max_size=6)
video_strategy = st.lists(st.tuples(st.sampled_from([0.2, 1.0, 2.0, 5.0]), persons_strategy))


def keyframes_of(video) -> list[tuple[float, np.ndarray, list[int]]]:
    times = np.cumsum([gap for gap, _ in video])
    return [
        (float(t), at(*(x for x, _ in people)), [i for _, i in people])
        for t, (_, people) in zip(times, video)
    ]


def linked(keyframes, linker: IdentityLinker) -> list[list[int]]:
    return [
        linker("v", t, proposals(boxes, np.array(ids, dtype=np.int64)), first_id=5).tolist()
        for t, boxes, ids in keyframes
    ]


@settings(max_examples=60, deadline=None)
@given(video_strategy)
def test_ids_are_unique_known_and_given_ones_kept(video):
    keyframes = keyframes_of(video)
    last_seen: dict[int, float] = {}
    for (time, _, given_ids), ids in zip(keyframes, linked(keyframes, IdentityLinker())):
        assert len(ids) == len(given_ids) == len(set(ids))
        assert all(i >= 0 for i in ids)
        assert {i for i in given_ids if i >= 0} <= set(ids)
        for i, was in zip(ids, given_ids):
            if was < 0 and i in last_seen:  # nobody unknown gets an id that is out of use
                assert time - last_seen[i] <= 2.0 + 1e-6
            assert was in (-1, i) or given_ids.count(was) > 1
            assert i in given_ids or i >= 5 or i in last_seen
        last_seen.update(dict.fromkeys(ids, time))


@settings(max_examples=30, deadline=None)
@given(video_strategy, st.data())
def test_a_prefix_gets_the_same_ids(video, data):
    keyframes = keyframes_of(video)
    length = data.draw(st.integers(0, len(keyframes)))
    whole = linked(keyframes, IdentityLinker())
    assert linked(keyframes[:length], IdentityLinker()) == whole[:length]
    # What another video left behind makes no difference.
    used = IdentityLinker()
    used("other", 99.0, proposals(at(10, 50, 90)))
    assert linked(keyframes, used) == whole


# ------------------------------------------------------------------------------- other trackers


@TRACKER_HEADS_REGISTRY.register()
class ForgetfulTracker(BaseTracker):
    """Takes everybody for somebody new, and remembers what it was told."""

    def __init__(self, cfg: CfgNode) -> None:
        self.size = (cfg.TRACKER_HEADS.VIDEO_HEIGHT, cfg.TRACKER_HEADS.VIDEO_WIDTH)
        self.count = 0

    def update(self, predictions: Instances) -> Instances:
        assert self.size == SIZE == predictions.image_size
        assert set(predictions.get_fields()) == {"pred_boxes", "scores", "pred_classes"}
        ids = list(range(self.count, self.count + len(predictions)))
        self.count += len(predictions)
        return Instances(predictions.image_size, **predictions.get_fields(), ID=ids)


def test_another_registered_tracker_takes_its_place_by_configuration():
    linker = build_identity_linker(tracker_cfg(TRACKER_NAME="ForgetfulTracker"))
    assert ids_of([(t, at(10, 100)) for t in range(3)], linker) == [[1, 2], [3, 4], [5, 6]]


def test_another_tracker_sees_only_persons_without_id():
    linker = build_identity_linker(tracker_cfg(TRACKER_NAME="ForgetfulTracker"))
    found = [
        linker("v", t, proposals(at(10, 100), ids), first_id=8).tolist()
        for t, ids in enumerate([[7, -1], [-1, -1], [3, 7]])
    ]
    assert found == [[7, 8], [9, 10], [3, 7]]


DETECTRON2S = [
    "BBoxIOUTracker",
    "VanillaHungarianBBoxIOUTracker",
    "IOUWeightedHungarianBBoxIOUTracker",
]


@pytest.mark.parametrize("name", ["PersonTracker", *DETECTRON2S])
def test_detectron2s_trackers_work(name):
    linker = build_identity_linker(tracker_cfg(TRACKER_NAME=name))
    keyframes = [
        (0, at()),
        (1, at(10, 100)),
        (2, at(101, 12)),
        (3, at(12)),
        (4, at(12, 101)),
        (5, at()),
    ]
    assert ids_of(keyframes, linker) == [[], [1, 2], [2, 1], [1], [1, 2], []]


def test_configuration_reaches_the_tracker():
    cfg = tracker_cfg(TRACK_IOU_THRESHOLD=0.3, MAX_GAP=7.0, BOX_MARGIN=0.2, MOTION=False)
    tracker = build_identity_linker(cfg).build_tracker(100, 200, 40)
    tracks = tracker._tracks
    assert (tracks.min_iou, tracks.max_gap, tracks.box_margin) == (0.3, 7.0, 0.2)
    assert not tracks.motion
    persons = Instances(SIZE, pred_boxes=Boxes(torch.tensor(at(10))))
    assert tracker.update(persons).ID == [40]


def test_configured_defaults_are_those_of_the_tracker():
    cfg = get_cfg()
    add_alphaaction_config(cfg)
    configured = build_identity_linker(cfg).build_tracker(100, 200, 1)
    assert vars(configured) == vars(PersonTracker())
    # Every other tracker of detectron2 finds its keys there, too.
    for name in DETECTRON2S:
        cfg.TRACKER_HEADS.TRACKER_NAME = name
        assert ids_of([(0, at(10)), (1, at(10))], build_identity_linker(cfg)) == [[1], [1]]


def test_a_tracker_that_nobody_knows():
    with pytest.raises(ValueError, match=r"TRACKER_NAME 'Magic' is not registered; .*PersonTrack"):
        build_identity_linker(tracker_cfg(TRACKER_NAME="Magic"))


def test_no_tracker():
    assert build_identity_linker(tracker_cfg(TRACKER_NAME="")) is None


def test_given_ids_can_be_ignored():
    linker = build_identity_linker(tracker_cfg(KEEP_GIVEN_IDS=False))
    assert ids_of([(0, at(10, 100), [7, 8]), (1, at(10, 100), [8, 7])], linker) == [[1, 2], [1, 2]]


def test_a_new_video_counts_from_the_start():
    linker = IdentityLinker()
    found = [linker(v, t, proposals(at(10))).tolist() for v, t in (("a", 5), ("b", 2), ("b", 3))]
    assert found == [[1], [1], [1]]
    linker.reset()
    assert linker("b", 0, proposals(at(150))).tolist() == [1]


# ------------------------------------------------------------------------------------- data sets


def record(video: str, time: float, boxes: np.ndarray, ids: list[int], scores=None) -> dict:
    persons = FoundBoxes.of(boxes, scores or 0.9, ids, SIZE[::-1])
    return {"video_id": video, "timestamp": time, "height": 100, "width": 200, "persons": persons}


def test_link_dataset_in_any_order_and_without_changing_its_input():
    records = [
        record("b", 1, at(10, 100), [-1, -1]),
        record("a", 2, at(100, 10), [-1, -1]),
        record("b", 0, at(100), [-1]),
        record("a", 1, at(12, 100), [4, -1]),
    ]
    result = link_dataset(records)
    assert [r["persons"].ids.tolist() for r in result] == [[2, 1], [5, 4], [1], [4, 5]]
    assert [r["persons"].ids.tolist() for r in records] == [
        [-1, -1],
        [-1, -1],
        [-1],
        [4, -1],
    ]
    assert [r["video_id"] for r in result] == ["b", "a", "b", "a"]
    assert result[0]["persons"].boxes is records[0]["persons"].boxes


def test_link_dataset_agrees_with_the_stream():
    rng = np.random.default_rng(3)
    records = [record("v", t, at(*rng.uniform(0, 180, 4)), [-1] * 4) for t in range(30)]
    stream = ids_of([(r["timestamp"], r["persons"].in_pixels(*SIZE[::-1])) for r in records])
    assert [r["persons"].ids.tolist() for r in link_dataset(records)] == stream


def test_link_dataset_gives_all_actions_of_a_person_one_id():
    def annotations(*rows):
        return [{"bbox": b, "category_id": c, "person_id": i} for b, c, i in rows]

    left, right = at(10)[0].tolist(), at(100)[0].tolist()
    base = {"video_id": "v", "height": 100, "width": 200}
    records = [
        {**base, "timestamp": 0, "annotations": annotations((left, 0, -1), (right, 1, 0))},
        {**base, "timestamp": 1, "annotations": annotations((right, 1, -1), (left, 0, -1))},
        {**base, "timestamp": 2, "annotations": annotations((left, 2, -1), (left, 0, -1))},
        {**base, "timestamp": 3, "annotations": []},
    ]
    result = link_dataset(records)
    assert [[a["person_id"] for a in r["annotations"]] for r in result] == [
        [1, 0],
        [0, 1],
        [1, 1],
        [],
    ]
    assert [a["category_id"] for a in result[2]["annotations"]] == [2, 0]
    assert records[0]["annotations"][0]["person_id"] == -1


def test_link_dataset_of_nothing():
    assert link_dataset([]) == []


# ---------------------------------------------------------------------------------------- scores


def test_perfect_identities():
    scores = identity_scores([0, 0, 1, 1], [1, 2, 1, 2], [30, 10, 30, 10])
    assert scores == IdentityScores(4, 4, 4, 0, 0, 0, 2, 2, 2)
    assert (scores.idf1, scores.link_precision, scores.link_recall) == (1, 1, 1)


def test_a_swap_half_way():
    times = np.repeat(np.arange(4), 2)
    scores = identity_scores(times, [1, 2] * 4, [1, 2, 1, 2, 2, 1, 2, 1])
    assert (scores.matched, scores.switches, scores.fragments, scores.merges) == (4, 2, 2, 2)
    assert scores.idf1 == 0.5
    # Of three links each, the one across the swap is wrong.
    assert (scores.common_links, scores.predicted_links, scores.true_links) == (4, 6, 6)


def test_a_track_in_two_pieces():
    scores = identity_scores(range(5), [1] * 5, [1, 1, 1, 2, 2])
    assert (scores.matched, scores.switches, scores.fragments, scores.merges) == (3, 1, 1, 0)
    assert (scores.idf1, scores.link_precision, scores.link_recall) == (0.6, 1, 0.75)


def test_two_persons_in_one_track():
    scores = identity_scores(range(4), [1, 1, 2, 2], [1, 1, 1, 1])
    assert (scores.matched, scores.switches, scores.fragments, scores.merges) == (2, 0, 0, 1)
    assert scores.link_precision == pytest.approx(2 / 3)


def test_missed_and_false_boxes():
    # Missed at 1 s: the link of 0 s and 2 s is not one of the truth's.
    scores = identity_scores([0, 1, 2, 2], [1, 1, 1, -1], [1, -1, 1, 2])
    assert (scores.boxes, scores.predicted, scores.matched, scores.switches) == (3, 3, 2, 0)
    assert (scores.true_links, scores.predicted_links, scores.common_links) == (2, 1, 0)


def test_no_persons_and_sums_over_videos():
    nothing = identity_scores([], [], [])
    assert nothing == IdentityScores()
    assert nothing.idf1 == 1
    one = identity_scores([0, 1], [1, 1], [1, 2])
    assert (one + one).switches == 2
    assert (one + nothing) == one


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(-1, 2)), max_size=12))
def test_matched_agrees_with_trying_all_pairings(rows):
    true, found = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    best = max(
        sum(int(((true == i) & (found == j)).sum()) for i, j in enumerate(pairing))
        for pairing in itertools.permutations(range(3))
    )
    assert identity_scores(np.arange(len(rows)), true, found).matched == best


# ------------------------------------------------------------------------------------- real data


def score_video(times, true_ids, boxes, size=(1000, 1780), **tracker) -> IdentityScores:
    """Identify normalised boxes and compare."""
    linker = IdentityLinker(lambda h, w, first: PersonTracker(first_id=first, **tracker))
    ids = np.full(len(times), -1)
    for time in np.unique(times):
        rows = np.flatnonzero(times == time)
        ids[rows] = linker("v", time, proposals(boxes[rows] * (size[1::-1] * 2), size=size))
    return identity_scores(times, true_ids, ids)


def test_on_avas_annotations(shared):
    persons: dict[str, dict] = {}
    annotations = shared / "ava" / "official" / "ava_val_v2.1_head27163.csv"
    with annotations.open(newline="") as file:
        for video, time, *box, _, person in csv.reader(file):
            persons.setdefault(video, {})[int(time), int(person)] = [float(x) for x in box]
    total, without_margin = IdentityScores(), IdentityScores()
    for video in ("1j20qq1JyX4", "55Ihr6uVIDA"):
        times, ids = np.array(list(persons[video])).T
        boxes = np.array(list(persons[video].values()))
        total += score_video(times, ids, boxes)
        without_margin += score_video(times, ids, boxes, box_margin=0.0, motion=False)
    assert total.link_precision > 0.8
    assert total.link_recall > 0.9
    assert total.switches < 0.8 * without_margin.switches


def test_on_puppets_who_walk_far_in_a_second():
    params = PuppetParams(num_train=0, num_val=12, seed=5, seconds=20, width=96, height=64, fps=8)
    total = {name: IdentityScores() for name in ("plain", "margin", "both")}
    for index in range(params.num_val):
        rows = tabulate(plan_video(params, "val", index), np.random.default_rng(index))["persons"]
        table = np.array([[float(x) for x in (*row[1:6], row[8])] for row in rows])
        video = table[:, 0], table[:, 5].astype(int), table[:, 1:5], (640, 960)
        total["plain"] += score_video(*video, min_iou=0.1, box_margin=0.0, motion=False)
        total["margin"] += score_video(*video, min_iou=0.1, motion=False)
        total["both"] += score_video(*video, min_iou=0.1)
    assert total["plain"].idf1 + 0.05 < total["margin"].idf1 < total["both"].idf1
