"""The table of other libraries' video networks: what they are, and how their clips are made.

What a configuration leaves open (None) of a network's layer and clips is filled in from here.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from detectron2.config import CfgNode

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_KINETICS = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
_GREY = (0.45,) * 3, (0.225,) * 3


class Network(NamedTuple):
    """A network as its library describes it.

    Attributes:
        library: whose it is: torchvision, pytorchvideo or transformers.
        layer: whose output is the map; "": what the network itself gives.
        clip: frames of a clip, every how many-th frame, frames a second.
        short_side: of its pictures, in pixels.
        mean, std: of grey levels from 0 to 1, by colour.
    """

    library: str
    layer: str
    clip: tuple[int, int, float]
    short_side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


NETWORKS = {
    # torchvision: clips and frame rates are those that its accuracies were measured with
    "r3d_18": Network("torchvision", "layer4", (16, 1, 15.0), 128, *_KINETICS),
    "mc3_18": Network("torchvision", "layer4", (16, 1, 15.0), 128, *_KINETICS),
    "r2plus1d_18": Network("torchvision", "layer4", (16, 1, 15.0), 128, *_KINETICS),
    "s3d": Network("torchvision", "features", (128, 1, 15.0), 256, *_KINETICS),
    "swin3d_t": Network("torchvision", "norm", (32, 1, 15.0), 256, *_IMAGENET),
    "swin3d_s": Network("torchvision", "norm", (32, 1, 15.0), 256, *_IMAGENET),
    "swin3d_b": Network("torchvision", "norm", (32, 1, 15.0), 256, *_IMAGENET),
    "mvit_v1_b": Network("torchvision", "norm", (16, 1, 7.5), 256, *_GREY),
    "mvit_v2_s": Network("torchvision", "norm", (16, 1, 7.5), 256, *_GREY),
}

_BUILDER = "build_{}_video_backbone"


def find_network(name: str, library: str = "") -> Network:
    """Find the description of a network by its name.

    Raises:
        ValueError: there is none of this name, or not in the library.
    """
    known = [x for x, network in NETWORKS.items() if library in ("", network.library)]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
        raise ValueError(f"MODEL.VIDEO_BACKBONE.NAME {name!r}: {hint}")
    return NETWORKS[name]


def fill_network_defaults(cfg: CfgNode) -> None:
    """Set the keys that a configuration leaves to its network (None) to what that says.

    Raises:
        ValueError: the network is unknown.
    """
    if not cfg.MODEL.VIDEO_BACKBONE.NAME:
        return
    network = find_network(cfg.MODEL.VIDEO_BACKBONE.NAME)
    frames, step, fps = network.clip
    for node, key, value in (
        (cfg.MODEL.VIDEO_BACKBONE, "LAYER", network.layer),
        (cfg.MODEL, "PIXEL_MEAN", [round(255 * x, 4) for x in network.mean]),
        (cfg.MODEL, "PIXEL_STD", [round(255 * x, 4) for x in network.std]),
        (cfg.INPUT, "NUM_FRAMES", frames),
        (cfg.INPUT, "SAMPLING_RATE", step),
        (cfg.INPUT, "CLIP_FPS", fps),
        (cfg.INPUT, "MIN_SIZE_TRAIN", (network.short_side,)),
        (cfg.INPUT, "MIN_SIZE_TEST", network.short_side),
    ):
        if node[key] is None:
            node[key] = value
