"""Orders of rows that the metrics share: runs of equal neighbours, ranges, ranks by score."""

from __future__ import annotations

import numpy as np


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenate the ranges start, start + 1, ..., start + length - 1."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)


def runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find starts and lengths of the runs of equal neighbours."""
    if not len(values):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    starts = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    return starts, np.diff(starts, append=len(values))


def stable_descending(scores: np.ndarray) -> np.ndarray:
    """Find the order of descending scores, equal ones in the given order.

    What `argsort(-scores, kind="stable")` returns, in a third of the time: numpy's default sort
    is vectorised, and only the equal scores, which it mixes up, are put in order afterwards.
    """
    order = np.argsort(-scores)
    in_order = scores[order]
    same = in_order[1:] == in_order[:-1]
    if same.any():
        is_tied = np.zeros(len(order), dtype=bool)
        is_tied[1:] = same
        is_tied[:-1] |= same
        run = np.concatenate([[0], np.cumsum(~same)])[is_tied]
        # distinct: any sort will do, so the fastest does
        by_run = run * len(order) + order[is_tied]
        by_run.sort()
        order[is_tied] = by_run % len(order)
    return order
