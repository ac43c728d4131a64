"""The page that all charts are drawn on: figure, axes, text.

Figures are built without pyplot: no window system, no global state, safe in threads.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..formats.writing import write_atomically
from .drawing import printable

DPI = 120
INK = "#16181d"
SOFT = "#626a76"
LINE = "#dfe3e8"


def new_figure(width: float, height: float) -> Figure:
    """A white page of so many inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def bare_axes(figure: Figure, left: float, right: float, top: float, bottom: float):
    """Axes with margins in inches, without a frame."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    )
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=SOFT)
    axes.set_axisbelow(True)
    return axes


def write(figure_or_axes, x: float, y: float, text: str, **style):
    """Plain text on a figure or axes: a "$" in a class name must not start a formula."""
    style = {"color": INK, "fontsize": 9, "parse_math": False, **style}
    return figure_or_axes.text(x, y, printable(text), **style)


def headline(figure: Figure, title: str, subtitle: str = "") -> None:
    """Title and second line at the top left of the page."""
    width, height = figure.get_size_inches()
    write(figure, 0.15 / width, 1 - 0.3 / height, title, fontsize=12.5, weight="bold", va="center")
    if subtitle:
        y = 1 - 0.58 / height
        write(figure, 0.15 / width, y, subtitle, fontsize=9.5, color=SOFT, va="center")


def shorten(text: str, length: int) -> str:
    """The beginning of a text that is too long, with "..." at its end."""
    return text if len(text) <= length else text[: length - 3].rstrip() + "..."


def save(figure: Figure, path: str | os.PathLike) -> Path:
    """Write a PNG file; it appears complete or not at all."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Scripts that the built-in font lacks appear as empty squares: not worth a warning each.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="png", dpi=DPI)
    return write_atomically(path, buffer.getvalue())
