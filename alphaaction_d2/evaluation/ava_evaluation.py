"""Evaluation on data sets in AVA's format, as detectron2 runs it."""

from __future__ import annotations

import logging
import math
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from detectron2.data import DatasetCatalog
from detectron2.utils.logger import log_first_n

from ..formats.ava import AVARows, duplicates, write_ava_results
from ..formats.ava_scores import write_ava_scores
from ..formats.joins import low_scores, why_unjoined
from ..formats.label_map import LabelMap
from .ava_protocol import evaluate_ava, group_ap, read_rows, results_as_json, results_as_text
from .average_precision import DEFAULT_AVA_PROTOCOL, get_protocol
from .collecting import CollectingEvaluator, DetectedRows, as_columns

logger = logging.getLogger(__name__)

# Boxes are kept with the decimals that the result file gets, so that the file evaluates to the very
# number that is reported. A millionth of the frame's size is a 500th of a pixel in full HD.
_BOX_DECIMALS = 6


class AVAEvaluator(CollectingEvaluator):
    """Frame mAP at IoU 0.5 of a data set in AVA's format.

    It needs in the data set's metadata: `label_map` (a `LabelMap`: the classes that count),
    `annotation_file` (CSV of the ground truth; None for a test set without one, of which only the
    CSV for the server is written) and, optionally, `excluded` (a set of (video id, second)),
    `official` and `loaded`, see `register_ava`: own data is scored with the rows that were loaded,
    not with the file's.

    Outputs are dicts with `video_id`, `timestamp` in seconds, `height` and `width` of the video,
    and `instances` with `pred_boxes` in its pixels, `scores`, and `pred_classes` (action id - 1), a
    row per person and action.
    """

    evaluator_type = "ava"

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | os.PathLike | None = None,
        *,
        protocol: str = DEFAULT_AVA_PROTOCOL,
        min_person_score: float = -math.inf,
    ):
        """Begin without results; ValueError or FileNotFoundError for metadata, protocol or
        annotations that are not what they should be.

        Args:
            output_dir: folder for `ava_detections.csv` (in AVA's format), `ava_detections.npz` (the
                same, to be averaged with others) and `ava_results.json`; None writes no files.
            protocol: which of the published evaluators to follow, see `AVA_PROTOCOLS`.
            min_person_score: INPUT.PERSON_SCORE_THRESH_TEST, to name it where it leaves nobody.
        """
        super().__init__(dataset_name, output_dir)
        metadata = self.metadata
        for key in ("label_map", "annotation_file"):
            if not hasattr(metadata, key):
                raise ValueError(f"data set {dataset_name!r}: its metadata has no {key!r}")
        self._label_map: LabelMap = metadata.label_map
        self._excluded = set(metadata.get("excluded") or ())
        self._protocol = get_protocol(protocol).name
        # here and not in evaluate(): a bad file is better found before hours of testing
        self._ground_truth: AVARows | None = None
        if not metadata.get("official", True):
            if not metadata.loaded:
                DatasetCatalog.get(dataset_name)
            self._ground_truth = metadata.loaded["annotations"]
        elif metadata.annotation_file is not None:
            self._ground_truth = read_rows(metadata.annotation_file, "annotations", protocol)
            again = int(duplicates(self._ground_truth).sum())
            if again:
                what = "%s: %d rows of %s come twice; as in the official evaluation each counts"
                logger.warning(what, dataset_name, again, metadata.annotation_file)
        self._min_person_score = min_person_score
        persons = metadata.get("loaded", {}).get("persons")
        self._odd_persons: list[str] = []
        if persons is not None:
            self._odd_persons = low_scores(persons.scores, min_person_score)
            if self._ground_truth is not None:
                self._odd_persons += why_unjoined(
                    self._ground_truth, persons, what="detected person"
                )
        for why in self._odd_persons:  # once: a run is tested again and again
            log_first_n(logging.WARNING, f"{dataset_name}: {why}", key="message", name=__name__)

    def _result(self, output: Mapping[str, Any]) -> tuple[tuple[str, float], DetectedRows]:
        for field in ("video_id", "timestamp", "height", "width"):
            if output.get(field) is None:
                raise ValueError(f"a model output has no {field!r}, and no input of its own to ask")
        where = f"{output['video_id']} at {output['timestamp']} s"
        rows = DetectedRows.of(output, where)
        labels, num_classes = rows.labels + 1, self._label_map.num_classes
        if len(labels) and not 1 <= labels.min() <= labels.max() <= num_classes:
            raise ValueError(
                f"{where}: the model gives the action ids {labels.min()} to {labels.max()}, "
                f"the label map of {self._dataset_name!r} has 1 to {num_classes}"
            )
        width, height = float(output["width"]), float(output["height"])
        boxes = (rows.boxes / (width, height, width, height)).clip(0, 1).round(_BOX_DECIMALS)
        key = str(output["video_id"]), float(output["timestamp"])
        return key, rows._replace(boxes=boxes, labels=labels)

    def evaluate(self) -> OrderedDict[str, dict[str, float]]:
        """Score everything that was processed, by all workers: `{"ava": {...}}` in per cent.

        These are "mAP@0.5", "AP-<group>" for each group of classes and "AP/<class name>" for each
        class (NaN for those without ground truth). Empty on all workers but the first, and without
        ground truth.
        """
        results = self._collect()
        if results is None:
            return OrderedDict()
        columns = as_columns(results)
        detections = AVARows(timestamps=columns.pop("times"), **columns)
        if not len(detections):
            why = self._odd_persons or ["there are no predictions to evaluate"]
            logger.warning("%s: %s", self._dataset_name, why[0])

        if self._output_dir is not None:
            self._output_dir.mkdir(parents=True, exist_ok=True)
            write_ava_results(self._output_dir / "ava_detections.csv", detections)
            write_ava_scores(self._output_dir / "ava_detections.npz", detections)
        if self._ground_truth is None:
            logger.info("%s has no ground truth to score with", self._dataset_name)
            return OrderedDict()
        result = evaluate_ava(
            self._ground_truth,
            detections,
            self._label_map,
            excluded=self._excluded,
            protocol=self._protocol,
        )
        if not len(detections) and self._odd_persons:
            result = replace(result, notes=tuple(self._odd_persons))
        elif len(detections):
            for note in result.notes:
                logger.warning("%s: %s", self._dataset_name, note)
        if self._output_dir is not None:
            json_file = self._output_dir / "ava_results.json"
            json_file.write_text(results_as_json(result, self._label_map), encoding="utf-8")
        logger.info(
            "Results on %s:\n%s", self._dataset_name, results_as_text(result, self._label_map)
        )

        numbers = {f"mAP@{result.iou_threshold:g}": 100 * result.mean_ap}
        for group, ap in group_ap(result, self._label_map).items():
            numbers[f"AP-{group}"] = 100 * ap
        for action_id, ap in result.ap.items():
            numbers[f"AP/{self._label_map.names[action_id]}"] = 100 * ap
        return OrderedDict(ava=numbers)
