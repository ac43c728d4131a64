"""Evaluation on UCF101-24 and data sets in its form, as detectron2 runs it."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..formats.ucf101_24 import FRAME_RATE, UCFAnnotations, UCFDetections, write_ucf_detections
from ..formats.writing import write_atomically
from ..structures import UNKNOWN_PERSON
from .tubes import evaluate_all_tubes, video_results_as_dict, video_results_as_text
from .ucf101_24 import (
    DEFAULT_UCF_PROTOCOL,
    evaluate_ucf101_24,
    get_ucf_protocol,
    ucf_results_as_json,
    ucf_results_as_text,
)

logger = logging.getLogger(__name__)

_BOX_DECIMALS = 2  # of pixels, as in the file, which then evaluates to the number that is reported


@dataclass(frozen=True)
class _FrameResult:
    """Detections of one frame (R): boxes in pixels, labels from 0 on, scores, ids of persons."""

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    person_ids: np.ndarray


class UCFEvaluator(DatasetEvaluator):
    """Frame mAP at IoU 0.5 and video mAP of UCF101-24.

    Ground truth is what the data set's metadata have as `annotations`: all videos of the split,
    also those that are not on disk. Results do not depend on the batch size, the number of workers,
    or the order of the videos; a frame that comes again counts once.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | os.PathLike | None = None,
        *,
        protocol: str = DEFAULT_UCF_PROTOCOL,
    ) -> None:
        """
        Args:
            dataset_name: name of a registered data set.
            output_dir: folder for `ucf101_24_detections.csv.gz` and `ucf101_24_results.json`; None
                writes no files.
            protocol: which of the published evaluators to follow, see `UCF_PROTOCOLS`.

        Raises:
            ValueError: the data set is of another kind, or the protocol is unknown.
        """
        metadata = MetadataCatalog.get(dataset_name)
        if metadata.get("evaluator_type") != "ucf101_24":
            raise ValueError(
                f"data set {dataset_name!r}: evaluator_type is {metadata.get('evaluator_type')!r}, "
                "UCFEvaluator needs 'ucf101_24' (is the data set registered?)"
            )
        self._dataset_name = dataset_name
        self._annotations: UCFAnnotations = metadata.annotations
        self._protocol = get_ucf_protocol(protocol).name
        self._output_dir = None if output_dir is None else Path(output_dir)
        self._results: dict[tuple[str, int], _FrameResult] = {}

    def reset(self) -> None:
        """Forget all results."""
        self._results = {}

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Take in detections of frames.

        Args:
            inputs: the model's inputs, which are not looked at: see `AVAEvaluator`.
            outputs: a dict per frame: `video_id`, `timestamp` in seconds, and `instances` with
                `pred_boxes` in pixels of the video, `scores`, `pred_classes` and, if persons are
                known, `person_ids`, a row per person and action.

        Raises:
            ValueError: boxes or scores are not finite.
        """
        for output in outputs:
            instances = output["instances"].to("cpu")
            boxes = instances.pred_boxes.tensor.numpy().astype(np.float64).round(_BOX_DECIMALS)
            scores = instances.scores.numpy().astype(np.float32)
            frame = round(output["timestamp"] * FRAME_RATE)
            if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
                raise ValueError(
                    f"frame {frame} of {output['video_id']}: the model's boxes or scores are not "
                    "finite numbers"
                )
            key = str(output["video_id"]), frame
            labels = instances.pred_classes.numpy().astype(np.int16)
            ids = np.full(len(instances), UNKNOWN_PERSON)
            if instances.has("person_ids"):  # other models know nobody
                ids = instances.person_ids.numpy()
            self._results.setdefault(key, _FrameResult(boxes, labels, scores, ids))

    def evaluate(self) -> OrderedDict[str, dict[str, float]]:
        """Score everything that was processed, by all workers.

        Returns:
            `{"ucf101_24": {...}}` in per cent: "frame_mAP@0.5", "video_mAP@0.2" and so on of tubes
            made from identities, "linked_video_mAP@0.2" and so on of those made by linking, and
            "AP/<class name>" of frames for each class. Empty on all workers but the first.
        """
        comm.synchronize()
        gathered = comm.gather(self._results, dst=0)
        if not comm.is_main_process():
            return OrderedDict()
        results: dict[tuple[str, int], _FrameResult] = {}
        for worker in reversed(gathered):
            results |= worker
        detections = self._as_rows(results)
        if not len(detections.labels):
            logger.warning("%s: there are no predictions to evaluate", self._dataset_name)
        frames = evaluate_ucf101_24(self._annotations, detections, self._protocol)
        tubes = evaluate_all_tubes(self._annotations, detections, self._protocol)
        if self._output_dir is not None:
            self._output_dir.mkdir(parents=True, exist_ok=True)
            write_ucf_detections(self._output_dir / "ucf101_24_detections.csv.gz", detections)
            text = ucf_results_as_json(frames, **video_results_as_dict(tubes))
            write_atomically(self._output_dir / "ucf101_24_results.json", text)
        text = f"{ucf_results_as_text(frames)}\n{video_results_as_text(tubes)}"
        logger.info("Results on %s:\n%s", self._dataset_name, text)
        numbers = {f"frame_mAP@{frames.iou_threshold:g}": 100 * frames.mean_ap}
        for result in tubes:
            prefix = "linked_" if result.tubes == "linked" else ""
            numbers |= {f"{prefix}video_mAP@{x}": 100 * ap for x, ap in result.numbers.items()}
        numbers |= {f"AP/{x}": 100 * ap for x, ap in zip(frames.class_names, frames.ap)}
        return OrderedDict(ucf101_24=numbers)

    def _as_rows(self, results: dict[tuple[str, int], _FrameResult]) -> UCFDetections:
        """Join frames to one table, by video and time."""
        keys = sorted(results)
        parts = [results[key] for key in keys]
        videos = sorted({video for video, _ in keys})
        places = {video: i for i, video in enumerate(videos)}
        lengths = [len(part.labels) for part in parts]

        def column(name: str, empty: np.ndarray) -> np.ndarray:
            return np.concatenate([empty, *(getattr(part, name) for part in parts)])

        return UCFDetections(
            videos=videos,
            video_codes=np.repeat(np.array([places[v] for v, _ in keys], np.int64), lengths),
            frames=np.repeat(np.array([k + 1 for _, k in keys], np.int64), lengths),
            boxes=column("boxes", np.zeros((0, 4))),
            labels=column("labels", np.zeros(0, np.int64)),
            scores=column("scores", np.zeros(0, np.float32)),
            source=f"the results on {self._dataset_name}",
            person_ids=column("person_ids", np.zeros(0, np.int64)),
        )
