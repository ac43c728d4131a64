"""What every interaction module shares: padded sets, masked attention, the interaction block.

Shape letters: N clips, R persons of the batch, P persons of a clip after padding, J others of a
clip after padding, S time slots of the memory window (J = S * M with M persons a slot), C input
width, D inner width. Masks are True where something is there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def count_rows(sets: Iterable[Tensor]) -> list[int]:
    """Count the rows of tensors, such as persons by their features: in an exported graph they may
    be any number, while `len` of anything is a constant."""
    return [x.shape[0] for x in sets]


def pad_sets(x: Tensor, counts: list[int], size: int | None = None) -> tuple[Tensor, Tensor]:
    """Turn the concatenated sets of N clips, `counts` of the rows (R, ...) each, into one zero-
    padded tensor (N, J, ...) and its mask (N, J).

    J is `size`, of which a larger set loses the rest, or the largest count, at least 1. (The one
    set of an exported graph, which may have any number of rows, has an empty place behind them.)
    """
    if torch.compiler.is_exporting():
        (count,) = counts
        padded = torch.cat([x, x.new_zeros(size or 1, *x.shape[1:])])[:size]
        return padded[None], (torch.arange(padded.shape[0], device=x.device) < count)[None]
    size = max([1, *counts]) if size is None else size
    mask = torch.arange(size, device=x.device) < torch.tensor(counts, device=x.device)[:, None]
    if max(counts, default=0) > size:
        x = torch.cat([rows[:size] for rows in x.split(counts)])
    padded = x.new_zeros((len(counts), size, *x.shape[1:]))
    return padded.masked_scatter(_expand(mask, padded), x), mask


def unpad(x: Tensor, counts: list[int]) -> Tensor:
    """Take the rows of N sets out of (N, J, ...) again: (R, ...)."""
    return torch.cat([rows[:count] for rows, count in zip(x, counts)])


class AttentionWeights(nn.Module):
    """Softmax over the valid others.

    A module of its own, without parameters, so that a forward hook sees who looks at whom: see
    :func:`inspection.record_attention`.
    """

    def forward(self, logits: Tensor, mask: Tensor | None) -> Tensor:
        """Weigh by logits (N, P, J): a query's weights add up to 1, or to 0 when it sees nobody.
        The mask is (N, J), (N, P, J) when queries see different others, or None: every row
        counts."""
        if mask is None:
            return logits.softmax(dim=-1)
        if mask.dim() == 2:
            mask = mask[:, None, :]
        # The lowest number, not -inf: of a query that sees nobody all logits would be -inf, and the
        # softmax and its gradient NaN. So it is uniform over padding; the product makes it zero.
        weights = logits.masked_fill(~mask, torch.finfo(logits.dtype).min).softmax(dim=-1)
        return weights * mask


class InteractionBlock(nn.Module):
    """One P-, O- or M-block (AIA, Sec. 3.2 and Fig. 3a).

    out = shortcut(q) + Dropout(W_o ReLU(LN(softmax((W_q q)(W_k x)^T / sqrt(D)) W_v x)))

    The layer norm has no affine parameters. W_o starts at zero, so a new block changes nothing.

    Keys and values are never computed: (W_q q)(W_k x)^T is (W_k^T W_q q) x^T, and the mean of W_v x
    is W_v times the mean of x. Both matrices then meet the few queries instead of the hundreds of
    persons in the memory, in whose number the block's cost hardly grows.
    """

    def __init__(
        self,
        *,
        dim_query: int,
        dim_other: int,
        dim_inner: int,
        dim_out: int,
        num_slots: int = 0,
        layer_norm: bool = True,
        dropout: float = 0.0,
        init_std: float = 0.01,
        position_scale: float = 0.0,
    ) -> None:
        """
        Args:
            dim_query, dim_other, dim_inner, dim_out: widths of queries, others, attention and
                result.
            num_slots: S > 0 adds learned temporal positions of S slots to keys and values.
            init_std: standard deviation of the initial projections.
            position_scale: of the initial temporal positions, see :func:`initial_positions`. Zero,
                the released recipe, is a saddle point where only content and time together tell the
                class: without positions attention to content gains nothing, and without attention
                to content positions gain nothing. Trained from nothing, it is never left.
        """
        super().__init__()
        self.query = nn.Linear(dim_query, dim_inner)
        self.key = nn.Linear(dim_other, dim_inner)
        self.value = nn.Linear(dim_other, dim_inner)
        self.out = nn.Linear(dim_inner, dim_out)
        self.shortcut = nn.Linear(dim_query, dim_out) if dim_query != dim_out else nn.Identity()
        self.weights = AttentionWeights()
        self.layer_norm = layer_norm
        self.dropout = nn.Dropout(dropout)
        self.num_slots = num_slots
        if num_slots:
            positions = position_scale * initial_positions(num_slots, dim_inner)
            self.temporal_position_k = nn.Parameter(positions)
            self.temporal_position_v = nn.Parameter(positions.clone())
        for layer in (self.query, self.key, self.value, self.shortcut):
            if isinstance(layer, nn.Linear):
                init_projection(layer, init_std)
        # Zero, not small: a new block is its shortcut, and training starts from what the backbone
        # and the blocks before it already tell. The first step gives it a gradient all the same.
        init_projection(self.out, 0.0)

    def forward(self, query: Tensor, others: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend (N, P, dim_query) to (N, J, dim_other): (N, P, dim_out).

        Queries (N, P, K, dim_query) are K places a person, which attend each for itself and are
        normalised together. With temporal positions J = S * M, slots outermost. The mask is as in
        :class:`AttentionWeights`.
        """
        persons = query.shape[1:-1]
        query = query.flatten(1, -2)
        x = self.query(query) * self.query.out_features**-0.5
        key_offsets, value_offsets = self._offsets()
        slots = (len(key_offsets), others.shape[1] // len(key_offsets))  # S x M, or 1 x J
        logits = torch.matmul(F.linear(x, self.key.weight.t()), others.transpose(1, 2))
        # Whatever is added to all keys of a slot adds the same to all its logits ...
        logits = logits.unflatten(-1, slots) + F.linear(x, key_offsets)[..., None]
        weights = self.weights(logits.flatten(2), mask)
        x = F.linear(torch.matmul(weights, others), self.value.weight)
        # ... and what is added to all its values counts with the sum of its weights.
        x = x + torch.matmul(weights.unflatten(-1, slots).sum(dim=-1), value_offsets)
        if self.layer_norm:
            x = x.unflatten(1, persons)
            x = F.layer_norm(x, x.shape[2:]).flatten(1, -2)
        x = self.shortcut(query) + self.dropout(self.out(F.relu(x)))
        return x.unflatten(1, persons)

    def _offsets(self) -> tuple[Tensor, Tensor]:
        """Give what keys and values have besides W x: (S, D) each, or (1, D) without positions."""
        if not self.num_slots:
            return self.key.bias[None], self.value.bias[None]
        key_offsets = self.key.bias + self.temporal_position_k
        return key_offsets, self.value.bias + self.temporal_position_v


def initial_positions(num_slots: int, dim: int) -> Tensor:
    """Compute sines and cosines, (num_slots, dim), of a slot's distance from the middle of the
    window.

    Wavelengths run from twice the window, in which the sine tells before from after, down to four
    slots.
    """
    distance = torch.arange(num_slots) - (num_slots - 1) / 2
    lowest, highest = math.pi / num_slots, math.pi / 2
    steps = torch.linspace(math.log(lowest), math.log(highest), (dim + 1) // 2)
    angles = distance[:, None] * steps.exp()
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :dim]


def projection(dim_in: int, dim_out: int, std: float) -> nn.Linear:
    """Make a linear layer that begins as :func:`init_projection` says."""
    layer = nn.Linear(dim_in, dim_out)
    init_projection(layer, std)
    return layer


def init_projection(layer: nn.Linear, std: float) -> None:
    """Draw normal weights of the given standard deviation; zero the bias."""
    nn.init.normal_(layer.weight, std=std) if std > 0 else nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


def _expand(mask: Tensor, like: Tensor) -> Tensor:
    return mask.reshape(*mask.shape, *[1] * (like.dim() - mask.dim())).expand_as(like)
