"""Identities for streams of clips and for whole data sets, by whichever tracker is configured.

Shape letters: R persons of a keyframe, C feature channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Instances
from detectron2.tracking import TRACKER_HEADS_REGISTRY, BaseTracker, build_tracker_head

from ..structures import UNKNOWN_PERSON, AnnotatedPersons, FoundBoxes, as_proposals
from .tracker import PersonTracker

FIRST_NEW_ID = 1

# (height, width, first new id) -> a tracker for one video of that size
BuildTracker = Callable[[int, int, int], BaseTracker]


def default_tracker(height: int, width: int, first_id: int) -> BaseTracker:
    """Make a :class:`PersonTracker` with its own defaults."""
    return PersonTracker(first_id=first_id)


class IdentityLinker:
    """Ids for the persons of clips that come one at a time: video after video, each in time order.

    Any tracker of detectron2's registry will do. A tracker is told the fields that it names in an
    attribute `reads`; one that has none gets `pred_boxes`, `scores` and `pred_classes` of the
    persons without an id, as detectron2's own expect, and its count goes on from the first new id.

    Only the live tracks of one video are held. Results depend on nothing but the persons of the
    video so far, so a part of a video gets the ids that it gets as part of the whole.
    """

    def __init__(
        self, build_tracker: BuildTracker = default_tracker, keep_given: bool = True
    ) -> None:
        """Unless with `keep_given`, persons who come with an id are identified anew, too."""
        self.build_tracker = build_tracker
        self.keep_given = keep_given
        self.reset()

    def reset(self) -> None:
        """Forget the video: what comes next belongs to another one."""
        self._video: str | None = None
        self._tracker: BaseTracker | None = None
        self._first_id = FIRST_NEW_ID

    def __call__(
        self, video_id: str, timestamp: float, persons: Instances, first_id: int = FIRST_NEW_ID
    ) -> np.ndarray:
        """Identify the persons of the next keyframe.

        Args:
            video_id: another one than before begins another video.
            persons: `proposal_boxes`, in the same pixels for all of a video, `objectness_logits`,
                `person_ids` (-1 where nothing is known) and, for a tracker that looks at the
                appearance, `roi_features` (R, C).
            first_id: lowest new id of this video, see :func:`first_new_id`. Only its first keyframe
                is asked.

        Returns:
            (R,) int64 ids, each once; -1 where a foreign tracker knows none.

        Raises:
            ValueError: time runs backwards.
        """
        if self._tracker is None or video_id != self._video:
            self._video, self._first_id = video_id, first_id
            height, width = persons.image_size
            self._tracker = self.build_tracker(height, width, first_id)
        n = len(persons)
        seen = Instances(
            persons.image_size,
            pred_boxes=persons.proposal_boxes.to("cpu"),
            scores=persons.objectness_logits.cpu(),
            pred_classes=torch.zeros(n, dtype=torch.int64),
        )
        given = persons.person_ids.cpu() if self.keep_given else torch.full((n,), UNKNOWN_PERSON)
        reads = getattr(self._tracker, "reads", ())
        if "timestamps" in reads:
            seen.timestamps = torch.full((n,), float(timestamp), dtype=torch.float64)
        if "roi_features" in reads and persons.has("roi_features"):
            seen.roi_features = persons.roi_features.detach().cpu()
        if "person_ids" in reads:
            seen.person_ids = given
            return np.array(self._tracker.update(seen).ID, dtype=np.int64)
        # a tracker that knows nothing of given ids sees the other persons only
        ids = given.numpy().copy()
        rows = np.flatnonzero(ids < 0)
        ids[rows] = UNKNOWN_PERSON
        tracked = self._tracker.update(seen[torch.from_numpy(rows)])
        # detectron2's trackers list the persons whom they have lost sight of behind these.
        taken = set(ids.tolist())
        for row, number in zip(rows, tracked.ID):
            if number is not None and self._first_id + int(number) not in taken:
                ids[row] = self._first_id + int(number)
                taken.add(int(ids[row]))
        return ids


def build_identity_linker(cfg: CfgNode) -> IdentityLinker | None:
    """Build the linker of `cfg.TRACKER_HEADS`; None when no tracker is named: ids are as given."""
    node = cfg.TRACKER_HEADS
    if not node.TRACKER_NAME:
        return None
    if node.TRACKER_NAME not in TRACKER_HEADS_REGISTRY:
        known = ", ".join(sorted(name for name, _ in TRACKER_HEADS_REGISTRY))
        raise ValueError(
            f"TRACKER_HEADS.TRACKER_NAME {node.TRACKER_NAME!r} is not registered; there are: "
            f"{known}; or '' for none"
        )

    def build(height: int, width: int, first_id: int) -> BaseTracker:
        of_video = cfg.clone()
        of_video.defrost()
        sizes = {"VIDEO_HEIGHT": height, "VIDEO_WIDTH": width}
        of_video.TRACKER_HEADS.update(sizes, FIRST_ID=first_id)
        return build_tracker_head(of_video)

    return IdentityLinker(build, keep_given=node.KEEP_GIVEN_IDS)


def first_new_id(person_ids: Iterable[int]) -> int:
    """Find the lowest id for new persons of a video in which these ids are given."""
    return max([FIRST_NEW_ID, *(int(i) + 1 for i in person_ids)])


def link_dataset(records: list[dict], linker: IdentityLinker | None = None) -> list[dict]:
    """Copy dataset dicts of whole videos, in any order, with ids for the persons who have none.

    The detected persons (`persons`) and the annotated ones (`annotations`) are linked each by
    themselves, by their boxes alone; ids that are there stay.
    """
    linker = linker or IdentityLinker()
    results = [dict(record) for record in records]
    seen = {i: x["persons"] for i, x in enumerate(records) if "persons" in x}
    for i, ids in _linked(records, seen, linker):
        results[i]["persons"] = replace(records[i]["persons"], ids=ids)
    annotated = {i: AnnotatedPersons.of(x) for i, x in enumerate(records) if "annotations" in x}
    seen = {i: x.found(records[i]["width"], records[i]["height"]) for i, x in annotated.items()}
    for i, ids in _linked(records, seen, linker):
        ids_of = iter(ids[annotated[i].rows].tolist())
        for part in ("annotations", "negatives"):
            if part in records[i]:
                results[i][part] = [{**a, "person_id": next(ids_of)} for a in records[i][part]]
    return results


def _linked(
    records: list[dict], persons: dict[int, FoundBoxes], linker: IdentityLinker
) -> Iterable[tuple[int, np.ndarray]]:
    """Yield record number and ids, by video and time, of the records that have persons."""
    given: dict[str, set[int]] = {}
    for i, found in persons.items():
        if linker.keep_given:
            given.setdefault(str(records[i]["video_id"]), set()).update(found.ids.tolist())
    linker.reset()
    for i in sorted(persons, key=lambda i: (str(records[i]["video_id"]), records[i]["timestamp"])):
        video, size = str(records[i]["video_id"]), (records[i]["height"], records[i]["width"])
        proposals = as_proposals(persons[i], persons[i].in_pixels(*size[::-1]), size)
        first_id = first_new_id(given.get(video, ()))
        yield i, linker(video, records[i]["timestamp"], proposals, first_id)
    linker.reset()
