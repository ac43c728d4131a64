"""Padding, masked softmax, and the interaction block against its definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alphaaction_d2.modeling.interaction.attention import (
    AttentionWeights,
    InteractionBlock,
    pad_sets,
)


def test_sets_come_back_from_padding():
    x = torch.rand(5, 3)
    padded, mask = pad_sets(x, [2, 0, 3])
    assert padded.shape == (3, 3, 3) and mask.sum(dim=1).tolist() == [2, 0, 3]
    assert torch.equal(padded[mask], x)
    assert not padded[~mask].any()


def test_of_a_larger_set_the_first_stay():
    x = torch.rand(4, 3)
    padded, mask = pad_sets(x, [3, 1], size=2)
    assert torch.equal(padded[mask], x[[0, 1, 3]])


def test_weights_fall_on_valid_others_only():
    logits = torch.randn(2, 3, 4)
    mask = torch.tensor([[True, False, True, False], [False] * 4])
    weights = AttentionWeights()(logits, mask)
    torch.testing.assert_close(weights[0][:, [0, 2]], logits[0][:, [0, 2]].softmax(dim=-1))
    assert not weights[0][:, [1, 3]].any() and not weights[1].any()


def by_definition(block: InteractionBlock, query: Tensor, others: Tensor, mask: Tensor | None):
    """The formula of the block's docstring, step by step, with keys and values computed."""
    key, value = block.key(others), block.value(others)
    if block.num_slots:
        persons = others.shape[1] // block.num_slots
        key = key + block.temporal_position_k.repeat_interleave(persons, dim=0)
        value = value + block.temporal_position_v.repeat_interleave(persons, dim=0)
    outputs = []
    for i, q in enumerate(block.query(query)):
        seen = slice(None) if mask is None else mask[i]
        weights = (q @ key[i, seen].t() / q.shape[-1] ** 0.5).softmax(dim=-1)
        x = weights @ value[i, seen]
        outputs.append(F.layer_norm(x, x.shape[-1:]) if block.layer_norm else x)
    return block.shortcut(query) + block.out(F.relu(torch.stack(outputs)))


def random_block(num_slots: int, **kwargs) -> InteractionBlock:
    torch.manual_seed(0)
    widths = {"dim_query": 6, "dim_other": 10, "dim_inner": 8, "dim_out": 7}
    block = InteractionBlock(**widths, num_slots=num_slots, **kwargs).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


@pytest.mark.parametrize("num_slots", [0, 3])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_block_is_its_definition(num_slots, masked, layer_norm):
    block = random_block(num_slots, layer_norm=layer_norm)
    query = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    others = torch.randn(2, 6, 10, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1, 0, 1, 1, 0, 1], [0, 0, 1, 0, 0, 0]]).bool() if masked else None
    inputs = [query, others, *block.parameters()]
    projection = torch.randn(2, 4, 7, dtype=torch.float64)
    results = []
    for function in (block, lambda *x: by_definition(block, *x)):
        out = function(query, others, mask)
        results.append([out, *torch.autograd.grad((out * projection).sum(), inputs)])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("count", [0, 3])
def test_who_sees_nobody_keeps_only_the_shortcut(count):
    block = random_block(0, layer_norm=False)
    nn.init.zeros_(block.out.bias)
    query = torch.randn(2, 4, 6, dtype=torch.float64)
    others = torch.randn(2, count, 10, dtype=torch.float64)
    out = block(query, others, torch.zeros(2, count, dtype=torch.bool))
    torch.testing.assert_close(out, block.shortcut(query))


def test_cost_hardly_grows_with_the_others():
    """No projection is computed for the others: nothing of their number times D is kept."""
    block = random_block(5)

    def kept(count: int) -> int:
        """Elements kept for the gradient, besides the inputs and the parameters."""
        known = {p.data_ptr() for p in block.parameters()}
        query = torch.randn(1, 2, 6, dtype=torch.float64)
        others = torch.randn(1, count, 10, dtype=torch.float64)
        known |= {query.data_ptr(), others.data_ptr()}
        sizes = []

        def pack(x: Tensor) -> Tensor:
            if x.data_ptr() not in known:
                sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            block(query, others)
        return sum(sizes)

    # 2 queries keep a few attention weights per other, fewer than the 8 elements of one key.
    assert kept(200) - kept(100) < 100 * 8
