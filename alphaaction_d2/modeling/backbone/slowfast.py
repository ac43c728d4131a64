"""SlowFast and its slow pathway alone (Feichtenhofer et al., ICCV 2019).

Shape letters: N clips, T raw frames, Ts / Tf frames of the slow / fast pathway, H W picture, C
channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from detectron2.config import CfgNode, configurable, get_cfg, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from pytorchvideo.models.net import MultiPathWayWithFuse, Net
from torch import Tensor, nn

from ...config import Rule, add_alphaaction_config, check_keys, refuse_unread, several, whole
from .activation_checkpoint import run_blocks
from .frames import FrameSampling
from .resnet import Pathway, ResNet
from .video_backbone import VideoBackbone

FAST_KEYS = ("ALPHA", "BETA_INV", "LATERAL_KERNEL")  # which mean nothing without a fast pathway

_ODD = Rule("an odd whole number up to 63", lambda x: type(x) is int and 0 < x < 64 and x % 2 == 1)
SLOWFAST_KEYS = {
    "NUM_STAGES": whole(1, 4),
    "TAU": whole(1, 4096),
    "ALPHA": whole(1, 4096),
    "SLOW_START": whole(-1, 4095),
    "STEM_CHANNELS": whole(1, 1024),
    "BETA_INV": whole(1, 1024),
    "STEM_KERNELS": several(several(_ODD, [3]), [2]),
    "STEM_STRIDES": several(whole(1, 16), [2]),
    "SPATIAL_STRIDES": several(whole(1, 16), [4]),
    "DILATIONS": several(whole(1, 64), [4]),
    "OUTPUT_STRIDE": whole(0, 2**14),
    "TEMPORAL_BLOCKS": several(whole(0, 1000), [0, 4]),
    "NON_LOCAL_BLOCKS": several(whole(0, 1000), range(100)),
    "LATERAL_KERNEL": _ODD,
}


class SlowFast(VideoBackbone):
    """Both pathways up to res5, with spatial stride 16 (or what the strides multiply to).

    One clip tensor goes in; the pathways are sliced from it here. A clip with fewer or more frames
    than expected is refused: the lateral connections need Tf = alpha * Ts.
    """

    @configurable
    def __init__(
        self,
        *,
        frames: FrameSampling,
        resnet: ResNet,
        pathways: Mapping[str, Pathway],
        frozen: bool = False,
        activation_checkpoint: bool = False,
    ) -> None:
        """
        Args:
            pathways: "slow" and "fast", or "slow" alone.
            frozen: nothing in here trains, statistics of normalisation included; only what follows.
            activation_checkpoint: training keeps the inputs of stem and stages only and computes
                what is inside them again for the gradient.
        """
        super().__init__()
        # a LazyConfig does not build what stands in a dict
        pathways = {name: instantiate(x) for name, x in pathways.items()}
        if frames.num_frames % frames.tau or frames.tau % frames.alpha:
            raise ValueError(
                f"INPUT.NUM_FRAMES {frames.num_frames} must be a multiple of MODEL.SLOWFAST.TAU "
                f"{frames.tau}, and TAU of ALPHA {frames.alpha}"
            )
        if frames.start is not None and frames.start >= frames.tau:
            raise ValueError(
                f"MODEL.SLOWFAST.SLOW_START {frames.start} must be below TAU {frames.tau}"
            )
        self.frames = frames
        self.activation_checkpoint = activation_checkpoint
        fast, blocks = pathways.get("fast"), nn.ModuleList()
        for i, parts in enumerate(zip(*map(resnet.parts, pathways.values()))):
            if fast is None:
                blocks.extend(parts)
                continue
            fusion = resnet.lateral_connection(fast, i, frames.alpha)
            together = nn.ModuleList(parts)
            blocks.append(
                MultiPathWayWithFuse(multipathway_blocks=together, multipathway_fusion=fusion)
            )
        self.blocks = Net(blocks=blocks).blocks[: 1 + resnet.num_stages]  # draws random weights
        if fast is not None:  # nothing flows into the stage that was left out
            self.blocks[-1].multipathway_fusion = nn.Identity()
        self._out_features = list(pathways)
        self._out_feature_channels = {name: resnet.channels(x) for name, x in pathways.items()}
        self._out_feature_strides = dict.fromkeys(pathways, resnet.stride)
        if frozen:
            self.freeze()

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec | None = None) -> dict:
        check_keys(cfg, "MODEL.SLOWFAST", SLOWFAST_KEYS)
        node = cfg.MODEL.SLOWFAST
        if node.STEM_CHANNELS % node.BETA_INV:
            raise ValueError(
                f"MODEL.SLOWFAST.STEM_CHANNELS {node.STEM_CHANNELS} must be a multiple of BETA_INV "
                f"{node.BETA_INV}"
            )
        channels = node.STEM_CHANNELS // node.BETA_INV
        kernel, temporal = tuple(node.STEM_KERNELS[1]), tuple(node.TEMPORAL_BLOCKS)
        fast = Pathway(channels, kernel, temporal or (None,) * 4)
        return _from_config(cfg, node.ALPHA, joining=2 * channels, fast=fast)

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """
        Args:
            clips: (N, 3, T, H, W), normalised, T = `frames.num_frames`.

        Returns:
            {"slow": (N, Cs, Ts, H / stride, W / stride), "fast": (N, Cf, Tf, H / stride, W /
            stride)}
        """
        names = self.output_shape()
        pathways = self.frames.sample(clips, len(names), self.training)
        recompute = self.training and self.activation_checkpoint
        return dict(zip(names, run_blocks(self.blocks, *pathways, recompute=recompute)))


class Slow(SlowFast):
    """The slow pathway alone: a ResNet over few frames, far apart, whose res4 and res5 look along
    time. The same keys configure it."""

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec | None = None) -> dict:
        node, defaults = cfg.MODEL.SLOWFAST, get_cfg()
        add_alphaaction_config(defaults)
        for key in FAST_KEYS:
            default = defaults.MODEL.SLOWFAST[key]
            if node[key] != default:
                raise ValueError(
                    f"MODEL.SLOWFAST.{key} {node[key]}: a Slow network has no fast pathway, for "
                    f"which this is; leave it at {default}"
                )
        check_keys(cfg, "MODEL.SLOWFAST", SLOWFAST_KEYS)
        # As if every raw frame was a fast one: SLOW_SPREAD goes from the first to the last.
        return _from_config(cfg, alpha=node.TAU)


def _from_config(cfg: CfgNode, alpha: int, joining: int = 0, **others: Pathway) -> dict:
    """Make the arguments of a network with the slow pathway of `cfg`, and other pathways."""
    refuse_unread(cfg, "backbone", "SlowFast")
    node = cfg.MODEL.SLOWFAST
    temporal = tuple(node.TEMPORAL_BLOCKS) or (None,) * 4
    slow = Pathway(
        node.STEM_CHANNELS,
        tuple(node.STEM_KERNELS[0]),
        (0, 0, *temporal[2:]),  # res2 and res3 never look along time
        tuple(node.NON_LOCAL_BLOCKS),
        joining,
    )
    return {
        "frames": FrameSampling(
            cfg.INPUT.NUM_FRAMES,
            node.TAU,
            alpha,
            node.SLOW_JITTER,
            node.SLOW_SPREAD,
            None if node.SLOW_START < 0 else node.SLOW_START,
        ),
        "resnet": ResNet(**{x.name: node[x.name.upper()] for x in fields(ResNet)}),
        "pathways": {"slow": slow, **others},
        "frozen": node.FROZEN,
        "activation_checkpoint": node.ACTIVATION_CHECKPOINT,
    }


@BACKBONE_REGISTRY.register()
def build_slowfast_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SlowFast:
    """Build SlowFast from `cfg.MODEL.SLOWFAST`."""
    return SlowFast(cfg, input_shape)


@BACKBONE_REGISTRY.register()
def build_slow_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Slow:
    """Build Slow from `cfg.MODEL.SLOWFAST`."""
    return Slow(cfg, input_shape)
