"""Attention to the memory over time: which seconds, which persons, and how much of each."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from ..formats.results import KeyframeResult, MemoryWeights, PersonResult
from .attention import MAX_PERSONS, attention_of, name_with_action
from .figures import (
    ABOVE_GRID,
    INK,
    LINE,
    SOFT,
    bare_axes,
    inch,
    label_seconds,
    left_edge,
    mark,
    new_figure,
    save,
    write_beside,
)
from .palette import RGB, IdentityColours, hex_colour, mix
from .text import format_time, name_person, shorten

_UNKNOWN, _OTHERS = -1, -2  # rows of persons without id, and of those who found no room
MAX_ROWS = 6  # of a block, those with the most weight; the others are summed in the last one
_BAR = 0.9  # width of a bar, as a share of the way to the next one
_HEAD = 2.1  # rows that the heading of a block takes
_INCHES_PER_ROW = 0.27
_LEFT, _RIGHT, _GAP = 1.25, 0.2, 0.25  # inches


def memory_attention_chart(
    path: str | os.PathLike, keyframe: KeyframeResult, colours: IdentityColours
) -> Path:
    """A block per person of the keyframe, in it a column per attention and a row per remembered, as
    PNG.

    A bar stands at the second that is attended to; its height is the weight, its colour that of the
    remembered person. A pale ground says that the person was seen then. The first row is the
    person's own track, if the memory has it.
    """
    columns, persons = attention_of(keyframe).memory, keyframe.persons[:MAX_PERSONS]
    rows = [_rows(columns, i, person.person_id) for i, person in enumerate(persons)]
    # One axes a column, in which heights are counted in rows: axes are what takes time to draw.
    tops = np.cumsum([_HEAD, *(max(1, len(ids)) + _HEAD for ids in rows)])
    width = 9 + 1.5 * (len(columns) - 1)
    subtitle = "height of a bar: share of the attention; pale: the person was seen then; line: the "
    subtitle += "keyframe"
    if len(keyframe.persons) > len(persons):
        subtitle += f"; {len(persons)} of {len(keyframe.persons)} persons"
    title = f"Attention to the memory at {format_time(keyframe.timestamp)}"
    height = 1.15 + _INCHES_PER_ROW * (tops[-1] - _HEAD)
    figure = new_figure(width, height, title, subtitle)

    limits = _limits(keyframe.timestamp, columns, len(persons))
    column_width = (width - _LEFT - _RIGHT - _GAP * (len(columns) - 1)) / len(columns)
    for column, memory in enumerate(columns):
        left = _LEFT + column * (column_width + _GAP)
        axes = bare_axes(figure, left=left, right=width - left - column_width, top=0.75, bottom=0.4)
        axes.set_xlim(*limits)
        axes.set_ylim(tops[-1] - _HEAD, 0)
        axes.set_yticks([])
        label_seconds(axes, 6)
        axes.tick_params(axis="x", pad=1)
        axes.xaxis.grid(True, color=LINE, linewidth=0.6)
        for i, (person, ids, top) in enumerate(zip(persons, rows, tops)):
            end = top + max(1, len(ids))
            axes.vlines(keyframe.timestamp, top, end, color=INK, linewidth=0.9, zorder=1.5)
            _draw_memory(axes, top, memory, i, keyframe.timestamp, ids, colours)
            if column == 0:
                _write_person(axes, top, person, colours)
                _label_rows(axes, top, ids, person.person_id)
    return save(figure, path)


def _rows(columns: Sequence[MemoryWeights], index: int, own: int) -> list[int]:
    """Ids in the order of a person's rows: the own track, then by weight over all attentions."""
    totals: dict[int, float] = defaultdict(float)
    for memory in columns:
        for person_id, _, weight in _remembered(memory, index):
            totals[person_id] += weight
    ids = sorted(totals, key=lambda i: (i != own or own < 0, -totals[i], i))
    return ids if len(ids) <= MAX_ROWS else [*ids[: MAX_ROWS - 1], _OTHERS]


def _remembered(memory: MemoryWeights, index: int) -> Iterator[tuple[int, float, float]]:
    """Id, offset and weight of everybody whom the person at `index` sees in the memory."""
    seen = memory.seen[index]
    ids = np.maximum(memory.person_ids[seen], _UNKNOWN)  # whoever is unknown has the same
    weights = memory.weights[index, seen]
    return zip(ids.tolist(), memory.offsets[seen].tolist(), weights.tolist())


def _limits(
    timestamp: float, columns: Sequence[MemoryWeights], num_persons: int
) -> tuple[float, float]:
    """The time that is shown: whatever is remembered of anybody, and the keyframe."""
    ends = [-0.5, 0.5]
    for memory in columns:
        offsets = memory.offsets[memory.seen[:num_persons].any(axis=0)].tolist()
        ends += [x + side * memory.step / 2 for x in offsets for side in (-1, 1)]
    return timestamp + min(ends), timestamp + max(ends)


def _draw_memory(
    axes: Axes,
    top: float,
    memory: MemoryWeights,
    index: int,
    timestamp: float,
    ids: Sequence[int],
    colours: IdentityColours,
) -> None:
    """One column of the block of the person at `index`, whose first row begins at `top`."""
    # Unknown persons of one second, and those who share a row, add up to one bar.
    bars: dict[tuple[int, float], float] = defaultdict(float)
    for person_id, offset, weight in _remembered(memory, index):
        row = ids.index(person_id) if person_id in ids else len(ids) - 1
        bars[row, timestamp + offset] += weight
    tallest = max(bars.values(), default=0.0)
    lines = top + np.arange(max(1, len(ids))) + 0.95
    axes.hlines(lines, *axes.get_xlim(), color=LINE, linewidth=0.8, zorder=0)
    shades = colours.of([ids[row] for row, _ in bars])
    pale = [mix(colour, (255, 255, 255), 0.13) for colour in shades]
    full = [mix(colour, (40, 44, 52), 0.85) for colour in shades]
    shares = [weight / tallest if tallest > 0 else 0.0 for weight in bars.values()]
    places = [(top + row, time) for row, time in bars]
    _draw_bars(axes, places, memory.step, [1.0] * len(bars), pale, zorder=1)
    _draw_bars(axes, places, memory.step * _BAR, shares, full, zorder=2)
    every = "" if memory.step == 1 else f", every {memory.step:g} s"
    title = f"{memory.name}{every}"
    title += f": tallest {tallest:.0%}" if tallest >= 0.01 else ""
    elsewhere = memory.weights[index, ~memory.seen[index]].sum()
    if elsewhere >= 0.005:
        title += f"; {elsewhere:.0%} on empty places"
    write_beside(axes, 0, top - 0.34, title, color=SOFT, fontsize=8.5, bbox=ABOVE_GRID)
    if not bars:
        write_beside(axes, 0.5, top + 0.5, "nobody in the memory", ha="center", color=SOFT)


def _draw_bars(
    axes: Axes,
    places: Sequence[tuple[float, float]],
    width: float,
    shares: Sequence[float],
    colours: Sequence[RGB],
    zorder: float,
) -> None:
    """Rectangles at (row, time), as high as their share of the row; all of them one artist."""
    rows, times = np.array(places).reshape(-1, 2).T
    left, right, low = times - width / 2, times + width / 2, rows + 0.95
    high = low - 0.9 * np.array(shares)
    corners = np.stack([left, low, left, high, right, high, right, low], axis=1)
    faces = [hex_colour(colour) for colour in colours]
    style: dict = {"facecolors": faces, "linewidths": 0, "antialiaseds": False, "zorder": zorder}
    bars = PolyCollection(list(corners.reshape(-1, 4, 2)), **style)
    axes.add_collection(bars, autolim=False)


def _write_person(axes: Axes, top: float, person: PersonResult, colours: IdentityColours) -> None:
    """The heading of a block, from the figure's left edge: a coloured mark, who, and what."""
    x, rgb = left_edge(axes), colours.of([person.person_id])[0]
    mark(axes, (x, top - 1.75, 0.16 * inch(axes), 0.6), rgb, rim=0.5)
    label, style = shorten(name_with_action(person), 80), {"weight": "bold", "bbox": ABOVE_GRID}
    write_beside(axes, x + 0.25 * inch(axes), top - 1.45, label, **style)


def _label_rows(axes: Axes, top: float, ids: Sequence[int], own: int) -> None:
    for row, person_id in enumerate(ids):
        name = name_person(person_id, "others" if person_id == _OTHERS else "unknown")
        style: dict = {"color": SOFT}
        if person_id == own >= 0:
            name, style = f"{name} itself", {"weight": "bold"}
        write_beside(axes, -0.03, top + row + 0.5, name, ha="right", **style)
