"""How well predicted identities agree with true ones.

Pure functions. The rows of all arrays are the persons of one video, n in number, in any order.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment


@dataclass(frozen=True)
class IdentityScores:
    """Counts, which add up over videos, and the figures that follow from them.

    A link joins a person with the next appearance of the same id.

    Attributes:
        boxes: rows with a true id. predicted: rows with a predicted id.
        matched: rows that agree under the best one-to-one pairing of true and predicted ids.
        switches: how often a person's predicted id differs from that of the appearance before.
        fragments: predicted ids beyond the first, summed over persons.
        merges: persons beyond the first, summed over predicted ids.
        true_links, predicted_links, common_links: links of the true ids, of the predicted ones,
            and those that are both.
    """

    boxes: int = 0
    predicted: int = 0
    matched: int = 0
    switches: int = 0
    fragments: int = 0
    merges: int = 0
    true_links: int = 0
    predicted_links: int = 0
    common_links: int = 0

    def __add__(self, other: IdentityScores) -> IdentityScores:
        return IdentityScores(*(a + b for a, b in zip(astuple(self), astuple(other))))

    @property
    def idf1(self) -> float:
        """2 matched / (boxes + predicted); 1 when there is nothing to match."""
        return _ratio(2 * self.matched, self.boxes + self.predicted)

    @property
    def link_precision(self) -> float:
        """Share of the predicted links that are true."""
        return _ratio(self.common_links, self.predicted_links)

    @property
    def link_recall(self) -> float:
        """Share of the true links that are predicted."""
        return _ratio(self.common_links, self.true_links)


def identity_scores(
    times: np.ndarray, true_ids: np.ndarray, predicted_ids: np.ndarray
) -> IdentityScores:
    """Compare the identities of one video.

    Args:
        times: (n,) of the keyframes.
        true_ids: (n,) ids, -1 for a false box.
        predicted_ids: (n,) ids, -1 for a person who was missed or has none.
    """
    times, true_ids, predicted_ids = (np.asarray(x) for x in (times, true_ids, predicted_ids))
    counts = _overlaps(true_ids, predicted_ids)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    true_links, predicted_links = _links(times, true_ids), _links(times, predicted_ids)
    together = (true_ids >= 0) & (predicted_ids >= 0)
    switches = sum(
        predicted_ids[i] != predicted_ids[j]
        for i, j in _links(times, np.where(together, true_ids, -1))
    )
    return IdentityScores(
        boxes=int((true_ids >= 0).sum()),
        predicted=int((predicted_ids >= 0).sum()),
        matched=int(counts[rows, columns].sum()),
        switches=int(switches),
        fragments=int(np.clip((counts > 0).sum(axis=1) - 1, 0, None).sum()),
        merges=int(np.clip((counts > 0).sum(axis=0) - 1, 0, None).sum()),
        true_links=len(true_links),
        predicted_links=len(predicted_links),
        common_links=len(true_links & predicted_links),
    )


def _overlaps(true_ids: np.ndarray, predicted_ids: np.ndarray) -> np.ndarray:
    """(true ids, predicted ids) rows that have both."""
    both = (true_ids >= 0) & (predicted_ids >= 0)
    true_names, true_index = np.unique(true_ids[both], return_inverse=True)
    names, index = np.unique(predicted_ids[both], return_inverse=True)
    counts = np.zeros((len(true_names), len(names)), dtype=np.int64)
    np.add.at(counts, (true_index, index), 1)
    return counts


def _links(times: np.ndarray, ids: np.ndarray) -> set[tuple[int, int]]:
    """Row numbers of consecutive appearances of the same known id."""
    order = np.lexsort((times, ids))
    order = order[ids[order] >= 0]
    same = ids[order[1:]] == ids[order[:-1]]
    return {(int(i), int(j)) for i, j in zip(order[:-1][same], order[1:][same])}


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
