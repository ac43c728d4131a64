"""Colours: one per identity, the same in the video, the charts and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

RGB = tuple[int, int, int]

# NOTE: hues after Okabe and Ito's set, which people with the common colour vision deficiencies can
# tell apart, made a little brighter so that thin lines stand out on video; neighbours differ in
# lightness, too.
IDENTITY_COLOURS: tuple[RGB, ...] = (
    (86, 180, 233),  # sky blue
    (242, 160, 0),  # orange
    (0, 184, 134),  # green
    (240, 228, 66),  # yellow
    (224, 130, 186),  # pink
    (0, 114, 190),  # blue
    (222, 96, 0),  # vermilion
    (232, 232, 232),  # near white
)
# Darker relatives for bars on white paper and as text.
GROUP_COLOURS: tuple[RGB, ...] = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 148, 108),
    (168, 84, 138),
    (138, 120, 0),
    (60, 140, 190),
    (110, 110, 110),
    (120, 70, 40),
)


def hex_colour(colour: RGB) -> str:
    """`#rrggbb` for HTML and matplotlib."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def mix(colour: RGB, other: RGB, share: float) -> RGB:
    """`share` of `colour` and the rest of `other`."""
    red, green, blue = (round(a * share + b * (1 - share)) for a, b in zip(colour, other))
    return red, green, blue


def text_colour_on(colour: RGB) -> RGB:
    """Near black or white, whichever reads better on `colour` (WCAG relative luminance)."""
    linear = [(v / 255) ** 2.2 for v in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (12, 14, 18) if luminance > 0.18 else (255, 255, 255)


class IdentityColours:
    """Hands every identity a colour for good; people seen together differ while colours last."""

    def __init__(self, num_colours: int = len(IDENTITY_COLOURS)) -> None:
        self._num_colours = num_colours
        self._index_of: dict[int, int] = {}

    def assign(self, keys: Sequence[int]) -> list[int]:
        """Colour indices of the identities in one keyframe, in the order of `keys`."""
        taken = Counter(self._index_of[key] for key in keys if key in self._index_of)
        for key in keys:
            if key in self._index_of:
                continue
            preferred = [(key + shift) % self._num_colours for shift in range(self._num_colours)]
            index = min(preferred, key=lambda i: taken[i])  # the first of the least used
            self._index_of[key] = index
            taken[index] += 1
        return [self._index_of[key] for key in keys]
