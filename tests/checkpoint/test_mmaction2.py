"""mmaction2's detectors: its names, and a second computation that goes by these names alone."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torchvision.ops import roi_align

from alphaaction_d2 import setup_cfg
from alphaaction_d2.checkpoint import CheckpointMismatch, load_for_inference
from alphaaction_d2.checkpoint.sources import convert, recognise
from alphaaction_d2.checkpoint.sources.source import WHOLE_CLIP_CLASSIFIER
from tests.helpers import CONFIGS

PUBLISHED = CONFIGS / "AVA" / "published"
STRIDES = (1, 2, 2, 1)
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
NORM = ("weight", "bias", "running_mean", "running_var")


def layer(name: str, out: int, into: int, kernel: tuple[int, int, int], norm: bool = True) -> dict:
    """A "ConvModule" with weights that keep the size of what goes through it."""
    scale = math.sqrt(2 / (into * math.prod(kernel)))
    found = {f"{name}.conv.weight": scale * torch.randn(out, into, *kernel)}
    if norm:
        found |= {f"{name}.bn.{x}": 0.5 + torch.rand(out) for x in ("weight", "running_var")}
        found |= {f"{name}.bn.{x}": 0.2 * torch.randn(out) for x in ("bias", "running_mean")}
        found[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)
    return found


def pathway(name: str, width: int, blocks: tuple[int, ...], still: int, ratio: int = 0) -> dict:
    """All entries of a pathway; `still` stages do not look along time; `ratio` joins channels."""
    weights = layer(f"{name}conv1", width, 3, (5 if still == 0 else 1, 7, 7))
    into = width
    for stage, number in enumerate(blocks):
        into += 2 * into // ratio if ratio else 0
        inner = width * 2**stage
        for i in range(number):
            block = f"{name}layer{stage + 1}.{i}"
            weights |= layer(f"{block}.conv1", inner, into, (1 if stage < still else 3, 1, 1))
            weights |= layer(f"{block}.conv2", inner, inner, (1, 3, 3))
            weights |= layer(f"{block}.conv3", 4 * inner, inner, (1, 1, 1))
            if i == 0:
                weights |= layer(f"{block}.downsample", 4 * inner, into, (1, 1, 1))
            into = 4 * inner
    return weights


def slowonly(depth: int = 50) -> dict[str, Tensor]:
    blocks = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]
    return pathway("backbone.", 64, blocks, 2) | classifier(2048)


def slowfast(kernel: int) -> dict[str, Tensor]:
    weights = pathway("backbone.slow_path.", 64, (3, 4, 6, 3), 2, ratio=8)
    for i, width in enumerate((8, 32, 64, 128)):
        name = f"layer{i}_lateral" if i else "conv1_lateral"
        size = (kernel, 1, 1)
        weights |= layer(f"backbone.slow_path.{name}", 2 * width, width, size, norm=False)
    return weights | pathway("backbone.fast_path.", 8, (3, 4, 6, 3), 0) | classifier(2304)


def classifier(width: int) -> dict[str, Tensor]:
    name = "roi_head.bbox_head.fc_cls"
    return {f"{name}.weight": torch.randn(81, width), f"{name}.bias": torch.randn(81)}


FILES = {
    "mmaction2_slowonly_R50_4x16_v2.1": slowonly,
    "mmaction2_slowonly_R101_8x8_v2.1": lambda: slowonly(101),
    "mmaction2_slowfast_R50_4x16_v2.1": lambda: slowfast(5),
    "mmaction2_slowfast_R50_8x8_v2.1": lambda: slowfast(7),
    "mmaction2_slowfast_R50_8x8": lambda: slowfast(7),
}


# --------------------------------------------------------------------------------- second opinion


def run_layer(weights, name: str, x: Tensor, stride=(1, 1, 1), relu: bool = True) -> Tensor:
    weight = weights[f"{name}.conv.weight"]
    padding = [(size - 1) // 2 for size in weight.shape[2:]]
    x = F.conv3d(x, weight, stride=stride, padding=padding)
    if f"{name}.bn.weight" in weights:
        scale, shift, mean, var = (weights[f"{name}.bn.{x}"] for x in NORM)
        x = F.batch_norm(x, mean, var, scale, shift)
    return x.relu() if relu else x


def run_stage(weights, stage: str, x: Tensor, stride: int) -> Tensor:
    i = 0
    while f"{stage}.{i}.conv1.conv.weight" in weights:
        step = (1, stride, stride) if i == 0 else (1, 1, 1)
        y = run_layer(weights, f"{stage}.{i}.conv1", x)
        y = run_layer(weights, f"{stage}.{i}.conv2", y, step)
        y = run_layer(weights, f"{stage}.{i}.conv3", y, relu=False)
        if i == 0:
            x = run_layer(weights, f"{stage}.{i}.downsample", x, step, relu=False)
        x = (x + y).relu()
        i += 1
    return x


def run_stem(weights, name: str, x: Tensor) -> Tensor:
    x = run_layer(weights, f"{name}conv1", x, (1, 2, 2))
    return F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))


def logits(weights: dict[str, Tensor], video: Tensor, boxes: Tensor, alpha: int) -> Tensor:
    """Logits (R, 80) of boxes on a video (3, T, H, W) of grey levels; alpha 0: SlowOnly."""
    clip = (video.float() - torch.tensor(MEAN)[:, None, None, None])[None]
    clip = clip / torch.tensor(STD)[:, None, None, None]
    if alpha:
        names = ("backbone.slow_path.", "backbone.fast_path.")
        # the slow pathway sees what its nearest-neighbour interpolation of the clip gives
        slow = F.interpolate(clip, scale_factor=(1 / alpha, 1.0, 1.0), mode="nearest")
        slow, fast = run_stem(weights, names[0], slow), run_stem(weights, names[1], clip)
        for i in range(4):
            lateral = f"{names[0]}layer{i}_lateral" if i else f"{names[0]}conv1_lateral"
            joining = run_layer(weights, lateral, fast, (alpha, 1, 1), relu=False)
            slow = torch.cat([slow, joining], dim=1)
            slow, fast = (
                run_stage(weights, f"{name}layer{i + 1}", x, STRIDES[i])
                for name, x in zip(names, (slow, fast))
            )
        maps = torch.cat([slow.mean(2), fast.mean(2)], dim=1)
    else:
        x = run_stem(weights, "backbone.", clip)
        for i in range(4):
            x = run_stage(weights, f"backbone.layer{i + 1}", x, STRIDES[i])
        maps = x.mean(2)
    rois = roi_align(maps, [boxes], 8, 1 / 16, sampling_ratio=-1, aligned=True)
    features = rois.amax(dim=(2, 3))
    head = (weights[f"roi_head.bbox_head.fc_cls.{x}"] for x in ("weight", "bias"))
    return F.linear(features, *head)[:, 1:]


@pytest.mark.parametrize(
    "name, alpha",
    [
        ("mmaction2_slowonly_R50_4x16_v2.1", 0),
        ("mmaction2_slowfast_R50_4x16_v2.1", 8),
        ("mmaction2_slowfast_R50_8x8", 4),
    ],
)
def test_same_scores(tmp_path, name, alpha):
    torch.manual_seed(0)
    weights = FILES[name]()
    cfg = setup_cfg(str(PUBLISHED / f"{name}.yaml"), ["MODEL.DEVICE", "cpu"])
    height, width = 64, 84  # no multiple of the stride
    video = torch.randint(0, 256, (3, cfg.INPUT.NUM_FRAMES, height, width), dtype=torch.uint8)
    boxes = torch.tensor([[3.0, 5.0, 40.0, 60.0], [50.0, 0.0, width, height / 2]])
    with torch.no_grad():
        # logits of a size whose sigmoids tell something
        weights["roi_head.bbox_head.fc_cls.weight"] /= logits(weights, video, boxes, alpha).std()
        expected = logits(weights, video, boxes, alpha).sigmoid()
    path = tmp_path / "mmaction2.pth"
    torch.save({"meta": {"epoch": 20}, "state_dict": weights}, path)
    ours = build_model(cfg).eval()
    ours.roi_heads.predictor.score_thresh = 0.0
    load_for_inference(ours, str(path))
    persons = Instances((height, width), proposal_boxes=Boxes(boxes))
    with torch.no_grad():
        found = ours([{"video": video, "proposals": persons}])[0]["instances"]
    assert 0.001 < expected.min() and expected.max() < 0.999 and expected.std() > 0.1
    assert (found.scores.reshape(2, 80) - expected).abs().max() <= 1e-4 * expected.std()


@pytest.mark.parametrize("name", FILES)
def test_every_tensor_has_its_place(name):
    with torch.device("meta"):
        weights = FILES[name]()
    if "slowfast" in name:
        assert len(weights) == 642
    assert recognise(weights) == "mmaction2"
    converted = convert(weights, "mmaction2")
    assert not converted.left_over
    cfg = setup_cfg(str(PUBLISHED / f"{name}.yaml"), ["MODEL.DEVICE", "meta"])
    model = build_model(cfg).state_dict()
    found = {n: x.shape for n, x in converted.weights.items() if "num_batches" not in n}
    assert found == {n: x.shape for n, x in model.items()}


def test_every_configuration_is_checked():
    assert {path.stem for path in PUBLISHED.glob("mmaction2_slow*.yaml")} == set(FILES)


def test_what_does_not_fit_is_named(tmp_path):
    path = tmp_path / "mmaction2.pth"
    torch.save({"state_dict": slowfast(5)}, path)

    def load(*keys) -> None:
        config = PUBLISHED / "mmaction2_slowfast_R50_4x16_v2.1.yaml"
        cfg = setup_cfg(str(config), ["MODEL.DEVICE", "cpu", *keys])
        load_for_inference(build_model(cfg), str(path))

    load()
    for lateral in ("aia", "pytorchvideo"):
        with pytest.raises(CheckpointMismatch, match=f"must be 'mmaction2', not '{lateral}'"):
            load("MODEL.SLOWFAST.LATERAL", lateral)
    with pytest.raises(CheckpointMismatch, match="LATERAL_KERNEL must be 5, not 7"):
        load("MODEL.SLOWFAST.LATERAL_KERNEL", 7)
    # non-local blocks of another kind: without them it would be another function
    other = {
        **slowfast(5),
        "backbone.slow_path.layer2.1.non_local_block.g.conv.weight": torch.ones(1),
    }
    torch.save({"state_dict": other}, path)
    with pytest.raises(CheckpointMismatch, match="non_local_block.* has no place in it"):
        load()


def test_recognisers_and_networks_of_pictures():
    """The first are backbones with a classifier of whole clips; the others are not for us."""
    with torch.device("meta"):
        weights = {n: x for n, x in slowonly().items() if not n.startswith("roi_head")}
        weights |= {"cls_head.fc_cls.weight": torch.ones(400, 2048)}
        pictures = {n: x[:, :, 0] if x.dim() == 5 else x for n, x in weights.items()}
    assert recognise(weights) == "mmaction2" and recognise(pictures) is None
    assert convert(weights, "mmaction2").left_over == {
        "cls_head.fc_cls.weight": WHOLE_CLIP_CLASSIFIER
    }
