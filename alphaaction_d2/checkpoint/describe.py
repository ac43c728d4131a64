"""Which configuration weights belong to; pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from .sources.source import CLASSIFIER, fusion_name

# Residual blocks of res2..res5.
DEPTHS = {(1, 1, 1, 1): 18, (3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}


def describe(weights: Mapping[str, Tensor]) -> dict[str, object]:
    """Tell the configuration of a model, or of parts, with these weights under our names, as far as
    names and shapes show it: key -> value.

    Strides, dilations and frame rates (TAU, ALPHA) leave no trace in the weights.
    """
    backbone = _describe_transformer(weights) or _describe_backbone(weights)
    return {**backbone, **_describe_heads(weights)}


def _describe_transformer(weights: Mapping[str, Tensor]) -> dict[str, object]:
    inside = "backbone.network"
    biases = _numbers(weights, rf"{re.escape(inside)}\.blocks\.(\d+)\.attn\.q_bias")
    tubes = weights.get(f"{inside}.patch_embed.proj.weight")
    if tubes is None or not biases:
        return {}
    return {
        "MODEL.BACKBONE.NAME": "build_video_transformer_backbone",
        "MODEL.VIDEO_BACKBONE.VIT.CHANNELS": tubes.shape[0],
        "MODEL.VIDEO_BACKBONE.VIT.DEPTH": len(biases),
        "MODEL.VIDEO_BACKBONE.VIT.TUBELET": tubes.shape[2],
    }


def _describe_backbone(weights: Mapping[str, Tensor]) -> dict[str, object]:
    both = "backbone.blocks.0.multipathway_blocks.0.conv.weight" in weights
    slow, fast = ("multipathway_blocks.0.", "multipathway_blocks.1.") if both else ("", "")
    stem = weights.get(f"backbone.blocks.0.{slow}conv.weight")
    if stem is None:
        return {}
    stages = tuple(map(len, _temporal_kernels(weights, slow)))
    depths = [depth for blocks, depth in DEPTHS.items() if blocks[: len(stages)] == stages]
    non_local = r"backbone\.blocks\.3\..*res_blocks\.(\d+)\.activation\.1\.conv_g\.weight"
    found: dict[str, object] = {
        "BACKBONE.NAME": "build_slowfast_backbone" if both else "build_slow_backbone",
        "SLOWFAST.DEPTH": depths[0] if depths else stages,
        "SLOWFAST.NUM_STAGES": len(stages),
        "SLOWFAST.STEM_CHANNELS": len(stem),
        "SLOWFAST.NON_LOCAL_BLOCKS": tuple(sorted(map(int, _numbers(weights, non_local)))),
    }
    if both:
        found["SLOWFAST.BETA_INV"] = len(stem) // len(
            weights[f"backbone.blocks.0.{fast}conv.weight"]
        )
    if (lateral := weights.get(fusion_name(0, "conv_fast_to_slow.weight"))) is not None:
        found["SLOWFAST.LATERAL"] = "mmaction2"  # a convolution without bias, and nothing else
        if fusion_name(0, "conv_fast_to_slow.bias") in weights:
            found["SLOWFAST.LATERAL"] = "aia"
        elif fusion_name(0, "norm.weight") in weights:
            found["SLOWFAST.LATERAL"] = "pytorchvideo"
        found["SLOWFAST.LATERAL_KERNEL"] = lateral.shape[2]
    moving = tuple(sum(k > 1 for k in stage) for stage in _temporal_kernels(weights, fast))
    return {
        **{f"MODEL.{key}": value for key, value in found.items()},
        "the blocks of MODEL.SLOWFAST.TEMPORAL_BLOCKS": moving,
    }


def _temporal_kernels(weights: Mapping[str, Tensor], inside: str) -> list[list[int]]:
    """Count the frames that the first convolutions look at, by stage and block."""
    pattern = rf"backbone\.blocks\.(\d)\.{inside}res_blocks\.\d+\.branch2\.conv_a\.weight"
    kernels: dict[str, list[int]] = {}
    for name, value in weights.items():
        if match := re.fullmatch(pattern, name):
            kernels.setdefault(match[1], []).append(value.shape[2])
    return [kernels[stage] for stage in sorted(kernels)]


def _describe_heads(weights: Mapping[str, Tensor]) -> dict[str, object]:
    found: dict[str, object] = {}
    classifier = weights.get(f"{CLASSIFIER}.weight")
    if classifier is not None:
        layers = len(_numbers(weights, r"roi_heads\.head\.fc(\d+)\.weight"))
        found["MODEL.ROI_ACTION_HEAD.NUM_FC"] = layers
        if layers:
            found["MODEL.ROI_ACTION_HEAD.FC_DIM"] = classifier.shape[1]
        found["the sum of MODEL.ROI_ACTION_HEAD.GROUP_SIZES"] = classifier.shape[0]
    inside = "roi_heads.interaction"
    if blocks := _numbers(weights, rf"{inside}\.blocks\.(\w+)\."):
        # Serial and parallel have the same names; only the dense structure leaves a trace.
        dense = any(name.startswith(f"{inside}.dense_params.") for name in weights)
        found["a dense MODEL.INTERACTION.NAME"] = dense
        kinds = sorted(name[0] for name in blocks)
        found["the types in MODEL.INTERACTION.BLOCKS"] = "".join(kinds)
        if (projection := weights.get(f"{inside}.person_projection.0.weight")) is not None:
            found["MODEL.INTERACTION.DIM"] = projection.shape[0]
        slots = {value.shape[0] for name, value in weights.items() if "temporal_position_k" in name}
        if "M" in kinds:
            found["MODEL.INTERACTION.TEMPORAL_POSITION"] = bool(slots)
        if slots:
            found["the slots of MODEL.MEMORY.WINDOW"] = slots.pop()
    return found


def _numbers(names: Iterable[str], pattern: str) -> set[str]:
    """Collect what the names have in the place of the group."""
    return {match[1] for name in names if (match := re.match(pattern, name))}


def differences(weights: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> list[str]:
    """Say what would have to change in the configuration for `weights` to fit `model`."""
    wanted, configured = describe(weights), describe(model)
    return [
        f"{key} must be {value!r}, not {configured[key]!r}"
        for key, value in wanted.items()
        if key in configured and configured[key] != value
    ]


def part_of(name: str) -> str:
    """Name the part of the model of an entry: "backbone", "roi_heads.interaction" ..."""
    levels = name.split(".")
    return ".".join(levels[: 2 if levels[0] == "roi_heads" else 1])
