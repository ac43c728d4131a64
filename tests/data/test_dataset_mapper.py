"""Dataset dict to model input: boxes follow the frames, labels merge, thresholds hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode

from alphaaction_d2.data.boxes import enlarge_boxes
from alphaaction_d2.data.clip_sampling import clip_times
from alphaaction_d2.data.dataset_mapper import ActionDatasetMapper
from alphaaction_d2.data.transforms import (
    ClipResizeTransform,
    ColorJitter,
    ResizeShortSide,
    split_channels,
)
from alphaaction_d2.data.video import VideoReader, VideoWriter
from alphaaction_d2.structures import BoxChoice, FoundBoxes
from tests.helpers import read, small_cfg


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
        "persons": FoundBoxes.of([box, [0, 0, 5, 5]], [0.9, 0.7], [4, -1], (80, 40)),
        "objects": FoundBoxes.of([box] * 4, [0.6, 0.4, 0.9, 0.7], size=(80, 40)),
    }


def mapper(is_train: bool, augmentations, **kwargs) -> ActionDatasetMapper:
    options = {"num_frames": 16, "sampling_rate": 1, "clip_fps": 8.0, "num_classes": 3}
    options["choice"] = BoxChoice(0.8, 0.5, 2)
    return ActionDatasetMapper(is_train, augmentations=augmentations, **{**options, **kwargs})


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
    empty = {**keyframe, "annotations": [], "persons": FoundBoxes.of(), "objects": FoundBoxes.of()}
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


def test_in_order_reading_decodes_each_frame_once(keyframe):
    reading = mapper(False, [ResizeShortSide((20,), 100)], num_frames=8)
    for t in (1, 2, 3):
        reading({**keyframe, "timestamp": t})
    assert 24 <= reading.frames_decoded <= 32


def test_testing_keeps_two_videos_open():
    cfg = small_cfg(None, "INPUT.MAX_OPEN_VIDEOS", 16)
    assert ActionDatasetMapper(cfg, is_train=True).max_open_videos == 16
    assert ActionDatasetMapper(cfg, is_train=False).max_open_videos == 2


def test_decoded_frames_of_closed_videos_count(keyframe, noise):
    def one_at_a_time() -> ActionDatasetMapper:
        return mapper(False, [ResizeShortSide((20,), 100)], max_open_videos=1)

    alone = []
    for x in (keyframe, noise):
        reading = one_at_a_time()
        reading(x)
        alone.append(reading.frames_decoded)
    reading = one_at_a_time()
    for x in (keyframe, noise, keyframe):
        reading(x)
    assert reading.frames_decoded == 2 * alone[0] + alone[1]
    assert min(alone) >= 16


@pytest.fixture(scope="module")
def noise(keyframe, tmp_path_factory):
    """The keyframe in a video in which no two frames, rows or channels are alike."""
    path = tmp_path_factory.mktemp("noise") / "noise.mp4"
    rng = np.random.default_rng(3)
    with VideoWriter(path, 8, 82, 46) as writer:
        for _ in range(32):
            writer.write(rng.integers(0, 256, (46, 82, 3), dtype=np.uint8))
    return {**keyframe, "file_name": str(path), "height": 46, "width": 82}


def literal_clip(mapper: ActionDatasetMapper, keyframe: dict) -> np.ndarray:
    """Read whole frames, transform one after the other, then put the axes in order."""
    times = clip_times(
        keyframe["timestamp"], mapper.num_frames, mapper.sampling_rate, mapper.clip_fps
    )
    with VideoReader(keyframe["file_name"]) as reader:
        frames = read(reader, times)
    transform = mapper.views[0](T.AugInput(frames[len(frames) // 2]))
    return np.stack([transform.apply_image(frame) for frame in frames]).transpose(3, 0, 1, 2)


# All of a video's frames; every frame twice and more; every second one.
@pytest.mark.parametrize("clip_fps", [8.0, 20.0, 4.0])
@pytest.mark.parametrize("short_side", [46, 30])
def test_pixels_are_those_of_the_literal_way(noise, clip_fps, short_side):
    resize = ResizeShortSide((short_side,), 100)
    flip = T.RandomFlip(prob=0.5)
    training = mapper(True, [resize, ColorJitter((10, 26, 26)), flip], clip_fps=clip_fps)
    testing = mapper(False, [resize], clip_fps=clip_fps)
    seen = set()
    for seed, timestamp in enumerate([0, 1, 2, 3, 1, 4, 0, 2]):
        x = {**noise, "timestamp": timestamp}
        for mapping in (training, testing):
            np.random.seed(seed)
            expected = literal_clip(mapping, x)
            np.random.seed(seed)
            video = mapping(x)["video"]
            assert video.is_contiguous()
            np.testing.assert_array_equal(video.numpy(), expected)
        seen.add(expected.tobytes())
    assert len(seen) == 5, "five different moments"


def test_a_scaled_clip_is_only_brought_into_order(noise):
    testing = mapper(False, [ResizeShortSide((30,), 100)])
    transform = ClipResizeTransform(46, 82, 30, 53)
    clip = np.random.default_rng(0).integers(0, 256, (16, 30, 53, 3), dtype=np.uint8)
    video = testing.map_scaled_clip(noise, [clip], [transform])["video"]
    assert video.is_contiguous()
    np.testing.assert_array_equal(video.numpy(), clip.transpose(3, 0, 1, 2))


class CountingTransform(T.NoOpTransform):
    """Changes nothing, and counts the pictures."""

    applied = 0

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        self.applied += 1
        return img


def test_testing_in_order_transforms_each_frame_once(keyframe):
    counting = CountingTransform()
    testing = mapper(False, [counting])
    for t in range(5):
        testing({**keyframe, "timestamp": t})
    # One more was for AugInput, when the transform was sampled.
    assert counting.applied == 32 + 1, "32 frames in five windows of 16"


def test_training_transforms_a_repeated_frame_once(keyframe):
    counting = CountingTransform()
    mapper(True, [counting], clip_fps=80.0)({**keyframe, "annotations": []})
    assert counting.applied <= 3 + 1, "16 moments within 0.2 s of a video with 8 frames a second"


@pytest.mark.parametrize("shape", [(5, 7, 3), (4, 6, 1), (1, 1, 3)])
def test_split_channels(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for picture in (image, image[:, ::-1], image[::-1, :-1]):
        planes = split_channels(picture)
        assert planes.flags.c_contiguous
        np.testing.assert_array_equal(planes, picture.transpose(2, 0, 1))


def test_boxes_are_enlarged_about_their_centre_and_clipped():
    boxes = np.array([[10.0, 20.0, 30.0, 60.0], [0.0, 0.0, 40.0, 20.0]])
    found = enlarge_boxes(boxes, np.array([1.5, 1.5]), (100, 48))
    np.testing.assert_allclose(found, [[5, 10, 35, 70], [0, 0, 48, 25]])


def test_training_boxes_are_enlarged_by_up_to_the_configured_factor(keyframe):
    def boxes(scale):
        np.random.seed(0)
        enlarging = mapper(True, [], max_box_scale=scale)
        clips = [enlarging(keyframe) for _ in range(8)]
        truth = torch.cat([clip["instances"].gt_boxes.tensor for clip in clips])
        return torch.cat([clip["proposals"].proposal_boxes.tensor for clip in clips]), truth

    found, truth = boxes(1.0)
    torch.testing.assert_close(found, truth)
    found, truth = boxes(1.5)
    heights = (found[:, 3] - found[:, 1]) / (truth[:, 3] - truth[:, 1])
    assert heights.min() >= 1 and 1.1 < heights.max() <= 1.5 and len(heights.unique()) > 3


def test_detected_persons_whom_nobody_has_annotated_do_nothing(keyframe):
    """At most so many, above the score of testing, and none who may be an annotated one."""
    boxes = [[8, 10, 28, 30], [8, 10, 28, 60], [60, 5, 80, 35], [40, 5, 58, 35], [30, 0, 39, 9]]
    scores = [0.9, 0.9, 0.85, 0.95, 0.7]  # annotated, overlapping, two spectators, too faint
    x = {**keyframe, "persons": FoundBoxes.of(boxes, scores, [4, 5, 6, 7, 8], (80, 40))}
    for number in (0, 1, 2):
        for seed in range(8):
            np.random.seed(seed)
            result = mapper(True, [], negative_persons=number)(x)
            classes, persons = result["instances"].gt_classes, result["proposals"]
            assert classes.sum(dim=1).tolist()[0] == 2 and len(persons) == 1 + number
            assert not classes[1:].any() and classes.shape[1] == 3
            assert persons.person_ids.tolist() == [4] + [-1] * number
            found = {tuple(box) for box in result["instances"].gt_boxes.tensor[1:].tolist()}
            assert found <= {(60, 5, 80, 35), (40, 5, 58, 35)} and len(found) == number
