"""The backbone by shape (against the released network's numbers: tests/golden)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from alphaaction_d2.modeling.backbone import Slow, SlowFast
from alphaaction_d2.modeling.backbone.batch_norm import FrozenBatchNorm3d
from alphaaction_d2.modeling.backbone.convolution import LongConv3d, guard_long_kernels
from alphaaction_d2.modeling.backbone.slowfast import pathway_indices


def test_pathway_frames():
    assert pathway_indices(64, 16, 8) == ([7, 23, 39, 55], list(range(0, 64, 2)))
    assert pathway_indices(64, 8, 4)[0] == list(range(3, 64, 8))
    assert pathway_indices(32, 8, 8) == ([3, 11, 19, 27], list(range(32)))
    assert pathway_indices(64, 16, 8, slow_start=15)[0] == [15, 31, 47, 63]


def test_spread_slow_frames():
    """As PySlowFast and pytorchvideo pack pathways: from the first fast frame to the last."""
    slow, fast = pathway_indices(32, 4, 4, spread=True)
    assert slow == [0, 4, 8, 13, 17, 22, 26, 31] and fast == list(range(32))
    assert pathway_indices(64, 8, 4, spread=True)[0] == [0, 8, 16, 26, 34, 44, 52, 62]
    assert pathway_indices(64, 16, 8, slow_start=15, spread=True)[0] == [15, 31, 47, 63]


def small(**kwargs) -> SlowFast:
    options = {
        "depth": 18,
        "num_frames": 16,
        "tau": 4,
        "alpha": 2,
        "stem_channels": 8,
        "beta_inv": 4,
        "norm": "BN",
    }
    return SlowFast(**{**options, **kwargs})


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
    reference = torch.nn.BatchNorm3d(4)
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


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_activation_checkpoints_change_memory_only(norm):
    torch.manual_seed(0)
    plain = small(norm=norm).train()
    checkpointed = small(norm=norm, activation_checkpoint=True).train()
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
    with pytest.raises(ValueError, match="NORM 'x'"):
        small(norm="x")


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
        options = {"num_frames": 8, "tau": 4, "stem_channels": 8, "norm": "BN"}
        coarse, dense = Slow(**options), Slow(**options, output_stride=8)
        dense.load_state_dict(coarse.state_dict())
        clip = torch.rand(1, 3, 8, 64, 96)
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
        network = nn.Sequential(nn.Conv3d(8, 16, (5, 1, 1), (2, 1, 1), (2, 0, 0), bias=False))
        x = torch.randn(2, 8, frames, 12, 16)
        network(x).square().sum().backward()
        expected = network[0].weight.grad.clone()
        network.zero_grad()
        guard_long_kernels(network)
        with torch.autocast("cpu", torch.bfloat16):
            result = network(x)
        assert result.dtype == torch.bfloat16
        assert (result == network(x).bfloat16()).all() == exact
        result.float().square().sum().backward()
        torch.testing.assert_close(network[0].weight.grad, expected, rtol=0.02, atol=0.5)

    def test_all_that_look_along_time_are_guarded(self):
        for network in (small(), Slow(num_frames=8, tau=4, stem_channels=8)):
            names = {n for n, m in network.named_modules() if isinstance(m, LongConv3d)}
            assert names == {
                n
                for n, m in network.named_modules()
                if isinstance(m, nn.Conv3d) and m.kernel_size[0] > 1
            }
            assert names
