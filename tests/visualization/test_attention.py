"""Attention drawn: maps land where their boxes are, bars where their seconds and persons are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from alphaaction_d2.formats.results import (
    ClipAttention,
    ClipWeights,
    KeyframeResult,
    MemoryWeights,
    PersonResult,
)
from alphaaction_d2.visualization.attention import (
    MAX_PERSONS,
    attention_map_sheet,
    clip_attention_sheet,
    light_up,
    overlay_map,
    view_around,
)
from alphaaction_d2.visualization.attention_chart import MAX_ROWS, memory_attention_chart
from alphaaction_d2.visualization.palette import (
    IDENTITY_COLOURS,
    UNKNOWN_COLOUR,
    IdentityColours,
    mix,
)

BLACK = np.zeros((100, 160, 3), np.uint8)
CORNER = np.zeros((7, 7))
CORNER[0, 6] = 1  # the cell at the top right


def brightness(picture: np.ndarray) -> np.ndarray:
    """(H, W): on black ground it grows with what is laid over it."""
    return picture.astype(int).sum(axis=2)


def test_a_map_lands_on_its_box():
    box = np.array([20.0, 10.0, 90.0, 80.0])  # cells of 10 x 10
    drawn = brightness(overlay_map(BLACK, box, CORNER))
    inside = np.zeros(drawn.shape, bool)
    inside[10:80, 20:90] = True
    assert not drawn[~inside].any()
    y, x = np.unravel_index(drawn.argmax(), drawn.shape)
    assert 80 <= x < 90 and 10 <= y < 20
    # A cell's value stands at its centre and is gone at the centres of the cells beside it.
    for row, column in ((0, 0), (3, 2), (6, 6)):
        one = np.zeros((7, 7))
        one[row, column] = 1
        drawn = brightness(overlay_map(BLACK, box, one))[15:80:10, 25:90:10]
        strong = drawn > 0.5 * drawn.max()
        assert np.argwhere(strong).tolist() == [[row, column]]
        assert (drawn[~strong] < 0.15 * drawn.max()).all()


def test_a_flipped_picture_is_drawn_flipped():
    values = np.random.default_rng(0).random((7, 7))
    picture = np.random.default_rng(1).integers(0, 255, BLACK.shape, dtype=np.uint8)
    box = np.array([21.5, 10.25, 88.0, 79.0])
    flipped = np.array([160 - box[2], box[1], 160 - box[0], box[3]])
    drawn = overlay_map(picture, box, values)
    again = overlay_map(picture[:, ::-1], flipped, values[:, ::-1])[:, ::-1]
    assert np.abs(drawn.astype(int) - again).max() <= 12  # steps of the colour map


def test_a_larger_picture_shows_the_same_larger():
    values = np.random.default_rng(0).random((7, 7))
    box = np.array([20.0, 10.0, 90.0, 80.0])
    drawn = overlay_map(BLACK, box, values).astype(float)
    large = overlay_map(BLACK.repeat(3, axis=0).repeat(3, axis=1), 3 * box, values)
    centres = large[1::3, 1::3].astype(float)
    assert np.abs(drawn - centres).max() <= 12


def test_boxes_that_leave_the_picture():
    box = np.array([-70.0, 20.0, 70.0, 90.0])
    seen = brightness(overlay_map(BLACK, box, np.eye(7)))
    wide = np.zeros((100, 300, 3), np.uint8)
    whole = brightness(overlay_map(wide, box + [100, 0, 100, 0], np.eye(7)))
    np.testing.assert_allclose(seen[:, :70], whole[:, 100:170], atol=6)
    for outside in ([-50, 0, -10, 40], [170, 0, 200, 40], [10, 120, 20, 140], [30, 30, 30, 30]):
        assert not brightness(overlay_map(BLACK, np.array(outside, float), CORNER)).any()


@pytest.mark.parametrize("box", [[0, 0, 3, 5], [60, 40, 100, 60], [-20, -20, 200, 150]])
def test_a_view_has_the_pictures_proportions_and_its_box(box):
    view = view_around(np.array(box, float), 160, 100)
    assert (view[:2] >= 0).all() and (view[2:] <= [160, 100]).all()
    width, height = view[2:] - view[:2]
    assert abs(width * 100 - height * 160) <= 160
    inside = np.clip(box, 0, [160, 100, 160, 100])
    assert (view[:2] <= inside[:2]).all() and (view[2:] >= inside[2:]).all()


def keyframe(ids, boxes, *memory: MemoryWeights, time: float = 5.0) -> KeyframeResult:
    """Persons with maps in the pixels of BLACK."""
    persons = [
        PersonResult.from_scores(box, [0.9, 0.2], ["walk", "stand"], i)
        for i, box in zip(ids, boxes)
    ]
    map_boxes = np.array(boxes[: len(ids)], float) / [160, 100, 160, 100]
    maps = np.stack([CORNER] * len(ids))
    attention = ClipAttention(map_boxes, {"semantic": maps, "identity": 0.5 * maps}, memory)
    return KeyframeResult(time, persons, attention)


def test_a_sheet_has_a_row_per_person_and_a_column_per_map():
    boxes = [[20, 10, 90, 80], [60, 20, 120, 90], [5, 5, 15, 30], [0, 0, 160, 100]] * 2
    heights = []
    for count in (1, 2, 4, MAX_PERSONS, 8):
        sheet = attention_map_sheet(BLACK, keyframe(range(count), boxes), IdentityColours())
        heights.append(sheet.shape[0])
        assert sheet.dtype == np.uint8 and sheet.shape[1] > 3 * 440
    assert heights[0] < heights[1] < heights[2] < heights[3] == heights[4]
    # The identity map is half as strong everywhere: one scale for both shows it.
    one = attention_map_sheet(BLACK, keyframe([3], [boxes[3]]), IdentityColours())
    corners = [one[14:50, 8 + 448 * i + 380 : 8 + 448 * i + 430] for i in (1, 2)]
    semantic, identity = (brightness(corner).mean() for corner in corners)
    assert semantic > 2 * identity > 0


def test_what_attention_is_to_stays_bright():
    white = np.full((100, 160, 3), 200, np.uint8)
    boxes = np.array([[10.0, 10, 50, 90], [100, 10, 150, 90], [-20, 0, 5, 300]])
    lit = light_up(white, boxes, np.array([0.8, 0.2, 0.0]))
    assert (lit[20:80, 15:45] == 200).all() and (lit[:, 60:90] == 60).all()
    assert (lit[20:80, 105:145] == 95).all() and (lit[:, :4] == 60).all()  # a quarter of the way
    assert (light_up(white, boxes[:0], np.zeros(0)) == 60).all()
    assert (light_up(white, boxes, np.zeros(3)) == 60).all()


def test_a_sheet_of_the_clip_has_a_column_per_attention():
    boxes = [[20, 10, 90, 80], [60, 20, 120, 90]]
    shown = keyframe([1, 2], boxes)
    there = np.array(boxes) / [160, 100, 160, 100]
    attentions = [
        ClipWeights("P-block 1", there, np.array([[0.5, 0.5], [1.0, 0.0]])),
        ClipWeights("O-block 1", there[:0], np.zeros((2, 0))),
    ]
    shown = replace(shown, attention=replace(shown.attention, clip=attentions))
    sheet = clip_attention_sheet(BLACK, shown, IdentityColours())
    one = clip_attention_sheet(BLACK, replace(shown, persons=shown.persons[:1]), IdentityColours())
    assert sheet.shape[1] > 3 * 440 and sheet.shape[0] > 1.5 * one.shape[0]


def test_a_sheet_shows_whose_boxes_they_are():
    persons = keyframe([2, -1], [[20, 10, 90, 80], [60, 20, 120, 90]])
    sheet = attention_map_sheet(BLACK, persons, IdentityColours())
    colours = IDENTITY_COLOURS[2], UNKNOWN_COLOUR, IDENTITY_COLOURS[0]
    counts = [(sheet == colour).all(axis=2).sum() for colour in colours]
    assert counts[0] > 500 and counts[1] > 500 and counts[2] == 0


# ------------------------------------------------------------------------------------- the memory


def memory(times, ids, weights, elsewhere=0.0, persons=1, step=1.0) -> MemoryWeights:
    """What persons at second 5 all see alike."""
    return MemoryWeights(
        name="layer 1",
        step=step,
        offsets=np.array([*times, 0], float) - 5,
        person_ids=np.array([*ids, -1], int),
        seen=np.array([[True] * len(times) + [False]] * persons),
        weights=np.array([[*weights, elsewhere]] * persons, float),
    )


def draw(tmp_path, ids, *attended) -> np.ndarray:
    shown = keyframe(ids, [[0, 0, 9, 9]] * len(ids), *attended)
    path = memory_attention_chart(tmp_path / "chart.png", shown, IdentityColours())
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def pixels(picture: np.ndarray, colour_index: int) -> np.ndarray:
    """Where the bars of an identity are."""
    colour = mix(IDENTITY_COLOURS[colour_index], (40, 44, 52), 0.85)
    return (picture == colour).all(axis=2)


def test_bars_stand_where_the_weight_is(tmp_path):
    # Person 4 has three quarters at second 2, person 5 a quarter at 8.
    attended = memory([2, 2, 8, 8], [4, 5, 4, 5], [0.75, 0, 0, 0.25])
    picture = draw(tmp_path, [4], attended)
    first, second = np.argwhere(pixels(picture, 4)), np.argwhere(pixels(picture, 5))
    assert len(first) > 2.5 * len(second) > 0
    width = picture.shape[1]
    assert first[:, 1].max() < width / 2 < second[:, 1].min()  # seconds 2 and 8 around second 5
    assert first[:, 0].mean() < second[:, 0].min()  # the own row is the first one


def test_a_coarse_level_has_wide_bars(tmp_path):
    sizes = []
    for step in (1.0, 4.0):
        attended = memory([1, 9], [3, 3], [1, 0], step=step)
        picture = draw(tmp_path, [3], attended)
        sizes.append(pixels(picture, 3).any(axis=0).sum() / (9 + step))
    assert sizes[1] > 1.5 * sizes[0]


def test_rows_up_to_the_limit_and_a_sum_of_the_others(tmp_path):
    def attended(count):
        return memory(np.arange(count), np.arange(count), np.full(count, 1 / count))

    heights = [draw(tmp_path, [0], attended(n)).shape[0] for n in (2, MAX_ROWS, MAX_ROWS + 1, 60)]
    assert heights[0] < heights[1] == heights[2] == heights[3]


def test_blocks_columns_and_strange_cases(tmp_path):
    def attended(persons):
        unknown = memory([1, 1, 2], [-1, -1, -1], [0.2, 0.3, 0.1], 0.4, persons)
        return unknown, memory([], [], [], persons=persons)

    both = draw(tmp_path, [-1, 3], *attended(2))
    one = draw(tmp_path, [-1], *attended(1))
    assert both.shape[0] > one.shape[0] and both.shape[1] == one.shape[1]
    full, more = (draw(tmp_path, range(n), *attended(n)) for n in (MAX_PERSONS, MAX_PERSONS + 2))
    assert full.shape == more.shape
    assert draw(tmp_path, [1], memory([], [], [])).shape[1] < one.shape[1]
