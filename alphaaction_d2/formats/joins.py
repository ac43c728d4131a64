"""What does not join: rows of one table that find nothing to belong to in another, and why.

Files are joined by video, second, class, box and score; what falls out on the way scores 0.00 %
without an error. These functions of two tables give sentences for people: the likely reason where
nothing joins, or hardly anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np

from .ava import AVARows, select_rows
from .tables import listed

MOST = 0.5  # the share of rows from which on a reason is told
IOU = 0.5
PERSON_KEY = "INPUT.PERSON_SCORE_THRESH_TEST"
_BEYOND = 1.05  # a coordinate above is none of a fraction
_LOOKS = 2000  # annotated rows that are looked at box by box

# How people write a box besides left, top, right, bottom; to these from theirs.
_FORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "x, y, width, height": lambda b: np.concatenate([b[:, :2], b[:, :2] + b[:, 2:]], axis=1),
    "centre x, centre y, width, height": lambda b: np.concatenate(
        [b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2], axis=1
    ),
    "y1, x1, y2, x2": lambda b: b[:, [1, 0, 3, 2]],
}


def why_unjoined(
    truth: AVARows, found: AVARows, classes: Collection[int] = (), *, what: str = "row"
) -> list[str]:
    """Say why rows do not join the annotated ones; nothing where most of them do.

    Args:
        truth: annotations.
        found: detections of actions, or of persons.
        classes: the ids that count in `found`; none: it has no actions.
        what: to call a row of `found`.
    """
    if not len(found):
        return [f"there is no {what} at all"]
    if not len(truth):
        return []
    told = _of_boxes(found, what)
    videos, places = set(truth.videos), _places(found, truth.videos)
    known = places >= 0
    if _mostly(~known):
        foreign = [v for v in found.videos if v not in videos]
        share = _share(~known, what, "is of a video", "are not of a video")
        there = f"{listed(foreign)}; the ground truth has {listed(truth.videos)}"
        return [f"{share} of the ground truth ({there})", *told]
    at = np.isin(places, _places(truth, truth.videos))
    if _mostly(~at[known]):
        share = _share(~at[known], what, "is at", "are not at")
        moved = select_rows(found, known)
        mine, theirs = (np.round(x.timestamps, 6) for x in (moved, truth))
        late = mine.min() - theirs.min()
        here, there = (f"{x.min():g} to {x.max():g}" for x in (mine, theirs))
        spans = f"{here}; the ground truth has {there}"
        fits = np.isin(_places(moved, truth.videos, late), _places(truth, truth.videos))
        why = f": all are {late:g} s late" if fits.mean() > MOST else ""
        odd = frame_numbers(moved)
        return [f"{share} a ground-truth second ({spans}){why}", *([odd] if odd else []), *told]
    if classes:
        unknown = ~np.isin(found.labels, list(classes))
        if _mostly(unknown):
            ids = listed(np.unique(found.labels[unknown]))
            share = _share(unknown, what, "has a class", "have no class")
            told.append(f"{share} of the label map (ids {ids})")
    if len(truth) > _LOOKS:  # enough to tell, where all would take minutes
        truth = select_rows(truth, np.linspace(0, len(truth) - 1, _LOOKS).astype(np.int64))
        places = _places(found, truth.videos)
        found = select_rows(found, np.isin(places, _places(truth, truth.videos)))
    best = recall(truth, found)
    if best < MOST:
        line = f"{best:.0%} of the annotated persons have a box with IoU {IOU}"
        for form, to_corners in _FORMS.items():
            other = recall(truth, replace(found, boxes=to_corners(found.boxes)))
            if other > max(MOST, 2 * best):
                line += f"; read as {form} {other:.0%} have"
                break
        told.append(line)
    elif classes and not _hits(truth, found, 0):
        line = "no box has the class of the annotated person that it is on"
        for shift in (1, -1):
            if _hits(truth, found, shift) > MOST:
                line += f"; with ids that are {shift:+d} most have: do they begin at {1 - shift}?"
        told.append(line)
    return told


def odd_scores(found: AVARows) -> list[str]:
    """Say what is odd about detections' scores and ids, however well they join."""
    told = []
    if zero := np.count_nonzero(found.labels == 0):
        told.append(f"{zero} rows have action_id 0: ids begin at 1")
    if not found.has_scores:
        told.append("no scores: the order of the detections is unknown, the number means little")
    elif len(found) > 1:
        low, high = found.scores.min(), found.scores.max()
        if low == high:
            what = f"all scores are {low:g}: the order of the detections is unknown"
            told.append(f"{what}; are these annotations, or person ids?")
        elif high > 1 and (np.floor(found.scores) == found.scores).all():
            what = f"the scores are whole numbers ({low:g} to {high:g}), as person ids are"
            told.append(f"{what}: is this a file of annotations?")
    return told


def low_scores(scores: np.ndarray, threshold: float) -> list[str]:
    """Say how many detected persons are below the threshold, if most are."""
    below = scores < threshold
    if not _mostly(below):
        return []
    best = f"{PERSON_KEY} {threshold:g} (highest {scores.max():.2f})"
    if below.all():
        return [f"none of {len(scores)} detected persons scores {best}"]
    return [f"{below.sum()} of {len(scores)} detected persons score less than {best}"]


def why_no_persons(rows: AVARows, are_persons: np.ndarray, threshold: float) -> list[str]:
    """Say why a file of boxes shows nobody, or hardly anybody."""
    if len(rows) and not are_persons.any():
        names = listed(rows.class_names[i] for i in np.unique(rows.labels))
        what = f"no row is a person: the class column has {names}"
        return [f"{what}; persons have an empty class or person"]
    persons = select_rows(rows, are_persons)
    told = low_scores(persons.scores, threshold)
    high = persons.scores.max(initial=0)
    if high > 1 and (np.floor(persons.scores) == persons.scores).all():
        told.append(f"the scores are whole numbers up to {high:g}: are they person ids?")
    return told


def frame_numbers(rows: AVARows) -> str:
    """Say that times are all multiples of a number, if it is one of frame rates; else ""."""
    times = np.unique(rows.timestamps)
    whole = len(times) > 2 and (times == np.floor(times)).all()
    step = int(np.gcd.reduce(times.astype(np.int64))) if whole else 0
    return f"all times are multiples of {step}: are they frame numbers?" if step > 4 else ""


def recall(truth: AVARows, found: AVARows) -> float:
    """Share of the annotated boxes that have a found one with IoU 0.5 at their keyframe."""
    pairs = _overlapping(truth, found)[0]
    return len(np.unique(pairs)) / max(len(truth), 1)


def _hits(truth: AVARows, found: AVARows, shift: int) -> float:
    """Share of the overlapping pairs in which the found class, shifted, is the annotated one."""
    mine, theirs = _overlapping(truth, found)
    hits = np.count_nonzero(truth.labels[mine] == found.labels[theirs] + shift)
    return hits / max(len(np.unique(theirs)), 1)


def _overlapping(truth: AVARows, found: AVARows) -> tuple[np.ndarray, np.ndarray]:
    """Rows of both tables, pair by pair, at one keyframe with IoU 0.5 or more."""
    places = _places(found, truth.videos)
    order = np.argsort(places, kind="stable")
    mine = _places(truth, truth.videos)
    starts = np.searchsorted(places[order], mine, side="left")
    counts = np.searchsorted(places[order], mine, side="right") - starts
    rows = np.repeat(np.arange(len(truth)), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    others = order[np.repeat(starts, counts) + np.arange(len(rows)) - first]
    a, b = truth.boxes[rows], found.boxes[others]
    sides = a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2]
    common = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    one, two, both = (np.prod(x.clip(0), axis=1) for x in (*sides, common))
    good = (both > 0) & (both >= IOU * (one + two - both))
    return rows[good], others[good]


def _places(rows: AVARows, videos: list[str], late: float = 0.0) -> np.ndarray:
    """(N,) int64: one number for video and time, in microseconds; -1 for another video."""
    numbers = {video: number for number, video in enumerate(videos)}
    codes = np.array([numbers.get(video, -1) for video in rows.videos], dtype=np.int64)
    codes = codes[rows.video_codes] if len(codes) else rows.video_codes.astype(np.int64)
    times = np.round((rows.timestamps - late) * 1e6).astype(np.int64)
    # 10^7 s are 10^13 microseconds: 900,000 videos have room
    return np.where(codes < 0, -1, codes * 10**13 + times)


def _of_boxes(rows: AVARows, what: str) -> list[str]:
    told = []
    beyond = np.any(rows.boxes > _BEYOND, axis=1)
    if _mostly(beyond):
        count = "all" if beyond.all() else f"{beyond.sum()} of {len(rows)}"
        told.append(f"{count} boxes reach beyond 1: pixels, where fractions are expected?")
    empty = np.any(rows.boxes[:, 2:] <= rows.boxes[:, :2], axis=1)
    if _mostly(empty):
        told.append(f"{empty.sum()} rows dropped, x2 <= x1 or y2 <= y1: width and height?")
    return told


def _mostly(which: np.ndarray) -> bool:
    return bool(len(which)) and which.mean() > MOST


def _share(missing: np.ndarray, what: str, none: str, some: str) -> str:
    if missing.all():
        return f"no {what} {none}"
    return f"{missing.sum()} of {len(missing)} {what}s {some}"
