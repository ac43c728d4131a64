"""Random numbers as a function of where one is, not of what has been drawn before.

A training step draws from generators that start anew from (seed, step, worker), a training clip
from ones that start from (seed, place in the stream). So nothing random has to be saved to resume
exactly, and clips do not depend on which loading process prepares them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derived_seed(*key: int) -> int:
    """A 64-bit seed from non-negative integers; different keys give unrelated seeds."""
    low, high = np.random.SeedSequence(key).generate_state(2, dtype=np.uint32)
    return int(high) << 32 | int(low)


def seed_everything(seed: int) -> None:
    """Restart the global generators of Python, NumPy and torch, on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, the global generators on the CPU start from `seed`; afterwards they are as before."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
