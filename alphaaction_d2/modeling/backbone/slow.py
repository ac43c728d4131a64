"""The slow pathway alone (Slow, Feichtenhofer et al., ICCV 2019), built from pytorchvideo's blocks.

Shape letters: N clips, T raw frames, Ts frames of the pathway, H W picture, C channels.
"""

from __future__ import annotations

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from pytorchvideo.models.resnet import create_resnet
from torch import Tensor, nn

from .convolution import guard_long_kernels
from .dilation import reach_output_stride
from .slowfast import NORMS, pathway_indices
from .video_backbone import VideoBackbone

DEPTHS = (50, 101, 152)  # that pytorchvideo builds a ResNet of


class Slow(VideoBackbone):
    """A ResNet over few frames, far apart; res4 and res5 look along time.

    It is configured like the slow pathway of a SlowFast, by the same keys.
    """

    @configurable
    def __init__(
        self,
        *,
        depth: int = 50,
        num_stages: int = 4,
        num_frames: int = 64,
        tau: int = 16,
        slow_jitter: bool = False,
        stem_channels: int = 64,
        stem_strides: tuple[int, int] = (2, 2),
        spatial_strides: tuple[int, int, int, int] = (1, 2, 2, 1),
        dilations: tuple[int, int, int, int] = (1, 1, 1, 2),
        output_stride: int = 0,
        norm: str = "FrozenBN",
        frozen: bool = False,
    ) -> None:
        """See :class:`SlowFast`."""
        super().__init__()
        if num_frames % tau:
            raise ValueError(f"Slow: NUM_FRAMES {num_frames} must be a multiple of TAU {tau}")
        if depth not in DEPTHS:
            raise ValueError(f"Slow: DEPTH {depth} is not one of {DEPTHS}")
        if norm not in NORMS:
            raise ValueError(f"Slow: NORM {norm!r} is not one of {sorted(NORMS)}")
        self.num_frames, self.tau, self.slow_jitter = num_frames, tau, slow_jitter
        conv_stride, pool_stride = stem_strides
        network = create_resnet(
            model_depth=depth,
            norm=NORMS[norm],
            stem_dim_out=stem_channels,
            stem_conv_kernel_size=(1, 7, 7),
            stem_conv_stride=(1, conv_stride, conv_stride),
            stem_pool=nn.MaxPool3d if pool_stride > 1 else None,
            stem_pool_stride=(1, pool_stride, pool_stride),
            stage_conv_b_dilation=tuple((1, d, d) for d in dilations),
            stage_spatial_h_stride=tuple(spatial_strides),
            stage_spatial_w_stride=tuple(spatial_strides),
            head=None,
        )
        self.blocks = network.blocks[: 1 + num_stages]
        guard_long_kernels(self)
        stride = reach_output_stride(
            [self.blocks[1:]],
            spatial_strides[:num_stages],
            conv_stride * pool_stride,
            output_stride,
        )
        self.frozen = frozen
        if frozen:
            self.requires_grad_(False)
        self._out_features = ["slow"]
        self._out_feature_channels = {"slow": stem_channels * 2 ** (1 + num_stages)}
        self._out_feature_strides = {"slow": stride}

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec | None = None) -> dict:
        node = cfg.MODEL.SLOWFAST
        if node.ACTIVATION_CHECKPOINT:
            raise ValueError("MODEL.SLOWFAST.ACTIVATION_CHECKPOINT is for SlowFast only, not Slow")
        return {
            "depth": node.DEPTH,
            "num_stages": node.NUM_STAGES,
            "num_frames": cfg.INPUT.NUM_FRAMES,
            "tau": node.TAU,
            "slow_jitter": node.SLOW_JITTER,
            "stem_channels": node.STEM_CHANNELS,
            "stem_strides": tuple(node.STEM_STRIDES),
            "spatial_strides": tuple(node.SPATIAL_STRIDES),
            "dilations": tuple(node.DILATIONS),
            "output_stride": node.OUTPUT_STRIDE,
            "norm": node.NORM,
            "frozen": node.FROZEN,
        }

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """
        Args:
            clips: (N, 3, T, H, W), normalised, T = `num_frames`.

        Returns:
            {"slow": (N, C, Ts, H / stride, W / stride)}
        """
        x = clips[:, :, pathway_indices(self.num_frames, self.tau, 1, self.slow_start(clips))[0]]
        for block in self.blocks:
            x = block(x)
        return {"slow": x}


@BACKBONE_REGISTRY.register()
def build_slow_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Slow:
    """Slow from `cfg.MODEL.SLOWFAST`."""
    return Slow(cfg, input_shape)
