"""The table of other libraries' video networks: what they are, and how their clips are made.

What a configuration leaves open (None) of a network's layer and clips is filled in from here.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from detectron2.config import CfgNode

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_KINETICS = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
_UNIT = (0.0,) * 3, (1.0,) * 3
_GREY = (0.45,) * 3, (0.225,) * 3


class Network(NamedTuple):
    """A network as its library describes it."""

    library: str  # whose it is, as in the name of its builder
    layer: str  # whose output is the map; "": what the network itself gives
    clip: tuple[int, int, float]  # frames of a clip, every how many-th frame, frames a second
    short_side: int  # of its pictures, in pixels
    # mean, std: of grey levels from 0 to 1, by colour
    mean: tuple[float, ...]
    std: tuple[float, ...]
    # type, config: of transformers: type of the model, and how it differs from what the type's
    # configuration says by itself
    type: str = ""
    config: dict[str, int] = {}


NETWORKS = {
    # torchvision: clips and frame rates are those that its accuracies were measured with
    "r3d_18": Network("torchvision_video", "layer4", (16, 1, 15.0), 128, *_KINETICS),
    "mc3_18": Network("torchvision_video", "layer4", (16, 1, 15.0), 128, *_KINETICS),
    "r2plus1d_18": Network("torchvision_video", "layer4", (16, 1, 15.0), 128, *_KINETICS),
    "s3d": Network("torchvision_video", "features", (128, 1, 15.0), 256, *_KINETICS),
    "swin3d_t": Network("torchvision_video", "norm", (32, 1, 15.0), 256, *_IMAGENET),
    "swin3d_s": Network("torchvision_video", "norm", (32, 1, 15.0), 256, *_IMAGENET),
    "swin3d_b": Network("torchvision_video", "norm", (32, 1, 15.0), 256, *_IMAGENET),
    "mvit_v1_b": Network("torchvision_video", "norm", (16, 1, 7.5), 256, *_GREY),
    "mvit_v2_s": Network("torchvision_video", "norm", (16, 1, 7.5), 256, *_GREY),
}

for _name, _layer, _frames, _side in (  # all of pytorchvideo's are trained at 30 frames a second
    ("c2d_r50", "blocks.5", (8, 8), 256),
    ("i3d_r50", "blocks.5", (8, 8), 256),
    ("csn_r101", "blocks.4", (32, 2), 256),
    ("r2plus1d_r50", "blocks.4", (16, 4), 256),
    ("x3d_xs", "blocks.4", (4, 12), 182),
    ("x3d_s", "blocks.4", (13, 6), 182),
    ("x3d_m", "blocks.4", (16, 5), 256),
    ("x3d_l", "blocks.4", (16, 5), 356),
    ("mvit_base_16x4", "norm_embed", (16, 4), 256),
    ("mvit_base_32x3", "norm_embed", (32, 3), 256),
):
    NETWORKS[_name] = Network("pytorchvideo", _layer, (*_frames, 30.0), _side, *_GREY)

# transformers'. V-JEPA 2 is trained at 4 frames a second; of VideoPrism no rate is published, so
# that its clips span two seconds is ours.
_LARGE = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
_HUGE = {"hidden_size": 1280, "num_hidden_layers": 32}
for _name, _clip, _side, _colours, _type, _config in (
    ("videoprism_b", (16, 4, 30.0), 288, _UNIT, "videoprism_vision_model", {}),
    (
        *("videoprism_l", (8, 8, 30.0), 288, _UNIT, "videoprism_vision_model"),
        {**_LARGE, "num_spatial_layers": 24, "num_frames": 8},
    ),
    ("vjepa2_l", (64, 1, 4.0), 256, _IMAGENET, "vjepa2", {}),
    ("vjepa2_h", (64, 1, 4.0), 256, _IMAGENET, "vjepa2", _HUGE),
    ("videomae_b", (16, 4, 30.0), 224, _IMAGENET, "videomae", {}),
    ("videomae_l", (16, 4, 30.0), 224, _IMAGENET, "videomae", {**_LARGE, "num_hidden_layers": 24}),
):
    NETWORKS[_name] = Network("transformers", "", _clip, _side, *_colours, _type, _config)


def find_network(name: str, library: str = "") -> Network:
    """Find the description of a network by its name.

    Args:
        name: in NETWORKS; or a folder with a config.json of transformers, of a type in there.

    Raises:
        ValueError: there is none of this name, or not in the library.
    """
    file = Path(name, "config.json")
    if name and file.is_file():
        described = json.loads(file.read_text(encoding="utf-8"))
        types = {x.type: x for x in NETWORKS.values() if x.type}
        if (kind := described.get("model_type")) not in types:
            raise ValueError(f"{file}: model_type {kind!r}: expected one of {', '.join(types)}")
        network = types[kind]
        frames = described.get("num_frames", described.get("frames_per_clip", network.clip[0]))
        side = described.get("image_size", described.get("crop_size", network.short_side))
        return network._replace(clip=(frames, *network.clip[1:]), short_side=side)
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
        (cfg.MODEL.BACKBONE, "NAME", f"build_{network.library}_backbone"),
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
