"""PySlowFast's model zoo, whose older files carry the names of Caffe2."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from .source import CLASSIFIER, FOREIGN_LAYER, Source, any_name, backbone_name, fusion_name

SPLIT_STATISTICS = "statistics of parts of a batch, which only training has"


def is_of(weights: Mapping[str, Tensor]) -> bool:
    # Detectron's networks of pictures have the same names in Caffe2, but not along time.
    stems = [weights[name] for name in ("conv1_w", "t_conv1_w") if name in weights]
    return any_name(weights, r"s\d(_fuse)?\.") or any(x.dim() == 5 for x in stems)


def rename(name: str) -> str | None:
    name = from_caffe2(name)
    # its normalisation of parts of a batch has that of the whole batch inside
    name = re.sub(r"bn\.bn\.(running_mean|running_var|num_batches_tracked)$", r"bn.\1", name)
    if ".split_bn." in name:
        return None
    if match := re.fullmatch(r"s([1-5])\.pathway([01])_((?:stem|res\d+|nonlocal\d+)\..+)", name):
        rest = match[3]
        for theirs, ours in _LAYERS:
            rest = re.sub(theirs, ours, rest)
        return backbone_name(int(match[1]) - 1, int(match[2]), rest)
    if match := re.fullmatch(r"s([1-4])_fuse\.(conv_f2s|bn)\.(\w+)", name):
        layer = {"conv_f2s": "conv_fast_to_slow", "bn": "norm"}[match[2]]
        return fusion_name(int(match[1]) - 1, f"{layer}.{match[3]}")
    if match := re.fullmatch(r"head\.projection\.(\w+)", name):
        return f"{CLASSIFIER}.{match[1]}"
    return None


_LAYERS = (
    (r"^stem\.", ""),
    (r"^res(\d+)\.", r"res_blocks.\1."),
    # It follows a residual block, behind that block's activation.
    (r"^nonlocal(\d+)\.", r"res_blocks.\1.activation.1."),
    (r"branch1\.", "branch1_conv."),
    (r"branch1_bn\.", "branch1_norm."),
    (r"branch2\.([abc])\.", r"branch2.conv_\1."),
    (r"branch2\.([abc])_bn\.", r"branch2.norm_\1."),
    (r"\bbn\.", "norm."),
)


def from_caffe2(name: str) -> str:
    """Turn a Caffe2 blob (t_res4_5_branch2a_bn_riv) into PySlowFast's name; others stay."""
    fast = name.startswith("t_")
    layer, _, entry = name.removeprefix("t_").rpartition("_")
    entries = _NORM_ENTRIES if layer.endswith("_bn") else _ENTRIES
    for blob, theirs in _CAFFE2:
        if entry in entries and (match := re.fullmatch(blob, layer)):
            renamed = match.expand(theirs).replace("pathway", f"pathway{int(fast)}")
            return f"{renamed}.{entries[entry]}"
    return name


_CAFFE2 = (
    ("conv1", "s1.pathway_stem.conv"),
    ("res_conv1_bn", "s1.pathway_stem.bn"),
    (r"res(\d)_(\d+)_branch1(|_bn)", r"s\1.pathway_res\2.branch1\3"),
    (r"res(\d)_(\d+)_branch2([abc])(|_bn)", r"s\1.pathway_res\2.branch2.\3\4"),
    (r"(?:pool|res)(\d)(?:_\d+_branch2c_bn)?_subsample", r"s\1_fuse.conv_f2s"),
    (r"(?:pool|res)(\d)(?:_\d+_branch2c_bn)?_subsample_bn", r"s\1_fuse.bn"),
    (r"nonlocal_conv(\d)_(\d+)_(theta|phi|g|out)", r"s\1.pathway_nonlocal\2.conv_\3"),
    (r"nonlocal_conv(\d)_(\d+)_bn", r"s\1.pathway_nonlocal\2.bn"),
    ("pred", "head.projection"),
)

_ENTRIES = {"w": "weight", "b": "bias"}
_NORM_ENTRIES = {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}


SOURCE = Source(
    is_of=is_of,
    rename=rename,
    left_over={
        r".*_momentum$|(lr|model_iter)$": "state of the optimiser",
        r".*\.split_bn\.": SPLIT_STATISTICS,
        r"s\d|(t_)?res\d|nonlocal_": FOREIGN_LAYER,
    },
    clip_classes=(400, 600, 700),  # Kinetics
)
