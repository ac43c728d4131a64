"""What is done in the segments of a film, over time: a lane for verbs, nouns, actions."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from .figures import SOFT, bare_axes, label_seconds, new_figure, save, write, write_beside
from .palette import GROUP_COLOURS, hex_colour, mix
from .text import shorten

_ROW_SECONDS = 30.0  # of a row of lanes: bars of a second leave room for slanted text
_MAX_ROWS = 20  # of longer films a row shows more
_LANE = 0.9  # inches

# start and stop in seconds, what, and its score
Bar = tuple[float, float, str, float]


def joined(bars: Sequence[Bar]) -> list[Bar]:
    """Join what follows each other, or overlaps, and is the same: its best score counts."""
    found: list[Bar] = []
    for start, stop, what, score in sorted(bars):
        if found and found[-1][2] == what and found[-1][1] >= start:
            found[-1] = (found[-1][0], max(stop, found[-1][1]), what, max(score, found[-1][3]))
        else:
            found.append((start, stop, what, score))
    return found


def segment_chart(path: str | os.PathLike, video: str, lanes: Mapping[str, Sequence[Bar]]) -> Path:
    """Draw lanes of bars by name, half a minute or more a row, as PNG; paler where the score is
    lower."""
    end = max((bar[1] for bars in lanes.values() for bar in bars), default=1.0)
    seconds = max(_ROW_SECONDS, math.ceil(end / _MAX_ROWS))
    rows = math.ceil(end / seconds)
    lane_inches, gap = _LANE * len(lanes), 0.45
    height = 1.0 + rows * (lane_inches + gap)
    figure = new_figure(11, height, f"What is done: {shorten(video, 60)}", "pale: low scores")
    bars_of = {name: joined(bars) for name, bars in lanes.items()}
    for row in range(rows):
        top = 0.85 + row * (lane_inches + gap)
        axes = bare_axes(figure, 0.9, 0.2, top, height - top - lane_inches)
        first = row * seconds
        last = first + (seconds if rows > 1 else end)
        axes.set_xlim(first, last)
        axes.set_ylim(len(lanes), 0)
        axes.set_yticks([])
        label_seconds(axes, 12)
        for lane, (name, bars) in enumerate(bars_of.items()):
            write_beside(axes, -0.012, lane + 0.82, name, ha="right", color=SOFT)
            # in order of appearance: what follows each other differs
            order = dict.fromkeys(what for _, _, what, _ in bars)
            colours = {x: GROUP_COLOURS[i % len(GROUP_COLOURS)] for i, x in enumerate(order)}
            for start, stop, what, score in bars:
                start, stop = max(start, first), min(stop, last)
                if start >= stop:
                    continue
                face = hex_colour(mix(colours[what], (255, 255, 255), 0.25 + 0.75 * score))
                axes.broken_barh([(start, stop - start)], (lane + 0.72, 0.2), facecolor=face)
                text = shorten(what, 18)
                write(axes, start, lane + 0.68, text, fontsize=7.5, rotation=30, va="bottom")
    return save(figure, path)
