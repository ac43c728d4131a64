"""From a keyframe's dataset dict to the input of the model.

Shape letters: T frames, H W picture, Ri persons of the clip, Oi objects, K action classes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from detectron2.structures import Instances

from ..config import check_keys, class_groups, number, one_of, several, whole
from ..structures import (
    UNKNOWN_PERSON,
    AnnotatedPersons,
    BoxChoice,
    FoundBoxes,
    as_boxes,
    as_proposals,
    box_iou,
)
from .boxes import enlarge_boxes, jitter_boxes
from .clip_sampling import clip_times
from .transforms import ColorJitter, ResizeShortSide, split_channels
from .video import VideoReader

SIDE = whole(1, 2**14)  # of a picture, in pixels
# Which frames a clip has.
CLIP_KEYS = {
    "NUM_FRAMES": whole(1, 4096),
    "SAMPLING_RATE": whole(1, 4096),
    "CLIP_FPS": number(0, 10_000, above=True),
}


def build_views(cfg: CfgNode) -> list[list[T.Augmentation]]:
    """The views in which testing sees every clip: one, or as many as `cfg.TEST.AUG` says.

    As in detectron2, every short side of MIN_SIZES is a view, with FLIP also mirrored.
    """
    check_keys(cfg, "TEST.AUG", {"MIN_SIZES": several(SIDE), "MAX_SIZE": SIDE})
    node = cfg.TEST.AUG
    single = build_augmentations(cfg, is_train=False)
    if not node.ENABLED:
        return [single]
    views: list[list[T.Augmentation]] = []
    for side in node.MIN_SIZES:
        scale = ResizeShortSide((side,), node.MAX_SIZE)
        views += [[scale], [scale, T.RandomFlip(prob=1.0)]] if node.FLIP else [[scale]]
    return views


def build_augmentations(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """Scaling, and in training colour jitter and horizontal flip, as `cfg.INPUT` says."""
    keys = {
        "MIN_SIZE_TRAIN": several(whole(0, 2**14)),  # 0: as it is
        "MAX_SIZE_TRAIN": SIDE,
        "MIN_SIZE_TEST": whole(0, 2**14),
        "MAX_SIZE_TEST": SIDE,
        "COLOR_JITTER": several(whole(0, 255), [3]),
        "RANDOM_FLIP": one_of(["horizontal", "none"]),
    }
    check_keys(cfg, "INPUT", keys)
    node = cfg.INPUT
    for key, only in (("FORMAT", "RGB"), ("MIN_SIZE_TRAIN_SAMPLING", "choice")):
        if node[key] != only:
            raise ValueError(f"INPUT.{key} {node[key]!r}: videos are read with {only!r} only")
    if node.CROP.ENABLED:
        raise ValueError("INPUT.CROP.ENABLED: cropping is not supported for videos")
    if not is_train:
        return [ResizeShortSide((node.MIN_SIZE_TEST,), node.MAX_SIZE_TEST)]
    scale = ResizeShortSide(node.MIN_SIZE_TRAIN, node.MAX_SIZE_TRAIN)
    augmentations: list[T.Augmentation] = [scale]
    if any(node.COLOR_JITTER):
        augmentations.append(ColorJitter(node.COLOR_JITTER))
    if node.RANDOM_FLIP == "horizontal":
        augmentations.append(T.RandomFlip(horizontal=True, vertical=False))
    return augmentations


class ActionDatasetMapper:
    """Read the clip, transform frames and boxes alike, and build persons and objects.

    The result has `video` (3, T, H, W) uint8 RGB, its keyframe as `image` (3, H, W), `proposals`
    (`proposal_boxes`, `objectness_logits`, `person_ids`), `objects` (`boxes`, `scores`), in
    training `instances` (`gt_boxes`, `gt_classes` (Ri, K), `annotated_rows`, one row per proposal),
    and the identification of the clip. Of segments the objects include hands, which have `is_hand`.

    A segment has a `span` of seconds, anywhere in which training puts its clip's centre; its person
    is the whole picture.

    In training the annotated persons are the proposals: jittering and thinning them out is
    augmentation and happens here. In testing the proposals are the detected persons.

    Training samples a transform for every clip. Testing uses one for all clips of a video, so that
    clips in time order, which overlap, decode and scale each frame once. With several views, the
    result is that of the first one, and `views` holds what the others are: `video`, `image`,
    `proposals`, `objects`. All views of a frame are made when it is decoded.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        num_frames: int,
        sampling_rate: int,
        clip_fps: float,
        augmentations: list[T.Augmentation],
        more_views: Sequence[list[T.Augmentation]] = (),
        num_classes: int,
        choice: BoxChoice,
        box_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
        max_box_scale: float = 1.0,
        max_persons_train: int = 10,
        negative_persons: int = 0,
        negative_max_iou: float = 0.3,
        max_open_videos: int = 2,
    ) -> None:
        """
        Args:
            num_frames, sampling_rate, clip_fps: see :func:`clip_times`.
            augmentations: applied to every frame and to all boxes. In testing they must not draw.
            more_views: the same for further views, in testing.
            num_classes: K.
            choice: of the found objects and, in testing, of the found persons.
            box_jitter: see :func:`jitter_boxes`.
            max_box_scale: training boxes are then enlarged by a factor drawn from 1 to this.
            negative_persons: training also takes so many detected persons at most, who do nothing.
            negative_max_iou: they overlap every annotated person by less than this.
        """
        self.is_train, self.num_classes, self.choice = is_train, num_classes, choice
        self.num_frames, self.sampling_rate, self.clip_fps = num_frames, sampling_rate, clip_fps
        self.views = [T.AugmentationList(x) for x in (augmentations, *more_views)]
        self.box_jitter, self.max_box_scale = box_jitter, max_box_scale
        self.max_persons_train = max_persons_train
        self.negative_persons, self.negative_max_iou = negative_persons, negative_max_iou
        self.max_open_videos = max_open_videos
        self._readers: OrderedDict[str, VideoReader] = OrderedDict()
        self._frames_decoded = 0  # by readers that are closed

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool) -> dict:
        keys = {
            **CLIP_KEYS,
            "BOX_JITTER": several(number(0, 1), [4]),
            "MAX_BOX_SCALE_TRAIN": number(1, 100),
            "MAX_PERSONS_TRAIN": whole(1),
            "NEGATIVE_PERSONS_TRAIN": whole(0, 1000),
            "NEGATIVE_MAX_IOU": number(0, 1),
            "MAX_OPEN_VIDEOS": whole(1),
        }
        check_keys(cfg, "INPUT", keys)
        node = cfg.INPUT
        views = [build_augmentations(cfg, is_train=True)] if is_train else build_views(cfg)
        return {
            "is_train": is_train,
            "num_frames": node.NUM_FRAMES,
            "sampling_rate": node.SAMPLING_RATE,
            "clip_fps": node.CLIP_FPS,
            "augmentations": views[0],
            "more_views": views[1:],
            "num_classes": class_groups(cfg).num_classes,
            "box_jitter": tuple(node.BOX_JITTER),
            "max_box_scale": node.MAX_BOX_SCALE_TRAIN,
            "max_persons_train": node.MAX_PERSONS_TRAIN,
            "negative_persons": node.NEGATIVE_PERSONS_TRAIN,
            "negative_max_iou": node.NEGATIVE_MAX_IOU,
            "choice": BoxChoice.of(cfg),
            # Testing goes through one video after the other: more readers would only hold frames.
            "max_open_videos": node.MAX_OPEN_VIDEOS if is_train else min(node.MAX_OPEN_VIDEOS, 2),
        }

    def __call__(self, dataset_dict: dict) -> dict:
        """See the class. Raises VideoError for a clip that cannot be decoded; never returns
        None."""
        # 1. Frames.
        if self.is_train and "span" in dataset_dict:  # LFB: anywhere in the segment
            moment = float(np.random.uniform(*dataset_dict["span"]))
            dataset_dict = {**dataset_dict, "clip_centre": moment}
        clip = self.num_frames, self.sampling_rate, self.clip_fps
        times = clip_times(_centre(dataset_dict), *clip)
        reader = self._reader(dataset_dict["file_name"], dataset_dict.get("frame_rate"))
        frames = reader.pictures(times)
        # 2. One transform for all frames and all boxes, sampled on one frame.
        if isinstance(reader, _TransformedReader):
            transforms = reader.transforms  # already applied
            videos = [np.stack(view, axis=1) for view in zip(*frames)]
        else:
            transforms = self.view_transforms(frames[len(frames) // 2])
            videos = [np.stack(_transform_frames(frames, transforms[0]), axis=1)]
        return self._join_views(dataset_dict, videos, transforms)

    @property
    def frames_decoded(self) -> int:
        """How many frames came out of all decoders so far."""
        return self._frames_decoded + sum(x.frames_decoded for x in self._readers.values())

    def view_transforms(self, frame: np.ndarray) -> list[T.Transform]:
        """The transform of each view of a clip, sampled for one of its frames (H, W, 3)."""
        return [view(T.AugInput(frame)) for view in self.views]

    def map_scaled_clip(
        self, dataset_dict: dict, views: Sequence[np.ndarray], transforms: list[T.Transform]
    ) -> dict:
        """The same for frames (T, H, W, 3) a view, to which its transform has been applied."""
        videos = [np.stack(list(map(split_channels, clip)), axis=1) for clip in views]
        return self._join_views(dataset_dict, videos, transforms)

    def _join_views(
        self, dataset_dict: dict, videos: Sequence[np.ndarray], transforms: list[T.Transform]
    ) -> dict:
        first, *others = [
            self._result(dataset_dict, video, transform)
            for video, transform in zip(videos, transforms, strict=True)
        ]
        if others:
            first["views"] = [{key: x[key] for key in _OF_A_VIEW} for x in others]
        return first

    def _result(self, dataset_dict: dict, video: np.ndarray, transform: T.Transform) -> dict:
        """The model's input from transformed frames (3, T, H, W)."""
        image_size = video.shape[2:]
        result = {key: value for key, value in dataset_dict.items() if key not in CONSUMED}
        result["video"] = torch.from_numpy(video)
        # The keyframe, for what looks at pictures: a view, which costs nothing.
        result["image"] = result["video"][:, video.shape[1] // 2]

        def place(found: FoundBoxes) -> np.ndarray:
            pixels = found.in_pixels(dataset_dict["width"], dataset_dict["height"])
            return _transform_boxes(pixels, transform, image_size)

        # 3. Boxes.
        centre = _centre(dataset_dict)
        objects = dataset_dict["objects"].near(centre)
        result["objects"] = self.choice.objects(objects, place, image_size)
        if "hands" in dataset_dict:
            hands = dataset_dict["hands"].near(centre)
            hands = self.choice.hands(hands, place, image_size)
            for x, is_hand in ((hands, True), (result["objects"], False)):
                x.is_hand = torch.full((len(x),), is_hand)
            result["objects"] = Instances.cat([hands, result["objects"]])
        if self.is_train:
            annotated = self._annotated(dataset_dict, transform, image_size)
            result["instances"], result["proposals"] = annotated
            return result
        result["proposals"] = self.choice.persons(dataset_dict["persons"], place, image_size)
        if "persons_between" in dataset_dict:
            result["persons_between"] = [
                (seconds, self.choice.persons(found, place, image_size))
                for seconds, found in dataset_dict["persons_between"].moments()
            ]
        return result

    def _annotated(
        self, keyframe: dict, transform: T.Transform, image_size: tuple[int, int]
    ) -> tuple[Instances, Instances]:
        """Annotated persons as targets and, jittered, as proposals; row by row the same person."""
        annotated = AnnotatedPersons.of(keyframe).boxes
        rows = np.arange(len(annotated))
        if len(rows) > self.max_persons_train:
            rows = np.sort(np.random.permutation(len(rows))[: self.max_persons_train])
        boxes = annotated[rows]
        if self.negative_persons:
            others = self._spectators(keyframe, annotated)
            boxes = np.concatenate([boxes, others])
            rows = np.pad(rows, (0, len(others)), constant_values=-1)
        boxes = _transform_boxes(boxes, transform, image_size)
        draws = np.random.rand(len(boxes), 4)
        jittered = jitter_boxes(boxes, draws, self.box_jitter, image_size)
        if self.max_box_scale > 1:
            factors = np.random.uniform(1, self.max_box_scale, len(boxes))
            jittered = enlarge_boxes(jittered, factors, image_size)

        instances = Instances(image_size, gt_boxes=as_boxes(boxes))
        instances.annotated_rows = torch.from_numpy(rows)
        instances.gt_classes, person_ids = annotated_classes(keyframe, rows, self.num_classes)
        found = FoundBoxes.of(jittered, 1.0, person_ids.numpy())
        return instances, as_proposals(found, jittered, image_size)

    def _spectators(self, keyframe: dict, annotated: np.ndarray) -> np.ndarray:
        """Draw detected persons (n, 4), in pixels of the video, whom nobody has annotated."""
        found = keyframe["persons"].above(self.choice.min_person_score)
        boxes = found.in_pixels(keyframe["width"], keyframe["height"]).astype(np.float64)
        overlaps = box_iou(boxes[:, None], annotated[None]).max(axis=1, initial=0)
        boxes = boxes[overlaps < self.negative_max_iou]
        if len(boxes) > self.negative_persons:
            boxes = boxes[np.sort(np.random.permutation(len(boxes))[: self.negative_persons])]
        return boxes

    def _reader(self, path: str, frame_rate: float | None) -> VideoReader:
        """An open reader; the least recently used one makes room."""
        if path not in self._readers:
            if self.is_train:
                self._readers[path] = VideoReader(path, frame_rate=frame_rate)
            else:
                self._readers[path] = _TransformedReader(path, self.view_transforms, frame_rate)
            if len(self._readers) > self.max_open_videos:
                _, oldest = self._readers.popitem(last=False)
                self._frames_decoded += oldest.frames_decoded
                oldest.close()
        self._readers.move_to_end(path)
        return self._readers[path]


def annotated_classes(
    keyframe: dict, rows: np.ndarray, num_classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the classes (Ri, K), multi-hot float32, and ids (Ri,) of annotated persons.

    Args:
        rows: (Ri,) which of the keyframe's; -1 for somebody whom nobody has annotated.
    """
    persons = AnnotatedPersons.of(keyframe)
    # Nobody comes last, where -1 finds it.
    classes = np.zeros((len(persons) + 1, num_classes), dtype=np.float32)
    numbers = [a["category_id"] for a in keyframe["annotations"]]
    classes[persons.rows[: len(numbers)], numbers] = 1
    ids = np.append(persons.ids, UNKNOWN_PERSON)
    return torch.from_numpy(classes[rows]), torch.from_numpy(ids[rows])


class _TransformedReader(VideoReader):
    """A reader of transformed frames, (3, H, W) a view, all by the same transforms and each once.

    Attributes:
        transforms: one a view, sampled for the first frame that is picked; none until then.
    """

    def __init__(
        self,
        path: str,
        sample_transforms: Callable[[np.ndarray], list[T.Transform]],
        frame_rate: float | None,
    ) -> None:
        self.transforms: list[T.Transform] = []

        def prepare(frame: np.ndarray) -> tuple[np.ndarray, ...]:
            self.transforms = self.transforms or sample_transforms(frame)
            return tuple(split_channels(x.apply_image(frame)) for x in self.transforms)

        super().__init__(path, prepare=prepare, frame_rate=frame_rate)


def _transform_frames(frames: Sequence[np.ndarray], transform: T.Transform) -> list[np.ndarray]:
    """Frames (H, W, 3) to transformed frames (3, H, W); a frame shown for longer costs once."""
    different = {id(frame): frame for frame in frames}
    done = {key: split_channels(transform.apply_image(f)) for key, f in different.items()}
    return [done[id(frame)] for frame in frames]


_OF_A_VIEW = ("video", "image", "proposals", "objects")

# Keys of the dataset dict that the mapper turns into something else.
CONSUMED = ("annotations", "negatives", "persons", "objects", "hands", "persons_between")


def _centre(dataset_dict: dict) -> float:
    """Second in the middle of the clip: the keyframe, or what training has drawn of its span."""
    return dataset_dict.get("clip_centre", dataset_dict.get("timestamp", 0.0))


def _transform_boxes(
    boxes: np.ndarray, transform: T.Transform, image_size: tuple[int, int]
) -> np.ndarray:
    height, width = image_size
    boxes = transform.apply_box(np.asarray(boxes, dtype=np.float64).reshape(-1, 4))
    return np.clip(boxes, 0, [width, height, width, height])
