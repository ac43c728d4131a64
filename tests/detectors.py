"""Detectors for tests: a small random network, and one that looks for bright pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from torch import nn

from alphaaction_d2.data.video import VideoWriter
from alphaaction_d2.modeling.picture_boxes import PictureBoxes
from alphaaction_d2.structures import FoundBoxes

TINY_DETECTOR = """\
VERSION: 2
MODEL:
  META_ARCHITECTURE: "GeneralizedRCNN"
  BACKBONE: {NAME: "build_resnet_fpn_backbone"}
  RESNETS: {DEPTH: 50, STEM_OUT_CHANNELS: 8, RES2_OUT_CHANNELS: 16, WIDTH_PER_GROUP: 4,
            OUT_FEATURES: ["res2", "res3", "res4", "res5"]}
  FPN: {IN_FEATURES: ["res2", "res3", "res4", "res5"], OUT_CHANNELS: 16}
  ANCHOR_GENERATOR: {SIZES: [[16], [32], [64], [128], [256]]}
  RPN: {IN_FEATURES: ["p2", "p3", "p4", "p5", "p6"], POST_NMS_TOPK_TEST: 30}
  ROI_HEADS: {NAME: "StandardROIHeads", IN_FEATURES: ["p2", "p3", "p4", "p5"], NUM_CLASSES: 80}
  ROI_BOX_HEAD: {NAME: "FastRCNNConvFCHead", NUM_FC: 1, FC_DIM: 32, POOLER_RESOLUTION: 7}
INPUT: {MIN_SIZE_TEST: 96, MAX_SIZE_TEST: 160}
DATASETS: {TEST: ["coco_2017_val"]}
"""


def write_detector(folder: Path, num_classes: int = 80, std: float = 0.5) -> tuple[str, str]:
    """Configuration and weights of a small random Faster R-CNN.

    Args:
        std: of the classifier's weights. 0: all classes are equally likely everywhere.
    """
    config, weights = folder / "detector.yaml", folder / "detector.pth"
    config.write_text(TINY_DETECTOR.replace("NUM_CLASSES: 80", f"NUM_CLASSES: {num_classes}"))
    cfg = get_cfg()
    cfg.merge_from_file(str(config))
    cfg.MODEL.DEVICE = "cpu"
    torch.manual_seed(0)
    model = build_model(cfg)
    nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=std)
    torch.save({"model": model.state_dict()}, weights)
    return str(config), str(weights)


NOBODY = PictureBoxes(FoundBoxes.of(), [])


def find_square(pictures: list[np.ndarray]) -> list[PictureBoxes]:
    """Detects by looking: the pixels that are 200 and more are a person, a ball lies at (0, 0)."""
    results = []
    for picture in pictures:
        ys, xs = np.nonzero(picture[..., 0] >= 200)
        boxes, names = [[0, 0, 4, 4]], ["ball"]
        if len(xs):
            boxes.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            names.append("")
        height, width = picture.shape[:2]
        found = FoundBoxes.of(boxes, [0.5, 0.9][: len(boxes)], size=(width, height))
        results.append(PictureBoxes(found, names))
    return results


def write_walk(path: Path, seconds: int = 3) -> Path:
    """A bright square that is 8 pixels further to the right each second; 5 frames a second."""
    with VideoWriter(path, 5, 64, 48, crf=0) as writer:
        for i in range(5 * seconds):
            frame = np.zeros((48, 64, 3), np.uint8)
            x = 8 * (i // 5)
            frame[12:36, x : x + 8] = 255  # fractions that five decimals hold exactly
            writer.write(frame)
    return path
