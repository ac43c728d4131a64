"""Persons, identities and actions drawn onto a frame with numpy, OpenCV and PIL.

Text is the slow part. It is rendered once per panel and kept, since a panel changes once per
keyframe and not once per frame; a frame then costs a copy, some rectangles and small blends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from ..formats.results import PersonResult
from ..formats.writing import write_atomically
from .layout import Placement, place_panels
from .palette import RGB, mix, text_colour_on
from .text import fit, load_font, name_person

# Smaller pictures are enlarged until their short side has so many pixels, as long as their long
# side stays below this: text on them can then be read.
MIN_SHORT_SIDE, MAX_LONG_SIDE = 480, 1920
MAX_ACTIONS = 4  # per person
MAX_ROWS = 16  # in a picture: of a crowd everybody's best action is seen, not some people's lists
_PANEL = (18, 20, 26)
_OPACITY = 199  # of the panels, up to 255
_TEXT = (255, 255, 255)
_ALARM = (190, 20, 20)


def enlargement(width: int, height: int) -> int:
    """Whole factor by which a small picture is enlarged."""
    wanted = -(-MIN_SHORT_SIDE // min(width, height))
    return max(1, min(wanted, MAX_LONG_SIDE // max(width, height)))


def write_picture(path: Path, picture: np.ndarray) -> Path:
    """Write (H, W, 3) uint8 RGB as the PNG or JPEG file that its name says, whole or not at all."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, 90] if path.suffix == ".jpg" else []
    # Not cv2.imwrite: it crashes at a name that is not UTF-8.
    _, content = cv2.imencode(path.suffix, bgr, options)
    return write_atomically(path, content.tobytes())


def draw_box(canvas: np.ndarray, box: np.ndarray, colour: RGB, line: int) -> None:
    """Draw the frame of an XYXY box (4,), which lies inside `canvas`, in place. A dark rim on both
    sides of the line, so many pixels wide, makes it seen on any background."""
    x1, y1 = (int(v) for v in np.floor(box[:2]))
    x2, y2 = (int(v) - 1 for v in np.ceil(box[2:]))
    half = line // 2
    x1, y1 = max(x1, half), max(y1, half)
    x2, y2 = min(x2, canvas.shape[1] - 1 - half), min(y2, canvas.shape[0] - 1 - half)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), (0, 0, 0), line + 2)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, line)


@dataclass(frozen=True, eq=False)
class Panel:
    """A rendered panel: `colour` (H, W, 3) uint8, already multiplied with its opacity, and
    `rest` (H, W, 3) uint8, what remains of the picture below it (255 all)."""

    colour: np.ndarray
    rest: np.ndarray

    @classmethod
    def of(cls, image: Image.Image) -> Panel:
        """From RGBA."""
        pixels = np.asarray(image).astype(np.float32)
        alpha = pixels[..., 3:] / 255
        rest = np.repeat(np.round(255 * (1 - alpha)), 3, axis=2).astype(np.uint8)
        return cls(np.round(pixels[..., :3] * alpha).astype(np.uint8), rest)

    @property
    def size(self) -> tuple[int, int]:
        return self.colour.shape[1], self.colour.shape[0]

    def paste(self, frame: np.ndarray, x: int, y: int) -> None:
        """Blend into `frame` in place; the panel must lie inside."""
        height, width = self.colour.shape[:2]
        area = frame[y : y + height, x : x + width]
        cv2.add(cv2.multiply(area, self.rest, scale=1 / 255), self.colour, dst=area)


Rows = tuple[tuple[str, int], ...]  # (action, percent)


class PanelRenderer:
    """Renders label panels for pictures of one size and keeps the latest."""

    def __init__(self, width: int, height: int, capacity: int = 512) -> None:
        self.font_size = int(np.clip(round(min(height * 0.025, width * 0.036)), 13, 64))
        self._font = load_font(self.font_size)
        self._max_text_width = max(4 * self.font_size, int(0.3 * width))
        self._text_top = self._font.getbbox("Ag(|")[1]
        self._row_height = round(1.45 * self.font_size)
        self._pad = max(3, round(0.4 * self.font_size))
        self._percent_width = self._width("100%")
        self.label = lru_cache(capacity)(self._label)
        self.caption = lru_cache(capacity)(self._caption)

    def _width(self, text: str) -> int:
        return int(np.ceil(self._font.getlength(text)))

    def _write(self, draw: ImageDraw.ImageDraw, x: int, y: int, text: str, colour: RGB) -> None:
        """Text in a row whose top is y, vertically centred by the height of capitals."""
        shift = (self._row_height - self.font_size) // 2
        draw.text((x, y + shift - max(0, self._text_top - 1)), text, font=self._font, fill=colour)

    def _label(self, identity: str, rows: Rows, colour: RGB) -> Panel | None:
        """A coloured block with the identity, and one row per action with a bar of its score; None
        when there is nothing to say."""
        if not identity and not rows:
            return None
        block = self._width(identity) + 2 * self._pad if identity else max(4, self._pad)
        names = [fit(name, self._font, self._max_text_width) for name, _ in rows]
        widths = [self._width(name) + self._percent_width + 4 * self._pad for name in names]
        row_width = max(widths, default=0)
        height = max(1, len(rows)) * self._row_height
        image = Image.new("RGBA", (block + row_width, height), (*_PANEL, _OPACITY))
        draw = ImageDraw.Draw(image)
        draw.rectangle((0, 0, block - 1, height), fill=(*colour, 255))
        self._write(draw, self._pad, 0, identity, text_colour_on(colour))
        bar_colour = mix(colour, _PANEL, 0.42)
        for n, ((_, percent), name) in enumerate(zip(rows, names)):
            top = n * self._row_height
            bar = round(row_width * min(max(percent, 0), 100) / 100)
            if bar:
                area = (block, top + 1, block + bar - 1, top + self._row_height - 2)
                draw.rectangle(area, fill=(*bar_colour, 225))
            self._write(draw, block + self._pad, top, name, _TEXT)
            x = block + row_width - self._pad - self._width(f"{percent}%")
            self._write(draw, x, top, f"{percent}%", _TEXT)
        return Panel.of(image)

    def _caption(self, text: str, ground: RGB = _PANEL, opacity: int = _OPACITY) -> Panel | None:
        """A plain line of text; None when it is empty."""
        text = fit(text, self._font, self._max_text_width)
        if not text:
            return None
        size = (self._width(text) + 2 * self._pad, self._row_height)
        image = Image.new("RGBA", size, (*ground, opacity))
        self._write(ImageDraw.Draw(image), self._pad, 0, text, _TEXT)
        return Panel.of(image)


class PersonDrawer:
    """Draws frames of one size. Remembers rendered panels and where they were, so that panels
    neither cost much nor jump; apart from that every frame stands alone. Small frames are enlarged
    by `scale` to `output_size`; `alarm` is a line in red for the top right corner."""

    def __init__(self, width: int, height: int, *, min_score: float = 0.3, alarm: str = "") -> None:
        self.min_score = min_score
        self.alarm = alarm
        self.frame_size = (width, height)
        self.scale = enlargement(width, height)
        self.output_size = (width * self.scale, height * self.scale)
        self._panels = PanelRenderer(*self.output_size)
        self._line = max(2, round(min(self.output_size) / 300))
        self._previous: dict[int, tuple[tuple, Placement]] = {}  # by person id

    def draw(
        self,
        frame: np.ndarray,
        persons: Sequence[PersonResult],
        colours: Sequence[RGB],
        caption: str = "",
    ) -> np.ndarray:
        """Draw persons, with boxes in pixels of the frame (H, W, 3) uint8 RGB, onto an enlarged
        copy. The caption is a line for the top left corner, such as the time."""
        canvas = self._canvas(frame)
        boxes = np.array([person.box for person in persons]).reshape(-1, 4) * self.scale
        boxes = np.clip(boxes, 0, self.output_size * 2)
        sides = boxes[:, 2:] - boxes[:, :2]
        # Small boxes on large ones.
        for i in np.argsort(-np.prod(sides, axis=1), kind="stable").tolist():
            if sides[i].min() >= 1:
                line = int(np.clip(sides[i].min() // 24, 1, self._line))  # thin on small boxes
                draw_box(canvas, boxes[i], colours[i], line)
        visible = np.flatnonzero((sides >= 1).all(axis=1)).tolist()
        obstacles = self._draw_captions(canvas, caption)
        shown, colours = [persons[i] for i in visible], [colours[i] for i in visible]
        self._draw_labels(canvas, boxes[visible], shown, colours, obstacles)
        return canvas

    def _canvas(self, frame: np.ndarray) -> np.ndarray:
        width, height = self.frame_size
        if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
            raise ValueError(
                f"expected frames of shape {(height, width, 3)} and type uint8, "
                f"got {frame.shape} {frame.dtype}"
            )
        if self.scale == 1:
            return np.array(frame, order="C")
        how = cv2.INTER_CUBIC if self.scale > 2 else cv2.INTER_LINEAR
        return cv2.resize(np.ascontiguousarray(frame), self.output_size, interpolation=how)

    def _draw_captions(self, canvas: np.ndarray, caption: str) -> np.ndarray:
        """The areas (n, 4) that the caption and the alarm take."""
        areas = []
        alarm = self._panels.caption(self.alarm, _ALARM, 255)
        for panel, at_right in ((self._panels.caption(caption), False), (alarm, True)):
            if panel is not None and (np.array(panel.size) <= self.output_size).all():
                x = self.output_size[0] - panel.size[0] if at_right else 0
                panel.paste(canvas, x, 0)
                areas.append([x, 0, x + panel.size[0], panel.size[1]])
        return np.array(areas, dtype=np.float64).reshape(-1, 4)

    def _draw_labels(
        self,
        canvas: np.ndarray,
        boxes: np.ndarray,
        persons: Sequence[PersonResult],
        colours: Sequence[RGB],
        obstacles: np.ndarray,
    ) -> None:
        """All actions where there is room, else the best one, else the identity alone."""
        ids, labels, panels = [person.person_id for person in persons], [], []
        most = min(MAX_ACTIONS, max(1, MAX_ROWS // max(len(persons), 1)))
        for person, colour in zip(persons, colours):
            actions = person.best_actions(most, self.min_score)
            rows: Rows = tuple((name, round(100 * score)) for name, score in actions)
            label = name_person(person.person_id), rows, colour
            labels.append(label)
            panels.append(
                [self._panels.label(label[0], rows[:n], colour) for n in (len(rows), 1, 0)]
            )
        sizes = [[panel.size if panel else (0, 0) for panel in levels] for levels in panels]
        # Another text is a new panel: it may find a better place.
        known = [self._previous.get(i, (None, None)) for i in ids]
        previous = [place if old == label else None for (old, place), label in zip(known, labels)]
        placements = place_panels(
            boxes,
            np.array(sizes, dtype=np.int64).reshape(-1, 3, 2),
            self.output_size,
            obstacles=obstacles,
            previous=previous,
        )
        self._previous = {}
        for person_id, label, levels, place in zip(ids, labels, panels, placements):
            panel = levels[place.level] if place is not None else None
            if place is not None and panel is not None:
                panel.paste(canvas, place.x, place.y)
                if person_id >= 0:
                    self._previous[person_id] = (label, place)
