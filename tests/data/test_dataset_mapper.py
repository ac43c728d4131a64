"""Dataset dict to model input: boxes follow the frames, labels merge, thresholds hold."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode

from alphaaction_d2.data.boxes import jitter_boxes
from alphaaction_d2.data.dataset_mapper import ActionDatasetMapper, merge_annotations
from alphaaction_d2.data.transforms import ColorShiftTransform, ResizeShortSide, resized_size
from alphaaction_d2.data.video import VideoWriter
from tests.modeling.golden import GoldenCase


@pytest.fixture(scope="module")
def keyframe(tmp_path_factory):
    """A video with a white square at the left; its box is the person's."""
    path = tmp_path_factory.mktemp("video") / "square.mp4"
    with VideoWriter(path, 8, 80, 40, gop=8) as writer:
        for _ in range(32):
            frame = np.zeros((40, 80, 3), np.uint8)
            frame[10:30, 8:28] = 255
            writer.write(frame)
    box = [8.0, 10.0, 28.0, 30.0]
    person = {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "person_id": 4}
    return {
        "file_name": str(path),
        "video_id": "square",
        "timestamp": 2,
        "image_id": "square,0002",
        "height": 40,
        "width": 80,
        "annotations": [{**person, "category_id": 0}, {**person, "category_id": 2}],
        "persons": {
            "boxes": np.array([box, [0, 0, 5, 5]], np.float32),
            "scores": np.array([0.9, 0.7], np.float32),
            "person_ids": np.array([4, -1]),
        },
        "objects": {
            "boxes": np.array([box] * 4, np.float32),
            "scores": np.array([0.6, 0.4, 0.9, 0.7], np.float32),
        },
    }


def mapper(is_train: bool, augmentations, **kwargs) -> ActionDatasetMapper:
    options = {"num_frames": 16, "sampling_rate": 1, "clip_fps": 8.0, "num_classes": 3}
    return ActionDatasetMapper(
        is_train, augmentations=augmentations, max_objects=2, **{**options, **kwargs}
    )


def bright_box(video: torch.Tensor) -> list[int]:
    """Box of the bright pixels of the middle frame."""
    ys, xs = np.nonzero(video[0, 8].numpy() > 128)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_boxes_follow_the_frames(keyframe, flip):
    augmentations = [ResizeShortSide((20,), 100), T.RandomFlip(prob=flip)]
    x = mapper(True, augmentations)(keyframe)
    assert x["video"].shape == (3, 16, 20, 40) and x["video"].dtype == torch.uint8
    seen = bright_box(x["video"])
    expected = [4, 5, 14, 15] if not flip else [26, 5, 36, 15]
    assert seen == expected
    for boxes in (x["instances"].gt_boxes, x["proposals"].proposal_boxes, x["objects"].boxes):
        np.testing.assert_allclose(boxes.tensor[0], expected, atol=1e-5)
    assert x["instances"].gt_classes.tolist() == [[1, 0, 1]]
    assert x["proposals"].person_ids.tolist() == [4]
    assert "annotations" not in x and x["video_id"] == "square"


def test_testing_takes_detections_above_the_threshold(keyframe):
    x = mapper(False, [ResizeShortSide((40,), 100)])(keyframe)
    assert "instances" not in x
    assert x["proposals"].objectness_logits.tolist() == pytest.approx([0.9])
    assert x["objects"].scores.tolist() == pytest.approx([0.7, 0.9]), "the best two, ascending"


def test_nobody_there(keyframe):
    nobody = {"boxes": np.zeros((0, 4), np.float32), "scores": np.zeros(0, np.float32)}
    persons = {**nobody, "person_ids": np.zeros(0, np.int64)}
    empty = {**keyframe, "annotations": [], "persons": persons, "objects": nobody}
    for is_train in (True, False):
        x = mapper(is_train, [ResizeShortSide((20,), 100)])(empty)
        assert len(x["proposals"]) == 0 and len(x["objects"]) == 0


def test_many_persons_are_thinned_out_together(keyframe):
    annotations = [
        {"bbox": [i, 0, i + 5, 5], "bbox_mode": 0, "category_id": i % 3, "person_id": i}
        for i in range(30)
    ]
    x = mapper(True, [ResizeShortSide((40,), 100)], max_persons_train=7)(
        {**keyframe, "annotations": annotations}
    )
    ids = x["proposals"].person_ids
    assert len(ids) == len(x["instances"]) == 7
    assert x["instances"].gt_classes.argmax(dim=1).tolist() == (ids % 3).tolist()
    assert x["instances"].gt_boxes.tensor[:, 0].tolist() == ids.tolist()


def test_merge_annotations():
    def row(box, category, person):
        return {"bbox": box, "category_id": category, "person_id": person}

    boxes, classes, ids = merge_annotations(
        [row([0, 0, 1, 1], 1, 5), row([2, 2, 3, 3], 0, -1), row([0, 0, 1, 1], 2, 5)], 3
    )
    assert boxes.tolist() == [[0, 0, 1, 1], [2, 2, 3, 3]]
    assert classes.tolist() == [[0, 1, 1], [1, 0, 0]] and ids.tolist() == [5, -1]
    boxes, classes, ids = merge_annotations([], 3)
    assert boxes.shape == (0, 4) and classes.shape == (0, 3) and ids.shape == (0,)


def test_in_order_reading_decodes_each_frame_once(keyframe):
    reading = mapper(False, [ResizeShortSide((20,), 100)], num_frames=8)
    for t in (1, 2, 3):
        reading({**keyframe, "timestamp": t})
    (reader,) = reading._readers.values()
    assert reader.frames_decoded <= 32


def test_jitter_as_released(shared):
    case = GoldenCase(shared / "golden" / "data", "g2_box_random_jitter")
    config = case.config
    width, height = config["image_size_wh"]
    jitter = tuple(config[f"{d}ward_{a}"] for a in "xy" for d in ("out", "in"))
    last_pixel = np.array([0, 0, 1, 1])  # the released boxes include it, ours end behind it
    boxes = case["in/boxes"].double().numpy() + last_pixel
    for draws, expected in zip(case["in/uniform_draws"].numpy(), case["out/boxes"].numpy()):
        moved = jitter_boxes(boxes, draws.T, jitter, (height, width))
        np.testing.assert_allclose(moved - last_pixel, expected, atol=1e-4)


def test_resized_sizes(shared):
    table = json.loads((shared / "golden" / "data" / "h1_frame_indices_and_sizes.json").read_text())
    for row in table["resize"]:
        height, width = row["input_height"], row["input_width"]
        size = resized_size(height, width, row["min_size"], row["max_size"])
        if min(height, width) == row["min_size"]:  # there the released code turns the picture
            assert size == (height, width)
        else:
            assert size == (row["output_height"], row["output_width"])


def test_pixels_as_released(shared):
    case = GoldenCase(shared / "golden" / "data", "h2_pixel_transforms")
    frames = case.arrays["in/frames"]
    resize = ResizeShortSide((32,), 58).get_transform(frames[0])
    for frame, expected in zip(frames, case.arrays["out/resized_short32_max58"]):
        np.testing.assert_array_equal(resize.apply_image(frame), expected)
    for shifts, clip in zip(case.arrays["in/jitter_shifts"], case.arrays["out/jittered"]):
        shift = ColorShiftTransform(*(int(s) for s in shifts))
        for frame, expected in zip(frames, clip):
            np.testing.assert_array_equal(shift.apply_image(frame), expected)
