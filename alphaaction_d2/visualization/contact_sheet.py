"""Many annotated pictures on one page, to see at a glance whether boxes and classes are right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .drawing import printable
from .layout import place_panels
from .palette import IDENTITY_COLOURS, RGB, text_colour_on

_PAPER = (24, 26, 32)
_INK = (235, 235, 235)
_ASPECT = 3 / 4  # height by width of the place for a picture
_MARGIN = 8
_PAD = 3


@dataclass(frozen=True, eq=False)
class Tile:
    """One picture with its boxes.

    Attributes:
        picture: (H, W, 3) uint8 RGB.
        boxes: (P, 4) XYXY in pixels of the picture.
        labels: of each box, its lines of text.
        title: written below the picture.
        colours: of each box; without, boxes take the identity colours in turn.
    """

    picture: np.ndarray
    boxes: np.ndarray
    labels: Sequence[Sequence[str]]
    title: str
    colours: Sequence[RGB] = ()


def contact_sheet(tiles: Sequence[Tile], *, columns: int = 4, tile_width: int = 440) -> np.ndarray:
    """Lay out pictures with their boxes and titles in rows.

    Args:
        tiles: in the order of reading. Pictures of any shape and size.
        columns: pictures in a row.
        tile_width: pixels of the place for a picture.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: there are no tiles.
    """
    if not tiles:
        raise ValueError("a contact sheet needs at least one picture")
    columns = min(columns, len(tiles))
    font = ImageFont.load_default(max(12, round(tile_width / 30)))
    place = (tile_width, round(tile_width * _ASPECT))
    drawn = [draw_tile(tile, place, font) for tile in tiles]
    rows = [range(i, min(i + columns, len(tiles))) for i in range(0, len(tiles), columns)]
    heights = [max(drawn[i].shape[0] for i in row) for row in rows]
    step = round(1.8 * font.size) + _MARGIN  # a title, and the distance to the next row
    size = (sum(heights) + len(rows) * step + _MARGIN, columns * (tile_width + _MARGIN) + _MARGIN)
    sheet = np.empty((*size, 3), np.uint8)
    sheet[:] = _PAPER
    top = _MARGIN
    for row, height in zip(rows, heights):
        for column, i in enumerate(row):
            left = _MARGIN + column * (tile_width + _MARGIN)
            h, w = drawn[i].shape[:2]
            y, x = top + (height - h) // 2, left + (tile_width - w) // 2
            sheet[y : y + h, x : x + w] = drawn[i]
            title = _text_block([tiles[i].title], font, _PAPER, tile_width)
            h, w = title.shape[:2]
            sheet[top + height : top + height + h, left : left + w] = title
        top += height + step
    return sheet


def draw_tile(
    tile: Tile,
    place: tuple[int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont | None = None,
) -> np.ndarray:
    """Scale a picture into a place and draw its boxes and their lines of text.

    Args:
        place: width and height in pixels that the picture must fit into; its shape is kept.

    Returns:
        (h, w, 3) uint8 RGB with h or w as large as the place.
    """
    font = font or ImageFont.load_default(14)
    height, width = tile.picture.shape[:2]
    scale = min(place[0] / width, place[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    canvas = cv2.resize(np.ascontiguousarray(tile.picture), size, interpolation=how)
    boxes = np.asarray(tile.boxes, np.float64).reshape(-1, 4)
    boxes = np.clip(boxes * (np.array(size * 2) / (width, height, width, height)), 0, size * 2)
    colours = tile.colours or [
        IDENTITY_COLOURS[i % len(IDENTITY_COLOURS)] for i in range(len(boxes))
    ]
    for box, colour in zip(boxes, colours):
        first, last = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int) - 1
        cv2.rectangle(canvas, first.tolist(), last.tolist(), (0, 0, 0), 4)
        cv2.rectangle(canvas, first.tolist(), last.tolist(), colour, 2)
    _draw_labels(canvas, boxes, tile.labels, colours, font)
    return canvas


def _draw_labels(
    canvas: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[Sequence[str]],
    colours: Sequence[RGB],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """All lines where there is room, else the first and how many there are besides."""
    height, width = canvas.shape[:2]
    levels = []
    for lines, colour in zip(labels, colours):
        short = [f"{lines[0]} +{len(lines) - 1}"] if len(lines) > 1 else list(lines)
        levels.append(
            [_text_block(lines, font, colour, width // 2) for lines in (list(lines), short)]
        )
    sizes = np.array([[(x.shape[1], x.shape[0]) for x in level] for level in levels])
    placements = place_panels(boxes, sizes.reshape(len(boxes), 2, 2), (width, height))
    for level, where in zip(levels, placements):
        if where is not None:
            block = level[where.level]
            canvas[where.y : where.y + block.shape[0], where.x : where.x + block.shape[1]] = block


def _text_block(
    lines: Sequence[str],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    colour: RGB,
    max_width: int,
) -> np.ndarray:
    """Lines of text on a coloured ground, (h, w, 3) uint8; long ones are cut. (0, 0, 3) without."""
    lines = [_cut(printable(line), font, max_width - 2 * _PAD) for line in lines]
    lines = [line for line in lines if line]
    if not lines:
        return np.zeros((0, 0, 3), np.uint8)
    step = round(1.25 * font.size)
    width = math.ceil(max(font.getlength(line) for line in lines)) + 2 * _PAD
    image = Image.new("RGB", (width, len(lines) * step + _PAD), colour)
    draw = ImageDraw.Draw(image)
    ink = _INK if colour == _PAPER else text_colour_on(colour)
    for number, line in enumerate(lines):
        draw.text((_PAD, number * step), line, font=font, fill=ink)
    return np.asarray(image)


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, max_width: int) -> str:
    if font.getlength(text) <= max_width:
        return text
    text = text[: max(0, max_width)]  # a letter takes a pixel at least
    while text and font.getlength(text + "...") > max_width:
        text = text[:-1]
    return text.rstrip() + "..." if text else ""
