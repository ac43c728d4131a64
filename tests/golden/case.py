"""One case of a folder of reference numbers: its arrays, its configuration, and how ours compare.

The format: `<case>.npz` holds arrays under the prefixes `in/`, `param/` (parameters under the
released names), `out/`, `mid/` and `grad/`; `<case>.json` holds the configuration. A case may be a
json file alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# Boxes of the released model include their last pixel, ours end behind it.
LAST_PIXEL = torch.tensor([0.0, 0.0, 1.0, 1.0])

TRAINING_TOLERANCE = 2e-4  # of the standard deviation, after several steps of an optimiser


@dataclass(frozen=True)
class Comparison:
    """One array of the reference against ours.

    Attributes:
        key: its name in the file.
        share: largest difference as a share of what is tolerated; more than 1 fails.
        problem: what else is wrong, such as the shape; empty when nothing is.
    """

    key: str
    share: float
    problem: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem and self.share <= 1


class GoldenCase:
    """Arrays by key, the configuration, and what has been compared so far.

    Attributes:
        notes: differences that are wanted, with the reason.
        skipped: keys that ours has nothing to compare with -> why.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        path = folder / f"{name}.npz"
        self.arrays: Mapping[str, np.ndarray] = {}
        if path.is_file():
            with np.load(path) as file:
                self.arrays = dict(file)
        self.json = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        self.config = self.json.get("config", {})
        self.comparisons: dict[str, Comparison] = {}
        self.notes: list[str] = []
        self.skipped: dict[str, str] = {}

    # ------------------------------------------------------------------ reading
    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def __getitem__(self, key: str) -> Tensor:
        """An array; the trailing 1x1x1 positions of pooled features are dropped."""
        value = torch.from_numpy(self.arrays[key])
        while value.dim() > 2 and value.shape[-3:] == (1, 1, 1):
            value = value[..., 0, 0, 0]
        return value

    def raw(self, key: str) -> Tensor:
        """An array as it is."""
        return torch.from_numpy(self.arrays[key])

    def counts(self, key: str) -> list[int]:
        return self.arrays[key].tolist()

    def names(self, key: str) -> list[str]:
        return self.arrays[key].tolist()

    def params(self, prefix: str = "param/") -> dict[str, Tensor]:
        """The arrays under a prefix, without it, as they are."""
        keys = [key for key in self.arrays if key.startswith(prefix)]
        return {key[len(prefix) :]: self.raw(key) for key in keys}

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width)"""
        width, height = self.config["image_size_wh"]
        return height, width

    # ------------------------------------------------------------------ comparing
    def compare(self, key: str, actual: Tensor, *, tolerance: float = 1e-4) -> None:
        """Compare an array as the reference recommends.

        Args:
            tolerance: share of the reference's standard deviation; single numbers may differ by
                1e-5 of their size, constants by 1e-6.
        """
        expected = self[key]
        if expected.numel() <= 1:
            limit = torch.clamp(1e-5 * expected.abs().double(), min=1e-6)
        else:
            limit = max(tolerance * expected.double().std(unbiased=False).item(), 1e-6)
        self.compare_within(key, actual, expected, limit)

    def compare_exact(self, key: str, actual: Tensor) -> None:
        self.compare_within(key, actual, self[key], 0.0)

    def compare_gradients(self, gradients: Mapping[str, Tensor | None]) -> None:
        """Compare arrays under `grad/`, all of the case at once.

        Args:
            gradients: key without "grad/" -> ours; None or absent for what got no gradient.
        """
        expected = {k[len("grad/") :]: self[k] for k in self.arrays if k.startswith("grad/")}
        largest = max((x.abs().max().item() for x in expected.values() if x.numel()), default=0.0)
        for name, value in expected.items():
            own = value.abs().max().item() if value.numel() else 0.0
            if gradients.get(name) is None:
                self.fail(f"grad/{name}", "got no gradient")
            else:
                limit = 1e-4 * own + 2e-6 * largest
                self.compare_within(f"grad/{name}", gradients[name], value, limit)
        for name in sorted(set(gradients) - set(expected)):
            if gradients[name] is not None and gradients[name].any():
                self.fail(f"grad/{name}", "has a gradient, and none in the reference")

    def compare_within(
        self, key: str, actual: Tensor, expected: Tensor, limit: float | Tensor
    ) -> None:
        """Compare with another expectation than the file's: the difference is in the notes."""
        if actual.shape != expected.shape:
            shapes = f"{tuple(actual.shape)} instead of {tuple(expected.shape)}"
            self.fail(key, f"has the shape {shapes}")
            return
        difference = (actual.detach().double() - expected.double()).abs()
        if not difference.isfinite().all():
            self.fail(key, "is not finite")
            return
        worst = difference.max().item() if difference.numel() else 0.0
        limit = float(limit)
        share = worst / limit if limit > 0 else (0.0 if worst == 0 else float("inf"))
        self.comparisons[key] = Comparison(key, share)

    def check(self, key: str, ok: bool, problem: str) -> None:
        """Record a comparison of something that is no array."""
        self.comparisons[key] = Comparison(key, 0.0, "" if ok else problem)

    def fail(self, key: str, problem: str) -> None:
        self.comparisons[key] = Comparison(key, float("inf"), problem)

    def skip(self, keys: str | list[str], reason: str) -> None:
        """Name arrays that ours has nothing to compare with."""
        found = [keys] if isinstance(keys, str) else keys
        self.skipped |= {key: reason for key in found if key in self.arrays}

    def note(self, reason: str) -> None:
        """Name a wanted difference, for which inputs or expectations were adapted."""
        if reason not in self.notes:
            self.notes.append(reason)

    def finish(self) -> None:
        """Every result in the file must have been looked at."""
        for key in self.arrays:
            result = key.startswith(("out/", "mid/", "grad/"))
            if result and key not in self.comparisons and key not in self.skipped:
                self.fail(key, "was not compared")

    @property
    def ok(self) -> bool:
        return bool(self.comparisons) and all(x.ok for x in self.comparisons.values())

    @property
    def worst(self) -> Comparison:
        """The comparison that is nearest to failing, or fails most."""
        return max(self.comparisons.values(), key=lambda x: (not x.ok, x.share))
