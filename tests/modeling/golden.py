"""Reads the reference numbers of `golden/` (names and formulas: its README) for the tests.

tools/check_golden.py checks all of them; the tests here look at single formulas.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from alphaaction_d2.checkpoint.sources import aggregation_weights as our_aia_params

__all__ = ["GoldenCase", "assert_close", "our_aia_params"]


class GoldenCase:
    """One case: arrays by key prefix, and its configuration."""

    def __init__(self, folder: Path, name: str) -> None:
        self.arrays = np.load(folder / f"{name}.npz")
        self.config = json.loads((folder / f"{name}.json").read_text())["config"]

    def __getitem__(self, key: str) -> torch.Tensor:
        """An array; the trailing 1x1x1 positions of pooled features are dropped."""
        value = torch.from_numpy(self.arrays[key])
        while value.dim() > 2 and value.shape[-3:] == (1, 1, 1):
            value = value[..., 0, 0, 0]
        return value

    def counts(self, key: str) -> list[int]:
        return self.arrays[key].tolist()

    def params(self, prefix: str = "param/") -> dict[str, torch.Tensor]:
        return {k[len(prefix) :]: self[k] for k in self.arrays.files if k.startswith(prefix)}


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    """golden/README, "Tolerances": largest difference against the standard deviation."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    limit = max(tolerance * expected.std().item(), 1e-6)
    assert (actual - expected).abs().max().item() <= limit
