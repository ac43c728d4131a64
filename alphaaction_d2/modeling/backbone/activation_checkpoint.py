"""Running a network's blocks, in training also without keeping what is computed inside them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from functools import partial

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def run_blocks(blocks: Iterable[nn.Module], *pathways: Tensor, recompute: bool) -> list[Tensor]:
    """Compute the maps of all pathways behind pytorchvideo's blocks.

    Args:
        recompute: keep nothing for the gradient but the inputs of the blocks, and compute what is
            inside them again.
    """
    maps = list(pathways)
    for block in blocks:
        maps = _run_again_for_gradient(block, *maps) if recompute else _run(block, *maps)
    return maps


def _run(block: nn.Module, *maps: Tensor) -> list[Tensor]:
    # Blocks of several pathways take a list, and write into it: it is a new one.
    return [block(*maps)] if len(maps) == 1 else block(list(maps))


def _run_again_for_gradient(block: nn.Module, *maps: Tensor) -> list[Tensor]:
    return checkpoint(
        partial(_run, block),
        *maps,
        use_reentrant=False,
        preserve_rng_state=False,  # no block draws random numbers
        context_fn=lambda: (contextlib.nullcontext(), _statistics_stay(block)),
    )


@contextlib.contextmanager
def _statistics_stay(block: nn.Module) -> Iterator[None]:
    """Batch normalisation has seen the batch before: its running statistics must not count it
    twice."""
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm3d)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before):
            norm.momentum, norm.num_batches_tracked = momentum, count
