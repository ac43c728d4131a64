"""Contact sheets: every picture in its place, boxes where they belong."""

from __future__ import annotations

import numpy as np
import pytest

from alphaaction_d2.visualization.contact_sheet import Tile, contact_sheet, draw_tile
from alphaaction_d2.visualization.palette import IDENTITY_COLOURS
from alphaaction_d2.visualization.text import load_font

FONT = load_font(14)


def tile(width: int, height: int, level: int = 0, boxes=(), labels=(), title: str = "t") -> Tile:
    picture = np.full((height, width, 3), level, np.uint8)
    return Tile(picture, np.array(boxes, float).reshape(-1, 4), labels, title)


def test_rows_and_columns():
    levels = (200, 150, 100, 70, 50)
    sheet = contact_sheet([tile(80, 40, level) for level in levels], columns=2, tile_width=160)
    assert sheet.dtype == np.uint8 and sheet.shape[1] == 2 * 168 + 8
    row = (sheet.shape[0] - 8) // 3
    for number, level in enumerate(levels):
        x, y = 8 + 80 + (number % 2) * 168, 8 + 40 + (number // 2) * row
        assert (sheet[y, x] == level).all(), number


def test_pictures_keep_their_shape():
    for size, expected in (((40, 80), (60, 120)), ((1000, 100), (160, 16)), ((1, 1), (120, 120))):
        drawn = draw_tile(tile(*size), (160, 120), FONT)
        assert drawn.shape[1::-1] == expected


def test_box_and_label():
    colour = IDENTITY_COLOURS[0]
    drawn = draw_tile(tile(100, 100, 0, [[20, 40, 60, 90]], [["stand", "walk"]]), (400, 400), FONT)
    is_colour = (drawn == colour).all(axis=2)
    # The frame of the box, four times as large as in the picture.
    assert is_colour[200, 80] and is_colour[160, 160] and is_colour[359, 160]
    ys, xs = np.nonzero(is_colour)
    assert xs.min() >= 78 and ys.max() <= 361
    # The label stands above the box, and is no frame: its ground is filled.
    assert is_colour[:155].sum() > 500
    assert not (draw_tile(tile(100, 100), (400, 400), FONT) != 0).any(), "nothing without boxes"


def test_crowds_and_odd_boxes_fit():
    boxes = [[i, 0, i + 9, 99] for i in range(0, 90, 9)] + [[-20, -20, 300, 300], [5, 5, 5, 5]]
    labels = [["a very long name of a class that nobody could ever read" * 3, "b"]] * 11 + [[]]
    drawn = draw_tile(tile(100, 100, 9, boxes, labels), (200, 150), FONT)
    assert drawn.shape == (150, 150, 3)
    assert contact_sheet([tile(100, 100, 9, boxes, labels, "title " * 99)], tile_width=200).any()


def test_no_tiles():
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])
