"""Identities: how well persons are linked over keyframes a second apart, and what that costs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from detectron2.structures import Instances

from alphaaction_d2.data.datasets.puppets.generate import tabulate
from alphaaction_d2.data.datasets.puppets.scripts import PuppetParams, plan_video
from alphaaction_d2.structures import FoundBoxes, as_proposals
from alphaaction_d2.tracking.linking import IdentityLinker
from alphaaction_d2.tracking.tracker import PersonTracker
from benchmarks.identity_scores import IdentityScores, identity_scores
from benchmarks.measure import Row

SIZE = (640, 960)  # height, width

# Times, true ids and boxes in pixels of one video's detected persons.
Video = tuple[np.ndarray, np.ndarray, np.ndarray]


def rows(quick: bool) -> Iterator[Row]:
    """Links on Puppets with detected boxes, and the time that a crowded keyframe takes."""
    videos = detected_puppets(2 if quick else 60)
    without = link_all(videos, min_iou=0.1, box_margin=0.0, motion=False)
    scores = link_all(videos, min_iou=0.1)
    note = f"Puppets, {len(videos)} videos, 1 keyframe/s"
    yield Row(
        "true links found",
        100 * scores.link_recall,
        "%",
        100 * without.link_recall,
        "by IoU alone",
        limit=1.05,
        note=note,
        at_least=True,
    )
    yield Row(
        "found links that are true",
        100 * scores.link_precision,
        "%",
        100 * without.link_precision,
        "by IoU alone",
        limit=1.0,
        note=note,
        at_least=True,
    )
    yield Row("IDF1", 100 * scores.idf1, "%", 100 * without.idf1, "by IoU alone", note=note)
    seconds = keyframe_seconds(50, 10 if quick else 100)
    yield Row("identify 50 persons", 1e3 * seconds, "ms/keyframe", limit=10.0)


def detected_puppets(count: int) -> list[Video]:
    """Persons as the data set's imagined detector sees them: shifted, missed, and false ones."""
    params = PuppetParams(
        num_train=0, num_val=count, seed=1, seconds=30, width=96, height=64, fps=8
    )
    videos = []
    for index in range(count):
        script = plan_video(params, "val", index)
        persons = tabulate(script, np.random.default_rng([1, index]))["persons"]
        table = np.array([[float(x) for x in (*row[1:6], row[8])] for row in persons])
        videos.append((table[:, 0], table[:, 5].astype(int), table[:, 1:5] * (SIZE[::-1] * 2)))
    return videos


def link_all(videos: list[Video], **tracker: float | bool) -> IdentityScores:
    """Scores of a `PersonTracker` with these arguments, over all videos."""
    total = IdentityScores()
    linker = IdentityLinker(lambda height, width, first: PersonTracker(first_id=first, **tracker))
    for number, (times, true_ids, boxes) in enumerate(videos):
        found = np.full(len(times), -1)
        for now in np.unique(times):
            here = times == now
            found[here] = linker(str(number), now, proposals(boxes[here]))
        total += identity_scores(times, true_ids, found)
    return total


def proposals(boxes: np.ndarray) -> Instances:
    """Make proposals of boxes in pixels."""
    return as_proposals(FoundBoxes.of(boxes), boxes, SIZE)


def keyframe_seconds(persons: int, keyframes: int) -> float:
    """Median time for a keyframe with so many persons who move a little."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 0.9, (persons, 2)) * SIZE[::-1]
    linker, spent = IdentityLinker(), []
    for t in range(keyframes):
        boxes = np.concatenate([corners, corners + [30, 75]], axis=1)
        boxes += rng.normal(0, 3, boxes.shape)
        crowd = proposals(boxes)
        start = time.perf_counter()
        linker("crowd", t, crowd)
        spent.append(time.perf_counter() - start)
    return float(np.median(spent))
