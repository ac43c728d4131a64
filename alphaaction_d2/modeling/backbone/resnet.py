"""ResNets over clips: what they are in numbers, and their parts, made of pytorchvideo's blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial

from pytorchvideo.layers.nonlocal_net import create_nonlocal
from pytorchvideo.models.resnet import ResStage, create_bottleneck_block, create_res_block
from pytorchvideo.models.slowfast import FuseFastToSlow
from pytorchvideo.models.stem import create_res_basic_stem
from torch import nn

from .dilation import Spacing, space_stages
from .layers import FrozenBatchNorm3d, LongConv3d

# What a lateral connection is, and whether the stem pooling pads.
LATERALS = ("aia", "pytorchvideo", "mmaction2")
NORMS = {"BN": nn.BatchNorm3d, "FrozenBN": FrozenBatchNorm3d}

# Residual blocks of res2..res5 by depth; 18 has one bottleneck block a stage (small networks).
BLOCKS = {18: (1, 1, 1, 1), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@dataclass(frozen=True)
class Pathway:
    """What a pathway has of its own.

    Attributes:
        channels: of the stem; res2..res5 put out 4, 8, 16, 32 times as many.
        stem_kernel: size of the stem convolution (time, height, width), odd numbers.
        temporal_blocks: how many of the first blocks of res2..res5 look along time; None: all.
        non_local_blocks: blocks of res4 that a non-local block follows.
        joining: channels that a lateral connection adds to the stem's; later 4, 8, 16 times as
            many.
    """

    channels: int
    stem_kernel: tuple[int, int, int]
    temporal_blocks: tuple[int | None, ...]
    non_local_blocks: tuple[int, ...] = ()
    joining: int = 0

    def __post_init__(self) -> None:
        _keep_as_tuples(self)


@dataclass(frozen=True)
class ResNet:
    """What all pathways of a network have in common, under the names of MODEL.SLOWFAST's keys.

    Attributes:
        depth: as in ResNet, a key of BLOCKS.
        num_stages: 4 ends with res5; fewer make a small network.
        stem_strides: spatial strides of the stem convolution and of its max pooling (1: none).
        spatial_strides, dilations: of res2..res5.
        output_stride: of the result, where it is to be less than all strides multiply to: the last
            stages then use dilation instead, with the same weights. 0: as it comes.
        norm: a key of NORMS.
        lateral: "aia", the released AIA network (lateral connections are a convolution with bias
            and nothing else, stem pooling does not pad), "pytorchvideo", also PySlowFast's
            (convolution, normalisation, ReLU; padded pooling), or "mmaction2" (a convolution
            without bias and nothing else; padded pooling).
        lateral_kernel: frames of the fast pathway that a lateral connection sees.
    """

    depth: int
    num_stages: int
    stem_strides: tuple[int, int]
    spatial_strides: tuple[int, int, int, int]
    dilations: tuple[int, int, int, int]
    output_stride: int
    norm: str
    lateral: str
    lateral_kernel: int

    def __post_init__(self) -> None:
        _keep_as_tuples(self)
        for key, known in (
            ("depth", list(BLOCKS)),
            ("norm", list(NORMS)),
            ("lateral", list(LATERALS)),
        ):
            if (value := getattr(self, key)) not in known:
                raise ValueError(f"MODEL.SLOWFAST.{key.upper()} {value!r} is not one of {known}")

    @property
    def stride(self) -> int:
        """Pixels of the picture between cells of the result."""
        strides = (*self.stem_strides, *self.spatial_strides[: self.num_stages])
        return self.output_stride or math.prod(strides)

    def channels(self, pathway: Pathway) -> int:
        """Channels of a pathway's result."""
        return pathway.channels * 2 ** (1 + self.num_stages)

    def parts(self, pathway: Pathway) -> Iterator[nn.Module]:
        """Build a pathway's stem and res2..res5, one after the other.

        Those beyond `num_stages` come, too, and are for the caller to drop: with them, a seed goes
        on meaning the random weights that results were measured with.
        """
        in_res4 = BLOCKS[self.depth][2] if self.num_stages > 2 else 0
        if any(not 0 <= i < in_res4 for i in pathway.non_local_blocks):
            raise ValueError(
                f"MODEL.SLOWFAST.NON_LOCAL_BLOCKS {pathway.non_local_blocks}: the network has "
                f"{in_res4} blocks in res4, counted from 0"
            )
        yield self._stem(pathway)
        n, stem_stride = self.num_stages, math.prod(self.stem_strides)
        strides, dilations = self.spatial_strides, self.dilations
        stages = space_stages(strides[:n], dilations[:n], stem_stride, self.output_stride)
        stages += space_stages(strides[n:], dilations[n:], 1, 0)
        for stage, spacing in enumerate(stages):
            yield self._stage(pathway, stage, spacing)

    def lateral_connection(self, fast: Pathway, part: int, alpha: int) -> nn.Module:
        """Build what flows to the slow pathway behind a part, 0 the stem, 4 res5 (nothing)."""
        if part == 4:
            return nn.Identity()
        channels = fast.channels * (2 ** (1 + part) if part else 1)
        conv = LongConv3d(
            channels,
            2 * channels,
            kernel_size=(self.lateral_kernel, 1, 1),
            stride=(alpha, 1, 1),
            padding=(self.lateral_kernel // 2, 0, 0),
            bias=self.lateral == "aia",
        )
        if self.lateral == "pytorchvideo":
            return FuseFastToSlow(conv, NORMS[self.norm](2 * channels), nn.ReLU())
        return FuseFastToSlow(conv)

    def _stem(self, pathway: Pathway) -> nn.Module:
        conv_stride, pool_stride = self.stem_strides
        return create_res_basic_stem(
            in_channels=3,
            out_channels=pathway.channels,
            conv_kernel_size=pathway.stem_kernel,
            conv_stride=(1, conv_stride, conv_stride),
            conv_padding=tuple(size // 2 for size in pathway.stem_kernel),
            conv=LongConv3d,
            pool=nn.MaxPool3d if pool_stride > 1 else None,
            pool_kernel_size=(1, 3, 3),
            pool_stride=(1, pool_stride, pool_stride),
            pool_padding=(0, 0, 0) if self.lateral == "aia" else (0, 1, 1),
            norm=NORMS[self.norm],
        )

    def _stage(self, pathway: Pathway, stage: int, spacing: Spacing) -> nn.Module:
        """Build the residual blocks of a stage, 0 (res2) to 3 (res5)."""
        inner = pathway.channels * 2**stage
        out = 4 * inner
        into = pathway.channels + pathway.joining
        if stage > 0:
            into *= 2 ** (1 + stage)
        blocks = []
        number, moving = BLOCKS[self.depth][stage], pathway.temporal_blocks[stage]
        for i in range(number):
            reach = int(moving is None or i < moving)  # frames to both sides
            stride = spacing.stride if i == 0 else 1
            dilation = spacing.dilations[min(i, 1)]
            activation: Callable[[], nn.Module] = nn.ReLU
            if stage == 2 and i in pathway.non_local_blocks:
                activation = partial(_relu_and_non_local, out, NORMS[self.norm])
            block = create_res_block(
                dim_in=out if i else into,
                dim_inner=inner,
                dim_out=out,
                bottleneck=create_bottleneck_block,
                use_shortcut=i == 0 and spacing.gave_up_stride,
                conv_a=LongConv3d,
                conv_a_kernel_size=(1 + 2 * reach, 1, 1),
                conv_a_stride=(1, 1, 1),
                conv_a_padding=(reach, 0, 0),
                conv_b_stride=(1, stride, stride),
                conv_b_padding=(0, dilation, dilation),
                conv_b_dilation=(1, dilation, dilation),
                norm=NORMS[self.norm],
                activation_block=activation,
            )
            if block.branch1_conv is not None:  # else numbers of numpy: to torch.compile, tensors
                block.branch1_conv.stride = tuple(map(int, block.branch1_conv.stride))
            blocks.append(block)
        return ResStage(nn.ModuleList(blocks))


def _keep_as_tuples(numbers: Pathway | ResNet) -> None:
    """Turn the lists of a dataclass into tuples: what a LazyConfig gives are neither, and torch and
    pytorchvideo ask for these."""
    for field in fields(numbers):
        value = getattr(numbers, field.name)
        if isinstance(value, Sequence) and not isinstance(value, str):
            object.__setattr__(numbers, field.name, tuple(value))


def _relu_and_non_local(channels: int, norm: type[nn.Module]) -> nn.Module:
    """End a block: attention over all places and frames follows (Wang et al., CVPR 2018)."""
    non_local = create_nonlocal(
        dim_in=channels,
        dim_inner=channels // 2,
        pool_size=(2, 2, 2),
        instantiation="dot_product",
        norm=norm,
    )
    return nn.Sequential(nn.ReLU(), non_local)
