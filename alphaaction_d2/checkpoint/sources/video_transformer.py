"""Video transformers: UMT's detectors for AVA, mmaction2's VideoMAE, and what they were trained
from. One network, whose layers keep their names here, below two prefixes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from ...model_zoo.table import VIDEOMAE
from .source import CLASSIFIER, FOREIGN_LAYER, WHOLE_CLIP_CLASSIFIER, Source

NETWORK = "backbone.network"
_LAYERS = (
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"\.mlp\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.mlp\.layers\.1\.", ".mlp.fc2."),
    # Kinetics' classifiers normalise behind the mean over all tokens, where detectors have none.
    (r"^fc_norm\.", "norm."),
)


def _is_of(weights: Mapping[str, Tensor], prefix: str) -> bool:
    tubes = [weights.get(f"{prefix}patch_embed.{x}.weight") for x in ("proj", "projection")]
    has_tubes = any(x is not None and x.dim() == 5 for x in tubes)
    # networks of other kinds whose layers are called so have a bias for the keys, too
    return has_tubes and f"{prefix}blocks.0.attn.q_bias" in weights


def _rename(name: str, prefix: str, classifier: str) -> str | None:
    if name.startswith(f"{classifier}."):
        return CLASSIFIER + name.removeprefix(classifier)
    if not name.startswith(prefix):
        return None
    name = name.removeprefix(prefix)
    for theirs, ours in _LAYERS:
        name = re.sub(theirs, ours, name)
    return f"{NETWORK}.{name}" if re.match(r"(patch_embed|blocks|norm)\.", name) else None


_LEFT_OVER = {
    r"(backbone\.)?pos_embed$": "the table of sines, which the network makes itself",
    r"(backbone\.)?cls_token$": FOREIGN_LAYER,
    r"cls_head\.": WHOLE_CLIP_CLASSIFIER,
    r"data_preprocessor\.": "mean and deviation of grey levels, which the configuration has",
}

UMT = Source(
    is_of=lambda weights: _is_of(weights, ""),
    rename=lambda name: _rename(name, "", "head"),
    left_over=_LEFT_OVER,
    pixel_mean=(122.7717, 115.9465, 102.9801),
    clip_classes=(174, 339, 400, 600, 700, 710),
)

MMACTION2 = Source(
    is_of=lambda weights: _is_of(weights, "backbone."),
    rename=lambda name: _rename(name, "backbone.", "roi_head.bbox_head.fc_cls"),
    left_over={**_LEFT_OVER, r"backbone\.|roi_head\.": FOREIGN_LAYER},
    pixel_mean=(123.675, 116.28, 103.53),
    pixel_std=(58.395, 57.12, 57.375),
    licence=VIDEOMAE,
    first_class=1,  # row 0 is the background, which is never scored
)
