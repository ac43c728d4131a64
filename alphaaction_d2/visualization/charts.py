"""Charts as PNG files: average precision per class, actions over time, methods compared.

Figures are built without pyplot: no window system, no global state, safe in threads.
"""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..files import write_atomically
from .drawing import format_time, printable
from .palette import GROUP_COLOURS, IDENTITY_COLOURS, RGB, hex_colour, mix
from .results import ClassAP, VideoResult, group_classes, mean_ap
from .tracks import identify

_DPI = 120
_INK = "#16181d"
_SOFT = "#626a76"
_LINE = "#dfe3e8"
_INCHES_PER_ROW = 0.25


def _new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _bare_axes(figure: Figure, left: float, right: float, top: float, bottom: float):
    """Axes with margins in inches, without a frame."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    )
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=_SOFT)
    axes.set_axisbelow(True)
    return axes


def _write(figure_or_axes, x: float, y: float, text: str, **style):
    # Class names are plain text: a "$" must not start a formula.
    style = {"color": _INK, "fontsize": 9, "parse_math": False, **style}
    return figure_or_axes.text(x, y, printable(text), **style)


def _headline(figure: Figure, title: str, subtitle: str = "") -> None:
    width, height = figure.get_size_inches()
    _write(figure, 0.15 / width, 1 - 0.3 / height, title, fontsize=12.5, weight="bold", va="center")
    if subtitle:
        y = 1 - 0.58 / height
        _write(figure, 0.15 / width, y, subtitle, fontsize=9.5, color=_SOFT, va="center")


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3].rstrip() + "..."


def _save(figure: Figure, path: str | os.PathLike) -> Path:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Scripts that the built-in font lacks appear as empty squares: not worth a warning each.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="png", dpi=_DPI)
    return write_atomically(path, buffer.getvalue())


def class_ap_chart(
    path: str | os.PathLike,
    classes: Sequence[ClassAP],
    *,
    title: str = "Average precision per class",
    dialect: str = "",
) -> Path:
    """Horizontal bars of the average precision, by group, best class first.

    Args:
        path: PNG file to write.
        classes: one entry per class; those without ground truth are listed with a dash.
        title: headline; the mean AP is added to it.
        dialect: name of the evaluation protocol, for the second line.

    Raises:
        ValueError: when there are no classes.
    """
    if not classes:
        raise ValueError(f"{path}: no classes to draw")
    groups = group_classes(classes)
    named = any(groups)
    num_rows = len(classes) + (1.5 * len(groups) if named else 0)
    height = 1.35 + _INCHES_PER_ROW * num_rows
    figure = _new_figure(9, height)
    names = [_shorten(entry.name, 34) for entry in classes]
    left = min(3.2, 0.5 + 0.078 * max(len(name) for name in names))
    axes = _bare_axes(figure, left=left, right=0.75, top=0.85, bottom=0.5)

    average = mean_ap(classes)
    measured = sum(not math.isnan(entry.ap) for entry in classes)
    number = f": mAP {average:.1f}" if measured else ""
    boxes = sum(entry.num_boxes for entry in classes)
    parts = [dialect, f"{measured} of {len(classes)} classes with ground truth"]
    parts.append(f"{boxes:,} ground-truth boxes (number beside the bar)" if boxes else "")
    _headline(figure, title + number, ", ".join(part for part in parts if part))

    largest = max((entry.ap for entry in classes if not math.isnan(entry.ap)), default=100)
    limit = min(100, max(10, 10 * math.ceil((largest + 1e-9) / 10)))
    y = 0.0
    for index, (group, members) in enumerate(groups.items()):
        colour = hex_colour(GROUP_COLOURS[index % len(GROUP_COLOURS)])
        if named:
            group_mean = mean_ap(members)
            value = "" if math.isnan(group_mean) else f", mean {group_mean:.1f}"
            label = (group.replace("_", " ").lower() or "other") + value
            x = (0.15 - left) / (9 - left - 0.75)  # the figure's left edge, in shares of the axes
            box = {"facecolor": "white", "linewidth": 0, "pad": 1}  # above the grid
            style = {"color": colour, "weight": "bold", "va": "center", "bbox": box}
            _write(axes, x, y + 0.55, label, transform=axes.get_yaxis_transform(), **style)
            y += 1.2
        for entry in members:
            _class_bar(axes, y + 0.5, entry, colour, limit)
            y += 1
        y += 0.3 if named else 0
    axes.set_xlim(0, limit)
    axes.set_ylim(y, 0)
    axes.set_yticks([])
    axes.xaxis.grid(True, color=_LINE, linewidth=0.8)
    axes.set_xlabel("average precision (%)", fontsize=9, color=_SOFT)
    return _save(figure, path)


def _class_bar(axes, y: float, entry: ClassAP, colour: str, limit: float) -> None:
    name = _shorten(entry.name, 34)
    missing = math.isnan(entry.ap)
    _write(axes, -0.012 * limit, y, name, ha="right", va="center", color=_SOFT if missing else _INK)
    if missing:
        _write(axes, 0.012 * limit, y, "\u2013  no ground truth", color=_SOFT, va="center")
        return
    value = min(max(entry.ap, 0), 100)
    axes.barh(y, value, height=0.72, color=colour)
    share = value / limit
    inside = share > 0.2
    boxes = f"{entry.num_boxes:,}" if entry.num_boxes else ""
    outside = boxes if inside else "   ".join(part for part in (f"{entry.ap:.1f}", boxes) if part)
    if inside:
        x = value - 0.012 * limit
        _write(axes, x, y, f"{entry.ap:.1f}", color="white", ha="right", va="center", weight="bold")
    _write(axes, value + 0.012 * limit, y, outside, color=_SOFT, va="center", fontsize=8)


def timeline_chart(
    path: str | os.PathLike,
    result: VideoResult,
    *,
    min_score: float = 0.3,
    max_actions: int = 5,
    max_persons: int = 16,
) -> Path:
    """Actions over time: a block per person, a strip per action, darker where the score is higher.

    Colours are those of the persons' boxes in the annotated video. Without ids, a person is
    followed as far as the boxes of neighbouring keyframes overlap.

    Args:
        path: PNG file to write.
        result: of one video.
        min_score: actions that never reach it are left out, and so are weaker moments.
        max_actions: strips per person, those with the largest sum of scores.
        max_persons: blocks, those who are seen the longest.
    """
    period = result.period
    persons = _persons_over_time(result, min_score, max_actions)
    shown = dict(list(persons.items())[:max_persons])
    num_rows = sum(max(1, len(strips)) for _, _, strips in shown.values()) + 0.5 * len(shown)
    num_rows = max(num_rows, 2)
    figure = _new_figure(9, 1.4 + _INCHES_PER_ROW * num_rows)
    axes = _bare_axes(figure, left=3.0, right=0.25, top=0.85, bottom=0.5)

    subtitle = f"scores from {min_score:.0%} to 100%, pale to full colour"
    if len(persons) > len(shown):
        subtitle += f"; the {len(shown)} persons seen longest out of {len(persons)}"
    _headline(figure, f"Actions over time: {_shorten(result.video_id, 60)}", subtitle)

    times = [keyframe.timestamp for keyframe in result.keyframes]
    start, end = (times[0] - period / 2, times[-1] + period / 2) if times else (0.0, 1.0)
    y = 0.25
    for label, colour, strips in shown.values():
        height = max(1, len(strips))
        rgb = IDENTITY_COLOURS[colour]
        _person_label(axes, y, height, label, rgb)
        for row, (name, cells) in enumerate(strips.items()):
            _strip(axes, y + row, cells, rgb, (start, end), period, min_score)
            _left_label(axes, y + row + 0.5, name)
        if not strips:
            _left_label(axes, y + 0.5, "no action above the threshold", color=_SOFT)
        y += height + 0.5
    if not shown:
        style = {"ha": "center", "va": "center", "color": _SOFT, "transform": axes.transAxes}
        _write(axes, 0.5, 0.5, "nobody was detected", **style)
        y = num_rows
    axes.set_xlim(start, end)
    axes.set_ylim(y, 0)
    axes.set_yticks([])
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=10)
    axes.xaxis.set_major_formatter(lambda value, _: format_time(value)[:-2] if value >= 0 else "")
    axes.set_xlabel("time (min:s)", fontsize=9, color=_SOFT)
    return _save(figure, path)


def _left_label(axes, y: float, text: str, **style) -> None:
    transform = axes.get_yaxis_transform()
    style = {"ha": "right", "va": "center", "fontsize": 8.5, "transform": transform, **style}
    _write(axes, -0.015, y, _shorten(text, 30), **style)


def _strip(
    axes,
    top: float,
    cells: Sequence[tuple[float, float]],
    colour: RGB,
    limits: tuple[float, float],
    period: float,
    min_score: float,
) -> None:
    """One action of one person: a cell of one period per (time, score)."""
    area = (top + 0.1, 0.8)
    axes.broken_barh([(limits[0], limits[1] - limits[0])], area, facecolor="#f1f3f5")
    full = mix(colour, (40, 44, 52), 0.8)  # darker: the palette is made for video
    scores = np.array([score for _, score in cells])
    strengths = 0.25 + 0.75 * np.clip((scores - min_score) / max(1 - min_score, 1e-6), 0, 1)
    faces = [hex_colour(mix(full, (255, 255, 255), float(strength))) for strength in strengths]
    spans = [(time - period / 2, period) for time, _ in cells]
    axes.broken_barh(spans, area, facecolors=faces, edgecolors=faces, linewidth=0.4)


def _person_label(axes, y: float, height: float, label: str, colour: RGB) -> None:
    """Coloured bar and name at the very left, outside the axes."""
    transform = axes.get_yaxis_transform()
    bar = Rectangle((-0.50, y + 0.1), 0.008, height - 0.2, facecolor=hex_colour(colour))
    bar.set(transform=transform, clip_on=False, linewidth=0)
    axes.add_patch(bar)
    _write(axes, -0.485, y + 0.5, label, weight="bold", va="center", transform=transform)


def _persons_over_time(
    result: VideoResult, min_score: float, max_actions: int
) -> dict[int, tuple[str, int, dict[str, list[tuple[float, float]]]]]:
    """Key to (label, colour index, {action: [(time, score)]}), longest seen first."""
    actions: dict[int, dict[str, list[tuple[float, float]]]] = {}
    seen: dict[int, int] = {}
    colour_of: dict[int, int] = {}
    for keyframe, (keys, colours) in zip(result.keyframes, identify(result)):
        for person, key, colour in zip(keyframe.persons, keys, colours):
            seen[key] = seen.get(key, 0) + 1
            colour_of[key] = colour
            cells = actions.setdefault(key, {})
            for name, score in person.actions:
                if score >= min_score:
                    cells.setdefault(name, []).append((keyframe.timestamp, score))
    persons = {}
    for key in sorted(seen, key=lambda k: -seen[k]):
        ranked = sorted(actions[key].items(), key=lambda item: -sum(s for _, s in item[1]))
        label = f"#{key}" if key >= 0 else "person"
        persons[key] = (label, colour_of[key], dict(ranked[:max_actions]))
    return persons


def comparison_chart(
    path: str | os.PathLike,
    groups: Sequence[str],
    runs: Mapping[str, Sequence[float]],
    *,
    title: str = "Methods compared",
    subtitle: str = "",
) -> Path:
    """Grouped bars: one group of bars per class group, one bar per run.

    Args:
        path: PNG file to write.
        groups: G names, such as the class groups.
        runs: name of a run to its G values in percent (NaN where there is none).
        title: headline.
        subtitle: second line.

    Raises:
        ValueError: when there is nothing to draw or a run has another number of values.
    """
    if not groups or not runs:
        raise ValueError(f"{path}: no groups or no runs to compare")
    for name, values in runs.items():
        if len(values) != len(groups):
            raise ValueError(
                f"{path}: run {name!r} has {len(values)} values for {len(groups)} groups"
            )
    figure = _new_figure(max(7, min(16, 1.6 + 0.3 * len(groups) * (len(runs) + 1))), 4.6)
    axes = _bare_axes(figure, left=0.65, right=0.2, top=1.2, bottom=0.5)
    _headline(figure, title, subtitle)
    width = 0.82 / len(runs)
    for index, (name, values) in enumerate(runs.items()):
        x = np.arange(len(groups)) + (index - (len(runs) - 1) / 2) * width
        heights = np.clip(np.nan_to_num(np.asarray(values, dtype=np.float64)), 0, 100)
        colour = hex_colour(GROUP_COLOURS[index % len(GROUP_COLOURS)])
        axes.bar(x, heights, width * 0.92, color=colour, label=name)
        for position, value, height in zip(x, values, heights):
            text = "\u2013" if math.isnan(value) else f"{value:.0f}"
            style = {"ha": "center", "va": "bottom", "fontsize": 8.5, "color": _SOFT}
            _write(axes, position, height + 1, text, **style)
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    axes.set_xticks(range(len(groups)), [printable(_shorten(group, 22)) for group in groups])
    axes.tick_params(axis="x", labelcolor=_INK, labelsize=9.5)
    axes.yaxis.grid(True, color=_LINE, linewidth=0.8)
    axes.set_ylabel("AP (%)", fontsize=9, color=_SOFT)
    legend = axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=min(len(runs), 5),
        frameon=False,
        fontsize=9,
    )
    for text in [*axes.get_xticklabels(), *legend.get_texts()]:
        text.set_parse_math(False)
    return _save(figure, path)
