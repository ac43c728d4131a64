"""Names of published weights, and which configuration they belong to; pure functions.

Three sources are known: the released AIA models ("alphaction"), pytorchvideo's hub, and
PySlowFast's model zoo, whose older files carry the names of Caffe2. Each holds the same layers
under other names (and 1x1x1 convolutions where ours are linear layers). All of them are turned into
the names of `ActionRCNN`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

SOURCES = ("alphaction", "pytorchvideo", "pyslowfast")

# What the networks of a source were trained on: mean and standard deviation of grey levels, 0-255.
PIXELS = {
    "alphaction": ((122.7717, 115.9465, 102.9801), (57.375,) * 3),
    "pytorchvideo": ((114.75,) * 3, (57.375,) * 3),
    "pyslowfast": ((114.75,) * 3, (57.375,) * 3),
}

CLASSIFIER = "roi_heads.predictor.cls_score"
WHOLE_CLIP_CLASSIFIER = "the classifier of whole clips (Kinetics)"
SPLIT_STATISTICS = "statistics of parts of a batch, which only training has"
FOREIGN_LAYER = "layers that the networks of this project do not have"
KINETICS_CLASSES = (400, 600, 700)  # of the PySlowFast files, whose classifiers all have one name

# Residual blocks of res2..res5.
DEPTHS = {(1, 1, 1, 1): 18, (3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}

# A trace that a name leaves of its source; the first that fits decides.
_TRACES = {
    None: r"backbone\.blocks\.|roi_heads\.(interaction|head|predictor)\.",  # ours
    "alphaction": r"(backbone\.)?(slow|fast)\.(conv1|res_nl\d)\.|roi_heads\.action\.",
    "pyslowfast": r"s\d(_fuse)?\.",
    "pytorchvideo": r"(model\.)?blocks\.\d",
}


@dataclass(frozen=True)
class Converted:
    """Weights under our names.

    Attributes:
        weights: name -> tensor.
        left_over: name in the file -> why it has no place here.
    """

    weights: dict[str, Tensor]
    left_over: dict[str, str]


def recognise(weights: Mapping[str, Tensor]) -> str | None:
    """The source of weights by their names; None for our own and for strangers."""
    for source, trace in _TRACES.items():
        if any(re.match(trace, name) for name in weights):
            return source
    # Detectron's networks of pictures have the same names in Caffe2, but not along time.
    stems = [weights[name] for name in ("conv1_w", "t_conv1_w") if name in weights]
    return "pyslowfast" if any(x.dim() == 5 for x in stems) else None


def convert(weights: Mapping[str, Tensor], source: str) -> Converted:
    """Turn the weights of a source into ours.

    Args:
        weights: name -> tensor, without the prefix "module." of a parallel model.
        source: one of SOURCES.
    """
    renamed: dict[str, Tensor] = {}
    left_over: dict[str, str] = {}
    both = any(re.match(_FAST[source], name) for name in weights)
    for name, value in weights.items():
        ours = _RULES[source](name, both)
        if ours is None:
            left_over[name] = _why_left_over(source, name)
        elif ours.startswith(CLASSIFIER) and source == "pyslowfast" and _is_kinetics(value):
            left_over[name] = WHOLE_CLIP_CLASSIFIER
        else:
            renamed[ours] = _as_linear(value) if ours.startswith("roi_heads.") else value
    return Converted(renamed, left_over)


def _is_kinetics(value: Tensor) -> bool:
    return value.shape[0] in KINETICS_CLASSES


def _as_linear(value: Tensor) -> Tensor:
    """Without the axes of length 1 that a 1x1x1 convolution has and a linear layer has not."""
    return value.flatten(1) if value.dim() > 2 else value


def _why_left_over(source: str, name: str) -> str:
    if source == "pytorchvideo" and ".proj." in name:
        return WHOLE_CLIP_CLASSIFIER
    if source == "pyslowfast" and re.search(r"_momentum$|^(lr|model_iter)$", name):
        return "state of the optimiser"
    if source == "pyslowfast" and ".split_bn." in name:
        return SPLIT_STATISTICS
    return FOREIGN_LAYER if re.match(_LAYERS[source], name) else "unknown to this project"


_LAYERS = {  # of the backbone
    "alphaction": r"(backbone\.)?(slow|fast)\.",
    "pytorchvideo": r"(model\.)?blocks\.",
    "pyslowfast": r"s\d|(t_)?res\d|nonlocal_",
}


# ------------------------------------------------------------------ one function a source
_FAST = {  # what only a network of two pathways has
    "alphaction": r"(backbone\.)?fast\.",
    "pytorchvideo": r"(model\.)?blocks\.\d\.multipathway_",
    "pyslowfast": r"s\d\.pathway1_|s\d_fuse\.|t_",
}


def _backbone(block: int, pathway: int, rest: str, both: bool) -> str:
    """Our name of an entry of a pathway; a network of one pathway has no number for it."""
    inside = f"multipathway_blocks.{pathway}.{rest}" if both else rest
    return f"backbone.blocks.{block}.{inside}"


def _fusion(block: int, rest: str) -> str:
    return f"backbone.blocks.{block}.multipathway_fusion.{rest}"


def _from_pytorchvideo(name: str, both: bool) -> str | None:
    if match := re.fullmatch(r"(?:model\.)?(blocks\.[0-4]\..+)", name):
        # Block 5 of a Slow network is its head, but block 5 of a SlowFast has nothing to load.
        return f"backbone.{match[1]}"
    if match := re.fullmatch(r"detection_head\.proj\.(\w+)", name):
        return f"{CLASSIFIER}.{match[1]}"
    return None


def _from_pyslowfast(name: str, both: bool) -> str | None:
    name = _from_caffe2(name)
    # its normalisation of parts of a batch has that of the whole batch inside
    name = re.sub(r"bn\.bn\.(running_mean|running_var|num_batches_tracked)$", r"bn.\1", name)
    if ".split_bn." in name:
        return None
    if match := re.fullmatch(r"s1\.pathway([01])_stem\.(conv|bn)\.(\w+)", name):
        layer = match[2].replace("bn", "norm")
        return _backbone(0, int(match[1]), f"{layer}.{match[3]}", both)
    if match := re.fullmatch(r"s([2-5])\.pathway([01])_res(\d+)\.(branch.+)\.(\w+)", name):
        layer = re.sub(r"^branch1$", "branch1_conv", match[4])
        layer = re.sub(r"^branch1_bn$", "branch1_norm", layer)
        layer = re.sub(r"^branch2\.([abc])$", r"branch2.conv_\1", layer)
        layer = re.sub(r"^branch2\.([abc])_bn$", r"branch2.norm_\1", layer)
        rest = f"res_blocks.{match[3]}.{layer}.{match[5]}"
        return _backbone(int(match[1]) - 1, int(match[2]), rest, both)
    if match := re.fullmatch(r"s([2-5])\.pathway([01])_nonlocal(\d+)\.(conv_\w+|bn)\.(\w+)", name):
        # It follows a residual block, behind that block's activation.
        layer = f"res_blocks.{match[3]}.activation.1.{match[4].replace('bn', 'norm')}"
        return _backbone(int(match[1]) - 1, int(match[2]), f"{layer}.{match[5]}", both)
    if match := re.fullmatch(r"s([1-4])_fuse\.(conv_f2s|bn)\.(\w+)", name):
        layer = {"conv_f2s": "conv_fast_to_slow", "bn": "norm"}[match[2]]
        return _fusion(int(match[1]) - 1, f"{layer}.{match[3]}")
    if match := re.fullmatch(r"head\.projection\.(\w+)", name):
        return f"{CLASSIFIER}.{match[1]}"
    return None


def _from_caffe2(name: str) -> str:
    """PySlowFast's name of a Caffe2 blob (t_res4_5_branch2a_bn_riv); other names as they are."""
    norm = {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}
    conv = {"w": "weight", "b": "bias"}
    fast, bare = int(name.startswith("t_")), name.removeprefix("t_")
    if bare == "conv1_w":
        return f"s1.pathway{fast}_stem.conv.weight"
    if match := re.fullmatch(r"res_conv1_bn_(s|b|rm|riv)", bare):
        return f"s1.pathway{fast}_stem.bn.{norm[match[1]]}"
    if match := re.fullmatch(r"res(\d)_(\d+)_branch(1|2[abc])(_bn)?_(w|s|b|rm|riv)", bare):
        branch = "branch1" if match[3] == "1" else f"branch2.{match[3][1]}"
        layer = f"s{match[1]}.pathway{fast}_res{match[2]}.{branch}"
        return f"{layer}_bn.{norm[match[5]]}" if match[4] else f"{layer}.{conv[match[5]]}"
    lateral = r"(?:pool(1)|res(\d)_\d+_branch2c_bn)_subsample(_bn)?_(w|s|b|rm|riv)"
    if fast and (match := re.fullmatch(lateral, bare)):
        layer = f"s{match[1] or match[2]}_fuse"
        return f"{layer}.bn.{norm[match[4]]}" if match[3] else f"{layer}.conv_f2s.{conv[match[4]]}"
    if match := re.fullmatch(r"nonlocal_conv(\d)_(\d+)_(\w+)_(w|s|b|rm|riv)", name):
        layer = f"s{match[1]}.pathway0_nonlocal{match[2]}"
        if match[3] == "bn":
            return f"{layer}.bn.{norm[match[4]]}"
        return f"{layer}.conv_{match[3]}.{conv[match[4]]}"
    if match := re.fullmatch(r"pred_(w|b)", bare):
        return f"head.projection.{conv[match[1]]}"
    return name


def _from_alphaction(name: str, both: bool) -> str | None:
    if match := re.fullmatch(r"roi_heads\.action\.(.+)", name):
        return _from_alphaction_head(match[1])
    name = name.removeprefix("backbone.")
    if match := re.fullmatch(r"fast\.Tconv([1-4])\.conv\.(\w+)", name):
        return _fusion(int(match[1]) - 1, f"conv_fast_to_slow.{match[2]}")
    if match := re.fullmatch(r"(slow|fast)\.(conv1|bn1)\.(\w+)", name):
        layer = {"conv1": "conv", "bn1": "norm"}[match[2]]
        return _backbone(0, _PATHWAYS.index(match[1]), f"{layer}.{match[3]}", both)
    block = r"(slow|fast)\.res_nl([1-4])\.res_(\d+)\.(btnk\.conv([123])|shortcut)\.(conv|bn)\.(\w+)"
    if match := re.fullmatch(block, name):
        pathway, stage, number, _, index, kind, entry = match.groups()
        kind = kind.replace("bn", "norm")
        layer = f"branch2.{kind}_{'abc'[int(index) - 1]}" if index else f"branch1_{kind}"
        rest = f"res_blocks.{number}.{layer}.{entry}"
        return _backbone(int(stage), _PATHWAYS.index(pathway), rest, both)
    return None


_PATHWAYS = ("slow", "fast")

_PROJECTIONS = {
    "person_dim_reduce": "person_projection.0",
    "person_key_dim_reduce": "person_key_projection.0",
    "object_dim_reduce": "object_projection.0",
    "mem_dim_reduce": "memory_projection.0",
}


def _from_alphaction_head(name: str) -> str | None:
    """Names relative to the released action head."""
    if match := re.fullmatch(r"feature_extractor\.ia_structure\.(.+)", name):
        return f"roi_heads.interaction.{aggregation_name(match[1])}"
    if match := re.fullmatch(r"feature_extractor\.(fc\d\.\w+)", name):
        return f"roi_heads.head.{match[1]}"
    if match := re.fullmatch(r"predictor\.cls_score\.(\w+)", name):
        return f"{CLASSIFIER}.{match[1]}"
    return None


def aggregation_name(name: str) -> str:
    """Our name of an entry of the released aggregation structure, relative to it."""
    first = name.partition(".")[0]
    if re.fullmatch(r"[POM]_block_\d+", first):
        return f"blocks.{name}"
    return _PROJECTIONS.get(first, first) + name.removeprefix(first)


def aggregation_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the released aggregation structure, or of one block of it, as ours."""
    return {aggregation_name(name): _as_linear(value) for name, value in weights.items()}


_RULES = {
    "alphaction": _from_alphaction,
    "pytorchvideo": _from_pytorchvideo,
    "pyslowfast": _from_pyslowfast,
}


# ------------------------------------------------------------------ which configuration fits
def describe(weights: Mapping[str, Tensor]) -> dict[str, object]:
    """What the configuration says of a model with these weights, as far as names and shapes tell.

    Strides, dilations and frame rates (TAU, ALPHA) leave no trace in the weights.

    Args:
        weights: under our names, of a whole model or of parts of it.

    Returns:
        Configuration key -> value; parts that are absent have no keys.
    """
    return {**_describe_backbone(weights), **_describe_heads(weights)}


def _describe_backbone(weights: Mapping[str, Tensor]) -> dict[str, object]:
    slow = next((n for n in _STEMS if n in weights), None)
    if slow is None:
        return {}
    node = "MODEL.SLOWFAST"
    both = slow == _STEMS[0]
    backbone = "build_slowfast_backbone" if both else "build_slow_backbone"
    found: dict[str, object] = {"MODEL.BACKBONE.NAME": backbone}
    inside = "multipathway_blocks.0." if both else ""
    counts = [
        _count(weights, rf"backbone\.blocks\.{block}\.{inside}res_blocks\.(\d+)\..+")
        for block in range(1, 5)
    ]
    stages = tuple(n for n in counts if n)
    depths = [depth for blocks, depth in DEPTHS.items() if blocks[: len(stages)] == stages]
    found[f"{node}.DEPTH"] = depths[0] if depths else stages
    found[f"{node}.NUM_STAGES"] = len(stages)
    channels = weights[slow].shape[0]
    found[f"{node}.STEM_CHANNELS"] = channels
    found |= _describe_time(weights, "multipathway_blocks.1." if both else "")
    lateral = _fusion(0, "conv_fast_to_slow.weight")
    if both:
        fast = weights[_STEMS[0].replace("multipathway_blocks.0", "multipathway_blocks.1")]
        found[f"{node}.BETA_INV"] = channels // fast.shape[0]
    if lateral in weights:
        plain = _fusion(0, "conv_fast_to_slow.bias") in weights
        found[f"{node}.LATERAL"] = "aia" if plain else "pytorchvideo"
        found[f"{node}.LATERAL_KERNEL"] = weights[lateral].shape[2]
    return found


def _describe_time(weights: Mapping[str, Tensor], inside: str) -> dict[str, object]:
    """Which blocks look along time or at everything."""
    kernels: dict[int, dict[int, int]] = {}  # stage -> block -> length of the kernel
    non_local = set()
    for name, value in weights.items():
        if match := re.fullmatch(
            rf"backbone\.blocks\.(\d)\.{inside}res_blocks\.(\d+)\.branch2\.conv_a\.weight", name
        ):
            kernels.setdefault(int(match[1]), {})[int(match[2])] = value.shape[2]
        if match := re.search(
            r"blocks\.3\..*res_blocks\.(\d+)\.activation\.1\.conv_g\.weight", name
        ):
            non_local.add(int(match[1]))
    counts = tuple(sum(k > 1 for k in kernels[s].values()) for s in sorted(kernels))
    return {
        "the blocks of MODEL.SLOWFAST.TEMPORAL_BLOCKS": counts,
        "MODEL.SLOWFAST.NON_LOCAL_BLOCKS": tuple(sorted(non_local)),
    }


_STEMS = ("backbone.blocks.0.multipathway_blocks.0.conv.weight", "backbone.blocks.0.conv.weight")


def _describe_heads(weights: Mapping[str, Tensor]) -> dict[str, object]:
    found: dict[str, object] = {}
    classifier = weights.get(f"{CLASSIFIER}.weight")
    if classifier is not None:
        layers = _count(weights, r"roi_heads.head.fc(\d+)\.weight")
        found["MODEL.ROI_ACTION_HEAD.NUM_FC"] = layers
        if layers:
            found["MODEL.ROI_ACTION_HEAD.FC_DIM"] = classifier.shape[1]
        found["the sum of MODEL.ROI_ACTION_HEAD.GROUP_SIZES"] = classifier.shape[0]
    inside = "roi_heads.interaction"
    blocks = {m[1] for n in weights if (m := re.match(rf"{inside}\.blocks\.(\w+)\.", n))}
    if blocks:
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


def _count(names: Iterable[str], pattern: str) -> int:
    """How many different numbers the names have in the place of the group."""
    return len({match[1] for name in names if (match := re.fullmatch(pattern, name))})


def differences(weights: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> list[str]:
    """What would have to change in the configuration for `weights` to fit `model`."""
    wanted, configured = describe(weights), describe(model)
    return [
        f"{key} must be {value!r}, not {configured[key]!r}"
        for key, value in wanted.items()
        if key in configured and configured[key] != value
    ]


def part_of(name: str) -> str:
    """The part of the model that an entry belongs to: "backbone", "roi_heads.interaction" ..."""
    levels = name.split(".")
    return ".".join(levels[: 2 if levels[0] == "roi_heads" else 1])
