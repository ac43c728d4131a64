"""Many annotated pictures on one page, to see at a glance whether boxes and classes are right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from .drawing import draw_box
from .layout import place_panels
from .palette import IDENTITY_COLOURS, RGB, text_colour_on
from .text import Font, fit, load_font

_PAPER = (24, 26, 32)
_INK = (235, 235, 235)
_ASPECT = 3 / 4  # height by width of the place for a picture
_MARGIN = 8
_PAD = 3


@dataclass(frozen=True, eq=False)
class Tile:
    """One picture with its boxes."""

    picture: np.ndarray  # (H, W, 3) uint8 RGB
    boxes: np.ndarray  # (P, 4) XYXY in pixels of the picture
    labels: Sequence[Sequence[str]]  # of each box, its lines of text
    title: str  # written below the picture
    colours: Sequence[RGB] = ()  # of each box; without, boxes take the identity colours in turn


def contact_sheet(tiles: Sequence[Tile], *, columns: int = 4, tile_width: int = 440) -> np.ndarray:
    """Lay out pictures of any size with their boxes and titles in rows: (H, W, 3) uint8 RGB.
    `tile_width` is that of the place for a picture; ValueError without tiles."""
    if not tiles:
        raise ValueError("a contact sheet needs at least one picture")
    columns = min(columns, len(tiles))
    font = load_font(max(12, round(tile_width / 30)))
    pictures = [draw_tile(tile, (tile_width, round(tile_width * _ASPECT)), font) for tile in tiles]
    rows = [range(i, min(i + columns, len(tiles))) for i in range(0, len(tiles), columns)]
    heights = [max(pictures[i].shape[0] for i in row) for row in rows]
    step = round(1.8 * font.size) + _MARGIN  # a title, and the distance to the next row
    width = columns * (tile_width + _MARGIN) + _MARGIN
    sheet = Image.new("RGB", (width, sum(heights) + len(rows) * step + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    top = _MARGIN
    for row, height in zip(rows, heights):
        for column, i in enumerate(row):
            left = _MARGIN + column * (tile_width + _MARGIN)
            h, w = pictures[i].shape[:2]
            at = left + (tile_width - w) // 2, top + (height - h) // 2
            sheet.paste(Image.fromarray(pictures[i]), at)
            title = fit(tiles[i].title, font, tile_width - 2 * _PAD)
            draw.text((left + _PAD, top + height), title, font=font, fill=_INK)
        top += height + step
    return np.array(sheet)


def scale_into(picture: np.ndarray, place: tuple[int, int]) -> np.ndarray:
    """Scale a picture so that it fits into a place (width, height); its shape is kept."""
    height, width = picture.shape[:2]
    scale = min(place[0] / width, place[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(picture), size, interpolation=how)


def draw_tile(tile: Tile, place: tuple[int, int], font: Font) -> np.ndarray:
    """Scale a picture into a place (width, height), and draw its boxes and their lines of text.

    Of the lines of a box, all are drawn where there is room, else the first and how many there are
    besides.
    """
    canvas = scale_into(tile.picture, place)
    size = canvas.shape[1::-1]
    boxes = np.asarray(tile.boxes, np.float64).reshape(-1, 4)
    scale = np.tile(np.array(size) / tile.picture.shape[1::-1], 2)
    boxes = np.clip(boxes * scale, 0, size * 2)
    colours = tile.colours or [
        IDENTITY_COLOURS[i % len(IDENTITY_COLOURS)] for i in range(len(boxes))
    ]
    for box, colour in zip(boxes, colours):
        draw_box(canvas, box, colour, 2)
    panels = []
    for lines, colour in zip(tile.labels, colours):
        short = [f"{lines[0]} +{len(lines) - 1}"] if len(lines) > 1 else lines
        panels.append([_text_block(x, font, colour, size[0] // 2) for x in (lines, short)])
    sizes = [[panel.shape[1::-1] for panel in levels] for levels in panels]
    placements = place_panels(boxes, np.array(sizes).reshape(len(boxes), 2, 2), size)
    for levels, at in zip(panels, placements):
        if at is not None:
            panel = levels[at.level]
            canvas[at.y : at.y + panel.shape[0], at.x : at.x + panel.shape[1]] = panel
    return canvas


def _text_block(lines: Sequence[str], font: Font, colour: RGB, max_width: int) -> np.ndarray:
    """Lines of text on a coloured ground, (h, w, 3) uint8; long ones are cut. (0, 0, 3) without."""
    lines = [fit(line, font, max_width - 2 * _PAD) for line in lines if line]
    if not lines:
        return np.zeros((0, 0, 3), np.uint8)
    step = round(1.25 * font.size)
    width = math.ceil(max(font.getlength(line) for line in lines)) + 2 * _PAD
    image = Image.new("RGB", (width, len(lines) * step + _PAD), colour)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((_PAD, number * step), line, font=font, fill=text_colour_on(colour))
    return np.asarray(image)
