"""Attention to the memory over time: which seconds, which persons, and how much of each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Rectangle

from .attention import AttendedMemory, KeyframeAttention, PersonAttention
from .figures import (
    ABOVE_GRID,
    INK,
    LINE,
    SOFT,
    bare_axes,
    inch,
    label_seconds,
    left_edge,
    new_figure,
    save,
    write,
    write_beside,
)
from .palette import RGB, IdentityColours, hex_colour, mix
from .text import format_time, shorten

_UNKNOWN, _OTHERS = -1, -2  # rows of persons without id, and of those who found no room
_BAR = 0.9  # width of a bar, as a share of the way to the next one
_HEAD = 2.1  # rows that the heading of a block takes
_INCHES_PER_ROW = 0.27
_LEFT, _RIGHT, _GAP = 1.25, 0.2, 0.25  # inches


def memory_attention_chart(
    path: str | os.PathLike,
    attention: KeyframeAttention,
    colours: IdentityColours,
    *,
    max_persons: int = 6,
    max_rows: int = 6,
) -> Path:
    """A block per person of the keyframe, in it a column per attention and a row per remembered.

    A bar stands at the second that is attended to; its height is the weight, its colour that of the
    remembered person. A pale ground says that the person was seen then. The first row is the
    person's own track, if the memory has it.

    Args:
        path: PNG file to write.
        attention: of one keyframe.
        colours: of the video.
        max_persons: blocks, the first persons.
        max_rows: rows of a block, those with the most weight; the others are summed in one more.
    """
    shown = [person for person in attention.persons if person.memory][:max_persons]
    rows = [_rows(person, max_rows) for person in shown]
    names = [memory.name for memory in shown[0].memory] if shown else [""]
    # One axes a column, in which heights are counted in rows: axes are what takes time to draw.
    tops = np.cumsum([_HEAD, *(max(1, len(ids)) + _HEAD for ids in rows)])
    width = 9 + 1.5 * (len(names) - 1)
    height = 1.15 + _INCHES_PER_ROW * (tops[-1] - _HEAD if shown else 2)
    parts = ["height of a bar: share of the attention", "pale: the person was seen then"]
    parts.append("line: the keyframe")
    if len(attention.persons) > len(shown) > 0:
        parts.append(f"{len(shown)} of {len(attention.persons)} persons")
    title = f"Attention to the memory at {format_time(attention.timestamp)}"
    figure = new_figure(width, height, title, "; ".join(parts))
    if not shown:
        write(figure, 0.5, 0.3, "nobody was detected", ha="center", va="center", color=SOFT)
        return save(figure, path)

    limits = _limits(attention.timestamp, shown)
    column = (width - _LEFT - _RIGHT - _GAP * (len(names) - 1)) / len(names)
    for index in range(len(names)):
        left = _LEFT + index * (column + _GAP)
        axes = bare_axes(figure, left=left, right=width - left - column, top=0.75, bottom=0.4)
        axes.set_xlim(*limits)
        axes.set_ylim(tops[-1] - _HEAD, 0)
        axes.set_yticks([])
        label_seconds(axes, 6)
        axes.tick_params(axis="x", pad=1)
        axes.xaxis.grid(True, color=LINE, linewidth=0.6)
        for person, ids, top in zip(shown, rows, tops):
            end = top + max(1, len(ids))
            axes.vlines(attention.timestamp, top, end, color=INK, linewidth=0.9, zorder=1.5)
            _draw_memory(axes, top, person.memory[index], ids, colours)
            if index == 0:
                _write_person(axes, top, person)
                _label_rows(axes, top, ids, person.person.person_id)
    return save(figure, path)


def _rows(person: PersonAttention, max_rows: int) -> list[int]:
    """Ids in the order of the rows: the own track, then by weight over all attentions."""
    totals: dict[int, float] = {}
    for memory in person.memory:
        for person_id, weight in zip(_known(memory), memory.weights.tolist()):
            totals[person_id] = totals.get(person_id, 0.0) + weight
    own = person.person.person_id
    ids = sorted(totals, key=lambda i: (i != own or own < 0, -totals[i], i))
    return ids if len(ids) <= max_rows else [*ids[: max_rows - 1], _OTHERS]


def _limits(timestamp: float, persons: Sequence[PersonAttention]) -> tuple[float, float]:
    """The time that is shown: whatever is remembered of anybody, and the keyframe."""
    starts, ends = [timestamp - 0.5], [timestamp + 0.5]
    for memory in (memory for person in persons for memory in person.memory):
        if len(memory.times):
            starts.append(memory.times.min() - memory.step / 2)
            ends.append(memory.times.max() + memory.step / 2)
    return min(starts), max(ends)


def _draw_memory(
    axes: Axes, top: float, memory: AttendedMemory, ids: Sequence[int], colours: IdentityColours
) -> None:
    """One column of a block whose first row begins at `top`."""
    # Unknown persons of one second, and those who share a row, add up to one bar.
    rows = [ids.index(i) if i in ids else len(ids) - 1 for i in _known(memory)]
    bars: dict[tuple[int, float], float] = {}
    for row, time, weight in zip(rows, memory.times.tolist(), memory.weights.tolist()):
        bars[row, time] = bars.get((row, time), 0.0) + weight
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
    if memory.elsewhere >= 0.005:
        title += f"; {memory.elsewhere:.0%} on empty places"
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
    corners = np.zeros((len(places), 4, 2))
    if places:
        rows, times = np.array(places).T
        corners[:, [0, 1], 0] = (times - width / 2)[:, None]
        corners[:, [2, 3], 0] = (times + width / 2)[:, None]
        corners[:, [0, 3], 1] = (rows + 0.95)[:, None]
        corners[:, [1, 2], 1] = (rows + 0.95 - 0.9 * np.array(shares))[:, None]
    faces = [hex_colour(colour) for colour in colours]
    bars = PolyCollection(list(corners), facecolors=faces, linewidths=0, antialiaseds=False)
    bars.set_zorder(zorder)
    axes.add_collection(bars, autolim=False)


def _known(memory: AttendedMemory) -> list[int]:
    """Person ids; whoever is unknown has the same."""
    return np.maximum(memory.person_ids, _UNKNOWN).tolist()


def _write_person(axes: Axes, top: float, person: PersonAttention) -> None:
    """The heading of a block, from the figure's left edge: a coloured mark, who, and what."""
    x = left_edge(axes)
    mark = Rectangle(
        (x, top - 1.75), 0.16 * inch(axes), 0.6, clip_on=False, edgecolor=INK, linewidth=0.5
    )
    mark.set(facecolor=hex_colour(person.rgb), transform=axes.get_yaxis_transform())
    axes.add_patch(mark)
    style = {"weight": "bold", "bbox": ABOVE_GRID}
    write_beside(axes, x + 0.25 * inch(axes), top - 1.45, shorten(person.label, 80), **style)


def _label_rows(axes: Axes, top: float, ids: Sequence[int], own: int) -> None:
    for row, person_id in enumerate(ids):
        name = {_UNKNOWN: "unknown", _OTHERS: "others"}.get(person_id, f"#{person_id}")
        style: dict = {"color": SOFT}
        if person_id == own >= 0:
            name, style = f"{name} itself", {"weight": "bold"}
        write_beside(axes, -0.03, top + row + 0.5, name, ha="right", **style)
