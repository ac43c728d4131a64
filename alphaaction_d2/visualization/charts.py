"""Charts as PNG files: average precision per class, actions over time, methods compared."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from .drawing import format_time, printable
from .figures import INK, LINE, SOFT, bare_axes, headline, new_figure, save, shorten, write
from .palette import GROUP_COLOURS, IDENTITY_COLOURS, RGB, hex_colour, mix
from .results import ClassAP, VideoResult, group_classes, mean_ap
from .tracks import identify

_INCHES_PER_ROW = 0.25


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
    figure = new_figure(9, height)
    names = [shorten(entry.name, 34) for entry in classes]
    left = min(3.2, 0.5 + 0.078 * max(len(name) for name in names))
    axes = bare_axes(figure, left=left, right=0.75, top=0.85, bottom=0.5)

    average = mean_ap(classes)
    measured = sum(not math.isnan(entry.ap) for entry in classes)
    number = f": mAP {average:.1f}" if measured else ""
    boxes = sum(entry.num_boxes for entry in classes)
    parts = [dialect, f"{measured} of {len(classes)} classes with ground truth"]
    parts.append(f"{boxes:,} ground-truth boxes (number beside the bar)" if boxes else "")
    headline(figure, title + number, ", ".join(part for part in parts if part))

    limit = _axis_end(classes)
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
            write(axes, x, y + 0.55, label, transform=axes.get_yaxis_transform(), **style)
            y += 1.2
        for entry in members:
            _class_bar(axes, y + 0.5, entry, colour, limit)
            y += 1
        y += 0.3 if named else 0
    axes.set_xlim(0, limit)
    axes.set_ylim(y, 0)
    axes.set_yticks([])
    axes.xaxis.grid(True, color=LINE, linewidth=0.8)
    axes.set_xlabel("average precision (%)", fontsize=9, color=SOFT)
    return save(figure, path)


def _axis_end(classes: Sequence[ClassAP]) -> float:
    """A round number that no average precision exceeds."""
    largest = max((entry.ap for entry in classes if not math.isnan(entry.ap)), default=100)
    return min(100, max(10, 10 * math.ceil((largest + 1e-9) / 10)))


def _class_bar(axes, y: float, entry: ClassAP, colour: str, limit: float) -> None:
    name = shorten(entry.name, 34)
    missing = math.isnan(entry.ap)
    write(axes, -0.012 * limit, y, name, ha="right", va="center", color=SOFT if missing else INK)
    if missing:
        write(axes, 0.012 * limit, y, "\u2013  no ground truth", color=SOFT, va="center")
        return
    value = min(max(entry.ap, 0), 100)
    axes.barh(y, value, height=0.72, color=colour)
    share = value / limit
    inside = share > 0.2
    boxes = f"{entry.num_boxes:,}" if entry.num_boxes else ""
    outside = boxes if inside else "   ".join(part for part in (f"{entry.ap:.1f}", boxes) if part)
    if inside:
        x = value - 0.012 * limit
        write(axes, x, y, f"{entry.ap:.1f}", color="white", ha="right", va="center", weight="bold")
    write(axes, value + 0.012 * limit, y, outside, color=SOFT, va="center", fontsize=8)


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
    figure = new_figure(9, 1.4 + _INCHES_PER_ROW * num_rows)
    axes = bare_axes(figure, left=3.0, right=0.25, top=0.85, bottom=0.5)

    subtitle = f"scores from {min_score:.0%} to 100%, pale to full colour"
    if len(persons) > len(shown):
        subtitle += f"; the {len(shown)} persons seen longest out of {len(persons)}"
    headline(figure, f"Actions over time: {shorten(result.video_id, 60)}", subtitle)

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
            _left_label(axes, y + 0.5, "no action above the threshold", color=SOFT)
        y += height + 0.5
    if not shown:
        style = {"ha": "center", "va": "center", "color": SOFT, "transform": axes.transAxes}
        write(axes, 0.5, 0.5, "nobody was detected", **style)
        y = num_rows
    axes.set_xlim(start, end)
    axes.set_ylim(y, 0)
    axes.set_yticks([])
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=10)
    axes.xaxis.set_major_formatter(lambda value, _: format_time(value)[:-2] if value >= 0 else "")
    axes.set_xlabel("time (min:s)", fontsize=9, color=SOFT)
    return save(figure, path)


def _left_label(axes, y: float, text: str, **style) -> None:
    transform = axes.get_yaxis_transform()
    style = {"ha": "right", "va": "center", "fontsize": 8.5, "transform": transform, **style}
    write(axes, -0.015, y, shorten(text, 30), **style)


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
    write(axes, -0.485, y + 0.5, label, weight="bold", va="center", transform=transform)


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
    figure = new_figure(max(7, min(16, 1.6 + 0.3 * len(groups) * (len(runs) + 1))), 4.6)
    axes = bare_axes(figure, left=0.65, right=0.2, top=1.2, bottom=0.5)
    headline(figure, title, subtitle)
    width = 0.82 / len(runs)
    for index, (name, values) in enumerate(runs.items()):
        x = np.arange(len(groups)) + (index - (len(runs) - 1) / 2) * width
        heights = np.clip(np.nan_to_num(np.asarray(values, dtype=np.float64)), 0, 100)
        colour = hex_colour(GROUP_COLOURS[index % len(GROUP_COLOURS)])
        axes.bar(x, heights, width * 0.92, color=colour, label=name)
        for position, value, height in zip(x, values, heights):
            text = "\u2013" if math.isnan(value) else f"{value:.0f}"
            style = {"ha": "center", "va": "bottom", "fontsize": 8.5, "color": SOFT}
            write(axes, position, height + 1, text, **style)
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    axes.set_xticks(range(len(groups)), [printable(shorten(group, 22)) for group in groups])
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
    for text in [*axes.get_xticklabels(), *legend.get_texts()]:
        text.set_parse_math(False)
    return save(figure, path)


def class_gain_chart(
    path: str | os.PathLike,
    before: Sequence[ClassAP],
    after: Sequence[ClassAP],
    names: tuple[str, str],
    *,
    dialect: str = "",
) -> Path:
    """What a method does to every class, compared with another one (IGMN, Fig. 6).

    One line a class, from the average precision of the first run to that of the second, by group,
    largest gain first.

    Args:
        path: PNG file to write.
        before, after: the classes of two runs, the same in both.
        names: of the two runs.
        dialect: name of the evaluation protocol, for the second line.

    Raises:
        ValueError: when there are no classes, or the runs have different ones.
    """
    pairs = _paired(path, before, after, names)
    groups: dict[str, list[tuple[ClassAP, ClassAP]]] = {}
    for pair in pairs:
        groups.setdefault(pair[0].group, []).append(pair)
    for members in groups.values():
        members.sort(key=lambda pair: (math.isnan(_gain(pair)), -_gain(pair)))
    named = any(groups)
    num_rows = len(pairs) + (1.5 * len(groups) if named else 0)
    figure = new_figure(9, 1.6 + _INCHES_PER_ROW * num_rows)
    labels = [shorten(entry.name, 34) for entry in before]
    left = min(3.2, 0.5 + 0.078 * max(len(label) for label in labels))
    axes = bare_axes(figure, left=left, right=0.75, top=1.1, bottom=0.5)

    means = [mean_ap([pair[i] for pair in pairs if not math.isnan(_gain(pair))]) for i in (0, 1)]
    measured = [_gain(pair) for pair in pairs if not math.isnan(_gain(pair))]
    title = f"{names[1]} against {names[0]}"
    if measured:
        title += f": mAP {means[1]:.1f} against {means[0]:.1f} ({means[1] - means[0]:+.1f})"
    better = sum(gain > 0 for gain in measured)
    counts = f"{better} of {len(measured)} classes are better with {names[1]}"
    headline(figure, title, ", ".join(part for part in (dialect, counts) if part))
    _gain_legend(figure, names)
    y = 0.0
    for group, members in groups.items():
        if named:
            gains = [_gain(pair) for pair in members if not math.isnan(_gain(pair))]
            value = f", mean {np.mean(gains):+.1f}" if gains else ""
            x = (0.15 - left) / (9 - left - 0.75)  # the figure's left edge, in shares of the axes
            box = {"facecolor": "white", "linewidth": 0, "pad": 1}  # above the grid
            style = {"weight": "bold", "va": "center", "bbox": box}
            heading = (group.replace("_", " ").lower() or "other") + value
            write(axes, x, y + 0.55, heading, transform=axes.get_yaxis_transform(), **style)
            y += 1.2
        for pair in members:
            _gain_line(axes, y + 0.5, pair)
            y += 1
        y += 0.3 if named else 0
    axes.set_xlim(0, _axis_end([*before, *after]))
    axes.set_ylim(y, 0)
    axes.set_yticks([])
    axes.xaxis.grid(True, color=LINE, linewidth=0.8)
    axes.set_xlabel("average precision (%)", fontsize=9, color=SOFT)
    return save(figure, path)


_GAIN, _LOSS = hex_colour(GROUP_COLOURS[0]), hex_colour(GROUP_COLOURS[1])


def _paired(
    path: str | os.PathLike,
    before: Sequence[ClassAP],
    after: Sequence[ClassAP],
    names: tuple[str, str],
) -> list[tuple[ClassAP, ClassAP]]:
    """The classes of two runs side by side."""
    second = {entry.name: entry for entry in after}
    strangers = sorted({entry.name for entry in before} ^ set(second))
    if strangers:
        raise ValueError(
            f"{names[0]} and {names[1]} were not evaluated on the same classes: {strangers[0]!r} "
            f"is only in one of them ({len(strangers)} such classes)"
        )
    if not before:
        raise ValueError(f"{path}: no classes to draw")
    return [(entry, second[entry.name]) for entry in before]


def _gain(pair: tuple[ClassAP, ClassAP]) -> float:
    return pair[1].ap - pair[0].ap


def _gain_line(axes, y: float, pair: tuple[ClassAP, ClassAP]) -> None:
    """Name, a line between two dots, and the difference."""
    gain = _gain(pair)
    missing = math.isnan(gain)
    name = shorten(pair[0].name, 34)
    transform = axes.get_yaxis_transform()
    style = {"va": "center", "transform": transform}
    write(axes, -0.015, y, name, ha="right", color=SOFT if missing else INK, **style)
    if missing:
        write(axes, 0.015, y, "\u2013  no ground truth", color=SOFT, **style)
        return
    colour = _GAIN if gain >= 0 else _LOSS
    start, end = (min(max(entry.ap, 0), 100) for entry in pair)
    axes.plot([start, end], [y, y], color=colour, linewidth=4, alpha=0.45, solid_capstyle="butt")
    hollow = {"color": "white", "markeredgecolor": SOFT, "clip_on": False}
    axes.plot([start], [y], "o", markersize=6, **hollow)
    axes.plot([end], [y], "o", color=colour, markersize=7, clip_on=False)
    x = 1 + 0.68 / (axes.figure.get_size_inches()[0] * axes.get_position().width)
    style |= {"color": colour, "weight": "bold", "ha": "right", "fontsize": 8.5}
    write(axes, x, y, f"{gain:+.1f}", **style)


def _gain_legend(figure, names: tuple[str, str]) -> None:
    """Which dot is which run."""
    handles = [
        Line2D([], [], marker="o", linestyle="", color="white", markeredgecolor=SOFT),
        Line2D([], [], marker="o", linestyle="", color=_GAIN),
        Line2D([], [], marker="o", linestyle="", color=_LOSS),
    ]
    labels = [names[0], f"{names[1]}, better", f"{names[1]}, worse"]
    width, height = figure.get_size_inches()
    legend = figure.legend(
        handles,
        [printable(shorten(label, 40)) for label in labels],
        loc="upper left",
        bbox_to_anchor=(0.1 / width, 1 - 0.72 / height),
        borderaxespad=0,
        ncols=3,
        frameon=False,
        fontsize=9,
        handletextpad=0.2,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
