"""detectron2's own DefaultPredictor on a configuration with a detector."""

from __future__ import annotations

import numpy as np
import torch
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model

from tests.detectors import write_detector
from tests.helpers import small_cfg


def test_stock_predictor_with_a_detector(tmp_path):
    config, weights = write_detector(tmp_path)
    keys = ("MODEL.PERSON_DETECTOR.CONFIG", config, "MODEL.PERSON_DETECTOR.WEIGHTS", weights)
    cfg = small_cfg(None, *keys, "INPUT.OBJECT_SCORE_THRESH", 0.3)
    model = build_model(cfg)
    assert not any("detector" in name or "finder" in name for name in model.state_dict())
    cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    torch.save({"model": model.state_dict()}, cfg.MODEL.WEIGHTS)
    predict = DefaultPredictor(cfg)
    picture = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    image = torch.from_numpy(np.ascontiguousarray(picture[..., ::-1].transpose(2, 0, 1)))
    found = predict.model.box_finder({"image": image})
    assert len(found["objects"]) == 5
    scores = found["objects"].scores
    assert (scores.diff() >= 0).all() and scores.min() >= 0.3
    rows = predict(picture)["instances"]
    assert rows.image_size == (96, 128)
    boxes = predict.model.box_finder({"image": image[:, ::2, ::2]})["proposals"].proposal_boxes
    assert len(rows) == 3 * len(boxes)
