"""Results as people and programs read them: tables in per cent, JSON of fractions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence

from tabulate import tabulate


def as_table(headers: Sequence[str], rows: Iterable[Sequence[object]], left: Sequence[str]) -> str:
    """Write a table; the columns of `left` are text, all others numbers."""
    aligned = ["left" if header in left else "right" for header in headers]
    return tabulate(list(rows), headers=headers, colalign=aligned, disable_numparse=True)


def as_json(content: Mapping) -> str:
    """Write nested dicts as JSON text, `null` for what is not a number."""
    return json.dumps(_with_null(content), indent=1, ensure_ascii=False) + "\n"


def _with_null(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _with_null(x) for name, x in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def percent(fraction: float) -> str:
    """Write a fraction in per cent, as the tables show it."""
    return f"{100 * fraction:.2f}"
