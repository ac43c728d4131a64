"""Evaluation on UCF101-24 and data sets in its form, as detectron2 runs it."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..formats.ucf101_24 import FRAME_RATE, UCFDetections, write_ucf_detections
from ..formats.writing import write_atomically
from .collecting import CollectingEvaluator, DetectedRows, as_columns
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


class UCFEvaluator(CollectingEvaluator):
    """Frame mAP at IoU 0.5 and video mAP of UCF101-24.

    Ground truth is what the data set's metadata have as `annotations`: all videos of the split,
    also those that are not on disk. Outputs are dicts with `video_id`, `timestamp` in seconds, and
    `instances` with `pred_boxes` in pixels of the video, `scores`, `pred_classes` and, if persons
    are known, `person_ids`, a row per person and action.
    """

    evaluator_type = "ucf101_24"

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | os.PathLike | None = None,
        *,
        protocol: str = DEFAULT_UCF_PROTOCOL,
    ) -> None:
        """Begin without results; ValueError for a data set of another kind or an unknown protocol
        (see `UCF_PROTOCOLS`). Files in `output_dir`, if there is one, are
        `ucf101_24_detections.csv.gz` and `ucf101_24_results.json`."""
        super().__init__(dataset_name, output_dir)
        self._protocol = get_ucf_protocol(protocol).name

    def _result(self, output: Mapping[str, Any]) -> tuple[tuple[str, int], DetectedRows]:
        key = str(output["video_id"]), round(output["timestamp"] * FRAME_RATE)
        rows = DetectedRows.of(output, f"frame {key[1]} of {key[0]}")
        return key, rows._replace(boxes=rows.boxes.round(_BOX_DECIMALS))

    def evaluate(self) -> OrderedDict[str, dict[str, float]]:
        """Score everything that was processed, by all workers: `{"ucf101_24": {...}}` in per cent.

        These are "frame_mAP@0.5", "video_mAP@0.2" and so on of tubes made from identities,
        "linked_video_mAP@0.2" and so on of those made by linking, and "AP/<class name>" of frames
        for each class. Empty on all workers but the first.
        """
        results = self._collect()
        if results is None:
            return OrderedDict()
        columns = as_columns(results)
        detections = UCFDetections(
            frames=columns.pop("times").astype(np.int64) + 1,
            source=f"the results on {self._dataset_name}",
            **columns,
        )
        if not len(detections.labels):
            logger.warning("%s: there are no predictions to evaluate", self._dataset_name)
        frames = evaluate_ucf101_24(self.metadata.annotations, detections, self._protocol)
        tubes = evaluate_all_tubes(self.metadata.annotations, detections, self._protocol)
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
