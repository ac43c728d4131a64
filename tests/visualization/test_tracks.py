from __future__ import annotations

import numpy as np
import pytest

from alphaaction_d2.visualization.palette import IDENTITY_COLOURS, IdentityColours, text_colour_on
from alphaaction_d2.visualization.results import KeyframeResult, PersonResult, VideoResult
from alphaaction_d2.visualization.tracks import (
    identify,
    interpolate_persons,
    link_persons,
    pairwise_iou,
)


def person(box, person_id=-1, action="walk"):
    return PersonResult(np.array(box, dtype=float), person_id, [(action, 0.9)], np.array([0.9]))


def keyframe(seconds, *persons):
    return KeyframeResult(seconds, persons)


def test_pairwise_iou_by_hand():
    boxes = np.array([[0, 0, 2, 2], [5, 5, 5, 9]], dtype=float)
    others = np.array([[1, 0, 3, 2], [0, 0, 2, 2], [5, 5, 5, 9]], dtype=float)
    np.testing.assert_allclose(pairwise_iou(boxes, others), [[1 / 3, 1, 0], [0, 0, 0]])


def test_known_ids_link_however_far_apart_and_never_to_other_ids():
    before = [person([0, 0, 10, 10], 1), person([100, 0, 110, 10], 2)]
    after = [person([0, 0, 10, 10], 2), person([300, 0, 310, 10], 1)]
    assert link_persons(before, after) == [(0, 1), (1, 0)]
    assert link_persons([person([0, 0, 10, 10], 1)], [person([0, 0, 10, 10], 2)]) == []


def test_unknown_ids_link_by_largest_overlap_first():
    before = [person([0, 0, 10, 10]), person([4, 0, 14, 10])]
    after = [person([3, 0, 13, 10])]
    assert link_persons(before, after) == [(1, 0)]
    assert link_persons(before, [person([50, 0, 60, 10])]) == []
    assert link_persons([], after) == [] == link_persons(before, [])


def test_a_lost_id_links_by_overlap():
    assert link_persons([person([0, 0, 10, 10], 7)], [person([1, 0, 11, 10])]) == [(0, 0)]


def test_linked_persons_move_in_a_straight_line_and_change_their_actions_half_way():
    before = keyframe(2.0, person([0, 0, 10, 10], 1, "walk"))
    after = keyframe(3.0, person([20, 0, 30, 10], 1, "stand"))
    for seconds, left, action in ((2.0, 0, "walk"), (2.25, 5, "walk"), (2.75, 15, "stand")):
        (shown,) = interpolate_persons(seconds, before, after)
        np.testing.assert_allclose(shown.box, [left, 0, left + 10, 10])
        assert shown.actions[0][0] == action


def test_others_appear_and_disappear_half_way():
    before = keyframe(0.0, person([0, 0, 10, 10], 1))
    after = keyframe(1.0, person([50, 0, 60, 10], 2))
    assert [p.person_id for p in interpolate_persons(0.49, before, after)] == [1]
    assert [p.person_id for p in interpolate_persons(0.51, before, after)] == [2]


@pytest.mark.parametrize("period", [1.0, 0.4])
def test_a_keyframe_holds_for_half_a_period_where_it_has_no_neighbour(period):
    only = keyframe(5.0, person([0, 0, 10, 10]))
    far = keyframe(5.0 + 2 * period, person([0, 0, 10, 10]))
    inside, outside = 0.49 * period, 0.51 * period
    for after in (None, far):
        assert len(interpolate_persons(5 + inside, only, after, period=period)) == 1
        assert interpolate_persons(5 + outside, only, after, period=period) == []
    assert len(interpolate_persons(5 - inside, None, only, period=period)) == 1
    assert interpolate_persons(5 - outside, None, only, period=period) == []
    assert interpolate_persons(5.0, None, None) == []


def test_unknown_persons_keep_their_key_and_colour_while_they_overlap():
    result = VideoResult(
        "v",
        640,
        360,
        ["walk"],
        [
            keyframe(0.0, person([0, 0, 100, 100]), person([300, 0, 400, 100])),
            keyframe(1.0, person([310, 0, 410, 100]), person([20, 0, 120, 100])),
            keyframe(2.0, person([40, 0, 140, 100])),
            keyframe(9.0, person([40, 0, 140, 100])),  # after a hole: nobody knows
        ],
    )
    keys, colours = zip(*identify(result))
    assert keys[1] == [keys[0][1], keys[0][0]]
    assert keys[2] == [keys[0][0]] and colours[2] == [colours[0][0]]
    assert colours[0][0] != colours[0][1]
    assert keys[3][0] not in keys[0]
    assert all(key < -1 for per_keyframe in keys for key in per_keyframe)


def test_an_id_that_gets_lost_keeps_its_key_unless_it_is_seen_elsewhere():
    first = keyframe(0.0, person([0, 0, 100, 100], 3))
    second = keyframe(1.0, person([5, 0, 105, 100]))
    third = keyframe(2.0, person([5, 0, 105, 100]), person([300, 0, 400, 100], 3))
    keys = [k for k, _ in identify(VideoResult("v", 640, 360, ["a"], [first, second, third]))]
    assert keys[:2] == [[3], [3]]
    assert keys[2][1] == 3 and keys[2][0] < -1


def test_colours_last_and_differ_among_those_seen_together():
    colours = IdentityColours()
    first = colours.assign([0, 8, 16])
    assert len(set(first)) == 3
    assert colours.assign([16, 0]) == [first[2], first[0]]
    many = IdentityColours().assign(list(range(100)))
    assert np.bincount(many, minlength=len(IDENTITY_COLOURS)).max() <= 13


def test_text_can_be_read_on_every_colour():
    def luminance(colour):
        return np.dot((np.array(colour) / 255) ** 2.2, [0.2126, 0.7152, 0.0722])

    for colour in IDENTITY_COLOURS:
        values = sorted([luminance(colour), luminance(text_colour_on(colour))])
        assert (values[1] + 0.05) / (values[0] + 0.05) > 4.5
