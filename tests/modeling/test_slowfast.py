"""The backbone by shape (against the released network's numbers: tests/golden)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from alphaaction_d2.modeling.backbone import Slow, SlowFast
from alphaaction_d2.modeling.backbone.frames import FrameSampling
from alphaaction_d2.modeling.backbone.layers import FrozenBatchNorm3d, LongConv3d
from alphaaction_d2.modeling.backbone.resnet import LATERALS
from tests.modeling.networks import backbone_cfg, small, small_slow


def test_pathway_frames():
    released = FrameSampling(64, tau=16, alpha=8)
    assert released.indices() == ([7, 23, 39, 55], list(range(0, 64, 2)))
    assert FrameSampling(64, 8, 4).indices()[0] == list(range(3, 64, 8))
    assert FrameSampling(32, 8, 8).indices() == ([3, 11, 19, 27], list(range(32)))
    assert FrameSampling(32, 8, 8, start=0).indices() == ([0, 8, 16, 24], list(range(32)))
    assert released.indices(slow_start=15)[0] == [15, 31, 47, 63]


def test_spread_slow_frames():
    """As PySlowFast and pytorchvideo pack pathways: from the first fast frame to the last."""
    slow, fast = FrameSampling(32, 4, 4, spread=True).indices()
    assert slow == [0, 4, 8, 13, 17, 22, 26, 31] and fast == list(range(32))
    spread = FrameSampling(64, 8, 4, spread=True)
    assert spread.indices()[0] == [0, 8, 16, 26, 34, 44, 52, 62]
    assert FrameSampling(64, 16, 8, spread=True).indices(slow_start=15)[0] == [15, 31, 47, 63]


@pytest.mark.parametrize("lateral", ["aia", "pytorchvideo"])
@pytest.mark.parametrize("num_stages, stem", [(4, (2, 2)), (3, (2, 1))])
def test_output_shape(lateral, num_stages, stem):
    network = small(lateral=lateral, num_stages=num_stages, stem_strides=stem)
    clip = torch.rand(2, 3, 16, 64, 96)
    shapes = network.output_shape()
    for name, value in network(clip).items():
        spec = shapes[name]
        frames = {"slow": 4, "fast": 8}[name]
        assert value.shape == (2, spec.channels, frames, 64 // spec.stride, 96 // spec.stride)


def test_clips_do_not_leak_into_each_other():
    network = small().eval()
    clips = torch.rand(2, 3, 16, 64, 64)
    with torch.no_grad():
        both, alone = network(clips), network(clips[1:])
    for name, value in both.items():
        torch.testing.assert_close(value[1:], alone[name])


def test_frozen_norm_has_nothing_to_train():
    network = small(norm="FrozenBN").train()
    assert not any("norm" in name for name, _ in network.named_parameters())
    norm = FrozenBatchNorm3d(4)
    norm.running_mean += 1
    reference = nn.BatchNorm3d(4)
    reference.load_state_dict(norm.state_dict(), strict=False)
    x = torch.rand(2, 4, 3, 5, 5)
    torch.testing.assert_close(norm.train()(x), reference.eval()(x))


def trained(network: SlowFast, clips: torch.Tensor) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients and buffers after one step without update, and the bytes kept for the gradient."""
    sizes = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        maps = network(clips)
        loss = sum((x * x.detach().sin()).sum() for x in maps.values())
        kept = sum(sizes.values())
        loss.backward()
    found = {name: p.grad for name, p in network.named_parameters()}
    return {**found, **dict(network.named_buffers())}, kept


@pytest.mark.parametrize("build, norm", [(small, "BN"), (small, "FrozenBN"), (small_slow, "BN")])
def test_activation_checkpoints_change_memory_only(build, norm):
    torch.manual_seed(0)
    plain = build(norm=norm).train()
    checkpointed = build(norm=norm, activation_checkpoint=True).train()
    checkpointed.load_state_dict(plain.state_dict())
    clips = torch.rand(2, 3, 16, 64, 64)
    # Bytes are counted over forward, in which the checkpoints' own contents are not kept.
    expected, kept = trained(plain, clips)
    found, kept_checkpointed = trained(checkpointed, clips)
    assert all(value is not None for value in expected.values())
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert kept_checkpointed < kept / 2
    if norm == "BN":  # the statistics have moved, once
        steps = {int(v) for k, v in found.items() if k.endswith("num_batches_tracked")}
        assert steps == {1}


def test_activation_checkpoints_are_for_training_only():
    network = small(activation_checkpoint=True, frozen=True).train()
    with torch.autograd.graph.saved_tensors_hooks(pytest.fail, pytest.fail):
        maps = network(torch.rand(1, 3, 16, 64, 64))
    assert not any(x.requires_grad for x in maps.values())


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="NUM_FRAMES 15"):
        small(num_frames=15)
    with pytest.raises(ValueError, match="LATERAL 'x'"):
        small(lateral="x")
    with pytest.raises(ValueError, match="SLOW_START 4 must be below TAU 4"):
        small(slow_start=4)
    with pytest.raises(ValueError, match="NORM 'x'"):
        small(norm="x")
    with pytest.raises(ValueError, match="DEPTH 34 is not one of"):
        small(depth=34)
    with pytest.raises(ValueError, match="STEM_CHANNELS 8 must be a multiple of BETA_INV 3"):
        small(beta_inv=3)
    with pytest.raises(ValueError, match=r"NON_LOCAL_BLOCKS \(1,\): the network has 1 blocks"):
        small(non_local_blocks=(1,))


class TestOutputStride:
    """Strides traded for dilation: the old maps are every second (fourth) cell of the new ones."""

    @pytest.mark.parametrize(
        "output_stride, options",
        [
            (8, {"spatial_strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2)}),
            (4, {"spatial_strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2)}),
            (8, {"depth": 50, "spatial_strides": (1, 2, 2, 2), "dilations": (1, 1, 1, 1)}),
            # Channels in and out are alike here: built without stride, a shortcut would be missing.
            (4, {"num_stages": 3, "beta_inv": 2, "spatial_strides": (1, 2, 1, 1)}),
        ],
    )
    def test_same_weights_same_numbers_between_which_lie_new_ones(self, output_stride, options):
        options = {"lateral": "pytorchvideo", **options}
        coarse, dense = small(**options), small(**options, output_stride=output_stride)
        dense.load_state_dict(coarse.state_dict())
        factor = coarse.output_shape()["slow"].stride // output_stride
        clip = torch.rand(1, 3, 16, 72, 96)
        with torch.no_grad():
            expected, result = coarse.eval()(clip), dense.eval()(clip)
        for name, value in result.items():
            assert dense.output_shape()[name].stride == output_stride
            assert value.shape[-2:] == (72 // output_stride, 96 // output_stride)
            every = value[..., ::factor, ::factor]
            torch.testing.assert_close(every, expected[name], rtol=1e-4, atol=1e-5)
            assert value.std(dim=(-2, -1)).max() > 0, "maps that say something"

    def test_slow_alone(self):
        coarse, dense = small_slow(), small_slow(output_stride=8)
        dense.load_state_dict(coarse.state_dict())
        clip = torch.rand(1, 3, 16, 64, 96)
        with torch.no_grad():
            expected, result = coarse.eval()(clip)["slow"], dense.eval()(clip)["slow"]
        torch.testing.assert_close(result[..., ::2, ::2], expected, rtol=1e-4, atol=1e-5)

    def test_what_the_stages_cannot_give_is_refused(self):
        with pytest.raises(ValueError, match="OUTPUT_STRIDE 6: the stages can end with 4, 8, 16"):
            small(output_stride=6)


class TestMixedPrecisionOnCpus:
    """A kernel longer than the clip stays in float32; its result looks like that of the others."""

    @pytest.mark.parametrize("frames, exact", [(4, True), (8, False)])
    def test_long_kernels(self, frames, exact):
        torch.manual_seed(0)
        layer = LongConv3d(8, 16, (5, 1, 1), (2, 1, 1), (2, 0, 0), bias=False)
        x = torch.randn(2, 8, frames, 12, 16)
        layer(x).square().sum().backward()
        expected = layer.weight.grad.clone()
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            result = layer(x)
        assert result.dtype == torch.bfloat16
        assert (result == layer(x).bfloat16()).all() == exact
        result.float().square().sum().backward()
        error = (layer.weight.grad - expected).norm() / expected.norm()
        # Rounding the result alone costs 0.0004, computing in bfloat16 0.0024.
        assert error < 0.001 if exact else 0.001 < error < 0.01

    @pytest.mark.parametrize("lateral", LATERALS)
    def test_all_that_look_along_time_are_guarded(self, lateral):
        for network in (small(lateral=lateral), small_slow(stem_kernels=STEMS)):
            layers = [m for m in network.modules() if isinstance(m, nn.Conv3d)]
            along_time = [m for m in layers if m.kernel_size[0] > 1]
            assert along_time and all(isinstance(m, LongConv3d) for m in along_time)


STEMS = ((3, 5, 5), (5, 7, 7))


class TestSlow:
    """The slow pathway alone honours the keys of SlowFast, or refuses them."""

    def test_stem(self):
        network = small_slow(stem_kernels=STEMS)
        assert network.blocks[0].conv.weight.shape == (8, 3, 3, 5, 5)
        clip = torch.rand(1, 3, 16, 64, 96)
        assert network(clip)["slow"].shape == (1, 256, 4, 4, 6)
        paddings = [small_slow(lateral=x).blocks[0].pool.padding for x in LATERALS]
        assert paddings == [(0, 0, 0), (0, 1, 1), (0, 1, 1)]

    def test_frames(self):
        clip = torch.arange(16.0).reshape(1, 1, 16, 1, 1)
        for spread, expected in ((False, [1, 5, 9, 13]), (True, [0, 5, 10, 15])):
            (frames,) = small_slow(slow_spread=spread).frames.sample(clip, 1, training=False)
            assert frames.flatten().tolist() == expected

    def test_blocks_that_look_along_time(self):
        network = small_slow(depth=50, temporal_blocks=(3, 4, 2, 0))
        lengths = [
            [block.branch2.conv_a.kernel_size[0] for block in stage.res_blocks]
            for stage in network.blocks[1:]
        ]
        assert lengths == [[1] * 3, [1] * 4, [3, 3, 1, 1, 1, 1], [1] * 3]

    def test_non_local_blocks(self):
        network = small_slow(non_local_blocks=(0,)).eval()
        clip = torch.rand(1, 3, 16, 64, 64)
        with torch.no_grad():
            before = network(clip)["slow"]
            network.blocks[3].res_blocks[0].activation[1].conv_out.bias += 1
            assert not torch.equal(network(clip)["slow"], before)

    @pytest.mark.parametrize("key", ["ALPHA", "BETA_INV", "LATERAL_KERNEL"])
    def test_what_belongs_to_the_fast_pathway_is_refused(self, key):
        with pytest.raises(ValueError, match=f"MODEL.SLOWFAST.{key} 2: a Slow network has no fast"):
            Slow(backbone_cfg(**{key: 2}))
