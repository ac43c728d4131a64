"""What the rest of the project knows of a backbone.

Any detectron2 `Backbone` that turns clips (N, 3, T, H, W) into maps (N, C, T', H', W') will do:
its `output_shape()` tells channels and strides, `size_divisibility` how far pictures are padded.
What detectron2 has no word for is asked here.
"""

from __future__ import annotations

import math

from detectron2 import layers
from detectron2.modeling import Backbone
from torch import nn
from torchvision.ops import FrozenBatchNorm2d


class VideoBackbone(Backbone):
    """A backbone that can be frozen; its maps may have any stride, one each.

    What it gives is kept where detectron2's `Backbone.output_shape` looks for it.
    """

    frozen = False
    needs_sizes = False  # `forward` also takes the sizes (height, width) of the clips' pictures

    @property
    def size_divisibility(self) -> int:
        """Pictures are padded to a multiple of all strides, so that all maps stay aligned."""
        return math.lcm(*(spec.stride for spec in self.output_shape().values()))

    def freeze(self) -> None:
        """From now on nothing in here trains, statistics of normalisation included."""
        self.frozen = True
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> VideoBackbone:
        """Change the mode; a frozen network stays as it is in testing."""
        return super().train(mode and not self.frozen)


def stands_still(backbone: nn.Module) -> bool:
    """Tell whether training leaves a backbone, and what it says of a clip, as they are.

    Of a stranger that is not known: normalisation and dropout may act in training.
    """
    return isinstance(backbone, VideoBackbone) and backbone.frozen


def has_frozen_normalisation(network: nn.Module) -> bool:
    """Tell whether normalisation keeps loaded statistics, and so has to be given some."""
    kinds = (FrozenBatchNorm2d, layers.FrozenBatchNorm2d)  # ours is of the first kind
    return any(isinstance(m, kinds) for m in network.modules())
