"""Cases of boxes: extension, jitter, conversions, the best ones."""

from __future__ import annotations

import re

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import Boxes, BoxMode

from alphaaction_d2.data.boxes import jitter_boxes
from alphaaction_d2.data.dataset_mapper import ActionDatasetMapper
from alphaaction_d2.data.transforms import ClipResizeTransform
from alphaaction_d2.modeling.roi_heads import extend_boxes
from alphaaction_d2.structures import BoxChoice, FoundBoxes

from .case import LAST_PIXEL, GoldenCase
from .heads import BOX_CONVENTION


def check_extension(case: GoldenCase) -> None:
    """Test boxes grow about their centres."""
    case.note(BOX_CONVENTION)
    boxes = Boxes(case["in/boxes"] + LAST_PIXEL)
    for name, scale in case.config["scales"].items():
        scale = scale * 2 if len(scale) == 1 else scale
        grown = extend_boxes(boxes, tuple(scale), case.image_size).tensor
        case.compare(f"out/{name}", grown - LAST_PIXEL)


def check_jitter(case: GoldenCase) -> None:
    """Training boxes move by given random numbers."""
    case.note(BOX_CONVENTION)
    config = case.config
    jitter = tuple(config[f"{way}ward_{axis}"] for axis in "xy" for way in ("out", "in"))
    boxes = (case["in/boxes"] + LAST_PIXEL).double().numpy()
    moved = [
        jitter_boxes(boxes, draws.T, jitter, case.image_size)
        for draws in case["in/uniform_draws"].double().numpy()
    ]
    case.compare("out/boxes", torch.from_numpy(np.stack(moved)).float() - LAST_PIXEL)


def check_operations(case: GoldenCase) -> None:
    """Conversion, clipping, scaling, flipping, and the best-scoring boxes."""
    case.note(BOX_CONVENTION)
    height, width = case.image_size
    boxes = case["in/boxes"]
    sized = case["in/xywh"]
    corners = BoxMode.convert(sized, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    expected = case["out/xywh_to_xyxy"]
    thin = (sized[:, 2:] < 1).any(dim=1)
    if thin.any():
        case.note("a box of no width or height covers one pixel there and stays empty here")
        expected = torch.where(thin[:, None], corners - LAST_PIXEL, expected)
    case.compare_within("out/xywh_to_xyxy", corners - LAST_PIXEL, expected, 1e-4)
    inside = Boxes(corners)
    inside.clip(case.image_size)
    # One pixel wide or high is too little there; ours are one longer.
    kept = inside[inside.nonempty(threshold=1)].tensor - LAST_PIXEL
    case.compare("out/clipped_and_emptied", kept)
    flip = T.HFlipTransform(width)
    flipped = torch.from_numpy(flip.apply_box((boxes.double() + LAST_PIXEL).numpy()))
    case.compare_exact("out/flipped_horizontally", (flipped - LAST_PIXEL).float())
    for key in case.arrays:
        if match := re.fullmatch(r"out/resized_(\d+)x(\d+)", key):
            scale = ClipResizeTransform(height, width, int(match[2]), int(match[1]))
            case.compare(key, torch.from_numpy(scale.apply_box(boxes.numpy())))
        elif match := re.fullmatch(r"out/top(\d+)_(boxes|scores)", key):
            best = best_objects(case, int(match[1]))
            case.compare(key, best.boxes.tensor if match[2] == "boxes" else best.scores)


def best_objects(case: GoldenCase, number: int):
    """The objects that training and testing see of all that were detected."""
    height, width = case.image_size
    mapper = ActionDatasetMapper(
        False,
        num_frames=1,
        sampling_rate=1,
        clip_fps=25.0,
        augmentations=[],
        num_classes=1,
        choice=BoxChoice(0.0, 0.0, number),
    )
    objects = FoundBoxes.of(case.arrays["in/boxes"], case.arrays["in/scores"], size=(width, height))
    picture = np.zeros((1, height, width, 3), np.uint8)
    keyframe = {"height": height, "width": width, "persons": FoundBoxes.of(), "objects": objects}
    return mapper.map_scaled_clip(keyframe, [picture], [T.NoOpTransform()])["objects"]
