from __future__ import annotations

import numpy as np
import pytest

from alphaaction_d2.visualization.layout import MAX_OVERLAP, Placement, place_panels


def areas(placements, sizes):
    return np.array(
        [
            [p.x, p.y, *(np.array([p.x, p.y]) + sizes[i, p.level])]
            for i, p in enumerate(placements)
            if p is not None
        ]
    )


def overlap(a, b):
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    return sides.prod()


def repeat(sizes, num_persons):
    return np.tile(np.array(sizes)[None], (num_persons, 1, 1))


@pytest.mark.parametrize("seed", range(8))
def test_panels_lie_inside_the_picture_wherever_the_persons_are(seed):
    rng = np.random.default_rng(seed)
    width, height = 640, 360
    num_persons = int(rng.integers(1, 30))
    corners = rng.uniform(0, 0.95, (num_persons, 2)) * [width, height]
    boxes = np.concatenate([corners, corners + rng.uniform(2, 300, (num_persons, 2))], axis=1)
    boxes = np.clip(boxes, 0, [width, height, width, height])
    sizes = repeat([(170, 70), (170, 22), (30, 22)], num_persons)
    placements = place_panels(boxes, sizes, (width, height))
    assert None not in placements
    panels = areas(placements, sizes)
    assert (panels[:, :2] >= 0).all() and (panels[:, 2:] <= [width, height]).all()


def test_panels_avoid_each_other_and_obstacles_where_there_is_room():
    boxes = np.array([[20 + 150 * i, 120, 120 + 150 * i, 340] for i in range(4)], dtype=float)
    sizes = repeat([(180, 70), (180, 22), (30, 22)], 4)
    obstacle = np.array([[0, 0, 60, 20]], dtype=float)
    placements = place_panels(boxes, sizes, (640, 360), obstacles=obstacle)
    panels = [*areas(placements, sizes), obstacle[0]]
    for i, panel in enumerate(panels):
        for other in panels[:i]:
            assert overlap(panel, other) <= MAX_OVERLAP * 180 * 70


def test_a_lone_panel_stands_above_its_person_in_full_size():
    sizes = repeat([(100, 40), (100, 20), (20, 20)], 1)
    (place,) = place_panels(np.array([[200.0, 100, 300, 300]]), sizes, (640, 360))
    assert (place.x, place.level) == (200, 0)
    assert place.y + 40 <= 100


def test_a_crowd_gets_smaller_panels():
    xs, ys = np.meshgrid(np.arange(0, 640, 64), np.arange(0, 360, 72))
    boxes = np.stack([xs, ys, xs + 50, ys + 70], axis=-1).reshape(-1, 4).astype(float)
    sizes = repeat([(170, 70), (120, 20), (24, 16)], len(boxes))
    placements = place_panels(boxes, sizes, (640, 360))
    assert np.mean([place.level == 2 for place in placements]) > 0.6


def test_a_panel_stays_while_its_person_walks_on():
    sizes = repeat([(100, 40), (100, 20), (20, 20)], 2)
    boxes = np.array([[200.0, 100, 260, 300], [420.0, 100, 480, 300]])
    placements = place_panels(boxes, sizes, (640, 360))
    for _ in range(60):
        boxes = boxes + [2, 0, 2, 0]
        boxes[1] -= [2, 0, 2, 0]
        moved = place_panels(boxes, sizes, (640, 360), previous=placements)
        assert abs(moved[0].x - placements[0].x) <= 2 or moved[0].slot != placements[0].slot
        assert overlap(*areas(moved, sizes)) <= MAX_OVERLAP * 4000
        assert moved[1] == placements[1]  # the one who stands still keeps the place
        placements = moved


def test_without_persons_text_or_room_there_are_no_panels():
    assert place_panels(np.zeros((0, 4)), np.zeros((0, 3, 2), dtype=int), (64, 36)) == []
    box = np.array([[1.0, 1, 9, 9]])
    assert place_panels(box, np.zeros((1, 3, 2), dtype=int), (64, 36)) == [None]
    assert place_panels(box, repeat([(100, 40), (100, 20), (80, 20)], 1), (64, 36)) == [None]
    (place,) = place_panels(box, repeat([(100, 40), (100, 20), (20, 20)], 1), (64, 36))
    assert place.level == 2


def test_a_place_is_kept_though_a_better_one_is_free_until_another_panel_is_there():
    sizes = repeat([(100, 40), (100, 20), (20, 20)], 1)
    box = np.array([[200.0, 100, 300, 300]])
    below = Placement(200, 303, 0, 4)
    assert place_panels(box, sizes, (640, 360), previous=[below]) == [below]
    taken = np.array([[200.0, 310, 300, 330]])
    (place,) = place_panels(box, sizes, (640, 360), obstacles=taken, previous=[below])
    assert place.slot == 0
