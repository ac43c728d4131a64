"""The page that all charts are drawn on: figure, axes, text.

Figures are built without pyplot: no window system, no global state, safe in threads.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from ..formats.writing import write_atomically
from .palette import RGB, hex_colour
from .text import format_time, printable

DPI = 120
INK = "#16181d"
SOFT = "#626a76"
LINE = "#dfe3e8"
LEFT_EDGE = 0.15  # inches from the page's edge to its text
ABOVE_GRID = {"facecolor": "white", "linewidth": 0, "pad": 1}  # behind text on a grid


def new_figure(width: float, height: float, title: str, subtitle: str = "") -> Figure:
    """A white page of so many inches with its headline."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    x = LEFT_EDGE / width
    write(figure, x, 1 - 0.3 / height, title, fontsize=12.5, weight="bold", va="center")
    write(figure, x, 1 - 0.58 / height, subtitle, fontsize=9.5, color=SOFT, va="center")
    return figure


def bare_axes(figure: Figure, left: float, right: float, top: float, bottom: float) -> Axes:
    """Axes with margins in inches, without a frame."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    )
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=SOFT)
    axes.set_axisbelow(True)
    return axes


def inch(axes: Axes) -> float:
    """An inch in shares of the axes' width."""
    assert isinstance(axes.figure, Figure)
    return 1 / (axes.figure.get_size_inches()[0] * axes.get_position().width)


def left_edge(axes: Axes) -> float:
    """Where the page's text begins, in shares of the axes' width."""
    place = axes.get_position()
    return LEFT_EDGE * inch(axes) - place.x0 / place.width


def write(figure_or_axes: Figure | Axes, x: float, y: float, text: str, **style: Any) -> Text:
    """Plain text on a figure or axes: a "$" in a class name must not start a formula."""
    style = {"color": INK, "fontsize": 9, "parse_math": False, **style}
    return figure_or_axes.text(x, y, printable(text), **style)


def write_beside(axes: Axes, x: float, y: float, text: str, **style: Any) -> Text:
    """The same, vertically centred, with x in shares of the axes' width."""
    return write(axes, x, y, text, va="center", transform=axes.get_yaxis_transform(), **style)


def mark(axes: Axes, place: tuple[float, float, float, float], rgb: RGB, rim: float = 0) -> None:
    """A patch of colour at x, y (as in :func:`write_beside`) with width, height; also outside."""
    x, y, width, height = place
    patch = Rectangle((x, y), width, height, clip_on=False, edgecolor=INK, linewidth=rim)
    patch.set(facecolor=hex_colour(rgb), transform=axes.get_yaxis_transform())
    axes.add_patch(patch)


def label_seconds(axes: Axes, nbins: int) -> None:
    """Times below the axes."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins, steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: format_time(value)[:-2] if value >= 0 else "")


def plain(texts: Sequence[Text]) -> None:
    """What matplotlib writes by itself is no formula either."""
    for text in texts:
        text.set(text=printable(text.get_text()), parse_math=False)


def save(figure: Figure, path: str | os.PathLike) -> Path:
    """Write a PNG file; it appears complete or not at all."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Scripts that the built-in font lacks appear as empty squares: not worth a warning each.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="png", dpi=DPI)
    return write_atomically(path, buffer.getvalue())
