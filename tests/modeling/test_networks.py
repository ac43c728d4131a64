"""Other libraries' video networks as backbones: built by name, equal to their library."""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone, build_model
from pytorchvideo.models import hub
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from alphaaction_d2 import setup_cfg
from alphaaction_d2.checkpoint.checkpointer import ActionCheckpointer
from alphaaction_d2.model_zoo.networks import NETWORKS
from alphaaction_d2.modeling.backbone import MapBackbone, has_frozen_normalisation, stands_still
from alphaaction_d2.modeling.backbone.networks import fit_mvit, resample
from tests.helpers import CONFIGS, model_input

AIA, IGMN = "DenseSerialInteraction", "IGMN"
TORCHVISION = [name for name, x in NETWORKS.items() if x.library == "torchvision_video"]
# Of networks that differ in size alone, one.
KINDS = ["r3d_18", "mc3_18", "r2plus1d_18", "s3d", "swin3d_t", "mvit_v1_b", "mvit_v2_s"]
KINDS += ["c2d_r50", "i3d_r50", "csn_r101", "r2plus1d_r50", "x3d_s", "mvit_base_16x4"]
FEW_FRAMES = {"s3d": 16}  # the others: 4
TINY: dict[str, dict[str, Any]] = {
    "videomae": {
        **{"num_frames": 4, "image_size": 32, "patch_size": 8, "num_hidden_layers": 1},
        **{"hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 8},
    },
    "vjepa2": {
        **{"frames_per_clip": 4, "crop_size": 32, "patch_size": 8, "num_hidden_layers": 1},
        **{"hidden_size": 24, "num_attention_heads": 2, "pred_hidden_size": 24},
        **{"pred_num_hidden_layers": 1, "pred_num_attention_heads": 2},
    },
    "videoprism_vision_model": {
        **{"num_frames": 4, "image_size": 36, "tubelet_size": [1, 9, 9], "num_spatial_layers": 1},
        **{"num_temporal_layers": 1, "hidden_size": 24, "num_attention_heads": 2},
        "intermediate_size": 8,
    },
}


def transformer(kind: str) -> Any:
    """A tiny transformer of random weights, as transformers itself has it."""
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(kind, **TINY[kind])
    torch.manual_seed(3)
    names = {x.type: x for x in NETWORKS.values() if x.type}
    assert kind in names
    return transformers.AutoModel.from_config(config).eval()


@pytest.fixture(params=TINY)
def folder(request, tmp_path: Path) -> Path:
    """A tiny transformer's folder, as it is published."""
    transformer(request.param).save_pretrained(tmp_path / request.param)
    return tmp_path / request.param


def network_cfg(name: str | Path, *opts: object) -> CfgNode:
    opts = ("MODEL.INTERACTION.DIM", 8, "MODEL.ROI_ACTION_HEAD.FC_DIM", 8, *opts)
    few = FEW_FRAMES.get(str(name), 4)
    return setup_cfg(
        str(CONFIGS / "Base-MapBackbone.yaml"),
        [
            *("MODEL.VIDEO_BACKBONE.NAME", str(name), "MODEL.DEVICE", "cpu"),
            *("INPUT.NUM_FRAMES", few, *opts),
        ],
    )


def map_of(cfg: CfgNode) -> MapBackbone:
    torch.manual_seed(3)
    backbone = build_backbone(cfg)
    assert isinstance(backbone, MapBackbone)
    return backbone


def seen_at(network: nn.Module, layer: str, clips: Tensor) -> Tensor:
    """What a layer of a library's own network gives, asked in the plainest way."""
    found = []
    network.get_submodule(layer).register_forward_hook(lambda m, i, output: found.append(output))
    with contextlib.suppress(RuntimeError):  # heads want more than the small clips of tests
        network(clips)
    return found[0]


# ---------------------------------------------------------------- descriptions
@pytest.mark.parametrize("name", TORCHVISION)
def test_described_as_torchvision_describes_it(name):
    ours = NETWORKS[name]
    weights = next(iter(get_model_weights(name)))
    theirs = weights.transforms()
    assert (ours.mean, ours.std) == (tuple(theirs.mean), tuple(theirs.std))
    assert ours.short_side == theirs.resize_size[0]
    frames, step, fps = ours.clip
    told = weights.meta["_docs"]
    assert f"clip_len={frames}`" in told and f"frame_rate={fps / step:g}`" in told


def test_the_network_fills_what_the_configuration_leaves_open():
    cfg = network_cfg("swin3d_t", "INPUT.MIN_SIZE_TEST", 100)
    assert cfg.MODEL.BACKBONE.NAME == "build_torchvision_video_backbone"
    assert (cfg.MODEL.VIDEO_BACKBONE.LAYER, cfg.INPUT.CLIP_FPS) == ("norm", 15.0)
    assert cfg.MODEL.PIXEL_MEAN == pytest.approx([123.675, 116.28, 103.53])
    assert (cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST) == ((256,), 100)
    assert cfg.INPUT.NUM_FRAMES == 4  # as was asked for
    assert "null" not in cfg.dump().split("INPUT:")[1].split("MODEL:")[0]


def test_a_folder_describes_itself(folder):
    cfg = network_cfg(folder, "INPUT.NUM_FRAMES", None)
    side = 36 if "prism" in folder.name else 32
    assert (cfg.INPUT.NUM_FRAMES, cfg.INPUT.MIN_SIZE_TEST) == (4, side)
    assert cfg.MODEL.PIXEL_MEAN[0] == (0.0 if "prism" in folder.name else 123.675)


def test_a_name_that_nobody_has(tmp_path):
    with pytest.raises(ValueError, match="'swin3d_x': did you mean swin3d_"):
        network_cfg("swin3d_x")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="model_type 'bert': expected one of videoprism"):
        network_cfg(tmp_path)
    cfg = network_cfg("swin3d_t", "MODEL.BACKBONE.NAME", "build_pytorchvideo_backbone")
    with pytest.raises(ValueError, match="'swin3d_t': expected one of c2d_r50"):
        build_backbone(cfg)


# ---------------------------------------------------------------- equal to the library
@pytest.mark.parametrize("name", ["r3d_18", "s3d", "swin3d_t", "i3d_r50", "x3d_xs"])
def test_features_are_the_librarys(name):
    backbone = map_of(network_cfg(name)).eval()
    original = own_network(name, backbone)
    clips = torch.rand(2, 3, backbone.num_frames, 64, 96)
    with torch.no_grad():
        wanted = seen_at(original, NETWORKS[name].layer, clips)
        if name == "swin3d_t":  # channels last, there
            wanted = wanted.permute(0, 4, 1, 2, 3)
        assert torch.equal(backbone(clips)["map"], wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mvit_v1_b", "mvit_v2_s", "mvit_base_16x4"])
def test_features_are_the_librarys_at_its_only_size(name):
    backbone = map_of(network_cfg(name, "INPUT.NUM_FRAMES", 16)).eval()
    original = own_network(name, backbone)
    clips = torch.rand(1, 3, 16, 224, 224)
    with torch.no_grad():
        tokens = seen_at(original, NETWORKS[name].layer, clips)[:, 1:]  # behind the class token
        found = backbone(clips)["map"]
    assert torch.equal(found, tokens.transpose(1, 2).unflatten(2, (8, 7, 7)))


def own_network(name: str, backbone: MapBackbone) -> nn.Module:
    """The library's own network with the weights of a backbone, all but its head."""
    build = hub.__dict__.get(name, lambda: get_model(name, weights=None))
    original = build().eval()
    left = original.load_state_dict(backbone.network.state_dict(), strict=False)
    missing = [x for x in left.missing_keys if not x.endswith("num_batches_tracked")]
    assert all(x.startswith(backbone.removed) for x in missing) and not left.unexpected_keys
    return original


def test_transformers_features(folder):
    backbone = map_of(network_cfg(folder, "MODEL.VIDEO_BACKBONE.WEIGHTS", str(folder))).eval()
    original = transformer(folder.name)
    side = TINY[folder.name].get("image_size", 32)
    clips = torch.rand(2, 3, 4, side, side)
    with torch.no_grad():
        tokens = original(clips.transpose(1, 2)).last_hidden_state
        found = backbone(clips)["map"]
    assert torch.equal(found.flatten(2).transpose(1, 2), tokens)
    spec = backbone.output_shape()["map"]
    assert (spec.channels, spec.stride) == (24, 9 if "prism" in folder.name else 8)


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("frames", [4, 8])
def test_positions_of_transformers_at_other_sizes(kind, frames, tmp_path):
    """What transformers itself says of larger pictures and longer clips: VideoPrism resamples its
    tables, V-JEPA 2 counts its places on a grid of the configuration's size, and VideoMAE takes
    tables from outside, which are resampled here by the plain formula."""
    original = transformer(kind)
    original.save_pretrained(tmp_path)
    weights = ("MODEL.VIDEO_BACKBONE.WEIGHTS", str(tmp_path), "INPUT.NUM_FRAMES", frames)
    stride = 9 if "prism" in kind else 8
    height, width = (6, 6) if kind == "vjepa2" else (5, 7)
    clips = torch.rand(1, 3, frames, height * stride, width * stride)
    with torch.no_grad():
        found = map_of(network_cfg(tmp_path, *weights)).eval()(clips)["map"]
        options = {}
        if kind == "vjepa2":
            original.encoder.config.crop_size = height * stride
            for layer in original.encoder.layer:
                layer.attention.grid_size = height
        elif kind == "videomae":
            embeddings = original.embeddings
            table = embeddings.position_embeddings[0].reshape(2, 4, 4, -1).numpy()
            table = np.einsum("ht,tyxc->hyxc", linear(2, frames // 2), table)
            table = np.einsum("hy,tyxc->thxc", cubic(4, height), table)
            table = np.einsum("wx,tyxc->tywc", cubic(4, width), table)
            embeddings.position_embeddings = torch.from_numpy(table).float().flatten(0, 2)[None]
            embeddings.patch_embeddings.image_size = clips.shape[-2:]
        else:
            options = {"interpolate_pos_encoding": True}
        tokens = original(clips.transpose(1, 2), **options).last_hidden_state
    assert found.shape[2:] == (frames if "prism" in kind else frames // 2, height, width)
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), tokens, atol=2e-5, rtol=1e-4)


def cubic(old: int, new: int) -> np.ndarray:
    """Weights (new, old) of cubic convolution (Keys, 1981) with a = -3/4, cells at their centres
    and the first and last cell going on at the ends."""
    a, weights = -0.75, np.zeros((new, old))
    for i in range(new):
        at = (i + 0.5) * old / new - 0.5
        for j in range(math.floor(at) - 1, math.floor(at) + 3):
            d = abs(at - j)
            near = (a + 2) * d**3 - (a + 3) * d**2 + 1
            far = a * (d**3 - 5 * d**2 + 8 * d - 4)
            weights[i, min(max(j, 0), old - 1)] += near if d <= 1 else far if d < 2 else 0
    return weights


def linear(old: int, new: int) -> np.ndarray:
    """The same of a straight line between neighbouring cells."""
    weights = np.zeros((new, old))
    for i in range(new):
        at = min(max((i + 0.5) * old / new - 0.5, 0), old - 1)
        below = min(math.floor(at), old - 2)
        weights[i, below], weights[i, below + 1] = 1 - (at - below), at - below
    return weights


def test_positions_of_mvit_at_other_sizes():
    """Its tables become those of a network that was built for such pictures."""
    torch.manual_seed(3)
    table = torch.randn(16, 5)
    expected = np.einsum("hy,wx,yxc->hwc", cubic(4, 6), cubic(4, 3), table.view(4, 4, 5).numpy())
    found = resample(table, (6, 3))
    np.testing.assert_allclose(found, expected.reshape(18, 5), atol=1e-5)
    np.testing.assert_allclose(resample(table, (10,)), linear(16, 10) @ table.numpy(), atol=1e-5)
    network = map_of(network_cfg("mvit_v1_b")).network
    tables = dict(network.named_parameters())
    fitted = fit_mvit(network, tables, (2, 8, 6))
    assert (network.pos_encoding.temporal_size, network.pos_encoding.spatial_size) == (2, (8, 6))
    spatial = tables["pos_encoding.spatial_pos"].detach().view(56, 56, -1).numpy()
    expected = np.einsum("hy,wx,yxc->hwc", cubic(56, 8), cubic(56, 6), spatial)
    np.testing.assert_allclose(
        fitted["pos_encoding.spatial_pos"].detach(), expected.reshape(48, -1), atol=1e-5
    )


def test_transformers_at_other_sizes(folder):
    """A wide picture has maps of its own shape, and nothing of it is left for the next one."""
    backbone = map_of(network_cfg(folder)).eval()
    stride = backbone.output_shape()["map"].stride
    with torch.no_grad():
        wide = backbone(torch.rand(1, 3, 4, 5 * stride, 7 * stride))["map"]
        again = backbone(torch.zeros(1, 3, 4, 4 * stride, 4 * stride))["map"]
        first = map_of(network_cfg(folder)).eval()(torch.zeros(1, 3, 4, 4 * stride, 4 * stride))
    assert wide.shape[-2:] == (5, 7)
    assert torch.equal(again, first["map"])  # nothing is left of the other size


def test_vjepa2_knows_where_tokens_of_a_wide_picture_are():
    """A wide picture is a square one whose lower half is left out: positions are those of the
    square."""
    pytest.importorskip("transformers")
    from alphaaction_d2.modeling.backbone.networks import fit_vjepa2

    encoder = transformer("vjepa2").encoder
    fit_vjepa2(encoder, {}, (2, 2, 4))
    attention = encoder.layer[0].attention
    assert attention.grid_size == 4
    assert attention.places.tolist() == [*range(8), *range(16, 24)]
    frames, rows, columns = attention.get_position_ids(
        torch.zeros(1, 16, 24), attention.places[None]
    )
    assert frames[0, 0].tolist() == [0] * 8 + [1] * 8
    assert rows[0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1] * 2
    assert columns[0, 0].tolist() == [0, 1, 2, 3] * 4


# ---------------------------------------------------------------- in a model
@pytest.mark.parametrize("interaction", [AIA, IGMN])
@pytest.mark.parametrize(
    "name",
    [
        *(
            x if x in ("x3d_s", "swin3d_t") else pytest.param(x, marks=pytest.mark.slow)
            for x in KINDS
        ),
        *TINY,
    ],
)
def test_trains_and_tests(name, interaction, tmp_path):
    if name in TINY:
        transformer(name).save_pretrained(tmp_path / name)
        name = tmp_path / name
    opts = ("MODEL.INTERACTION.FUSION", "concat") if interaction == IGMN else ()
    cfg = network_cfg(name, "MODEL.INTERACTION.NAME", interaction, *opts)
    torch.manual_seed(0)
    model = build_model(cfg)
    sum(model([model_input(cfg, 2, 1), model_input(cfg, 1, 0, size=(40, 70))]).values()).backward()
    trained = [x for x in model.backbone.parameters() if x.requires_grad]
    assert trained and all(x.grad is not None and x.grad.isfinite().all() for x in trained)
    with torch.no_grad():
        assert len(model.eval()([model_input(cfg, 2, 1)])[0]["instances"]) == 160


def test_frozen_and_normalisation():
    backbone = map_of(network_cfg("r3d_18", "MODEL.VIDEO_BACKBONE.FROZEN", True))
    assert stands_still(backbone) and not backbone.train().network.training
    assert not any(x.requires_grad for x in backbone.parameters())
    assert has_frozen_normalisation(backbone)
    moving = map_of(network_cfg("r3d_18", "MODEL.VIDEO_BACKBONE.NORM", "BN"))
    assert not stands_still(moving) and not has_frozen_normalisation(moving)
    assert moving.network.training


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("FROZEN", True, "MODEL.VIDEO_BACKBONE.FROZEN is the key"),
        ("NORM", "BN", "MODEL.VIDEO_BACKBONE.NORM is the key"),
        ("ACTIVATION_CHECKPOINT", True, "only SlowFast and Slow can"),
    ],
)
@pytest.mark.parametrize("name", ["r3d_18", "umt"])
def test_keys_of_slowfast_are_refused(name, key, value, named):
    """What would train a network otherwise than was asked for; its layers may be of a base."""
    opts = ("MODEL.SLOWFAST.DEPTH", 18, f"MODEL.SLOWFAST.{key}", value)
    if name == "umt":
        published = str(CONFIGS / "AVA" / "published" / "umt_vit_B.yaml")
        cfg = setup_cfg(published, ["MODEL.DEVICE", "cpu", *opts])
    else:
        cfg = network_cfg(name, *opts)
    with pytest.raises(ValueError, match=f"MODEL.SLOWFAST.{key} {value!r}: .*: {named}; leave it"):
        build_backbone(cfg)


@pytest.mark.parametrize(("name", "few", "least"), [("s3d", 4, 5), ("i3d_r50", 1, 2)])
def test_the_least_length_of_clips_is_told(name, few, least):
    told = f"NUM_FRAMES {few}: {name} takes no such clips, it takes {least} and more; its layers"
    with pytest.raises(ValueError, match=told):
        build_backbone(network_cfg(name, "INPUT.NUM_FRAMES", few))
    backbone = map_of(network_cfg(name, "INPUT.NUM_FRAMES", least)).eval()
    with torch.no_grad():
        assert backbone(torch.rand(1, 3, least, 64, 64))["map"].shape[2:] == (1, 2, 2)


# ---------------------------------------------------------------- weights
def test_published_weights_of_torchvision(tmp_path, caplog):
    torch.manual_seed(1)
    published = get_model("r3d_18", weights=None).state_dict()
    torch.save(published, tmp_path / "r3d_18.pth")
    backbone = map_of(
        network_cfg("r3d_18", "MODEL.VIDEO_BACKBONE.WEIGHTS", str(tmp_path / "r3d_18.pth"))
    )
    for key, value in backbone.network.state_dict().items():
        assert torch.equal(value, published[key]), key
    # the same file as MODEL.WEIGHTS, which a trained model has, too
    cfg = network_cfg("r3d_18")
    model = build_model(cfg)
    with caplog.at_level(logging.INFO):
        ActionCheckpointer(model, str(tmp_path)).resume_or_load(
            str(tmp_path / "r3d_18.pth"), resume=False
        )
    assert "what lies behind the layer that is used: fc." in caplog.text
    weight = model.backbone.network.layer4[0].conv1[0].weight
    assert torch.equal(weight, published["layer4.0.conv1.0.weight"])
    # with weights of a whole model there is nothing to begin from
    cfg.MODEL.WEIGHTS, cfg.MODEL.VIDEO_BACKBONE.WEIGHTS = "trained.pth", "nowhere.pth"
    build_model(cfg)


def test_published_weights_of_pytorchvideo(tmp_path):
    torch.manual_seed(1)
    published = hub.x3d_xs().state_dict()
    torch.save({"model_state": published}, tmp_path / "X3D_XS.pyth")
    weights = str(tmp_path / "X3D_XS.pyth")
    backbone = map_of(network_cfg("x3d_xs", "MODEL.VIDEO_BACKBONE.WEIGHTS", weights))
    for key, value in backbone.network.state_dict().items():
        assert torch.equal(value, published[key]), key


def test_weights_that_do_not_fit(tmp_path):
    state = get_model("r3d_18", weights=None).state_dict()
    file = tmp_path / "file.pth"

    def refused(changed: dict[str, Tensor]) -> str:
        torch.save(changed, file)
        with pytest.raises(ValueError) as error:
            build_backbone(network_cfg("r3d_18", "MODEL.VIDEO_BACKBONE.WEIGHTS", str(file)))
        return str(error.value)

    lacking = {key: x for key, x in state.items() if key != "layer2.0.conv1.0.weight"}
    assert "layer2.0.conv1.0.weight is missing" in refused(lacking)
    assert "(64, 3, 3, 3, 3) instead of" in refused(
        {**state, "stem.0.weight": torch.zeros(64, 3, 3, 3, 3)}
    )
    assert "layer5.weight has no place in it" in refused({**state, "layer5.weight": torch.ones(1)})
    assert "is missing" in refused(get_model("s3d", weights=None).state_dict())
    with pytest.raises(FileNotFoundError, match=r"VIDEO_BACKBONE.WEIGHTS: nowhere.pth"):
        build_backbone(network_cfg("r3d_18", "MODEL.VIDEO_BACKBONE.WEIGHTS", "nowhere.pth"))


def test_transformers_weights_of_one_file(folder, tmp_path, caplog):
    """As a folder has them; and of a detector or classifier, below a prefix."""
    safetensors = pytest.importorskip("safetensors.torch")
    file = folder / "model.safetensors"
    expected = map_of(network_cfg(folder, "MODEL.VIDEO_BACKBONE.WEIGHTS", str(folder)))
    below = {f"videomae.{key}": x for key, x in safetensors.load_file(file).items()}
    torch.save(below, tmp_path / "below.pth")
    files_of = {"videomae": (file, tmp_path / "below.pth")}
    for weights in files_of.get(folder.name, (file,)):
        caplog.clear()
        torch.manual_seed(5)
        found = build_backbone(network_cfg(folder, "MODEL.VIDEO_BACKBONE.WEIGHTS", str(weights)))
        for key, value in found.state_dict().items():
            assert torch.equal(value, expected.state_dict()[key]), key
        told = "not for commercial use" in caplog.text
        assert told == (folder.name == "videomae"), "VideoMAE's alone are not free"


def test_a_revision_of_the_hub(folder):
    """Behind an @; a folder may have one in its name."""
    other = folder.with_name("at@home")
    folder.rename(other)
    cfg = network_cfg(other, "MODEL.VIDEO_BACKBONE.WEIGHTS", str(other))
    network = build_backbone(cfg).network
    kind = type(transformer(folder.name))
    with mock.patch.object(kind, "from_pretrained", side_effect=OSError("asked")) as asked:
        cfg.MODEL.VIDEO_BACKBONE.WEIGHTS = "somebody/network@refs/pr/4"
        with pytest.raises(ValueError, match="WEIGHTS somebody/network@refs/pr/4: asked"):
            build_backbone(cfg)
    assert asked.call_args.args == ("somebody/network",) and network is not None
    assert asked.call_args.kwargs["revision"] == "refs/pr/4"


def test_a_transformers_folder_that_does_not_fit(folder, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    weights = safetensors.load_file(folder / "model.safetensors")
    name = next(x for x in weights if "layernorm" in x or "norm1" in x)
    del weights[name]
    other = tmp_path / "other"
    transformer(folder.name).save_pretrained(other)
    safetensors.save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"other: 1 tensors of the .* missing: {name}"):
        build_backbone(network_cfg(folder, "MODEL.VIDEO_BACKBONE.WEIGHTS", str(other)))
    with pytest.raises(ValueError, match="VIDEO_BACKBONE.WEIGHTS .*nowhere"):
        build_backbone(
            network_cfg(folder, "MODEL.VIDEO_BACKBONE.WEIGHTS", str(tmp_path / "nowhere"))
        )


def test_transformers_is_not_there(folder):
    cfg = network_cfg(folder)
    real = importlib.import_module

    def refuse(name: str, *arguments: Any) -> Any:
        if name == "transformers":
            raise ImportError(name)
        return real(name, *arguments)

    with mock.patch.object(importlib, "import_module", refuse):
        with pytest.raises(ValueError, match=r"pip install 'alphaaction_d2\[backbones\]'"):
            build_backbone(cfg)
