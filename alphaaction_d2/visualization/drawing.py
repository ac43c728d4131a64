"""Persons, identities and actions drawn onto a frame with numpy, OpenCV and PIL.

Text is the slow part. It is rendered once per panel and kept, since a panel changes once per
keyframe and not once per frame; a frame then costs a copy, some rectangles and small blends.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .layout import Placement, place_panels
from .palette import IDENTITY_COLOURS, RGB, mix, text_colour_on
from .results import KeyframeResult, PersonResult
from .tracks import IdentityBook

_PANEL = (18, 20, 26)
_TEXT = (255, 255, 255)
_NUM_LEVELS = 3  # all actions, best action, identity only


@dataclass(frozen=True)
class DrawStyle:
    """How to draw.

    Attributes:
        min_score: actions with a lower score are not shown.
        max_actions: most actions per person.
        font_path: a TrueType font for scripts that the built-in font lacks (Chinese, ...).
        font_scale: factor on the text size, which follows the picture's size.
        panel_opacity: of the label panels, 0 to 1.
        min_short_side: smaller pictures are enlarged until their short side has so many pixels...
        max_long_side: ...as long as their long side stays below this.
    """

    min_score: float = 0.3
    max_actions: int = 4
    font_path: str | None = None
    font_scale: float = 1.0
    panel_opacity: float = 0.78
    min_short_side: int = 480
    max_long_side: int = 1920


def enlargement(width: int, height: int, style: DrawStyle | None = None) -> int:
    """Whole factor by which a small picture is enlarged so that text on it can be read."""
    style = style or DrawStyle()
    wanted = -(-style.min_short_side // min(width, height))
    return max(1, min(wanted, style.max_long_side // max(width, height)))


def format_time(seconds: float) -> str:
    """`m:ss.t`, or `h:mm:ss.t` from an hour on."""
    tenths = max(0, int(seconds * 10 + 1e-6))
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{clock}:{tenths // 10:02d}.{tenths % 10}"


def printable(text: str) -> str:
    """`text` in one line and without what a font renderer refuses."""
    text = text.encode("utf-8", errors="replace").decode("utf-8")
    return "".join(c if c.isprintable() else " " for c in text)


@lru_cache(maxsize=16)
def _load_font(path: str | None, size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


@dataclass(frozen=True, eq=False)
class Panel:
    """A rendered panel: `colour` (H, W, 3) uint8, already multiplied with its opacity, and
    `rest` (H, W, 3) uint8, what remains of the picture below it (255 all)."""

    colour: np.ndarray
    rest: np.ndarray

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

    def __init__(self, width: int, height: int, style: DrawStyle, capacity: int = 512) -> None:
        size = min(height * 0.025, width * 0.036) * style.font_scale
        self.font_size = int(np.clip(round(size), 13, 64))
        self._font = _load_font(style.font_path, self.font_size)
        self._alpha = round(255 * float(np.clip(style.panel_opacity, 0, 1)))
        self._max_text_width = max(4 * self.font_size, int(0.3 * width))
        ascent_box = self._font.getbbox("Ag(|")
        self._text_top = ascent_box[1]
        self._row_height = round(1.45 * self.font_size)
        self._pad = max(3, round(0.4 * self.font_size))
        self._percent_width = self._width("100%")
        self._capacity = capacity
        self._panels: OrderedDict[tuple, Panel | None] = OrderedDict()

    def label(self, identity: str, rows: Rows, colour: RGB) -> Panel | None:
        """A coloured block with the identity, and one row per action with a bar of its score.

        Returns:
            None when there is nothing to say.
        """
        return self._cached((identity, rows, colour), self._render_label)

    def caption(self, text: str) -> Panel | None:
        """A plain line of text."""
        return self._cached((text,), self._render_caption)

    def _cached(self, key: tuple, render) -> Panel | None:
        if key in self._panels:
            self._panels.move_to_end(key)
        else:
            self._panels[key] = render(*key)
            if len(self._panels) > self._capacity:
                self._panels.popitem(last=False)
        return self._panels[key]

    def _width(self, text: str) -> int:
        return int(np.ceil(self._font.getlength(text)))

    def _shorten(self, text: str) -> str:
        """`text` cut so that it fits, with "..." at its end."""
        text = printable(text)
        if self._width(text) <= self._max_text_width:
            return text
        low, high = 0, len(text)
        while low < high:  # the longest beginning that fits
            middle = (low + high + 1) // 2
            if self._width(text[:middle].rstrip() + "...") <= self._max_text_width:
                low = middle
            else:
                high = middle - 1
        return text[:low].rstrip() + "..."

    def _write(self, draw: ImageDraw.ImageDraw, x: int, y: int, text: str, colour: RGB) -> None:
        """Text in a row whose top is y, vertically centred by the height of capitals."""
        shift = (self._row_height - self.font_size) // 2
        draw.text((x, y + shift - max(0, self._text_top - 1)), text, font=self._font, fill=colour)

    def _render_label(self, identity: str, rows: Rows, colour: RGB) -> Panel | None:
        if not identity and not rows:
            return None
        block = self._width(identity) + 2 * self._pad if identity else max(4, self._pad)
        names = [self._shorten(name) for name, _ in rows]
        row_width = 0
        if rows:
            widest = max(self._width(name) for name in names)
            row_width = widest + self._percent_width + 4 * self._pad
        height = max(1, len(rows)) * self._row_height
        image = Image.new("RGBA", (block + row_width, height), (*_PANEL, self._alpha))
        draw = ImageDraw.Draw(image)
        draw.rectangle((0, 0, block - 1, height), fill=(*colour, 255))
        self._write(draw, self._pad, 0, identity, text_colour_on(colour))
        bar_colour = mix(colour, _PANEL, 0.42)
        for n, ((_, percent), name) in enumerate(zip(rows, names)):
            top = n * self._row_height
            bar = round(row_width * min(max(percent, 0), 100) / 100)
            if bar:
                area = (block, top + 1, block + bar - 1, top + self._row_height - 2)
                draw.rectangle(area, fill=(*bar_colour, max(self._alpha, 225)))
            self._write(draw, block + self._pad, top, name, _TEXT)
            number = f"{percent}%"
            x = block + row_width - self._pad - self._width(number)
            self._write(draw, x, top, number, _TEXT)
        return _to_panel(image)

    def _render_caption(self, text: str) -> Panel | None:
        text = self._shorten(text)
        if not text:
            return None
        size = (self._width(text) + 2 * self._pad, self._row_height)
        image = Image.new("RGBA", size, (*_PANEL, self._alpha))
        self._write(ImageDraw.Draw(image), self._pad, 0, text, _TEXT)
        return _to_panel(image)


def _to_panel(image: Image.Image) -> Panel:
    pixels = np.asarray(image).astype(np.float32)
    alpha = pixels[..., 3:] / 255
    colour = np.round(pixels[..., :3] * alpha).astype(np.uint8)
    rest = np.repeat(np.round(255 * (1 - alpha)), 3, axis=2).astype(np.uint8)
    return Panel(colour, rest)


def _label_rows(person: PersonResult, style: DrawStyle) -> Rows:
    shown = [(name, s) for name, s in person.actions[: style.max_actions] if s >= style.min_score]
    return tuple((name, int(round(100 * score))) for name, score in shown)


class PersonDrawer:
    """Draws frames of one size. Remembers rendered panels and where they were, so that panels
    neither cost much nor jump; apart from that every frame stands alone.

    Args:
        width, height: of the frames that come in, in pixels.
        style: how to draw.
    """

    def __init__(self, width: int, height: int, style: DrawStyle | None = None) -> None:
        self.style = style or DrawStyle()
        self.frame_size = (width, height)
        self.scale = enlargement(width, height, self.style)
        self.output_size = (width * self.scale, height * self.scale)
        self._panels = PanelRenderer(*self.output_size, self.style)
        self._line = max(2, round(min(self.output_size) / 300))
        self._previous: dict[int, tuple[tuple, Placement]] = {}

    def draw(
        self,
        frame: np.ndarray,
        persons: Sequence[PersonResult],
        *,
        keys: Sequence[int],
        colours: Sequence[int],
        caption: str = "",
    ) -> np.ndarray:
        """Draw persons onto a copy of the frame, enlarged by `scale`.

        Args:
            frame: (H, W, 3) uint8 RGB.
            persons: with boxes in pixels of `frame`.
            keys: what makes a person the same as in the frame before.
            colours: an index into the identity colours per person.
            caption: a line for the top left corner, such as the time.

        Returns:
            (H * scale, W * scale, 3) uint8 RGB.
        """
        canvas = self._canvas(frame)
        width, height = self.output_size
        boxes = np.array([person.box for person in persons]).reshape(-1, 4) * self.scale
        boxes = np.clip(boxes, 0, [width, height, width, height])
        visible = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1))
        boxes = boxes[visible]
        persons = [persons[i] for i in visible]
        keys = [keys[i] for i in visible]
        rgb = [IDENTITY_COLOURS[colours[i] % len(IDENTITY_COLOURS)] for i in visible]

        order = np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), kind="stable")
        for i in order:
            self._draw_box(canvas, boxes[i], rgb[i])
        time_panel = self._panels.caption(caption)
        obstacles = self._draw_caption(canvas, time_panel)
        self._draw_labels(canvas, persons, boxes, keys, rgb, obstacles)
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

    def _draw_box(self, canvas: np.ndarray, box: np.ndarray, colour: RGB) -> None:
        x1, y1 = (int(v) for v in np.floor(box[:2]))
        x2, y2 = (int(v) - 1 for v in np.ceil(box[2:]))
        # A thin line on small boxes, a dark rim everywhere: seen on any background.
        line = int(np.clip(min(x2 - x1, y2 - y1) // 24, 1, self._line))
        half = line // 2
        x1, y1 = max(x1, half), max(y1, half)
        x2, y2 = min(x2, canvas.shape[1] - 1 - half), min(y2, canvas.shape[0] - 1 - half)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), (0, 0, 0), line + 2)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, line)

    def _draw_caption(self, canvas: np.ndarray, panel: Panel | None) -> np.ndarray | None:
        if panel is None or panel.size[0] > canvas.shape[1] or panel.size[1] > canvas.shape[0]:
            return None
        panel.paste(canvas, 0, 0)
        return np.array([[0, 0, *panel.size]], dtype=np.float64)

    def _draw_labels(
        self,
        canvas: np.ndarray,
        persons: Sequence[PersonResult],
        boxes: np.ndarray,
        keys: Sequence[int],
        rgb: Sequence[RGB],
        obstacles: np.ndarray | None,
    ) -> None:
        contents = []
        for person, colour in zip(persons, rgb):
            identity = f"#{person.person_id}" if person.person_id >= 0 else ""
            contents.append((identity, _label_rows(person, self.style), colour))
        panels = [
            [self._panels.label(who, rows[:n], colour) for n in (len(rows), 1, 0)]
            for who, rows, colour in contents
        ]
        sizes = np.zeros((len(persons), _NUM_LEVELS, 2), dtype=np.int64)
        for i, levels in enumerate(panels):
            for level, panel in enumerate(levels):
                if panel is not None:
                    sizes[i, level] = panel.size
        # Another text is a new panel: it may find a better place.
        previous = [
            self._previous[key][1]
            if key in self._previous and self._previous[key][0] == content
            else None
            for key, content in zip(keys, contents)
        ]
        placements = place_panels(
            boxes, sizes, self.output_size, obstacles=obstacles, previous=previous
        )
        self._previous = {}
        for key, content, levels, place in zip(keys, contents, panels, placements):
            if place is not None:
                self._previous[key] = (content, place)
                levels[place.level].paste(canvas, place.x, place.y)


def draw_persons(
    frame: np.ndarray,
    persons: Sequence[PersonResult],
    *,
    style: DrawStyle | None = None,
    caption: str = "",
) -> np.ndarray:
    """Draw persons onto a copy of one frame.

    A single picture: for videos `annotate.FrameAnnotator` keeps colours and panels steady.

    Args:
        frame: (H, W, 3) uint8 RGB.
        persons: with boxes in pixels of `frame`.
        style: how to draw.
        caption: a line for the top left corner.

    Returns:
        (H * s, W * s, 3) uint8 RGB with s = `enlargement(W, H, style)`.
    """
    keys, colours = IdentityBook().add(KeyframeResult(0.0, persons))
    drawer = PersonDrawer(frame.shape[1], frame.shape[0], style)
    return drawer.draw(frame, persons, keys=keys, colours=colours, caption=caption)
