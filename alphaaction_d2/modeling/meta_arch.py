"""The whole model: preprocess, backbone, ROI heads, postprocess.

Shape letters: N clips, C colour channels, T frames, H W picture.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    FPN,
    META_ARCH_REGISTRY,
    ROI_HEADS_REGISTRY,
    Backbone,
    ResNet,
    build_backbone,
    build_roi_heads,
)
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from ..config import Groups, check_keys, number, one_of, refuse_unread, several, whole
from ..structures import ClipFeatures, Losses, MemoryWindow, precision
from .box_finder import BoxFinder
from .compiling import PARTS, check_compiler, compile_parts
from .roi_heads import ActionROIHeads, no_objects, whole_picture

logger = logging.getLogger(__name__)

# What a result repeats of its input, so that results which come later can be told apart.
IDENTIFICATION = ("file_name", "video_id", "timestamp", "image_id", "height", "width")


@META_ARCH_REGISTRY.register()
class ActionRCNN(nn.Module):
    """Actions of persons in clips: a pure function of its inputs, memory included.

    detectron2's contract: losses in training, `list[{"instances": Instances}]` in testing. One
    input a clip:

    * `video`: (C, T, H, W) uint8; or `image`: (C, H, W), which becomes a still clip; or, in
      training, `features`: the clip's `ClipFeatures`, in place of pictures, proposals and objects;
    * `proposals`: `Instances` with `proposal_boxes` and optionally `objectness_logits`,
      `person_ids`; without it a detector, if there is one, finds persons and objects in the clip's
      middle frame, else the whole frame is one person;
    * `objects` (optional): `Instances` with `boxes`, `scores` and, for segments, `is_hand`;
    * `memory` (optional): the clip's `MemoryWindow`;
    * `instances` (training): `gt_classes` (Ri, K), one row per proposal;
    * `height`, `width` (optional): size in which results are wanted.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    # of the data it was trained on; checkpoints keep them
    class_names: list[str] | None = None
    class_groups: Groups | None = None

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        roi_heads: ActionROIHeads,
        num_frames: int,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
        pad_to_stride: bool = True,
        channels_last: bool = False,
        test_dtype: torch.dtype = torch.float32,
        box_finder: BoxFinder | None = None,
        compiled: Sequence[str] = (),
    ) -> None:
        """
        Args:
            num_frames: T, for inputs that are images.
            pixel_mean, pixel_std: per channel, in the order of the input's channels, 0-255.
            pad_to_stride: pad pictures to a multiple of the backbone's strides. False: clips that
                come together are padded to the largest of them, and no further.
            channels_last: keep the backbone's weights in channels-last order; what the pathways
                see of a clip follows at their first convolution.
            test_dtype: what the backbone computes in when testing. All that follows it computes in
                float32.
            box_finder: finds the boxes of test inputs that bring none.
            compiled: of `compiling.PARTS`, those that torch compiles.
        """
        super().__init__()
        self.box_finder = box_finder
        self.test_dtype = test_dtype
        if channels_last:
            backbone = backbone.to(memory_format=torch.channels_last_3d)
        self.backbone = backbone
        self.roi_heads = roi_heads
        if compiled:
            compile_parts(backbone, roi_heads.interaction, compiled)
        self.num_frames = num_frames
        self.pad_to_stride = pad_to_stride
        self._last_video: str | None = None  # these two only for a warning
        self._told_of_memory = False
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1, 1), False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        refuse_unread(cfg, "model")
        check_keys(
            cfg,
            "MODEL",
            {
                "PIXEL_MEAN": several(number(-1000, 1000), [3]),
                "PIXEL_STD": several(number(0, 1000, above=True), [3]),
                "COMPILE": several(one_of(PARTS), range(3)),
            },
        )
        check_keys(cfg, "INPUT", {"NUM_FRAMES": whole(1, 4096)})
        check_keys(cfg, "MODEL.BACKBONE", {"NAME": one_of(x for x, _ in BACKBONE_REGISTRY)})
        check_keys(cfg, "MODEL.ROI_HEADS", {"NAME": one_of(x for x, _ in ROI_HEADS_REGISTRY)})
        if cfg.MODEL.COMPILE:
            check_compiler(cfg.MODEL.DEVICE)
        backbone = build_backbone(cfg)
        if isinstance(backbone, ResNet | FPN):
            raise ValueError(
                f"MODEL.BACKBONE.NAME {cfg.MODEL.BACKBONE.NAME!r} is a backbone of pictures; "
                "ActionRCNN needs one of videos, such as build_slowfast_backbone"
            )
        return {
            "backbone": backbone,
            "roi_heads": build_roi_heads(cfg, backbone.output_shape()),
            "num_frames": cfg.INPUT.NUM_FRAMES,
            "pixel_mean": tuple(cfg.MODEL.PIXEL_MEAN),
            "pixel_std": tuple(cfg.MODEL.PIXEL_STD),
            "pad_to_stride": cfg.MODEL.PAD_TO_STRIDE,
            "channels_last": cfg.MODEL.CHANNELS_LAST,
            "test_dtype": precision(cfg.TEST.DTYPE, "TEST.DTYPE", ("float32", "bfloat16")),
            "compiled": tuple(cfg.MODEL.COMPILE),
            "box_finder": BoxFinder(cfg) if cfg.MODEL.PERSON_DETECTOR.CONFIG else None,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> Losses | list[dict]:
        """Give losses (training) or one result a clip (testing); an empty batch has no results."""
        if not self.training:
            return self.inference(batched_inputs)
        if "features" in batched_inputs[0]:
            clips = [x["features"].to(self.device, torch.float32) for x in batched_inputs]
        else:
            clips = self._pool(batched_inputs)
        targets = [x["instances"].to(self.device) for x in batched_inputs]
        memory = self._memory([x.get("memory") for x in batched_inputs])
        return self.roi_heads.losses(clips, targets, memory)

    def inference(self, batched_inputs: list[dict]) -> list[dict]:
        """Give results of clips that come with their memory (or do without)."""
        if not batched_inputs:
            return []
        if "views" in batched_inputs[0]:
            raise ValueError(
                "TEST.AUG.ENABLED: clips come in several views, of which the model alone would see "
                "one; build_delayed_inference(cfg, model) of alphaaction_d2.engine sees them all"
            )
        if self.box_finder is not None:
            batched_inputs = [x if "proposals" in x else self.box_finder(x) for x in batched_inputs]
        for x in batched_inputs:
            video = x.get("video_id")
            if "memory" not in x and video is not None and video == self._last_video:
                self._tell_memory_is_empty("testing", "build_delayed_inference(cfg, model)")
            self._last_video = video
        clips = self.extract(batched_inputs)
        instances = self.classify(clips, [x.get("memory") for x in batched_inputs])
        return [self.postprocess(r, x) for r, x in zip(instances, batched_inputs)]

    def extract(self, batched_inputs: list[dict]) -> list[ClipFeatures]:
        """Do the expensive half: features of the persons and objects of every clip.

        Clips without persons cost nothing: nobody asks for their features.
        """
        occupied = [x for x in batched_inputs if _shows_persons(x)]
        found = iter(self._pool(occupied) if occupied else ())
        return [
            next(found)
            if _shows_persons(x)
            else self.roi_heads.no_features(x["proposals"].image_size)
            for x in batched_inputs
        ]

    def classify(
        self, clips: list[ClipFeatures], memory: list[MemoryWindow | None]
    ) -> list[Instances]:
        """Do the cheap half: actions from features and memory, in the network's picture."""
        return self.roi_heads.classify(clips, self._memory(memory))

    def score(self, clips: list[ClipFeatures], memory: list[MemoryWindow | None]) -> list[Tensor]:
        """Score the persons of clips, (Ri, K) each: :meth:`classify` before actions are listed."""
        return self.roi_heads.score(clips, self._memory(memory))

    @staticmethod
    def postprocess(instances: Instances, clip: dict) -> dict:
        """Scale one clip's result to the wanted size and say which clip it belongs to."""
        height, width = instances.image_size
        instances = detector_postprocess(
            instances, clip.get("height", height), clip.get("width", width)
        )
        result = {key: clip[key] for key in IDENTIFICATION if key in clip}
        return {**result, "instances": instances}

    def preprocess(self, batched_inputs: list[dict]) -> ImageList:
        """Move to the device, normalise, pad to a common size: (N, C, T, H, W)."""
        clips = []
        for x in batched_inputs:
            if "video" in x:
                clip = x["video"].to(self.device)
            else:
                clip = x["image"].to(self.device)[:, None].expand(-1, self.num_frames, -1, -1)
            clip = clip.to(torch.float32, copy=True)  # a clip is large: the rest is done in place
            clips.append(clip.sub_(self.pixel_mean).div_(self.pixel_std))
        constraints = getattr(self.backbone, "padding_constraints", None)  # not of detectron2 0.6
        options = {"padding_constraints": constraints} if constraints and self.pad_to_stride else {}
        multiple = self.backbone.size_divisibility if self.pad_to_stride else 0
        return ImageList.from_tensors(clips, multiple, **options)

    def _pool(self, batched_inputs: list[dict]) -> list[ClipFeatures]:
        """Compute the features of the clips' persons and objects."""
        images = self.preprocess(batched_inputs)
        proposals, objects = [], []
        for x, size in zip(batched_inputs, images.image_sizes):
            if "proposals" in x:
                proposals.append(x["proposals"].to(self.device))
            else:
                whole = whole_picture(size, self.device)
                proposals.append(Instances(size, proposal_boxes=whole))
            seen = x["objects"] if "objects" in x else no_objects(size, self.device)
            objects.append(seen.to(self.device))
        return self.roi_heads.pool(images, self._maps(images), proposals, objects)

    def _maps(self, images: ImageList) -> dict[str, Tensor]:
        """Compute the backbone's maps, in float32 whatever precision it computes in."""
        needs_sizes = getattr(self.backbone, "needs_sizes", False)
        seen = (images.tensor, images.image_sizes) if needs_sizes else (images.tensor,)
        if self.training or self.test_dtype == torch.float32:
            maps = self.backbone(*seen)
        else:
            with torch.autocast(self.device.type, self.test_dtype):
                maps = self.backbone(*seen)
        return {name: x.float() for name, x in maps.items()}

    def _memory(self, windows: list[MemoryWindow | None]) -> MemoryWindow | None:
        """Batch the windows; a clip without one gets an empty one. None when no clip has one."""
        if all(w is None for w in windows):
            if self.training:
                self._tell_memory_is_empty("training", "attach_memory(cfg, model)")
            return None
        (empty,) = self.roi_heads.empty_memory(1, device=torch.device("cpu")).unstack()
        # Autocast on the CPU cannot stack float16, the usual type of a memory.
        with torch.autocast(self.device.type, enabled=False):
            return MemoryWindow.stack([w or empty for w in windows]).to(self.device)

    def _tell_memory_is_empty(self, when: str, remedy: str) -> None:
        """Warn, once, that inputs of a model with memory come without."""
        interaction = self.roi_heads.interaction
        if self._told_of_memory or interaction is None or not interaction.needs_memory:
            return
        self._told_of_memory = True
        if len(self.roi_heads.empty_memory(1, device=torch.device("cpu")).offsets) > 1:
            logger.warning(
                "THE MEMORY IS EMPTY in %s: inputs come without `memory`, so the model sees every "
                "clip alone, and its results are worse than they could be. `%s` of "
                "alphaaction_d2.engine gives it one in any loop, see docs/training.md",
                *(when, remedy),
            )


def _shows_persons(clip: dict) -> bool:
    """Say whether an input has persons; without proposals the whole picture is one."""
    return "proposals" not in clip or len(clip["proposals"]) > 0
