"""Evaluation on data sets in AVA's format, as detectron2 runs it."""

from __future__ import annotations

import logging
import math
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.logger import log_first_n

from ..formats.ava import AVARows, duplicates, write_ava_results
from ..formats.ava_scores import write_ava_scores
from ..formats.joins import low_scores, why_unjoined
from ..formats.label_map import LabelMap
from .ava_protocol import evaluate_ava, group_ap, read_rows, results_as_json, results_as_text
from .average_precision import DEFAULT_AVA_PROTOCOL, accepts_dialect, get_protocol

logger = logging.getLogger(__name__)

# Boxes are kept with the decimals that the result file gets, so that the file evaluates to the very
# number that is reported. A millionth of the frame's size is a 500th of a pixel in full HD.
_BOX_DECIMALS = 6


@dataclass(frozen=True)
class _KeyframeResult:
    """Detections of one keyframe: boxes (R, 4) in [0, 1], labels (R,), float32 scores (R,)."""

    video_id: str
    timestamp: float
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


class AVAEvaluator(DatasetEvaluator):
    """Frame mAP at IoU 0.5 of a data set in AVA's format.

    It needs in the data set's metadata: `evaluator_type` "ava", `label_map` (a
    `LabelMap`: the classes that count), `annotation_file` (CSV
    of the ground truth; None for a test set without one, of which only the CSV for the server is
    written) and, optionally, `excluded` (a set of (video id, second)), `official` and `loaded`,
    see `register_ava`: own data is scored with the rows that were loaded, not with the file's.

    Results do not depend on the batch size, the number of workers, or the order of the videos.
    Every keyframe counts once, however often a sampler has repeated it.
    """

    @accepts_dialect
    def __init__(
        self,
        dataset_name: str,
        output_dir: str | os.PathLike | None = None,
        *,
        protocol: str = DEFAULT_AVA_PROTOCOL,
        distributed: bool = True,
        min_person_score: float = -math.inf,
    ):
        """
        Args:
            dataset_name: name of a registered data set.
            output_dir: folder for `ava_detections.csv` (in AVA's format), `ava_detections.npz` (the
                same, to be averaged with others) and `ava_results.json`; None writes no files.
            protocol: which of the published evaluators to follow, see
                `AVA_PROTOCOLS`.
            min_person_score: INPUT.PERSON_SCORE_THRESH_TEST, to name it where it leaves nobody.
            distributed: gather the results of all workers; False evaluates this worker's alone.

        Raises:
            ValueError: if metadata, protocol or annotations are not what they should be.
            FileNotFoundError: if there is no annotation file.
        """
        metadata = MetadataCatalog.get(dataset_name)
        if metadata.get("evaluator_type") != "ava":
            raise ValueError(
                f"data set {dataset_name!r}: evaluator_type is {metadata.get('evaluator_type')!r}, "
                "AVAEvaluator needs 'ava' (is the data set registered?)"
            )
        for key in ("label_map", "annotation_file"):
            if not hasattr(metadata, key):
                raise ValueError(f"data set {dataset_name!r}: its metadata has no {key!r}")
        self._dataset_name = dataset_name
        self._label_map: LabelMap = metadata.label_map
        self._excluded = set(metadata.get("excluded") or ())
        self._output_dir = None if output_dir is None else Path(output_dir)
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
        self._distributed = distributed
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
        self._results: list[_KeyframeResult] = []

    def reset(self) -> None:
        """Forget all results."""
        self._results = []

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Take in detections of keyframes.

        Args:
            inputs: the model's inputs. A model that waits for later clips answers with results of
                earlier inputs, or of none: `inputs` are only asked for what the output in the
                same place does not say.
            outputs: a dict per keyframe: `video_id`, `timestamp` in seconds, `height` and
                `width` of the video, and `instances` with `pred_boxes` in its pixels,
                `scores`, and `pred_classes` (action id - 1), a row per person and action.

        Raises:
            ValueError: if an output lacks something, has numbers that are not finite, or has
                classes that are not in the label map's range.
        """
        for i, output in enumerate(outputs):
            self._results.append(
                self._keyframe_result(output, inputs[i] if i < len(inputs) else {})
            )

    def _keyframe_result(
        self, output: Mapping[str, Any], fallback: Mapping[str, Any]
    ) -> _KeyframeResult:
        fields = {}
        for key in ("video_id", "timestamp", "height", "width"):
            value = output.get(key, fallback.get(key))
            if value is None:
                raise ValueError(f"a model output has no {key!r}, and no input of its own to ask")
            fields[key] = value
        where = f"{fields['video_id']} at {fields['timestamp']} s"
        instances = output["instances"]
        boxes = instances.pred_boxes.tensor.detach().cpu().double().numpy().reshape(-1, 4)
        scores = instances.scores.detach().cpu().float().numpy()
        labels = instances.pred_classes.detach().cpu().numpy() + 1
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise ValueError(f"{where}: the model's boxes or scores are not finite numbers")
        num_classes = self._label_map.num_classes
        if len(labels) and not 1 <= labels.min() <= labels.max() <= num_classes:
            raise ValueError(
                f"{where}: the model gives the action ids {labels.min()} to {labels.max()}, "
                f"the label map of {self._dataset_name!r} has 1 to {num_classes}"
            )
        width, height = float(fields["width"]), float(fields["height"])
        boxes = (boxes / (width, height, width, height)).clip(0, 1).round(_BOX_DECIMALS)
        return _KeyframeResult(
            video_id=str(fields["video_id"]),
            timestamp=float(fields["timestamp"]),
            boxes=boxes,
            labels=labels.astype(np.int32),
            scores=scores,
        )

    def evaluate(self) -> OrderedDict[str, dict[str, float]]:
        """Score everything that was processed, by all workers.

        Returns:
            `{"ava": {...}}` in per cent: "mAP@0.5", "AP-<group>" for each group of classes and
            "AP/<class name>" for each class (NaN for those without ground truth). Empty on all
            workers but the first, and without ground truth.
        """
        results = self._results
        if self._distributed:
            comm.synchronize()
            gathered = comm.gather(results, dst=0)
            if not comm.is_main_process():
                return OrderedDict()
            results = [result for worker in gathered for result in worker]
        detections = _as_rows(results)
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


def _as_rows(results: list[_KeyframeResult]) -> AVARows:
    """Join keyframes to one table, by video and time; one that came twice counts once."""
    by_keyframe: dict[tuple[str, float], _KeyframeResult] = {}
    for result in results:
        by_keyframe.setdefault((result.video_id, result.timestamp), result)
    results = [by_keyframe[key] for key in sorted(by_keyframe)]
    videos = sorted({result.video_id for result in results})
    codes = {video: code for code, video in enumerate(videos)}
    lengths = [len(result.labels) for result in results]
    num_rows = sum(lengths)

    def per_row(values: list, dtype: type) -> np.ndarray:
        return np.repeat(np.array(values, dtype=dtype), lengths)

    return AVARows(
        videos=videos,
        video_codes=per_row([codes[result.video_id] for result in results], np.int32),
        timestamps=per_row([result.timestamp for result in results], np.float64),
        boxes=np.concatenate([np.zeros((0, 4)), *(result.boxes for result in results)]),
        labels=np.concatenate([np.zeros(0, np.int64), *(result.labels for result in results)]),
        scores=np.concatenate([np.zeros(0, np.float32), *(result.scores for result in results)]),
        person_ids=np.full(num_rows, -1),
    )
