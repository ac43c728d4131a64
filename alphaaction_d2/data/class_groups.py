"""Which classes of a data set belong together, and which of them exclude each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..config import Groups
from ..formats.ava import AVARows
from ..formats.label_map import LabelMap

EXCLUSIVE_SHARE = 0.95  # of the persons have just one class of a group whose classes exclude others
MISTAKEN_SHARE = 0.01  # of the persons may have two classes that exclude each other, by mistake


def class_groups(label_map: LabelMap, tables: Sequence[AVARows]) -> Groups | None:
    """Describe the classes of a data set.

    The classes of a group exclude each other if the label map says so of any group; if it is silent
    of all, where the annotations show it: hardly anybody has two of its classes at a time, and
    nearly everybody has one.

    Args:
        label_map: ids that it leaves out belong to the group of the id before.
        tables: annotations; not looked at if the label map tells.

    Returns:
        None when a group's ids do not follow each other, which a network's output cannot have.
    """
    ordered, current = [], label_map.groups[min(label_map.names)]
    for action in range(1, label_map.num_classes + 1):
        current = label_map.groups.get(action, current)
        ordered.append(current or "all")
    starts = [i for i in range(len(ordered)) if i == 0 or ordered[i] != ordered[i - 1]]
    names = tuple(ordered[i] for i in starts)
    if len(set(names)) < len(names):
        return None
    sizes = tuple(b - a for a, b in zip(starts, [*starts[1:], len(ordered)]))
    exclusive = label_map.exclusive
    if exclusive is None:
        shown = _exclusive_runs(list(zip(starts, sizes)), tables)
        exclusive = tuple(name for name, x in zip(names, shown) if x)
    return Groups(names, sizes, tuple(name for name in names if name in exclusive))


def _exclusive_runs(runs: list[tuple[int, int]], tables: Sequence[AVARows]) -> list[bool]:
    """Tell of each (first class, number of classes) whether annotations show one at a time."""
    persons, actions, total = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for rows in tables:
        who = np.column_stack([rows.video_codes, rows.timestamps, rows.boxes, rows.person_ids])
        distinct, number = np.unique(who, axis=0, return_inverse=True)
        pairs = np.unique(np.column_stack([number.reshape(-1) + total, rows.labels]), axis=0)
        persons.append(pairs[:, 0])
        actions.append(pairs[:, 1])
        total += len(distinct)
    person, action = np.concatenate(persons), np.concatenate(actions)
    shown = []
    for start, size in runs:
        of_group = (start < action) & (action <= start + size)
        counts = np.bincount(person[of_group], minlength=total)
        one = (counts == 1).sum() > EXCLUSIVE_SHARE * total
        shown.append(bool(size > 1 and one and (counts > 1).sum() <= MISTAKEN_SHARE * total))
    return shown
