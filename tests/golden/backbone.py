"""Cases of the backbone."""

from __future__ import annotations

import hashlib
import math
import re
import zlib

import numpy as np
import torch
from detectron2.config import get_cfg
from torch import Tensor

from alphaaction_d2.checkpoint.describe import describe
from alphaaction_d2.checkpoint.sources import convert
from alphaaction_d2.config import add_alphaaction_config
from alphaaction_d2.modeling.backbone import SlowFast

from .case import GoldenCase
from .interaction import Recorder


def recipe(names: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """The reference's parameters: every array is drawn from a generator seeded by its name."""
    values = {}
    for name, shape in names.items():
        random = np.random.RandomState(zlib.crc32(name.encode()))
        kind = name.rpartition(".")[2]
        if kind == "weight" and len(shape) > 1:
            value = random.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
        elif kind == "weight":
            low, high = (0.3, 0.7) if ".conv3." in name else (0.7, 1.3)
            value = random.uniform(low, high, shape)
        elif kind == "running_var":
            value = random.uniform(0.7, 1.3, shape)
        else:
            value = random.standard_normal(shape) * 0.1
        values[name] = value.astype(np.float32)
    return values


def digest(values: dict[str, np.ndarray]) -> str:
    """The checksum by which the reference tells whether the parameters are the same."""
    sha = hashlib.sha256()
    for name in sorted(values):
        sha.update(name.encode())
        sha.update(values[name].tobytes())
    return sha.hexdigest()


def check_backbone(case: GoldenCase) -> None:
    """Both pathways up to res5, with what flows between them."""
    config = case.config
    values = recipe(config["parameter_names"])
    case.check(
        "parameters",
        digest(values) == config["parameter_sha256_over_sorted_names"],
        "the recipe gives other parameters",
    )
    weights = {f"backbone.{name}": torch.from_numpy(x) for name, x in values.items()}
    weights = convert(weights, "alphaction").weights
    found = {key.rpartition(".")[2]: value for key, value in describe(weights).items()}
    cfg = get_cfg()
    add_alphaaction_config(cfg)
    cfg.INPUT.NUM_FRAMES = config["tau"] * case.raw("in/slow").shape[2]
    node = cfg.MODEL.SLOWFAST
    node.TAU, node.ALPHA = config["tau"], config["alpha"]
    node.BETA_INV = round(1 / config["beta"])
    for key in ("DEPTH", "NUM_STAGES", "STEM_CHANNELS", "LATERAL", "LATERAL_KERNEL"):
        node[key] = found[key]
    network = SlowFast(cfg).eval()
    network.load_state_dict({name.removeprefix("backbone."): x for name, x in weights.items()})
    recorder = Recorder(network)
    # The case gives the pathways separately: its frames are not those of one clip.
    pathways = [case.raw("in/slow"), case.raw("in/fast")]
    with torch.no_grad():
        for block in network.blocks:
            pathways = block(pathways)
    case.compare("out/slow", pathways[0])
    case.compare("out/fast", pathways[1])
    for key in [key for key in case.arrays if key.startswith("mid/")]:
        value = recorder.outputs[_module_of(key)]
        case.compare(key, every_eighth(value, len(case.raw(key)[0])))


def _module_of(key: str) -> str:
    """Name of the module whose output an intermediate value is."""
    if match := re.fullmatch(r"mid/lateral(\d)", key):
        return f"blocks.{int(match[1]) - 1}.multipathway_fusion.conv_fast_to_slow"
    pathway, stage = re.fullmatch(r"mid/(slow|fast)\.(stem|res\d)", key).groups()
    block = 0 if stage == "stem" else int(stage[-1]) - 1
    return f"blocks.{block}.multipathway_blocks.{('slow', 'fast').index(pathway)}"


def every_eighth(value: Tensor, stored: int) -> Tensor:
    """The channels (axis 1) that the reference stores: every eighth, or all."""
    return value if value.shape[1] == stored else value[:, ::8]
