"""Reads the reference numbers of `golden/` (names and formulas: its README) for the tests."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch


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


def our_aia_name(name: str) -> str:
    """Name of a parameter of the released aggregation structure -> ours."""
    name = re.sub(r"^([POM]_block_\d+)\.", r"blocks.\1.", name)
    projections = {
        "person_dim_reduce": "person_projection.0",
        "person_key_dim_reduce": "person_key_projection.0",
        "object_dim_reduce": "object_projection.0",
        "mem_dim_reduce": "memory_projection.0",
    }
    for theirs, ours in projections.items():
        name = re.sub(rf"^{theirs}\.", f"{ours}.", name)
    return name


def our_aia_params(params: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Released parameters under our names and in our shapes."""
    result = {}
    for name, value in params.items():
        if "temporal_position" in name:
            value = value.reshape(value.shape[0], -1)
        elif "dense_params" in name or name.endswith("weight"):
            value = value.reshape(value.shape[0], value.shape[1])
        result[our_aia_name(name)] = value
    return result


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    """golden/README, "Tolerances": largest difference against the standard deviation."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    limit = max(tolerance * expected.std().item(), 1e-6)
    assert (actual - expected).abs().max().item() <= limit
