"""What detectron2's evaluators share: results of all workers in one place, each once."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..structures import UNKNOWN_PERSON


class CollectingEvaluator(DatasetEvaluator):
    """Results do not depend on the batch size, the number of workers, or the order of the videos;
    what a sampler has repeated counts once."""

    evaluator_type = ""  # of the data sets it is for

    def __init__(self, dataset_name: str, output_dir: str | os.PathLike | None) -> None:
        """Begin without results of a registered data set; ValueError for one of another kind.
        Without an `output_dir` no files are written."""
        self.metadata = MetadataCatalog.get(dataset_name)
        kind = self.metadata.get("evaluator_type")
        if kind != self.evaluator_type:
            raise ValueError(
                f"data set {dataset_name!r}: evaluator_type is {kind!r}, {type(self).__name__} "
                f"needs {self.evaluator_type!r} (is the data set registered?)"
            )
        self._dataset_name = dataset_name
        self._output_dir = None if output_dir is None else Path(output_dir)
        self._results: dict[Any, Any] = {}

    def reset(self) -> None:
        """Forget all results."""
        self._results = {}

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Take in results; ValueError for one that lacks something, or holds what cannot be.

        A model that waits for later clips answers with results of earlier inputs, or of none:
        `inputs` are only asked for what the output in the same place does not say.
        """
        for i, output in enumerate(outputs):
            key, result = self._result({**(inputs[i] if i < len(inputs) else {}), **output})
            self._results.setdefault(key, result)

    @abstractmethod
    def _result(self, output: Mapping[str, Any]) -> tuple[Any, Any]:
        """Give what is kept of an output, and the key that tells it from others."""

    def _collect(self) -> dict[Any, Any] | None:
        """Give the results of all workers in the order of their keys; None in all but the first."""
        comm.synchronize()
        gathered = comm.gather(self._results, dst=0)
        if not comm.is_main_process():
            return None
        results: dict[Any, Any] = {}
        for worker in reversed(gathered):
            results |= worker
        return {key: results[key] for key in sorted(results)}


class DetectedRows(NamedTuple):
    """Detections of one keyframe, a row per person and action."""

    boxes: np.ndarray  # (R, 4) float64
    labels: np.ndarray  # (R,) int64
    scores: np.ndarray  # (R,) float32
    person_ids: np.ndarray  # (R,) int64, -1 where nobody knows

    @classmethod
    def of(cls, output: Mapping[str, Any], where: str) -> DetectedRows:
        """Take the rows of a model's output, called `where` in the ValueError for numbers that are
        not finite."""
        instances = output["instances"].to("cpu")
        boxes = instances.pred_boxes.tensor.detach().double().numpy().reshape(-1, 4)
        scores = instances.scores.detach().float().numpy()
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise ValueError(f"{where}: the model's boxes or scores are not finite numbers")
        ids = np.full(len(instances), UNKNOWN_PERSON)
        if instances.has("person_ids"):  # other models know nobody
            ids = instances.person_ids.numpy()
        return cls(boxes, instances.pred_classes.numpy().astype(np.int64), scores, ids)


def as_columns(results: Mapping[tuple[str, float], DetectedRows]) -> dict[str, Any]:
    """Join keyframes, by video and time, to the columns of one table."""
    videos = sorted({video for video, _ in results})
    codes = {video: code for code, video in enumerate(videos)}
    nothing = DetectedRows(
        np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int64)
    )
    columns = map(np.concatenate, zip(nothing, *results.values()))
    lengths = [len(rows.labels) for rows in results.values()]
    return {
        "videos": videos,
        "video_codes": np.repeat(np.array([codes[v] for v, _ in results], np.int64), lengths),
        "times": np.repeat(np.array([time for _, time in results], np.float64), lengths),
        **dict(zip(DetectedRows._fields, columns)),
    }
