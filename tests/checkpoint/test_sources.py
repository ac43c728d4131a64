"""Published weights in our networks: every name has its place, and the numbers come out the same.

The networks of pytorchvideo are those of the installed package. PySlowFast's networks are the same
functions under other names, which are spelled out here.
"""

from __future__ import annotations

import json
import logging
import pickle
import re
from collections.abc import Iterator

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from pytorchvideo.layers.nonlocal_net import create_nonlocal
from pytorchvideo.models.hub import c2d_r50, slow_r50_detection, slowfast_r50_detection
from pytorchvideo.models.resnet import create_resnet
from pytorchvideo.models.slowfast import create_slowfast, create_slowfast_with_roi_head
from torch import nn

from alphaaction_d2 import setup_cfg
from alphaaction_d2.checkpoint import ActionCheckpointer, CheckpointMismatch, load_for_inference
from alphaaction_d2.checkpoint.describe import describe
from alphaaction_d2.checkpoint.sources import convert, recognise
from alphaaction_d2.checkpoint.sources.pyslowfast import SPLIT_STATISTICS
from alphaaction_d2.modeling.backbone import SlowFast
from tests.helpers import CONFIGS
from tests.modeling import networks

RELEASED = CONFIGS / "AVA" / "released"
KINETICS = {"spatial_strides": (1, 2, 2, 2), "dilations": (1, 1, 1, 1)}
LOGGER = "alphaaction_d2.checkpoint.checkpointer"


def randomised(network: nn.Module) -> nn.Module:
    """In testing mode, with statistics and scales of normalisation that matter."""
    generator = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if name.endswith(("norm.weight", "running_var")) or ".norm_" in name and value.dim() == 1:
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        if name.endswith(("norm.bias", "running_mean")):
            value.copy_(0.2 * torch.randn(value.shape, generator=generator))
    return network.eval()


def published(tmp_path, weights: dict[str, torch.Tensor]) -> str:
    """A file as the model zoos have them, with what else is in there."""
    path = tmp_path / "published.pyth"
    torch.save({"epoch": 3, "cfg": "NUM_GPUS: 8", "model_state": weights}, path)
    return str(path)


def pyslowfast_names(network: nn.Module) -> Iterator[tuple[str, str]]:
    """PySlowFast's name and pytorchvideo's, for every entry of a network of blocks."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    both = hasattr(network.blocks[0], "multipathway_blocks")
    for block, module in enumerate(network.blocks[:5]):
        pathways = module.multipathway_blocks if both else [module]
        for p, pathway in enumerate(pathways):
            ours = f"blocks.{block}." + (f"multipathway_blocks.{p}." if both else "")
            if block == 0:
                theirs = f"s1.pathway{p}_stem"
                yield f"{theirs}.conv.weight", f"{ours}conv.weight"
                yield from ((f"{theirs}.bn.{x}", f"{ours}norm.{x}") for x in norm)
                continue
            for j in range(len(pathway.res_blocks)):
                theirs = f"s{block + 1}.pathway{p}_res{j}"
                inside = f"{ours}res_blocks.{j}"
                layers = [(f"branch2.{x}", f"branch2.conv_{x}", f"branch2.norm_{x}") for x in "abc"]
                if j == 0:
                    layers.append(("branch1", "branch1_conv", "branch1_norm"))
                for layer, conv, bn in layers:
                    yield f"{theirs}.{layer}.weight", f"{inside}.{conv}.weight"
                    yield from ((f"{theirs}.{layer}_bn.{x}", f"{inside}.{bn}.{x}") for x in norm)
        if both and block < 4:
            ours = f"blocks.{block}.multipathway_fusion"
            theirs = f"s{block + 1}_fuse"
            yield f"{theirs}.conv_f2s.weight", f"{ours}.conv_fast_to_slow.weight"
            yield from ((f"{theirs}.bn.{x}", f"{ours}.norm.{x}") for x in norm)


def as_pyslowfast(network: nn.Module, classifier: str) -> dict[str, torch.Tensor]:
    state = network.state_dict()
    prefix = "model." if "model.blocks.0" in next(iter(state)) else ""
    blocks = network.model if prefix else network
    renamed = {a: state[prefix + b] for a, b in pyslowfast_names(blocks)}
    for entry in ("weight", "bias"):
        renamed[f"head.projection.{entry}"] = state[f"{classifier}.{entry}"]
    assert len(renamed) == len(state)
    return renamed


COUNTERS = "counters, which frozen normalisation does not keep"


def left_over(caplog) -> list[str]:
    """Why something was left over, as logged."""
    return re.findall(r"Left over, (.*?): ", caplog.text)


class BackboneOnly(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone


@pytest.mark.parametrize("source", ["pytorchvideo", "pyslowfast"])
@pytest.mark.parametrize("kind", ["slowfast", "slow"])
def test_kinetics_backbones(tmp_path, caplog, source, kind):
    torch.manual_seed(0)
    clip = torch.randn(1, 3, 32, 64, 64)
    if kind == "slowfast":
        theirs = randomised(create_slowfast(model_depth=50))
        ours = networks.slowfast(
            num_frames=32, tau=16, alpha=4, lateral="pytorchvideo", lateral_kernel=7, **KINETICS
        )
    else:
        theirs = randomised(create_resnet(model_depth=50, stem_conv_kernel_size=(1, 7, 7)))
        ours = networks.slow(num_frames=32, tau=16, **KINETICS)
    classifier = "blocks.6.proj" if kind == "slowfast" else "blocks.5.proj"
    weights = theirs.state_dict() if source == "pytorchvideo" else as_pyslowfast(theirs, classifier)
    model = BackboneOnly(ours).eval()
    with caplog.at_level(logging.DEBUG, LOGGER):
        ActionCheckpointer(model).resume_or_load(published(tmp_path, weights))
    names = classifier if source == "pytorchvideo" else "head.projection"
    assert f"the classifier of whole clips (Kinetics): {names}.weight; {names}.bias" in caplog.text
    assert left_over(caplog) == [COUNTERS, "the classifier of whole clips (Kinetics)"]
    with torch.no_grad():
        maps = ours(clip)
        x = [clip[:, :, 7::16], clip[:, :, 1::4]] if kind == "slowfast" else clip[:, :, 7::16]
        for block in theirs.blocks[:5]:
            x = block(x)
    for found, expected in zip(maps.values(), x if kind == "slowfast" else [x], strict=True):
        assert (found - expected).abs().max() <= 1e-4 * expected.std()


@pytest.mark.parametrize("source", ["pytorchvideo_c2d", "pyslowfast"])
def test_c2d(tmp_path, caplog, source):
    """Both published C2D networks in that of UCF101-24: of one frame, without pooling in time."""
    torch.manual_seed(0)
    theirs = randomised(c2d_r50())
    blocks = [theirs.blocks[i] for i in (0, 1, 3, 4, 5)]  # 2 pools along time
    classifier = "blocks.6.proj"
    weights = theirs.state_dict()
    if source == "pyslowfast":  # which has the network without pooling as a Caffe2 pickle
        without = create_resnet(
            model_depth=50,
            stem_conv_kernel_size=(1, 7, 7),
            stage_conv_a_kernel_size=((1, 1, 1),) * 4,
        )
        values = dict(zip(without.state_dict(), weights.values(), strict=True))
        without.load_state_dict(values)
        weights = as_caffe2(as_pyslowfast(without, "blocks.5.proj"))
        path = tmp_path / "C2D_NOPOOL_8x8_R50.pkl"
        blobs = {name: value.numpy() for name, value in weights.items()}
        path.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
        classifier = "pred_"
    else:
        path = published(tmp_path, weights)
    assert recognise(weights) == source
    cfg = setup_cfg(str(CONFIGS / "UCF101-24" / "c2d_R50.yaml"), ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg).eval()
    with caplog.at_level(logging.DEBUG, LOGGER):
        ActionCheckpointer(model).resume_or_load(str(path))
    assert "the classifier of whole clips (Kinetics): " + classifier in caplog.text
    assert set(left_over(caplog)) <= {COUNTERS, "the classifier of whole clips (Kinetics)"}
    pictures = torch.randn(2, 3, 1, 64, 96)
    with torch.no_grad():
        x = pictures
        for block in blocks[:4]:
            x = block(x)
        found = model.backbone(pictures)["slow"]
        assert found.shape == (2, 2048, 1, 4, 6), "res5 is dilated"
        y = pictures
        for block in model.backbone.blocks[:4]:
            y = block(y)
        assert (y - x).abs().max() <= 1e-4 * x.std()
        strides = ("SPATIAL_STRIDES", (1, 2, 2, 2)), ("DILATIONS", (1, 1, 1, 1))
        for key, value in strides:  # as it was trained on Kinetics
            cfg.merge_from_list([f"MODEL.SLOWFAST.{key}", value])
        strided = build_model(cfg).eval()
        ActionCheckpointer(strided).resume_or_load(str(path))
        last = blocks[4](x)
        assert (strided.backbone(pictures)["slow"] - last).abs().max() <= 1e-4 * last.std()


PUBLISHED = CONFIGS / "AVA" / "published"
HUB = {"slowfast": slowfast_r50_detection, "slow": slow_r50_detection}


@pytest.mark.parametrize(
    "source, kind, size",
    [(source, kind, (64, 96)) for source in ("pytorchvideo", "pyslowfast") for kind in HUB]
    # what becomes of 4:3 and 16:9 at a short side of 256: no multiples of the stride
    + [
        pytest.param("pytorchvideo", kind, (256, width), marks=pytest.mark.slow)
        for kind in HUB
        for width in (340, 455)
    ],
)
def test_ava_detectors(tmp_path, caplog, source, kind, size):
    """The configurations of published detectors compute what pytorchvideo's networks do."""
    torch.manual_seed(0)
    names = {"slowfast": "pytorchvideo_slowfast_R50_8x8", "slow": "pytorchvideo_slow_R50_4x16"}
    theirs = randomised(HUB[kind]())
    cfg = setup_cfg(str(PUBLISHED / f"{names[kind]}.yaml"), ["MODEL.DEVICE", "cpu"])
    ours = build_model(cfg).eval()
    frames = cfg.INPUT.NUM_FRAMES
    height, width = size
    video = torch.randint(0, 256, (3, frames, height, width), dtype=torch.uint8)
    boxes = torch.tensor([[3.0, 5.0, 40.0, 60.0], [50.0, 0.0, width, height / 2]])
    clip = (video[None].float() / 255 - 0.45) / 0.225

    def pathways():  # a new list each time: their blocks write into it
        slow = clip[:, :, torch.linspace(0, frames - 1, frames // 4).long()]  # as PySlowFast packs
        return [slow, clip] if kind == "slowfast" else clip

    rois = torch.cat([torch.zeros(2, 1), boxes], dim=1)
    with torch.no_grad():
        # Random layers make logits of thousands, whose sigmoids tell nothing.
        sigmoid, theirs.detection_head.activation = theirs.detection_head.activation, None
        theirs.detection_head.proj.weight /= theirs(pathways(), rois).std()
        theirs.detection_head.activation = sigmoid
        expected = theirs(pathways(), rois)

    weights = theirs.state_dict()
    if source == "pyslowfast":
        weights = as_pyslowfast(theirs, "detection_head.proj")
    with caplog.at_level(logging.DEBUG, LOGGER):
        load_for_inference(ours, published(tmp_path, weights))
    assert left_over(caplog) == [COUNTERS]
    persons = Instances(size, proposal_boxes=Boxes(boxes))
    with torch.no_grad():
        found = ours([{"video": video, "proposals": persons}])[0]["instances"]
    assert 0.01 < expected.min() and expected.max() < 0.99
    scores = found.scores.reshape(2, 80)
    assert (scores - expected).abs().max() <= 1e-4 * expected.std()


R101_50_50 = {  # PySlowFast's networks for AVA: in res4 six blocks look along time
    "model_depth": 101,
    "slowfast_fusion_conv_kernel_size": (5, 1, 1),
    "stage_conv_a_kernel_sizes": (
        [[(1, 1, 1)], [(1, 1, 1)], [(3, 1, 1)] * 6 + [(1, 1, 1)] * 17, [(3, 1, 1)]],
        [[(3, 1, 1)], [(3, 1, 1)], [(3, 1, 1)] * 6 + [(1, 1, 1)] * 17, [(3, 1, 1)]],
    ),
}
NON_LOCAL = (6, 13, 20)  # blocks of res4 that are followed by attention


def add_non_local(network: nn.Module, names: dict[str, str]) -> None:
    """Attention behind blocks of the slow res4, and its names in PySlowFast's files."""
    blocks = network.blocks[3].multipathway_blocks[0].res_blocks
    for i in NON_LOCAL:
        layer = create_nonlocal(
            dim_in=1024, dim_inner=512, pool_size=(2, 2, 2), instantiation="dot_product"
        )
        blocks[i].activation = nn.Sequential(blocks[i].activation, layer)
        for name in layer.state_dict():
            entry = name.replace("norm", "bn")
            inside = f"blocks.3.multipathway_blocks.0.res_blocks.{i}.activation.1.{name}"
            names[f"s4.pathway0_nonlocal{i}.{entry}"] = inside


def pyslowfast_r101() -> dict[str, torch.Tensor]:
    """All names and shapes of PySlowFast's R101 detectors for AVA."""
    network = create_slowfast_with_roi_head(**R101_50_50)
    weights = as_pyslowfast(network, "detection_head.proj")
    names: dict[str, str] = {}
    add_non_local(network.model, names)
    state = network.model.state_dict()
    return {**weights, **{theirs: state[name] for theirs, name in names.items()}}


def as_caffe2(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A Slow network of PySlowFast under the names of its older files."""
    entries = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    renamed = {}
    for name, value in weights.items():
        layer, _, entry = name.rpartition(".")
        if entry == "num_batches_tracked":  # not kept there
            continue
        layer = layer.replace("s1.pathway0_stem.bn", "res_conv1_bn")
        layer = layer.replace("s1.pathway0_stem.conv", "conv1")
        layer = re.sub(r"s(\d)\.pathway0_res(\d+)\.", r"res\1_\2_", layer)
        layer = layer.replace("branch2.", "branch2").replace("head.projection", "pred")
        is_norm = layer.endswith("_bn")
        renamed[f"{layer}_{entries[entry] if is_norm else entry[0]}"] = value
    return renamed


def slow_detector() -> dict[str, torch.Tensor]:
    return as_pyslowfast(slow_r50_detection(), "detection_head.proj")


FILES = {
    "pytorchvideo_slow_R50_4x16": lambda: slow_r50_detection().state_dict(),
    "pytorchvideo_slowfast_R50_8x8": lambda: slowfast_r50_detection().state_dict(),
    "pyslowfast_slow_R50_4x16": lambda: as_caffe2(slow_detector()),
    "pyslowfast_slowfast_R101_8x8": pyslowfast_r101,
    "pyslowfast_slowfast_R101_8x8_v2.1": pyslowfast_r101,
    "pyslowfast_slowfast_R101_16x8": pyslowfast_r101,
}


@pytest.mark.parametrize("name", FILES)
def test_published_detectors_fill_their_configuration(name):
    """Every tensor has its place, and every place its tensor."""
    with torch.device("meta"):
        weights = FILES[name]()
    source = recognise(weights)
    assert source == name.partition("_")[0]
    converted = convert(weights, source)
    assert not converted.left_over
    cfg = setup_cfg(str(PUBLISHED / f"{name}.yaml"), ["MODEL.DEVICE", "meta"])
    model = build_model(cfg).state_dict()
    found = {n: x.shape for n, x in converted.weights.items() if "num_batches" not in n}
    assert found == {n: x.shape for n, x in model.items()}


def test_every_published_configuration_is_checked_and_documented():
    configs = {path.stem for path in PUBLISHED.glob("*.yaml") if not path.stem.startswith("Base")}
    # the others have tests of their own
    assert {x for x in configs if not x.startswith("mmaction2") and "_vit_" not in x} == set(FILES)
    text = (CONFIGS.parent / "docs" / "weights.md").read_text()
    assert [name for name in configs if f"`published/{name}.yaml`" not in text] == []


def released_names(shared, config: str) -> dict[str, torch.Tensor]:
    table = json.loads((shared / "golden" / "alphaction_param_names.json").read_text())[config]
    return {name: torch.empty(shape, device="meta") for name, shape in table.items()}


@pytest.mark.parametrize(
    "table, config",
    [
        ("resnet50_4x16f_denseserial", "aia_dense_R50_4x16"),
        ("resnet101_8x8f_denseserial", "aia_dense_R101_8x8"),
    ],
)
def test_released_detectors_fit_as_a_whole(shared, table, config):
    weights = released_names(shared, table)
    assert recognise(weights) == "alphaction"
    converted = convert(weights, "alphaction")
    assert not converted.left_over
    cfg = setup_cfg(str(RELEASED / f"{config}.yaml"), ["MODEL.DEVICE", "meta"])
    model = build_model(cfg).state_dict()
    assert {n: x.shape for n, x in converted.weights.items()} == {
        n: x.shape for n, x in model.items()
    }
    assert describe(converted.weights) == describe(model)


def test_caffe2_names():
    """Blobs as the older files of PySlowFast have them."""
    names = {
        "conv1_w": "s1.pathway0_stem.conv.weight",
        "t_conv1_w": "s1.pathway1_stem.conv.weight",
        "t_res_conv1_bn_s": "s1.pathway1_stem.bn.weight",
        "res_conv1_bn_riv": "s1.pathway0_stem.bn.running_var",
        "res4_14_branch2a_bn_riv": "s4.pathway0_res14.branch2.a_bn.running_var",
        "t_res4_8_branch2b_bn_b": "s4.pathway1_res8.branch2.b_bn.bias",
        "res3_0_branch2c_w": "s3.pathway0_res0.branch2.c.weight",
        "res3_0_branch1_bn_rm": "s3.pathway0_res0.branch1_bn.running_mean",
        "t_pool1_subsample_w": "s1_fuse.conv_f2s.weight",
        "t_pool1_subsample_bn_rm": "s1_fuse.bn.running_mean",
        "t_res4_22_branch2c_bn_subsample_bn_riv": "s4_fuse.bn.running_var",
        "t_res2_2_branch2c_bn_subsample_w": "s2_fuse.conv_f2s.weight",
        "nonlocal_conv4_13_phi_b": "s4.pathway0_nonlocal13.conv_phi.bias",
        "nonlocal_conv4_6_bn_riv": "s4.pathway0_nonlocal6.bn.running_var",
        "pred_w": "head.projection.weight",
    }
    values = {name: torch.full((2, 3, 1, 1, 1), float(i)) for i, name in enumerate(names)}
    others = {name: torch.zeros(1) for name in ("lr", "conv1_w_momentum")}
    blobs = convert({**values, **others}, "pyslowfast")
    modern = convert({names[name]: x for name, x in values.items()}, "pyslowfast")
    assert list(blobs.weights) == list(modern.weights) and len(blobs.weights) == len(names)
    assert set(blobs.left_over.values()) == {"state of the optimiser"}
    assert recognise(values) == "pyslowfast"
    assert recognise({name: x[..., 0] for name, x in values.items()}) is None, "of pictures"


def test_normalisation_of_parts_of_a_batch():
    """PySlowFast's sub-batch normalisation (multigrid training) keeps two kinds of statistics."""
    network = create_resnet(model_depth=50, stem_conv_kernel_size=(1, 7, 7))
    plain = as_pyslowfast(network, "blocks.5.proj")
    split: dict[str, torch.Tensor] = {}
    for name, value in plain.items():
        layer, _, entry = name.rpartition(".")
        if entry.startswith(("running", "num")):
            split[f"{layer}.bn.{entry}"] = value
            split[f"{layer}.split_bn.{entry}"] = value.repeat(2) if value.dim() else value
        else:
            split[name] = value
    found, expected = convert(split, "pyslowfast"), convert(plain, "pyslowfast")
    assert {n: x.shape for n, x in found.weights.items()} == {
        n: x.shape for n, x in expected.weights.items()
    }
    reasons = {why for name, why in found.left_over.items() if "split_bn" in name}
    assert reasons == {SPLIT_STATISTICS} and recognise(split) == "pyslowfast"
    assert {n for n in found.left_over if "split_bn" not in n} == set(expected.left_over)


def small(**options) -> BackboneOnly:
    frozen = {"norm": "FrozenBN", "lateral": "pytorchvideo"}
    return BackboneOnly(networks.small(**{**frozen, **options}))


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"lateral": "aia"}, "MODEL.SLOWFAST.LATERAL must be 'pytorchvideo', not 'aia'"),
        ({"lateral_kernel": 7}, "MODEL.SLOWFAST.LATERAL_KERNEL must be 5, not 7"),
        ({"depth": 50}, "MODEL.SLOWFAST.DEPTH must be 18, not 50"),
        ({"num_stages": 3}, "MODEL.SLOWFAST.NUM_STAGES must be 4, not 3"),
        ({"beta_inv": 8}, "MODEL.SLOWFAST.BETA_INV must be 4, not 8"),
        ({"stem_channels": 16}, "MODEL.SLOWFAST.STEM_CHANNELS must be 8, not 16"),
    ],
)
def test_keys_that_do_not_fit_are_named(tmp_path, options, expected):
    weights = small().backbone.state_dict()  # as pytorchvideo's: blocks.0 ...
    path = published(tmp_path, weights)
    with pytest.raises(CheckpointMismatch, match=expected) as error:
        ActionCheckpointer(small(**options)).resume_or_load(path)
    assert "\n" not in str(error.value)


def test_a_slow_network_does_not_fit_a_slowfast(tmp_path):
    weights = networks.slow(num_frames=16, tau=4, stem_channels=8).state_dict()
    with pytest.raises(CheckpointMismatch, match="BACKBONE.NAME must be 'build_slow_backbone'"):
        ActionCheckpointer(small()).resume_or_load(published(tmp_path, weights))


@pytest.mark.parametrize("load", [load_for_inference, None])
def test_layers_that_ours_has_not_are_refused(tmp_path, load):
    """Left out, they would leave another function."""
    weights = as_pyslowfast_backbone(small().backbone)
    for extra in ("s4.pathway0_nonlocal0.conv_g.weight", "s4.pathway0_strange0.weight"):
        path = published(tmp_path, {**weights, extra: torch.zeros(1)})
        model = small()
        with pytest.raises(CheckpointMismatch, match="has no place in it"):
            if load is not None:
                load(model, path)
            else:
                ActionCheckpointer(model).resume_or_load(path)


def as_pyslowfast_backbone(backbone: SlowFast) -> dict[str, torch.Tensor]:
    state = backbone.state_dict()
    return {a: state[b] for a, b in pyslowfast_names(backbone) if b in state}


def test_networks_for_ava_of_pyslowfast(tmp_path):
    """R101: in res4 six blocks look along time, and three are followed by non-local blocks."""
    torch.manual_seed(0)
    theirs = create_slowfast(
        **R101_50_50,
        stage_spatial_strides=((1, 2, 2, 1),) * 2,
        stage_conv_b_dilations=(((1, 1, 1),) * 3 + ((1, 2, 2),),) * 2,
    )
    names = dict(pyslowfast_names(theirs))
    blocks = theirs.blocks[3].multipathway_blocks[0].res_blocks
    add_non_local(theirs, names)
    theirs = randomised(theirs)
    with torch.no_grad():  # random layers give large values, whose cubes overflow
        for i in NON_LOCAL:
            for conv in (blocks[i].activation[1].conv_theta, blocks[i].activation[1].conv_phi):
                conv.weight *= 1e-3
    state = theirs.state_dict()
    path = published(tmp_path, {ours: state[name] for ours, name in names.items()})
    options = {"depth": 101, "num_frames": 32, "tau": 8, "alpha": 4, "lateral": "pytorchvideo"}
    with pytest.raises(CheckpointMismatch, match="TEMPORAL_BLOCKS must be .3, 4, 6, 3."):
        load_for_inference(BackboneOnly(networks.slowfast(**options)), path)
    options |= {"temporal_blocks": (3, 4, 6, 3), "non_local_blocks": NON_LOCAL}
    ours = networks.slowfast(**options).eval()
    load_for_inference(BackboneOnly(ours), path)
    clip = torch.randn(1, 3, 32, 64, 64)
    with torch.no_grad():
        x = [clip[:, :, 3::8], clip[:, :, ::2]]
        for block in theirs.blocks[:5]:
            x = block(x)
        for found, expected in zip(ours(clip).values(), x, strict=True):
            assert (found - expected).abs().max() <= 1e-4 * expected.std()
        before = ours(clip)["slow"]
        ours.blocks[3].multipathway_blocks[0].res_blocks[13].activation[1].conv_g.weight.zero_()
        assert (ours(clip)["slow"] - before).abs().max() > 1e-2 * before.std()
