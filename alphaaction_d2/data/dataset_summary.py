"""What training will see of a data set: counts, groups of classes, and keyframes that show it.

Pure functions of a `DatasetReport`. Shape letters: N rows, K classes, P persons.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..formats.ava import AVARows
from ..formats.boxes import keyframe_seconds
from ..formats.label_map import LabelMap, class_names
from .box_tables import Keyframe
from .clip_sampling import TIME_TOLERANCE, clip_times
from .dataset_report import DatasetReport, persons_of, row_keyframes


class SplitSummary(NamedTuple):
    """What training or testing sees of a split."""

    name: str
    videos: int
    keyframes: int
    persons: int
    labels: int
    detected: int
    objects: int
    clips_at_ends: int


def summarise(
    report: DatasetReport, num_frames: int, sampling_rate: float, clip_fps: float
) -> list[SplitSummary]:
    """Sum up each split: what remains of it without what cannot be used.

    Args:
        num_frames, sampling_rate, clip_fps: the clip, see `clip_times`. A clip that reaches beyond
            its video, whose first or last frame is then repeated, counts in `clips_at_ends`.
    """
    offsets = clip_times(0.0, num_frames, sampling_rate, clip_fps)

    def at_end(key: Keyframe) -> bool:
        seen = report.videos[key[0]]
        starts_early = key[1] + offsets[0] < seen.info.begin - TIME_TOLERANCE
        return starts_early or seen.ends_before(key[1] + offsets[-1])

    lines = []
    for split in report.splits:
        seen = [key for key in split.keyframes if key[0] in report.videos]
        keys = {key for key in seen if report.videos[key[0]].info.spans(key[1])}
        detected, objects = (
            0 if rows is None else sum(key in keys for key in row_keyframes(rows))
            for rows in (split.persons, split.objects)
        )
        persons, named = set(), []
        if (rows := split.annotations) is not None:
            persons = set(persons_of(rows))
            named = row_keyframes(rows, rows.labels >= 0)  # who does something of the list
        lines.append(
            SplitSummary(
                name=split.name,
                videos=len({video for video, _ in keys}),
                keyframes=len(keys),
                persons=sum(key in keys for key, *_ in persons),
                labels=sum(key in keys for key in named),
                detected=detected,
                objects=objects,
                clips_at_ends=sum(map(at_end, keys)),
            )
        )
    return lines


# ------------------------------------------------------------------------------------ contact sheet


@dataclass(frozen=True, eq=False)
class AnnotatedKeyframe:
    """A keyframe to be shown.

    `boxes` (P, 4) are fractions of width and height; each person has an id, -1 for unknown, and
    the names of its classes.
    """

    split: str
    key: Keyframe
    boxes: np.ndarray
    person_ids: list[int]
    classes: list[list[str]]


def choose_keyframes(report: DatasetReport, count: int) -> list[AnnotatedKeyframe]:
    """Choose keyframes that show every class, rare ones first, from as many videos as possible."""
    where: dict[int, list[tuple[str, Keyframe]]] = {}
    for split in report.splits:
        counted = set(split.keyframes)
        if split.annotations is None:
            continue
        pairs = zip(split.annotations.labels.tolist(), row_keyframes(split.annotations))
        for action, key in sorted(set(pairs)):
            if key in counted:
                where.setdefault(action, []).append((split.name, key))
    rarest_first = sorted(where, key=lambda action: (len(where[action]), action))
    chosen: dict[tuple[str, Keyframe], None] = {}
    videos: Counter[str] = Counter()
    rng = np.random.default_rng(0)
    while len(chosen) < count and any(where.values()):
        for action in rarest_first:
            left = [place for place in where[action] if place not in chosen]
            where[action] = left
            if not left or len(chosen) == count:
                continue
            fewest = min(videos[key[0]] for _, key in left)
            best = [place for place in left if videos[place[1][0]] == fewest]
            place = best[int(rng.integers(len(best)))]
            chosen[place] = None
            videos[place[1][0]] += 1
    tables = {x.name: x.annotations for x in report.splits if x.annotations is not None}
    return [
        _annotated(tables[split], split, key, report.label_map) for split, key in sorted(chosen)
    ]


def _annotated(
    rows: AVARows, split: str, key: Keyframe, label_map: LabelMap | None
) -> AnnotatedKeyframe:
    names = [] if label_map is None else class_names(label_map)
    here = rows.video_codes == rows.videos.index(key[0])
    here &= keyframe_seconds(rows.timestamps) == key[1]
    persons: dict[tuple, list[str]] = {}
    for box, person, action in zip(rows.boxes[here], rows.person_ids[here], rows.labels[here]):
        classes = persons.setdefault((*box.tolist(), int(person)), [])
        if action >= 0:  # or it is a person who does nothing of the list
            classes.append(names[action - 1] if action <= len(names) else f"class {action}")
    return AnnotatedKeyframe(
        split=split,
        key=key,
        boxes=np.array([person[:4] for person in persons]).reshape(-1, 4),
        person_ids=[person[4] for person in persons],
        classes=[sorted(set(classes)) for classes in persons.values()],
    )
