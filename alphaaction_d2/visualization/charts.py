"""Charts as PNG files: average precision per class, actions over time, methods compared."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..formats.results import ClassAP, VideoResult, group_classes, mean_ap, mean_chance
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
    plain,
    save,
    write_beside,
)
from .palette import RGB, group_colour, hex_colour, identity_colours, mix
from .text import name_person, shorten
from .timeline import Strip, persons_over_time

_INCHES_PER_ROW = 0.25
MAX_BLOCKS = 16  # persons of a timeline, those who are seen the longest
_MAX_STRIPS = 12  # actions of each, those with the highest scores
_GAIN, _LOSS = group_colour(0), group_colour(1)


def class_ap_chart(
    path: str | os.PathLike, classes: Sequence[ClassAP], *, protocol: str = ""
) -> Path:
    """Horizontal bars of the average precision, by group, best class first; those without ground
    truth are listed with a dash. ValueError when there are no classes."""
    measured = sum(not math.isnan(entry.ap) for entry in classes)
    title = "Average precision per class"
    title += f": mAP {mean_ap(classes):.1f}" if measured else ""
    boxes = sum(entry.num_boxes for entry in classes)
    parts = [protocol, f"{measured} of {len(classes)} classes with ground truth"]
    parts.append(f"{boxes:,} boxes (beside the bar)" if boxes else "")
    chance = mean_chance(classes)
    parts.append("" if math.isnan(chance) else f"black mark: random scores, mean {chance:.1f}")
    limit = _axis_end(classes)

    def draw(axes: Axes, y: float, entry: ClassAP, colour: str) -> None:
        share = min(max(entry.ap, 0), 100) / limit
        axes.barh(y, share * limit, height=0.72, color=colour)
        number = f"{entry.ap:.1f}"
        if entry.chance == entry.chance:  # NaN: not known
            axes.vlines(min(entry.chance, limit), y - 0.36, y + 0.36, color=INK, linewidth=1.6)
        boxes = f"{entry.num_boxes:,}" if entry.num_boxes else ""
        if share > 0.2:
            style = {"color": "white", "ha": "right", "weight": "bold"}
            write_beside(axes, share - 0.012, y, number, **style)
        outside = boxes if share > 0.2 else f"{number}   {boxes}"
        write_beside(axes, share + 0.012, y, outside, color=SOFT, fontsize=8)

    return save(_class_rows(path, classes, draw, limit, title, parts), path)


def _axis_end(classes: Sequence[ClassAP]) -> float:
    """A round number that no average precision exceeds."""
    largest = max((entry.ap for entry in classes if not math.isnan(entry.ap)), default=100)
    return min(100, max(10, 10 * math.ceil((largest + 1e-9) / 10)))


def _class_rows(
    path: str | os.PathLike,
    classes: Sequence[ClassAP],
    draw: Callable[[Axes, float, ClassAP, str], None],
    limit: float,
    title: str,
    subtitle: Sequence[str],
    *,
    top: float = 0.85,
    colour_of: Callable[[int], str] = group_colour,
    sign: str = "",
) -> Figure:
    """A row for each class under the heading of its group, the highest number first.

    Args:
        draw: draws a class at this height in its group's colour.
        limit: end of the axis.
        top: inches above the rows.
        colour_of: of the group with this index.
        sign: of the groups' means, as a format.
    """
    if not classes:
        raise ValueError(f"{path}: no classes to draw")
    groups = group_classes(classes)
    num_rows = len(classes) + (1.5 * len(groups) if any(groups) else 0)
    second_line = ", ".join(part for part in subtitle if part)
    figure = new_figure(9, top + 0.5 + _INCHES_PER_ROW * num_rows, title, second_line)
    longest = max(len(shorten(entry.name, 34)) for entry in classes)
    axes = bare_axes(figure, left=min(3.2, 0.5 + 0.078 * longest), right=0.75, top=top, bottom=0.5)
    y = 0.0
    for index, (group, members) in enumerate(groups.items()):
        colour = colour_of(index)
        if any(groups):
            label = group.replace("_", " ").lower() or "other"
            mean = mean_ap(members)
            label += "" if math.isnan(mean) else f", mean {mean:{sign}.1f}"
            style = {"color": colour, "weight": "bold", "bbox": ABOVE_GRID}
            write_beside(axes, left_edge(axes), y + 0.55, label, **style)
            y += 1.2
        for entry in members:
            missing = math.isnan(entry.ap)
            style = {"ha": "right", "color": SOFT if missing else INK}
            write_beside(axes, -0.012, y + 0.5, shorten(entry.name, 34), **style)
            if missing:
                write_beside(axes, 0.012, y + 0.5, "\u2013  no ground truth", color=SOFT)
            else:
                draw(axes, y + 0.5, entry, colour)
            y += 1
        y += 0.3 if any(groups) else 0
    axes.set_xlim(0, limit)
    axes.set_ylim(y, 0)
    axes.set_yticks([])
    axes.xaxis.grid(True, color=LINE, linewidth=0.8)
    axes.set_xlabel("average precision (%)", fontsize=9, color=SOFT)
    return figure


def class_gain_chart(
    path: str | os.PathLike,
    before: Sequence[ClassAP],
    after: Sequence[ClassAP],
    names: tuple[str, str],
    *,
    protocol: str = "",
) -> Path:
    """What a method does to every class, compared with another one (IGMN, Fig. 6).

    One line a class, from the average precision of the first run to that of the second, by group,
    largest gain first. ValueError when there are no classes, or the runs have different ones.
    """
    runs = [{entry.name: entry.ap for entry in run} for run in (before, after)]
    strangers = sorted(set(runs[0]) ^ set(runs[1]))
    if strangers:
        raise ValueError(
            f"{names[0]} and {names[1]} were not evaluated on the same classes: {strangers[0]!r} "
            f"is only in one of them ({len(strangers)} such classes)"
        )
    gains = [ClassAP(x.name, runs[1][x.name] - runs[0][x.name], x.group) for x in before]
    measured = [gain for gain in gains if not math.isnan(gain.ap)]
    title = f"{names[1]} against {names[0]}"
    if measured:
        first, second = (float(np.mean([run[gain.name] for gain in measured])) for run in runs)
        title += f": mAP {second:.1f} against {first:.1f} ({second - first:+.1f})"
    better = sum(gain.ap > 0 for gain in measured)
    counts = f"{better} of {len(measured)} classes are better with {names[1]}"

    def draw(axes: Axes, y: float, gain: ClassAP, _: str) -> None:
        colour = _GAIN if gain.ap >= 0 else _LOSS
        start, end = (min(max(run[gain.name], 0), 100) for run in runs)
        axes.plot([start, end], [y, y], color=colour, lw=4, alpha=0.45, solid_capstyle="butt")
        axes.plot(start, y, "o", color="white", markeredgecolor=SOFT, markersize=6, clip_on=False)
        axes.plot(end, y, "o", color=colour, markersize=7, clip_on=False)
        x = 1 + 0.68 * inch(axes)
        style = {"color": colour, "weight": "bold", "ha": "right", "fontsize": 8.5}
        write_beside(axes, x, y, f"{gain.ap:+.1f}", **style)

    limit, subtitle = _axis_end([*before, *after]), [protocol, counts]
    figure = _class_rows(
        path, gains, draw, limit, title, subtitle, top=1.1, colour_of=lambda _: INK, sign="+"
    )
    _gain_legend(figure, names)
    return save(figure, path)


def _gain_legend(figure: Figure, names: tuple[str, str]) -> None:
    """Which dot is which run."""
    colours = ("white", SOFT), (_GAIN, _GAIN), (_LOSS, _LOSS)  # inside, outside
    labels = (names[0], f"{names[1]}, better", f"{names[1]}, worse")
    width, height = figure.get_size_inches()
    legend = figure.legend(
        [Line2D([], [], marker="o", linestyle="", color=c, markeredgecolor=e) for c, e in colours],
        [shorten(label, 40) for label in labels],
        loc="upper left",
        bbox_to_anchor=(0.1 / width, 1 - 0.72 / height),
        borderaxespad=0,
        ncols=3,
        frameon=False,
        fontsize=9,
        handletextpad=0.2,
    )
    plain(legend.get_texts())


def comparison_chart(
    path: str | os.PathLike, runs: Mapping[str, Mapping[str, float]], *, title: str, subtitle: str
) -> Path:
    """Grouped bars: one group of bars per class group, one bar per run. All runs have the groups of
    the first one, in per cent (NaN where there is none)."""
    groups = list(next(iter(runs.values())))
    page_width = max(7, min(16, 1.6 + 0.3 * len(groups) * (len(runs) + 1)))
    figure = new_figure(page_width, 4.6, title, subtitle)
    axes = bare_axes(figure, left=0.65, right=0.2, top=1.2, bottom=0.5)
    width = 0.82 / len(runs)
    for index, (name, of_group) in enumerate(runs.items()):
        values = [of_group[group] for group in groups]
        x = np.arange(len(groups)) + (index - (len(runs) - 1) / 2) * width
        heights = np.clip(np.nan_to_num(values), 0, 100)
        bars = axes.bar(x, heights, width * 0.92, color=group_colour(index), label=name)
        texts = ["\u2013" if math.isnan(value) else f"{value:.0f}" for value in values]
        axes.bar_label(bars, texts, padding=2, fontsize=8.5, color=SOFT)
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    axes.set_xticks(range(len(groups)), [shorten(group, 22) for group in groups])
    axes.tick_params(axis="x", labelcolor=INK, labelsize=9.5)
    axes.yaxis.grid(True, color=LINE, linewidth=0.8)
    axes.set_ylabel("AP (%)", fontsize=9, color=SOFT)
    legend = axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=min(len(runs), 5),
        frameon=False,
        fontsize=9,
    )
    plain([*axes.get_xticklabels(), *legend.get_texts()])
    return save(figure, path)


def timeline_chart(path: str | os.PathLike, result: VideoResult, *, min_score: float = 0.3) -> Path:
    """Actions over time: a block per person, a strip per action, darker where the score is higher.

    Colours are those of the persons' boxes in the annotated video. Persons without an id share one
    block, which shows the highest of their scores. Moments below `min_score` are left out, and so
    are actions that never reach it.
    """
    persons = persons_over_time(result, min_score)
    shown = persons[:MAX_BLOCKS]
    rows = [max(1, min(len(x.strips), _MAX_STRIPS + 1)) for x in shown]
    num_rows = max(2, sum(rows) + 0.5 * len(rows))
    subtitle = f"scores from {min_score:.0%} to 100%, pale to full colour"
    if any(person.truth is not None for x in result.keyframes for person in x.persons):
        subtitle += "; line below: true"
    if len(persons) > len(shown):
        subtitle += f"; the {len(shown)} persons seen longest, +{len(persons) - len(shown)} more"
    title = f"Actions over time: {shorten(result.video_id, 60)}"
    figure = new_figure(9, 1.4 + _INCHES_PER_ROW * num_rows, title, subtitle)
    axes = bare_axes(figure, left=3.0, right=0.25, top=0.85, bottom=0.5)
    times = [keyframe.timestamp for keyframe in result.keyframes] or [0.5]
    axes.set_xlim(times[0] - result.period / 2, times[-1] + result.period / 2)
    colours = identity_colours(result)
    y = 0.25
    for person, height in zip(shown, rows):
        (colour,) = colours.of([person.person_id])
        mark(axes, (-0.50, y + 0.1, 0.008, height - 0.2), colour)
        name = name_person(person.person_id, "unknown")
        write_beside(axes, -0.485, y + 0.5, name, weight="bold")
        style = {"ha": "right", "fontsize": 8.5}
        drawn = person.strips if len(person.strips) <= height else person.strips[: height - 1]
        for row, strip in enumerate(drawn):
            _strip(axes, y + row, strip, colour, result.period, min_score)
            write_beside(axes, -0.015, y + row + 0.5, shorten(strip.action, 30), **style)
        style["color"] = SOFT
        if len(drawn) < len(person.strips):
            more = f"+{len(person.strips) - len(drawn)} more actions"
            write_beside(axes, -0.015, y + height - 0.5, more, **style)
        if not person.strips:
            write_beside(axes, -0.015, y + 0.5, "no action above the threshold", **style)
        y += height + 0.5
    if not shown:
        write_beside(axes, 0.5, num_rows / 2, "nobody was detected", ha="center", color=SOFT)
        y = num_rows
    axes.set_ylim(y, 0)
    axes.set_yticks([])
    label_seconds(axes, 10)
    axes.set_xlabel("time (min:s)", fontsize=9, color=SOFT)
    return save(figure, path)


def _strip(
    axes: Axes, top: float, strip: Strip, colour: RGB, period: float, min_score: float
) -> None:
    """One action of one person: a cell of one period per time, by its score."""
    start, end = axes.get_xlim()
    axes.broken_barh([(start, end - start)], (top + 0.1, 0.8), facecolor="#f1f3f5")
    full = mix(colour, (40, 44, 52), 0.8)  # darker: the palette is made for video
    runs = list(strip.runs(period, min_score))
    faces = [hex_colour(mix(full, (255, 255, 255), strength)) for _, _, strength in runs]
    style: dict = {"facecolors": faces, "edgecolors": faces, "linewidth": 0.4}
    axes.broken_barh([(a, b - a) for a, b, _ in runs], (top + 0.1, 0.8), **style)
    true = [(a, b - a) for a, b in strip.true_runs(period)]
    axes.broken_barh(true, (top + 0.8, 0.14), facecolor=INK)
