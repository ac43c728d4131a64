"""Pool, interact, predict: the ROI heads of action detection.

Shape letters: N clips, T frames of a pathway, H W feature map, R persons of the batch, C pooled
channels (slow + fast), K RoI grid side.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads.box_head import FastRCNNConvFCHead
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from ..config import WIDTH, check_keys, number, refuse_unread, several, whole
from ..memory.window import WINDOW_KEYS, empty_window, insert_clips, weighted
from ..structures import UNKNOWN_PERSON, ClipFeatures, Losses, MemoryWindow
from .action_output import ActionOutputLayers
from .interaction import InteractionModule, build_interaction
from .interaction.build import memory_channels
from .pooler import RoIPooler


@ROI_HEADS_REGISTRY.register()
class ActionROIHeads(nn.Module):
    """Actions of given persons.

    Work is split where memory needs it: :meth:`pool` turns feature maps into features of persons
    and objects; :meth:`losses` and :meth:`classify` relate them to each other and to the memory, in
    training and in testing. Between the two, features can wait until the clips after them have been
    seen, or be kept for good.
    """

    @configurable
    def __init__(
        self,
        *,
        in_features: list[str],
        pooler: RoIPooler,
        interaction: InteractionModule | None,
        fusion: str,
        head: nn.Module,
        predictor: ActionOutputLayers,
        num_channels: int,
        window: Mapping[str, Any],
        box_extend_test: tuple[float, float],
        pool_to_last_pixel: bool = False,
    ) -> None:
        """
        Args:
            in_features: names of the backbone's maps, pooled and concatenated in this order.
            pooler: of the maps' time averages.
            interaction: a module of INTERACTION_REGISTRY, or None.
            fusion: "add" or "concat" of the person feature with the interaction's result, or
                "replace" by it.
            head: fused features (R, C') -> (R, C'').
            num_channels: C.
            window: `before_after`, `max_persons`, `stride` and so on of the windows of clips
                without a pool, such as a still image, see :func:`empty_window`.
            box_extend_test: share of width and height by which test boxes grow before pooling.
            pool_to_last_pixel: pool every box without its last row and column (released AIA model).
        """
        super().__init__()
        self.in_features = in_features
        self.pooler = pooler
        self.interaction = interaction
        self.needs_roi_maps = interaction is not None and interaction.needs_roi_maps
        self.needs_scene = interaction is not None and interaction.needs_scene
        self.fusion = fusion
        self.head = head
        self.predictor = predictor
        self.num_channels = num_channels
        self.memory_channels: int = window.get("num_channels", num_channels)
        self.empty_memory: Callable[..., MemoryWindow] = functools.partial(
            empty_window, **{"num_channels": num_channels, **window}
        )
        self.box_extend_test = box_extend_test
        self.pool_to_last_pixel = pool_to_last_pixel

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        refuse_unread(cfg, "heads")
        check_keys(
            cfg,
            "MODEL.ROI_ACTION_HEAD",
            {
                "POOLER_RESOLUTION": whole(1, 64),
                "POOLER_SAMPLING_RATIO": whole(0, 64),
                "BOX_EXTEND_TEST": several(number(0, 100), [2]),
                "FC_DIM": WIDTH,
                "NUM_FC": whole(0, 64),
            },
        )
        check_keys(cfg, "MODEL.MEMORY", WINDOW_KEYS)
        node, memory = cfg.MODEL.ROI_ACTION_HEAD, cfg.MODEL.MEMORY
        in_features = list(input_shape)
        channels = sum(spec.channels for spec in input_shape.values())
        interaction = build_interaction(cfg, channels)
        fused = fused_channels(channels, interaction, cfg.MODEL.INTERACTION.FUSION)
        head: nn.Module = nn.Identity()
        if node.NUM_FC > 0:
            head = FastRCNNConvFCHead(
                ShapeSpec(channels=fused, height=1, width=1),
                conv_dims=[],
                fc_dims=[node.FC_DIM] * node.NUM_FC,
            )
        return {
            "in_features": in_features,
            "pooler": RoIPooler(
                node.POOLER_RESOLUTION,
                [spec.stride for spec in input_shape.values()],
                node.POOLER_SAMPLING_RATIO,
                node.POOLER_TYPE,
            ),
            "interaction": interaction,
            "fusion": cfg.MODEL.INTERACTION.FUSION,
            "head": head,
            "predictor": ActionOutputLayers(cfg, node.FC_DIM if node.NUM_FC > 0 else fused),
            "num_channels": channels,
            "window": {
                "before_after": tuple(memory.WINDOW),
                "max_persons": memory.MAX_PERSONS,
                "stride": memory.STRIDE,
                "num_channels": memory_channels(cfg, channels),
                "fresh_centre": not (memory.DETECTOR_CHANNELS or memory.FROZEN_CONFIG),
            },
            "box_extend_test": tuple(node.BOX_EXTEND_TEST),
            "pool_to_last_pixel": node.POOL_TO_LAST_PIXEL,
        }

    def forward(self, *args: object, **kwargs: object) -> None:
        """Refuse detectron2's call of ROI heads, TypeError: there is no memory in its signature."""
        raise TypeError(
            "ActionROIHeads work in two steps, pool() and then losses() or classify(), as "
            "ActionRCNN calls them: set MODEL.META_ARCHITECTURE to ActionRCNN"
        )

    def pool(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        objects: list[Instances],
    ) -> list[ClipFeatures]:
        """Pool RoI features of persons and objects.

        Averaging over time first commutes with RoIAlign, so pooling in 2D does it all.

        Args:
            images: N padded clips; only their sizes are used.
            features: name -> (N, C, T, H, W).
            proposals: per clip `proposal_boxes`; `objectness_logits` and `person_ids` are optional.
            objects: per clip `boxes`, `scores`.
        """
        maps = self.over_time(features)
        person_boxes = [x.proposal_boxes for x in proposals]
        if not self.training:
            person_boxes = [
                extend_boxes(b, self.box_extend_test, x.image_size)
                for b, x in zip(person_boxes, proposals)
            ]
        boxes = [Boxes.cat([p, o.boxes]) for p, o in zip(person_boxes, objects)]
        if self.pool_to_last_pixel:
            last_pixel = maps[0].new_tensor([0.0, 0.0, 1.0, 1.0])
            boxes = [Boxes(b.tensor - last_pixel) for b in boxes]
        if self.needs_scene:
            frames = [whole_picture(size, maps[0].device) for size in images.image_sizes]
            boxes = [Boxes.cat([b, frame]) for b, frame in zip(boxes, frames)]
        rois = self.pooler(maps, boxes).split([len(b) for b in boxes])
        return [self._clip_features(*x) for x in zip(proposals, objects, rois, person_boxes)]

    def over_time(self, features: dict[str, Tensor]) -> list[Tensor]:
        """Average the maps over time: each (N, Cj, Hj, Wj)."""
        for name in self.in_features:
            if features[name].dim() != 5:
                shape = tuple(features[name].shape)
                raise ValueError(
                    f"map {name!r} of shape {shape}: ActionROIHeads need maps of clips, "
                    "(N, C, T, H, W); MODEL.BACKBONE.NAME must be a backbone of videos"
                )
        return [features[name].mean(dim=2) for name in self.in_features]

    def no_features(self, image_size: tuple[int, int]) -> ClipFeatures:
        """Make the features of a clip that shows nobody."""
        weight = self.predictor.cls_score.weight
        nobody = Instances(image_size, proposal_boxes=Boxes(weight.new_zeros(0, 4)))
        shape = (int(self.needs_scene), self.num_channels, *self.pooler.output_size)
        nothing = no_objects(image_size, weight.device)
        rois = weight.new_zeros(shape)
        return self._clip_features(nobody, nothing, rois, nobody.proposal_boxes)

    def losses(
        self,
        clips: list[ClipFeatures],
        targets: list[Instances],
        memory: MemoryWindow | None = None,
    ) -> Losses:
        """Compute the losses of clips whose features are known, with the interaction's own.

        Args:
            targets: per clip `gt_classes` (Ri, K) multi-hot, one row per proposal, and `gt_boxes`
                for modules that ask for them.
            memory: windows of the N clips; None: empty ones.
        """
        clips = [clip.with_targets(x) for clip, x in zip(clips, targets, strict=True)]
        logits, losses = self._predict(clips, memory)
        gt_classes = torch.cat([x.gt_classes for x in targets]).to(torch.float32)
        losses.merge(self.predictor.losses(logits, gt_classes))
        return losses

    def classify(
        self, clips: list[ClipFeatures], memory: MemoryWindow | None = None
    ) -> list[Instances]:
        """Score clips whose features are known: per clip the rows of :func:`action_inference`.

        `memory` as in :meth:`losses`.
        """
        return [self.list_actions(*x) for x in zip(clips, self.score(clips, memory))]

    def score(self, clips: list[ClipFeatures], memory: MemoryWindow | None = None) -> list[Tensor]:
        """Score clips, (Ri, K) each; :meth:`list_actions` makes of them what :meth:`classify` is.

        Between the two, scores of several networks or views become one.
        """
        logits, _ = self._predict(clips, memory)
        return list(self.predictor.scores(logits).split([len(x.persons) for x in clips]))

    def list_actions(self, clip: ClipFeatures, scores: Tensor) -> Instances:
        """List one clip's actions by its scores (Ri, K)."""
        return self.predictor.list_actions(clip.persons, clip.persons.proposal_boxes, scores)

    def _predict(
        self, clips: list[ClipFeatures], memory: MemoryWindow | None
    ) -> tuple[Tensor, Losses]:
        """Compute logits (R, K) of all persons, and the interaction's own losses."""
        persons = [clip.persons for clip in clips]
        x = torch.cat([clip.roi_features for clip in persons])
        losses = Losses()
        if self.interaction is not None:
            if memory is None:
                memory = self.empty_memory(len(clips), device=x.device)
            memory = weighted(memory, x.dtype)
            memory = insert_clips(memory, persons, random_subset=self.training)
            context, losses = self.interaction(clips, memory)
            x = fuse(x, context, self.fusion)
        return self.predictor(self.head(x)), losses

    def _clip_features(
        self, proposals: Instances, objects: Instances, rois: Tensor, pooled_boxes: Boxes
    ) -> ClipFeatures:
        """Share out `rois` (Ri + Oi, C, K, K): persons, objects and, if needed, the picture."""
        person_rois, object_rois, scene = rois.tensor_split(
            [len(proposals), len(proposals) + len(objects)]
        )
        persons = Instances(proposals.image_size, proposal_boxes=proposals.proposal_boxes)
        device = rois.device
        for name, default in (("objectness_logits", 1.0), ("person_ids", UNKNOWN_PERSON)):
            value = (
                proposals.get(name)
                if proposals.has(name)
                else torch.full((len(proposals),), default, device=device)
            )
            persons.set(name, value)
        persons.roi_features = person_rois.amax(dim=(2, 3))
        with_features = Instances(objects.image_size, boxes=objects.boxes, scores=objects.scores)
        with_features.roi_features = object_rois.amax(dim=(2, 3))
        clip = ClipFeatures(persons, with_features, scene[0] if self.needs_scene else None)
        if not self.needs_roi_maps:
            return clip
        persons.roi_maps = person_rois
        return replace(clip, pooled_boxes=pooled_boxes)


@ROI_HEADS_REGISTRY.register()
class SegmentHeads(ActionROIHeads):
    """Actions of segments of a film (AIA, Sec. 6): the query is the whole picture.

    Its feature is the maps' average over time and space, one row a clip. Of the objects, those with
    `is_hand` are the clip's `hands`.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        options = super().from_config(cfg, input_shape)
        if options["interaction"] is not None and not options["interaction"].takes_segments:
            raise ValueError(
                f"MODEL.INTERACTION.NAME {cfg.MODEL.INTERACTION.NAME!r} relates persons by their "
                "boxes and identities, which segments do not have: use an AIA structure, or ''"
            )
        return options

    def pool(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        proposals: list[Instances],
        objects: list[Instances],
    ) -> list[ClipFeatures]:
        maps = self.over_time(features)
        rois = self.pooler(maps, [x.boxes for x in objects]).split([len(x) for x in objects])
        clips = []
        for i, (segment, size) in enumerate(zip(proposals, images.image_sizes)):
            shares = [n / m for n, m in zip(size, images.tensor.shape[-2:])]  # the rest is padding
            means = []
            for x in maps:
                height, width = (math.ceil(n * share) for n, share in zip(x.shape[-2:], shares))
                means.append(x[i, :, :height, :width].mean(dim=(1, 2)))
            whole = torch.cat(means)[None, :, None, None].expand(
                len(segment), -1, *self.pooler.output_size
            )
            boxes = segment.proposal_boxes
            clips.append(
                self._clip_features(segment, objects[i], torch.cat([whole, rois[i]]), boxes)
            )
        return clips

    def _clip_features(
        self, proposals: Instances, objects: Instances, rois: Tensor, pooled_boxes: Boxes
    ) -> ClipFeatures:
        clip = super()._clip_features(proposals, objects, rois, pooled_boxes)
        if not objects.has("is_hand"):
            return clip
        return replace(
            clip, hands=clip.objects[objects.is_hand], objects=clip.objects[~objects.is_hand]
        )


def fuse(x: Tensor, context: Tensor, fusion: str) -> Tensor:
    """Join the person features (R, C) and what the interaction says of them (R, C')."""
    if fusion == "add":
        return x + context
    return context if fusion == "replace" else torch.cat([x, context], dim=1)


def fused_channels(channels: int, interaction: InteractionModule | None, fusion: str) -> int:
    """Compute the features' width after the interaction; ValueError when they cannot meet."""
    if fusion not in ("add", "concat", "replace"):
        raise ValueError(
            f"MODEL.INTERACTION.FUSION {fusion!r} is not one of 'add', 'concat', 'replace'"
        )
    if interaction is None:
        return channels
    if fusion == "replace":
        return interaction.dim_out
    if fusion == "concat":
        return channels + interaction.dim_out
    if interaction.dim_out != channels:
        raise ValueError(
            f"MODEL.INTERACTION.FUSION 'add' needs DIM_OUT {interaction.dim_out} to be the width "
            f"{channels} of the person features (0 sets it), or use 'concat'"
        )
    return channels


def extend_boxes(boxes: Boxes, scale: tuple[float, float], image_size: tuple[int, int]) -> Boxes:
    """Enlarge boxes about their centre, width and height by the given shares, and clip them."""
    half = (boxes.tensor[:, 2:] - boxes.tensor[:, :2]) * boxes.tensor.new_tensor(scale) / 2
    extended = Boxes(boxes.tensor + torch.cat([-half, half], dim=1))
    extended.clip(image_size)
    return extended


def no_objects(image_size: tuple[int, int], device: torch.device) -> Instances:
    """Make an empty set of objects."""
    return Instances(
        image_size,
        boxes=Boxes(torch.zeros(0, 4, device=device)),
        scores=torch.zeros(0, device=device),
    )


def whole_picture(image_size: tuple[int, int], device: torch.device) -> Boxes:
    """Make one box that covers the picture."""
    height, width = image_size
    return Boxes(torch.tensor([[0.0, 0.0, width, height]], device=device))
