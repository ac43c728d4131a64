"""An exported model in the place of a network: the same predictions from its graphs."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.structures import Instances

from ..config import Groups, add_alphaaction_config, set_classes
from ..data.dataset_mapper import ActionDatasetMapper
from ..deploy import Description, KeyframeScores, Runner
from ..deploy.description import FEATURES
from ..formats.config_files import merge_overrides
from ..modeling.action_output import action_inference
from ..modeling.detector import configured_detector
from ..structures import as_boxes
from ..tracking.linking import first_new_id
from .box_sources import BoxSource
from .predictor import VideoPredictor
from .stopwatch import Stopwatch

# What may still be chosen: who is looked at.
_AROUND = ("INPUT.PERSON_SCORE_THRESH_TEST", "MODEL.DEVICE")


def exported_cfg(folder: str, opts: list[str]) -> CfgNode:
    """Configure what is around an exported model: persons, their score, the number of classes."""
    cfg = get_cfg()
    add_alphaaction_config(cfg)
    known = Description.read(folder)
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE, cfg.INPUT.FORMAT = folder, "cpu", "RGB"
    cfg.INPUT.PERSON_SCORE_THRESH_TEST = known.min_person_score
    set_classes(cfg, Groups(("action",), (len(known.class_names),), ()))
    merge_overrides(cfg, opts)
    for key in opts[::2]:
        if key not in _AROUND and not key.startswith("MODEL.PERSON_DETECTOR."):
            raise ValueError(f"{key}: is part of the exported model; export it anew with it")
    return cfg


class ExportedPredictor(VideoPredictor):
    """A `VideoPredictor` without a network of torch's; there is no attention to look at."""

    def __init__(self, cfg: CfgNode, runtime: str) -> None:
        """Load the folder `cfg.MODEL.WEIGHTS`, to run in one of `deploy.runner.RUNTIMES`."""
        self.cfg = cfg.clone()
        self.stopwatch = Stopwatch()
        self.runner = _TimedRunner(self, cfg.MODEL.WEIGHTS, runtime)
        self.model: Any = SimpleNamespace(class_names=self.runner.class_names)
        self.mapper = ActionDatasetMapper(cfg, is_train=False)  # which knows the persons' score
        self.looks_per_second = cfg.MODEL.PERSON_DETECTOR.LOOKS_PER_SECOND
        self.detector = configured_detector(cfg)
        self.progress = None
        self._graph = Path(cfg.MODEL.WEIGHTS) / FEATURES

    @functools.cached_property
    def checksum(self) -> str:
        """Tell this model from others, see `VideoPredictor`."""
        return hashlib.sha256(self._graph.read_bytes()).hexdigest()

    def _predict(
        self, frames: Iterator[tuple[float, np.ndarray]], boxes: BoxSource, video_id: str
    ) -> Iterator[dict]:
        first_id = first_new_id([boxes.largest_person_id])
        for found in self.runner(frames, boxes.at, first_id=first_id):
            height, width = found.size
            yield {
                "video_id": video_id,
                "timestamp": found.timestamp,
                "height": height,
                "width": width,
                "instances": self._instances(found),
            }

    def _instances(self, found: KeyframeScores) -> Instances:
        persons = Instances(found.size, person_ids=torch.from_numpy(found.person_ids))
        scores = torch.from_numpy(found.scores)
        min_score = self.runner.description.min_score
        return action_inference(persons, as_boxes(found.boxes), scores, min_score)


class _TimedRunner(Runner):
    """A runner whose stages count in a predictor's stopwatch, with the configured person score."""

    def __init__(self, predictor: ExportedPredictor, folder: str | Path, runtime: str) -> None:
        super().__init__(folder, runtime)
        min_score = predictor.cfg.INPUT.PERSON_SCORE_THRESH_TEST
        self.description = replace(self.description, min_person_score=min_score)
        self.predictor = predictor

    def clips(self, video: Any) -> Iterator[Any]:
        return self.predictor.stopwatch.each("decoding", super().clips(video))

    def extract(self, *args: np.ndarray) -> dict[str, np.ndarray]:
        with self.predictor.stopwatch.stage("network"):
            return super().extract(*args)
