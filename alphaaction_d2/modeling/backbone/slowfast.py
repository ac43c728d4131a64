"""SlowFast (Feichtenhofer et al., ICCV 2019), built from pytorchvideo's blocks.

Shape letters: N clips, T raw frames, Ts / Tf frames of the slow / fast pathway, H W picture, C
channels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from pytorchvideo.layers.nonlocal_net import create_nonlocal
from pytorchvideo.models.slowfast import FuseFastToSlow, create_slowfast
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .batch_norm import FrozenBatchNorm3d
from .convolution import guard_long_kernels
from .dilation import reach_output_stride
from .video_backbone import VideoBackbone

NORMS = {"BN": nn.BatchNorm3d, "FrozenBN": FrozenBatchNorm3d}


def pathway_indices(
    num_frames: int,
    tau: int,
    alpha: int,
    slow_start: int | None = None,
    *,
    spread: bool = False,
) -> tuple[list[int], list[int]]:
    """Which raw frames the slow and the fast pathway see.

    The fast pathway takes every (tau // alpha)-th frame, the slow one every tau-th, both from the
    middle of their first step (released AIA model: 64 frames, tau 16, alpha 8 -> slow 7, 23, 39,
    55).

    Args:
        num_frames: raw frames of the clip, a multiple of `tau`.
        tau: temporal stride of the slow pathway.
        alpha: frame-rate ratio of the pathways, a divisor of `tau`.
        slow_start: first slow frame, in [0, tau); None: (tau - 1) // 2.
        spread: unless there is a `slow_start`, the slow frames are spread evenly over the fast ones
            instead, from the first to the last (PySlowFast, pytorchvideo).
    """
    fast_stride = tau // alpha
    spread = spread and slow_start is None
    if slow_start is None:
        slow_start = (tau - 1) // 2
    slow = list(range(slow_start, num_frames, tau))
    fast = list(range((fast_stride - 1) // 2, num_frames, fast_stride))
    if spread:
        # torch's own numbers, truncated: that is how those models were trained
        slow = [fast[i] for i in torch.linspace(0, len(fast) - 1, len(slow)).long().tolist()]
    return slow, fast


class SlowFast(VideoBackbone):
    """Both pathways up to res5, with spatial stride 16 (or what the strides multiply to).

    One clip tensor goes in; the pathways are sliced from it here. A clip with fewer or more frames
    than expected is refused: the lateral connections need Tf = alpha * Ts.
    """

    @configurable
    def __init__(
        self,
        *,
        depth: int = 50,
        num_stages: int = 4,
        num_frames: int = 64,
        tau: int = 16,
        alpha: int = 8,
        slow_jitter: bool = False,
        slow_spread: bool = False,
        stem_channels: int = 64,
        beta_inv: int = 8,
        stem_kernels: tuple[tuple[int, int, int], ...] = ((1, 7, 7), (5, 7, 7)),
        stem_strides: tuple[int, int] = (2, 2),
        spatial_strides: tuple[int, int, int, int] = (1, 2, 2, 1),
        dilations: tuple[int, int, int, int] = (1, 1, 1, 2),
        output_stride: int = 0,
        temporal_blocks: tuple[int, ...] = (),
        non_local_blocks: tuple[int, ...] = (),
        norm: str = "FrozenBN",
        lateral: str = "aia",
        lateral_kernel: int = 5,
        frozen: bool = False,
        activation_checkpoint: bool = False,
    ) -> None:
        """
        Args:
            depth: 50 / 101 / 152 as in ResNet; 18 is one bottleneck block a stage (small networks).
            num_stages: 4 ends with res5; fewer make a small network.
            num_frames: raw frames T of a clip.
            tau, alpha, slow_jitter, slow_spread: see :func:`pathway_indices`; jitter draws
                `slow_start` in training.
            stem_channels: channels of the slow stem; res2..res5 have 4, 8, 16, 32 times as many.
            beta_inv: slow channels divided by fast channels.
            stem_kernels: sizes of the slow and the fast stem convolution, odd numbers.
            stem_strides: spatial strides of the stem convolution and of the max pooling.
            spatial_strides, dilations: of res2..res5.
            output_stride: of the result, where it is to be less than all strides multiply to: the
                last stages then use dilation instead, with the same weights. 0: as it comes.
            temporal_blocks: how many of the first blocks of each stage look along time; (): all.
            non_local_blocks: blocks of the slow res4 that a non-local block follows.
            norm: "BN" or "FrozenBN".
            lateral: "aia" (convolution with bias only, unpadded stem pooling: the released AIA
                network) or "pytorchvideo" (convolution, norm, ReLU, padded pooling: also
                PySlowFast's).
            lateral_kernel: temporal size of the lateral convolutions.
            frozen: nothing in here trains, statistics of normalisation included; only what follows.
            activation_checkpoint: training keeps the inputs of stem and stages only and computes
                what is inside them again for the gradient.
        """
        super().__init__()
        if num_frames % tau or tau % alpha:
            raise ValueError(
                f"SlowFast: NUM_FRAMES {num_frames} must be a multiple of TAU {tau}, and TAU of "
                f"ALPHA {alpha}"
            )
        if lateral not in ("aia", "pytorchvideo"):
            raise ValueError(f"SlowFast: LATERAL {lateral!r} is not one of 'aia', 'pytorchvideo'")
        if norm not in NORMS:
            raise ValueError(f"SlowFast: NORM {norm!r} is not one of {sorted(NORMS)}")
        self.num_frames, self.tau, self.alpha = num_frames, tau, alpha
        self.slow_jitter, self.slow_spread = slow_jitter, slow_spread
        self.activation_checkpoint = activation_checkpoint

        conv_stride, pool_stride = stem_strides
        fast_channels = stem_channels // beta_inv
        options = {"norm": NORMS[norm]}
        if temporal_blocks:
            options["stage_conv_a_kernel_sizes"] = _temporal_kernels(temporal_blocks)
        if lateral == "aia":
            options["fusion_builder"] = partial(
                _plain_fusion, beta_inv=beta_inv, kernel=lateral_kernel, stride=alpha
            )
        network = create_slowfast(
            model_depth=depth,
            slowfast_channel_reduction_ratio=(beta_inv,),
            slowfast_fusion_conv_kernel_size=(lateral_kernel, 1, 1),
            slowfast_fusion_conv_stride=(alpha, 1, 1),
            stem_dim_outs=(stem_channels, fast_channels),
            stem_conv_kernel_sizes=tuple(map(tuple, stem_kernels)),
            stem_conv_strides=((1, conv_stride, conv_stride),) * 2,
            stem_pool=(nn.MaxPool3d if pool_stride > 1 else None,) * 2,
            stem_pool_strides=((1, pool_stride, pool_stride),) * 2,
            stage_spatial_strides=(tuple(spatial_strides),) * 2,
            stage_conv_b_dilations=(tuple((1, d, d) for d in dilations),) * 2,
            head=None,
            **options,
        )
        # The last block pools for classification; detection wants the maps.
        self.blocks = network.blocks[: 1 + num_stages]
        for i in non_local_blocks:
            _follow_with_non_local(self.blocks[3].multipathway_blocks[0].res_blocks[i], NORMS[norm])
        guard_long_kernels(self)
        if num_stages < 4:  # the lateral connection of the last stage would feed the stage left out
            self.blocks[-1].multipathway_fusion = nn.Identity()
        if lateral == "aia" and pool_stride > 1:
            for stem in self.blocks[0].multipathway_blocks:
                stem.pool.padding = (0, 0, 0)

        stride = reach_output_stride(
            [[block.multipathway_blocks[i] for block in self.blocks[1:]] for i in range(2)],
            spatial_strides[:num_stages],
            conv_stride * pool_stride,
            output_stride,
        )
        channels = stem_channels * 2 ** (1 + num_stages)
        self.frozen = frozen
        if frozen:
            self.requires_grad_(False)

        self._out_features = ["slow", "fast"]
        self._out_feature_channels = {
            "slow": channels,
            "fast": channels // beta_inv,
        }
        self._out_feature_strides = {"slow": stride, "fast": stride}

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec | None = None) -> dict:
        node = cfg.MODEL.SLOWFAST
        return {
            "depth": node.DEPTH,
            "num_stages": node.NUM_STAGES,
            "num_frames": cfg.INPUT.NUM_FRAMES,
            "tau": node.TAU,
            "alpha": node.ALPHA,
            "slow_jitter": node.SLOW_JITTER,
            "slow_spread": node.SLOW_SPREAD,
            "stem_channels": node.STEM_CHANNELS,
            "beta_inv": node.BETA_INV,
            "stem_kernels": tuple(node.STEM_KERNELS),
            "stem_strides": tuple(node.STEM_STRIDES),
            "spatial_strides": tuple(node.SPATIAL_STRIDES),
            "dilations": tuple(node.DILATIONS),
            "output_stride": node.OUTPUT_STRIDE,
            "temporal_blocks": tuple(node.TEMPORAL_BLOCKS),
            "non_local_blocks": tuple(node.NON_LOCAL_BLOCKS),
            "norm": node.NORM,
            "lateral": node.LATERAL,
            "lateral_kernel": node.LATERAL_KERNEL,
            "frozen": node.FROZEN,
            "activation_checkpoint": node.ACTIVATION_CHECKPOINT,
        }

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """
        Args:
            clips: (N, 3, T, H, W), normalised, T = `num_frames`.

        Returns:
            {"slow": (N, Cs, Ts, H / stride, W / stride), "fast": (N, Cf, Tf, H / stride, W /
            stride)}
        """
        slow, fast = pathway_indices(
            *(self.num_frames, self.tau, self.alpha, self.slow_start(clips)),
            spread=self.slow_spread,
        )
        pathways = [clips[:, :, slow], clips[:, :, fast]]
        run = _run_again_for_gradient if self.training and self.activation_checkpoint else _run
        for block in self.blocks:
            pathways = run(block, *pathways)
        return {"slow": pathways[0], "fast": pathways[1]}


def _run(block: nn.Module, slow: Tensor, fast: Tensor) -> list[Tensor]:
    return block([slow, fast])  # a new list: the blocks write into theirs


def _run_again_for_gradient(block: nn.Module, slow: Tensor, fast: Tensor) -> list[Tensor]:
    """The same, keeping nothing for the gradient but `slow` and `fast`."""
    return checkpoint(
        partial(_run, block),
        *(slow, fast),
        use_reentrant=False,
        preserve_rng_state=False,  # no block draws random numbers
        context_fn=lambda: (contextlib.nullcontext(), _statistics_stay(block)),
    )


@contextlib.contextmanager
def _statistics_stay(block: nn.Module) -> Iterator[None]:
    """Batch normalisation has seen the batch before: its running statistics must not count it
    twice."""
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm3d)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before):
            norm.momentum, norm.num_batches_tracked = momentum, count


def _temporal_kernels(temporal_blocks: tuple[int, ...]) -> tuple:
    """Kernels of the first convolutions by pathway, stage and block: 3 along time, then 1.

    The builder cuts what a stage has no blocks for; 36 is the most that any has.
    """
    still, moving = (1, 1, 1), (3, 1, 1)
    stages = [[moving] * n + [still] * (36 - n) for n in temporal_blocks]
    return ([[still], [still], *stages[2:]], stages)


def _follow_with_non_local(block: nn.Module, norm: type[nn.Module]) -> None:
    """Attention over all places and frames (Wang et al., CVPR 2018) behind a residual block."""
    channels = block.branch2.conv_c.out_channels
    non_local = create_nonlocal(
        dim_in=channels,
        dim_inner=channels // 2,
        pool_size=(2, 2, 2),
        instantiation="dot_product",
        norm=norm,
    )
    block.activation = nn.Sequential(block.activation, non_local)


def _plain_fusion(
    fusion_dim_in: int, stage_idx: int, *, beta_inv: int, kernel: int, stride: int
) -> nn.Module:
    """Lateral connection of the released AIA network: a convolution with bias, nothing else."""
    if stage_idx > 3:  # none after res5
        return nn.Identity()
    channels = fusion_dim_in // beta_inv
    conv = nn.Conv3d(
        channels,
        2 * channels,
        kernel_size=(kernel, 1, 1),
        stride=(stride, 1, 1),
        padding=(kernel // 2, 0, 0),
    )
    return FuseFastToSlow(conv_fast_to_slow=conv)


@BACKBONE_REGISTRY.register()
def build_slowfast_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SlowFast:
    """SlowFast from `cfg.MODEL.SLOWFAST`."""
    return SlowFast(cfg, input_shape)
