from __future__ import annotations

import numpy as np
import pytest

from alphaaction_d2.formats.results import KeyframeResult, PersonResult
from alphaaction_d2.visualization.palette import (
    IDENTITY_COLOURS,
    UNKNOWN_COLOUR,
    IdentityColours,
    text_colour_on,
)
from alphaaction_d2.visualization.timeline import persons_at


def person(box, person_id=-1, action="walk"):
    return PersonResult(np.array(box, dtype=float), person_id, [(action, 0.9)], np.array([0.9]))


BOX = [200.0, 0, 210, 10]


def keyframe(seconds, *persons):
    return KeyframeResult(seconds, persons)


def test_persons_of_one_id_move_in_a_straight_line_and_change_their_actions_half_way():
    before = keyframe(2.0, person([0, 0, 10, 10], 1, "walk"))
    after = keyframe(3.0, person([20, 0, 30, 10], 1, "stand"))
    for seconds, left, action in ((2.0, 0, "walk"), (2.25, 5, "walk"), (2.75, 15, "stand")):
        (shown,) = persons_at(seconds, before, after)
        np.testing.assert_allclose(shown.box, [left, 0, left + 10, 10])
        assert shown.actions[0][0] == action


def test_others_appear_and_disappear_half_way():
    before = keyframe(0.0, person([0, 0, 10, 10], 1))
    after = keyframe(1.0, person([50, 0, 60, 10], 2))
    assert [p.person_id for p in persons_at(0.49, before, after)] == [1]
    assert [p.person_id for p in persons_at(0.51, before, after)] == [2]


@pytest.mark.parametrize("period", [1.0, 0.4])
def test_a_keyframe_holds_for_half_a_period_where_it_has_no_neighbour(period):
    only = keyframe(5.0, person([0, 0, 10, 10]))
    far = keyframe(5.0 + 2 * period, person([0, 0, 10, 10]))
    inside, outside = 0.49 * period, 0.51 * period
    for after in (None, far):
        assert len(persons_at(5 + inside, only, after, period=period)) == 1
        assert persons_at(5 + outside, only, after, period=period) == []
    assert len(persons_at(5 - inside, None, only, period=period)) == 1
    assert persons_at(5 - outside, None, only, period=period) == []
    assert persons_at(5.0, None, None) == []


def test_persons_are_followed_by_their_ids_alone():
    before = keyframe(0.0, person([0, 0, 10, 10], 1), person([80, 0, 90, 10], 2), person(BOX))
    after = keyframe(1.0, person([0, 0, 10, 10], 2), person([40, 0, 50, 10], 1), person(BOX))
    boxes = {p.person_id: p.box[0] for p in persons_at(0.25, before, after)}
    assert boxes == {1: 10, 2: 60, -1: BOX[0]}


def test_who_has_no_id_stands_still_and_changes_half_way():
    before, after = keyframe(0.0, person([0, 0, 10, 10])), keyframe(1.0, person([2, 0, 12, 10]))
    assert [p.box[0] for t in (0.0, 0.49, 0.51) for p in persons_at(t, before, after)] == [0, 0, 2]


def test_colours_last_and_differ_among_those_seen_together():
    colours = IdentityColours()
    first = colours.of([0, 8, 16])
    assert len(set(first)) == 3
    assert colours.of([16, 0]) == [first[2], first[0]]
    many = IdentityColours().of(list(range(100)))
    assert max(many.count(colour) for colour in IDENTITY_COLOURS) <= 13
    assert colours.of([-1, 0, -1]) == [UNKNOWN_COLOUR, first[0], UNKNOWN_COLOUR]


def test_text_can_be_read_on_every_colour():
    def luminance(colour):
        return np.dot((np.array(colour) / 255) ** 2.2, [0.2126, 0.7152, 0.0722])

    for colour in IDENTITY_COLOURS:
        values = sorted([luminance(colour), luminance(text_colour_on(colour))])
        assert (values[1] + 0.05) / (values[0] + 0.05) > 4.5
