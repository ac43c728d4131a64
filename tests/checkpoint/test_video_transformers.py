"""Published video transformers: their names, and a second computation of what they say.

The second trunk is transformers' VideoMAE, with the weights copied over; the second head is written
out here.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torchvision.ops import roi_align

from alphaaction_d2 import setup_cfg
from alphaaction_d2.checkpoint import ActionCheckpointer, CheckpointMismatch, load_for_inference
from alphaaction_d2.checkpoint.sources import convert, recognise
from alphaaction_d2.checkpoint.sources.source import WHOLE_CLIP_CLASSIFIER
from tests.helpers import CONFIGS

PUBLISHED = CONFIGS / "AVA" / "published"
SIZES = {"B": (768, 12), "L": (1024, 24)}
# prefix, convolution of tubes, frames of a tube, frames, layers of an MLP, classifier, its rows
UMT = ("", "proj", 1, 8, ("fc1", "fc2"), "head", 80)
MMACTION2 = (
    *("backbone.", "projection", 2, 16, ("layers.0.0", "layers.1")),
    *("roi_head.bbox_head.fc_cls", 81),
)
FAMILIES = {"umt": UMT, "mmaction2_videomae": MMACTION2}
FILES = {f"{family}_vit_{size}": (family, size) for family in FAMILIES for size in SIZES}
SMALL = ("MODEL.VIDEO_BACKBONE.VIT.CHANNELS", 128, "MODEL.VIDEO_BACKBONE.VIT.DEPTH", 2)


def published(family: str, channels: int, depth: int) -> dict[str, Tensor]:
    """All entries of a file, with random values that keep the size of what goes through."""
    prefix, tubes, tube, frames, mlp, classifier, classes = FAMILIES[family]
    weights: dict[str, Tensor] = {}

    def linear(name: str, out: int, into: int, bias: bool = True) -> None:
        weights[f"{name}.weight"] = torch.randn(out, into) / math.sqrt(into)
        if bias:
            weights[f"{name}.bias"] = 0.2 * torch.randn(out)

    def norm(name: str) -> None:
        weights[f"{name}.weight"] = 0.5 + torch.rand(channels)
        weights[f"{name}.bias"] = 0.2 * torch.randn(channels)

    kernel = (tube, 16, 16)
    scale = 1 / math.sqrt(3 * math.prod(kernel))
    name = f"{prefix}patch_embed.{tubes}"
    weights[f"{name}.weight"] = scale * torch.randn(channels, 3, *kernel)
    weights[f"{name}.bias"] = 0.2 * torch.randn(channels)
    for i in range(depth):
        block = f"{prefix}blocks.{i}"
        for x in ("q_bias", "v_bias"):
            weights[f"{block}.attn.{x}"] = 0.2 * torch.randn(channels)
        linear(f"{block}.attn.qkv", 3 * channels, channels, bias=False)
        linear(f"{block}.attn.proj", channels, channels)
        linear(f"{block}.mlp.{mlp[0]}", 4 * channels, channels)
        linear(f"{block}.mlp.{mlp[1]}", channels, 4 * channels)
        norm(f"{block}.norm1")
        norm(f"{block}.norm2")
    norm(f"{prefix}norm")
    linear(classifier, classes, channels)
    if family != "umt":
        weights["backbone.pos_embed"] = torch.zeros(1, frames // tube * 14**2, channels)  # unread
    return weights


def positions(number: int, channels: int) -> Tensor:
    from transformers.models.videomae.modeling_videomae import get_sinusoid_encoding_table

    return get_sinusoid_encoding_table(number, channels)[0]


# --------------------------------------------------------------------------------- second opinion


def run_trunk(weights: dict[str, Tensor], family: str, clip: Tensor) -> Tensor:
    """Maps (N, C, T', H', W') of normalised clips (N, 3, T, H, W), whose sides 16 divides."""
    from transformers import VideoMAEConfig, VideoMAEModel

    prefix, tubes, tube, frames, mlp, _, _ = FAMILIES[family]
    channels = len(weights[f"{prefix}norm.weight"])
    depth = sum(name.endswith("attn.q_bias") for name in weights)
    config = VideoMAEConfig(
        image_size=list(clip.shape[-2:]),
        num_frames=frames,
        tubelet_size=tube,
        hidden_size=channels,
        num_hidden_layers=depth,
        num_attention_heads=channels // 64,
        intermediate_size=4 * channels,
        layer_norm_eps=1e-6,
        use_mean_pooling=False,
        attn_implementation="eager",
    )
    model = VideoMAEModel(config).eval()
    state = {
        f"embeddings.patch_embeddings.projection.{x}": weights[f"{prefix}patch_embed.{tubes}.{x}"]
        for x in ("weight", "bias")
    }
    state |= {f"layernorm.{x}": weights[f"{prefix}norm.{x}"] for x in ("weight", "bias")}
    for i in range(depth):
        theirs, ours = f"encoder.layer.{i}", f"{prefix}blocks.{i}"
        for x, weight in zip(
            ("query", "key", "value"), weights[f"{ours}.attn.qkv.weight"].chunk(3)
        ):
            state[f"{theirs}.attention.attention.{x}.weight"] = weight
            if x != "key":
                state[f"{theirs}.attention.attention.{x}.bias"] = weights[
                    f"{ours}.attn.{x[0]}_bias"
                ]
        for a, b in (
            ("attention.output.dense", "attn.proj"),
            ("intermediate.dense", f"mlp.{mlp[0]}"),
            ("output.dense", f"mlp.{mlp[1]}"),
            ("layernorm_before", "norm1"),
            ("layernorm_after", "norm2"),
        ):
            state |= {f"{theirs}.{a}.{x}": weights[f"{ours}.{b}.{x}"] for x in ("weight", "bias")}
    model.load_state_dict(state)
    time, (height, width) = frames // tube, (side // 16 for side in clip.shape[-2:])
    table = positions(time * 14**2, channels).view(time, 14, 14, channels)
    table = F.interpolate(table.permute(0, 3, 1, 2), (height, width), mode="bicubic")
    model.embeddings.position_embeddings = table.permute(0, 2, 3, 1).reshape(1, -1, channels)
    tokens = model(clip.transpose(1, 2)).last_hidden_state
    return tokens.view(len(clip), time, height, width, channels).permute(0, 4, 1, 2, 3)


def scores(
    weights: dict[str, Tensor], family: str, video: Tensor, boxes: Tensor, found: Tensor
) -> Tensor:
    """Scores (R, 80) of boxes, found with scores (R,), on a video (3, T, H, W) of grey levels."""
    height, width = video.shape[-2:]
    head = [weights[f"{FAMILIES[family][5]}.{x}"] for x in ("weight", "bias")]
    if family == "umt":
        mean, std = torch.tensor([122.7717, 115.9465, 102.9801]), torch.full((3,), 57.375)
        clip = (video - mean[:, None, None, None]) / std[:, None, None, None]
        clip = F.pad(clip, (0, -width % 16, 0, -height % 16))
        # a tenth wider and a twentieth higher, inside the picture, up to the last pixel
        grown = torch.tensor([0.1, 0.05]) * (boxes[:, 2:] - boxes[:, :2]) / 2
        boxes = torch.cat([boxes[:, :2] - grown, boxes[:, 2:] + grown], dim=1).clamp(min=0)
        boxes = boxes.minimum(torch.tensor([width, height, width, height]))
        boxes = boxes - torch.tensor([0.0, 0.0, 1.0, 1.0])
        cells, aligned = 7, False
    else:
        mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
        clip = (video - mean[:, None, None, None]) / std[:, None, None, None]
        clip = clip[..., : height // 16 * 16, : width // 16 * 16]
        cells, aligned = 8, True
    maps = run_trunk(weights, family, clip[None]).mean(2)
    rois = roi_align(maps, [boxes], cells, 1 / 16, sampling_ratio=-1, aligned=aligned)
    logits = F.linear(rois.amax(dim=(2, 3)), *head)
    return logits.sigmoid() * found[:, None] if family == "umt" else logits[:, 1:].sigmoid()


def test_normalisation_of_what_hardly_varies():
    """What is added to the variance there, 1e-6 in mmaction2's and UMT's networks, moves no score
    of the test below by its tolerance."""
    norms = [x for x in build("umt_vit_B").backbone.modules() if isinstance(x, torch.nn.LayerNorm)]
    assert len(norms) == 2 * 2 + 1
    x = 1e-3 * torch.randn(4, 128)
    expected = x - x.mean(1, keepdim=True)
    expected = expected / (x.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
    for norm in norms:
        torch.testing.assert_close(norm(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FILES)
def test_same_scores(tmp_path, name, caplog):
    pytest.importorskip("transformers")
    family, size = FILES[name]
    torch.manual_seed(0)
    depth = {"B": 2, "L": 3}[size]
    weights = published(family, 128, depth)
    small = (*SMALL[:3], depth)
    cfg = setup_cfg(str(PUBLISHED / f"{name}.yaml"), ["MODEL.DEVICE", "cpu", *small])
    height, width = 90, 151  # neither square nor a multiple of 16
    video = torch.randint(0, 256, (3, cfg.INPUT.NUM_FRAMES, height, width), dtype=torch.uint8)
    boxes = torch.tensor([[3.0, 5.0, 40.0, 60.0], [80.0, 0.0, width, height / 2]])
    found = torch.tensor([0.9, 0.81])
    with torch.no_grad():
        expected = scores(weights, family, video, boxes, found)
    path = tmp_path / "published.pth"
    torch.save({"model": weights} if family == "umt" else {"state_dict": weights}, path)
    ours = build_model(cfg).eval()
    ours.roi_heads.predictor.score_thresh = 0.0
    load_for_inference(ours, str(path))
    assert ("not for commercial use" in caplog.text) == (family != "umt")
    persons = Instances((height, width), proposal_boxes=Boxes(boxes), objectness_logits=found)
    with torch.no_grad():
        result = ours([{"video": video, "proposals": persons}])[0]["instances"]
    assert 0.001 < expected.min() and expected.max() < 0.999 and expected.std() > 0.1
    assert (result.scores.reshape(2, 80) - expected).abs().max() <= 2e-6


@pytest.mark.parametrize("name", FILES)
def test_every_tensor_has_its_place(name):
    """At full size, without values."""
    family, size = FILES[name]
    with torch.device("meta"):
        weights = published(family, *SIZES[size])
    assert recognise(weights) == family
    converted = convert(weights, family)
    assert list(converted.left_over) == [x for x in weights if x.endswith("pos_embed")]
    cfg = setup_cfg(str(PUBLISHED / f"{name}.yaml"), ["MODEL.DEVICE", "meta"])
    model = build_model(cfg).state_dict()
    assert {n: x.shape for n, x in converted.weights.items()} == {
        n: x.shape for n, x in model.items()
    }


def test_every_configuration_is_checked():
    assert {path.stem for path in PUBLISHED.glob("*_vit_*.yaml")} == set(FILES)


def build(name: str, *keys: object):
    config = PUBLISHED / f"{name}.yaml"
    return build_model(setup_cfg(str(config), ["MODEL.DEVICE", "cpu", *SMALL, *keys]))


@pytest.fixture
def small(tmp_path):
    """Writes a file of a small network; `changes` are entries instead of those that it has."""

    def write(family: str, depth: int = 2, without: str = "", **changes) -> str:
        weights = {n: x for n, x in published(family, 128, depth).items() if n != without}
        path = tmp_path / f"{family}.pth"
        torch.save({"model": {**weights, **changes}, "args": argparse.Namespace(lr=1)}, path)
        return str(path)

    return write


@pytest.mark.parametrize(
    "file, model, keys, expected",
    [
        (("umt", 3), "umt_vit_B", (), "MODEL.VIDEO_BACKBONE.VIT.DEPTH must be 3, not 2"),
        (("umt",), "umt_vit_B", (*SMALL[:1], 192), "VIT.CHANNELS must be 128, not 192"),
        (("umt",), "mmaction2_videomae_vit_B", (), "TUBELET must be 1, not 2"),
        (
            *(("umt",), "pyslowfast_slow_R50_4x16", ()),
            "MODEL.BACKBONE.NAME must be 'build_video_transformer_backbone', not 'build_slow_",
        ),
        (("umt", 2, "norm.weight"), "umt_vit_B", (), "backbone.network.norm.weight is missing"),
        (("umt", 2, "head.bias"), "umt_vit_B", (), "cls_score.bias is missing"),
    ],
)
def test_what_does_not_fit_is_named(small, file, model, keys, expected):
    with pytest.raises(CheckpointMismatch, match=expected) as error:
        load_for_inference(build(model, *keys), small(*file))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["umt_vit_B", "mmaction2_videomae_vit_B"])
def test_other_functions_are_refused(small, name):
    family, _ = FILES[name]
    for extra in ("blocks.0.gamma_1", "cls_token"):
        path = small(family, **{FAMILIES[family][0] + extra: torch.ones(1)})
        with pytest.raises(CheckpointMismatch, match=f"{extra} has no place in it"):
            load_for_inference(build(name), path)


def test_a_file_that_was_cut_is_one_line(small):
    path = Path(small("umt"))
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ValueError, match=r"not a checkpoint, or a damaged one .*download") as error:
        load_for_inference(build("umt_vit_B"), str(path))
    assert "\n" not in str(error.value)


def test_to_train_from(small, caplog):
    """Kinetics: a classifier of whole clips, and the normalisation behind the mean over tokens."""
    weights = {n.replace("norm.", "fc_norm."): x for n, x in published("umt", 128, 2).items()}
    weights |= {"head.weight": torch.ones(710, 128), "head.bias": torch.ones(710)}
    assert recognise(weights) == "umt"
    converted = convert(weights, "umt")
    assert set(converted.left_over) == {"head.weight", "head.bias"}
    assert set(converted.left_over.values()) == {WHOLE_CLIP_CLASSIFIER}
    model = build("umt_vit_B")
    path = Path(small("umt")).with_name("kinetics.pth")
    torch.save({"model": weights}, path)
    ActionCheckpointer(model).resume_or_load(str(path))
    assert model.backbone.network.norm.weight.equal(weights["fc_norm.weight"])
