"""SlowFast from a clip to the features and logits of its persons, in both precisions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from alphaaction_d2 import setup_cfg
from benchmarks.measure import Row, available_cores, interleaved_medians, num_threads

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "AVA" / "slowfast_R50_4x16.yaml"
QUICK = ["INPUT.NUM_FRAMES", 16, "MODEL.SLOWFAST.DEPTH", 18, "MODEL.SLOWFAST.STEM_CHANNELS", 8]
TOP = 5


def rows(quick: bool) -> Iterator[Row]:
    """Clips a second in bfloat16 against float32, and whether the classes are the same."""
    cfg = r50_8x8(quick)
    clip = random_clip(cfg.INPUT.NUM_FRAMES, (64, 80) if quick else (256, 340))
    exact = build_model(cfg)
    settle(exact, clip)
    separate(exact, head_features(exact, clip))
    cfg.MODEL.CHANNELS_LAST, cfg.TEST.DTYPE = True, "bfloat16"
    fast = build_model(cfg).eval()
    fast.load_state_dict(exact.state_dict())

    def run(model: nn.Module) -> Tensor:
        with torch.no_grad():
            return model.roi_heads.predictor(head_features(model, clip))

    with num_threads(None):
        slow_time, fast_time = interleaved_medians(
            [lambda: run(exact), lambda: run(fast)], 1 if quick else 5
        )
        expected, found = run(exact), run(fast)
    frames, height, width = clip["video"].shape[1:]
    note = f"R50 8x8, {frames} frames of {height}x{width}, {available_cores()} threads"
    yield Row(
        name="SlowFast, bfloat16 and channels-last",
        value=1 / fast_time,
        unit="clips/s",
        yardstick=1 / slow_time,
        yardstick_name="float32",
        limit=2.0,
        note=note,
        at_least=True,
    )
    yield Row(
        name="SlowFast, bfloat16: top classes as in float32",
        value=100 * same_top_classes(expected, found),
        unit="%",
        limit=100.0,
        note=f"best class and best {TOP} classes of {len(expected)} persons",
        at_least=True,
    )


def r50_8x8(quick: bool) -> CfgNode:
    """SlowFast R50 8x8 without interaction, on the CPU, without weights."""
    cfg = setup_cfg(str(CONFIG), ["MODEL.SLOWFAST.TAU", 8, "MODEL.SLOWFAST.ALPHA", 4])
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.SLOWFAST.NORM", "BN"])
    cfg.merge_from_list(QUICK if quick else [])
    return cfg


def random_clip(num_frames: int, size: tuple[int, int]) -> dict:
    """Soft moving patches of colour with four persons in different places."""
    height, width = size
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 2 + num_frames // 8, 9, 12, generator=generator)
    video = F.interpolate(coarse, (num_frames, height, width), mode="trilinear")[0]
    places = torch.tensor(
        [[0.05, 0.1, 0.3, 0.95], [0.3, 0.3, 0.5, 0.9], [0.5, 0.05, 0.7, 0.6], [0.6, 0.3, 0.95, 1.0]]
    )
    persons = Instances(
        size, proposal_boxes=Boxes(places * torch.tensor([width, height, width, height]))
    )
    return {"video": (255 * video).to(torch.uint8), "proposals": persons}


def settle(model: nn.Module, clip: dict) -> None:
    """Give normalisation the statistics of a clip, as training would, so that random weights keep
    the scale of activations through the network."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm3d)]
    for norm in norms:
        norm.momentum = 1.0
        if getattr(norm, "block_final_bn", False):  # zero at first: the block would do nothing
            nn.init.constant_(norm.weight, 0.5)
    with torch.no_grad():
        model.train().backbone(model.preprocess([clip]).tensor)
    model.eval()


def head_features(model: nn.Module, clip: dict) -> Tensor:
    """(R, C) of a clip's persons, what the classifier sees."""
    with torch.no_grad():
        persons = model.extract([clip])[0].persons
        return model.roi_heads.head(persons.roi_features)


def separate(model: nn.Module, features: Tensor) -> None:
    """Give the classifier weights with which every person (R, C) has `TOP` classes of its own, in
    a clear order, as training would; random weights leave ties that any rounding decides."""
    classifier = model.roi_heads.predictor.cls_score
    places = torch.rand(len(features), classifier.out_features).argsort(dim=1)  # R x K
    targets = (TOP - places).clamp(min=0).float()
    with torch.no_grad():
        classifier.weight.copy_((torch.linalg.pinv(features) @ targets).t())


def same_top_classes(expected: Tensor, found: Tensor) -> float:
    """Share of the best class and of the best classes (R, K) that both logits name.

    Args:
        expected, found: logits (R, K).
    """
    same_best = expected.argmax(dim=1) == found.argmax(dim=1)
    best = [logits.topk(min(TOP, logits.shape[1]), dim=1).indices for logits in (expected, found)]
    in_both = (best[0][:, :, None] == best[1][:, None, :]).any(dim=2)
    return torch.cat([same_best[:, None], in_both], dim=1).float().mean().item()
