"""Colours: one per identity, the same in the video, the charts and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..formats.results import VideoResult

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
UNKNOWN_COLOUR: RGB = (150, 156, 166)  # of persons without an id
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


def group_colour(index: int) -> str:
    """Of the group or run of that number."""
    return hex_colour(GROUP_COLOURS[index % len(GROUP_COLOURS)])


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

    def __init__(self) -> None:
        self._index_of: dict[int, int] = {}

    def of(self, person_ids: Sequence[int]) -> list[RGB]:
        """Colours of the persons of one keyframe; keyframes come in order of time."""
        num_colours = len(IDENTITY_COLOURS)
        taken = Counter(self._index_of[i] for i in person_ids if i in self._index_of)
        for i in person_ids:
            if i >= 0 and i not in self._index_of:
                preferred = [(i + shift) % num_colours for shift in range(num_colours)]
                # the first of the least used
                self._index_of[i] = min(preferred, key=lambda index: taken[index])
                taken[self._index_of[i]] += 1
        return [
            IDENTITY_COLOURS[self._index_of[i]] if i >= 0 else UNKNOWN_COLOUR for i in person_ids
        ]


def identity_colours(result: VideoResult) -> IdentityColours:
    """The colours that everybody in a video has, whichever keyframe is drawn first."""
    colours = IdentityColours()
    for keyframe in result.keyframes:
        colours.of([person.person_id for person in keyframe.persons])
    return colours
