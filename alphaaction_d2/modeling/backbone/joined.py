"""Maps of several networks side by side, each of which sees the clip as it was trained to.

A clip is cut once, as the configuration of the whole says. Every network takes the frames of it
that lie where its own would, and gets colours and padding of its own. The maps keep their strides:
RoI features are pooled from each at its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_backbone, build_model
from torch import Tensor, nn

from ...checkpoint.checkpointer import ActionCheckpointer
from ...config import Rule, check_keys, files_of, refuse_unread, several
from ...formats.config_files import setup_cfg
from .video_backbone import VideoBackbone, stands_still


class Look(NamedTuple):
    """How a network looks at clips that were made for others.

    Attributes:
        frames: which of a clip's it takes.
        gain, offset: from the colours that clips have, normalised, to its own.
        pads: pictures to a multiple of its strides.
    """

    frames: Sequence[int]
    gain: Sequence[float]
    offset: Sequence[float]
    pads: bool = True


class JoinedBackbone(VideoBackbone):
    """Several backbones as one; the maps of the first are called `<name>_1`, and so on."""

    needs_sizes = True

    def __init__(self, networks: Sequence[Backbone], looks: Sequence[Look]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.looks = tuple(looks)
        specs = {
            f"{name}_{i}": spec
            for i, network in enumerate(networks, 1)
            for name, spec in network.output_shape().items()
        }
        self._out_features = list(specs)
        self._out_feature_channels = {name: spec.channels for name, spec in specs.items()}
        self._out_feature_strides = {name: spec.stride for name, spec in specs.items()}
        if all(map(stands_still, networks)):
            self.freeze()

    @property
    def size_divisibility(self) -> int:
        """Every network pads its own pictures: a common multiple may be several times as large."""
        return 1

    def forward(self, clips: Tensor, sizes: Sequence[tuple[int, int]] = ()) -> dict[str, Tensor]:
        """
        Args:
            clips: (N, 3, T, H, W), normalised.
            sizes: of their pictures, where some are smaller than H x W; what is beside these is
                padding, which has no colour, for none of the networks.
        """
        maps: dict[str, Tensor] = {}
        for i, (network, look) in enumerate(zip(self.networks, self.looks), 1):
            gain, offset = (clips.new_tensor(x).view(-1, 1, 1, 1) for x in look[1:3])
            own = clips[:, :, list(look.frames)] * gain + offset
            for clip, (height, width) in zip(own, sizes):
                clip[..., height:, :], clip[..., width:] = 0, 0
            if look.pads:
                multiple: int = network.size_divisibility  # type: ignore[assignment]
                height, width = (-size % multiple for size in clips.shape[-2:])
                own = F.pad(own, (0, width, 0, height))
            maps |= {f"{name}_{i}": x for name, x in network(own).items()}
        return maps


@BACKBONE_REGISTRY.register()
def build_joined_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> JoinedBackbone:
    """Build the networks of the configurations in `cfg.MODEL.JOINED_BACKBONE.NETWORKS`."""
    refuse_unread(cfg, "backbone")
    text = Rule("a text", lambda x: isinstance(x, str))
    check_keys(cfg, "MODEL.JOINED_BACKBONE", {"NETWORKS": several(several(text, [2]))})
    networks, looks = [], []
    for file, weights in cfg.MODEL.JOINED_BACKBONE.NETWORKS:
        with files_of("MODEL.JOINED_BACKBONE.NETWORKS"):
            node = setup_cfg(file, ["MODEL.DEVICE", cfg.MODEL.DEVICE])
            looks.append(look_of(cfg, node, file))
            networks.append(_load(node, weights, needed=not cfg.MODEL.WEIGHTS))
    joined = JoinedBackbone(networks, looks)
    if cfg.MODEL.JOINED_BACKBONE.FROZEN:
        joined.freeze()
    return joined


def look_of(cfg: CfgNode, own: CfgNode, name: str) -> Look:
    """Decide how the network of a configuration looks at clips that are cut as `cfg` says.

    Raises:
        ValueError: the clips are too short for it, or have too few frames.
    """
    moments, wanted = _moments(cfg), _moments(own)
    frames = np.abs(moments[None] - wanted[:, None]).argmin(axis=1)
    step = moments[-1] - moments[-2] if len(moments) > 1 else np.inf
    if np.abs(moments[frames] - wanted).max() > step or len(set(frames)) < len(frames):
        raise ValueError(
            f"{name} looks at {len(wanted)} frames of {wanted[0]:.2f} to {wanted[-1]:.2f} s, clips "
            f"have {len(moments)} of {moments[0]:.2f} to {moments[-1]:.2f} s: set "
            "INPUT.NUM_FRAMES, SAMPLING_RATE and CLIP_FPS so that they hold these"
        )
    (mean, std), (own_mean, own_std) = (
        (np.array(x.MODEL.PIXEL_MEAN), np.array(x.MODEL.PIXEL_STD)) for x in (cfg, own)
    )
    gain, offset = std / own_std, (mean - own_mean) / own_std
    return Look(frames.tolist(), gain.tolist(), offset.tolist(), own.MODEL.PAD_TO_STRIDE)


def _moments(cfg: CfgNode) -> np.ndarray:
    """Give the seconds of a clip's frames, from its keyframe."""
    node = cfg.INPUT
    return (np.arange(node.NUM_FRAMES) - node.NUM_FRAMES // 2) * node.SAMPLING_RATE / node.CLIP_FPS


def _load(cfg: CfgNode, weights: str, needed: bool) -> Backbone:
    """Build a configuration's backbone, with weights to begin from where they are needed."""
    if weights:
        cfg.MODEL.WEIGHTS = weights
    if not needed:  # nor those that a library's network begins with
        cfg.MODEL.WEIGHTS = "not needed"
    if not (needed and cfg.MODEL.WEIGHTS):
        return build_backbone(cfg)
    cfg.MODEL.INTERACTION.NAME = ""
    model = build_model(cfg)
    ActionCheckpointer(model).resume_or_load(cfg.MODEL.WEIGHTS, resume=False)
    return model.backbone
