"""The size in which a network sees a video."""

from __future__ import annotations


def resized_size(height: int, width: int, short_side: int, max_long_side: int) -> tuple[int, int]:
    """New (height, width): the short side becomes `short_side`, less at the long one's limit.

    The long side is truncated, not rounded (released AIA preparation: 360 x 480 -> 256 x 341).
    """
    short, long = min(height, width), max(height, width)
    if long / short * short_side > max_long_side:
        short_side = round(max_long_side * short / long)
    new_long = max(int(short_side * long / short), 1)
    short_side = max(short_side, 1)
    return (new_long, short_side) if width < height else (short_side, new_long)
