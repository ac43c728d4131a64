"""detectron2's evaluator for the verbs or the nouns of EPIC-Kitchens-55.

Actions need both models: tools/evaluate_epic.py combines the files that two runs have written.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..formats.writing import write_atomically
from .collecting import CollectingEvaluator
from .epic55 import TOP, top_k_hits

logger = logging.getLogger(__name__)


class EPICEvaluator(CollectingEvaluator):
    """Top-1 and top-5 of segments, in per cent, and a file of what the model says of each.

    Results are `{"epic": {"verb top1": ...}}`. The file, `epic_verbs.npz` or `epic_nouns.npz`, has
    "uids" (N,) and "logits" (N, classes), the logarithms of the model's probabilities.
    """

    evaluator_type = "epic"

    def __init__(self, dataset_name: str, output_dir: str | Path) -> None:
        super().__init__(dataset_name, output_dir)
        self.kind = self.metadata.files.kind
        self.path = Path(output_dir, f"epic_{self.kind}s.npz")
        segments = self.metadata.files.segments()
        labels = segments.verbs if self.kind == "verb" else segments.nouns
        self._labels = dict(zip(segments.uids.tolist(), labels.tolist()))

    def _result(self, output: Mapping[str, Any]) -> tuple[int, np.ndarray]:
        rows = output["instances"]
        if not len(rows):
            raise ValueError(
                f"segment {output['image_id']}: no result (MODEL.ROI_ACTION_HEAD."
                "SCORE_THRESH_TEST has to be 0)"
            )
        return int(output["image_id"]), rows.action_scores[0].double().cpu().numpy()

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Compute the result, in the first process; None in all others."""
        scores = self._collect()
        if scores is None:
            return None
        uids = list(scores)
        if not uids:
            raise ValueError(f"{self._dataset_name}: no segment has a result")
        if len(uids) < len(self._labels):
            what = "%s: %d of %d segments, of videos that are not there, do not count"
            logger.warning(
                what, self._dataset_name, len(self._labels) - len(uids), len(self._labels)
            )
        table = np.stack([scores[uid] for uid in uids])
        labels = np.array([self._labels[uid] for uid in uids])
        tiny = np.finfo(np.float32).tiny
        columns = {"uids": np.array(uids), "logits": np.log(np.maximum(table, tiny))}
        write_atomically(self.path, lambda file: np.savez(file, **columns))
        hits = top_k_hits(table, labels, TOP)
        results: dict[str, Any] = {
            f"{self.kind} top{k}": 100 * count / len(uids) for k, count in hits.items()
        }
        text = ", ".join(f"{name} {value:.2f} %" for name, value in results.items())
        logger.info("%s: %s of %d segments; %s", self._dataset_name, text, len(uids), self.path)
        return {"epic": results}
