"""Text for pictures: what can be drawn, how a time is written, what fits."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont


def format_time(seconds: float) -> str:
    """`m:ss.t`, or `h:mm:ss.t` from an hour on."""
    tenths = max(0, int(seconds * 10 + 1e-6))
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{clock}:{tenths // 10:02d}.{tenths % 10}"


def name_person(person_id: int, unknown: str = "") -> str:
    """`#7`, or what to call somebody without an id."""
    return f"#{person_id}" if person_id >= 0 else unknown


def printable(text: str) -> str:
    """`text` in one line and without what a font renderer refuses."""
    text = text.encode("utf-8", errors="replace").decode("utf-8")
    return "".join(c if c.isprintable() else " " for c in text)


def shorten(text: str, length: int) -> str:
    """The beginning of a text that is too long, with "..." at its end."""
    return text if len(text) <= length else text[: length - 3].rstrip() + "..."


@lru_cache(maxsize=16)
def load_font(size: int) -> Font:
    """The built-in font, which lacks many scripts (Chinese, ...)."""
    font = ImageFont.load_default(size)
    assert isinstance(font, Font)  # as always when a size is asked for
    return font


def fit(text: str, font: Font, max_width: float) -> str:
    """The printable text, shortened until it is at most so many pixels wide."""
    text = printable(text)
    if font.getlength(text) <= max_width:
        return text

    def beginning(length: int) -> str:
        return text[:length].rstrip() + "..."

    lengths = range(1, len(text))
    longest = bisect_right(lengths, max_width, key=lambda n: font.getlength(beginning(n)))
    return beginning(longest)
