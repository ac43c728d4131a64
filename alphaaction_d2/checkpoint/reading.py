"""Reading files of weights, from here or published, without running what is in them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from typing import Any

import torch

from .sources import recognise

# Set to 1 to load files that only Python's pickle can read; they may run any code.
TRUST_PICKLE = "ALPHAACTION_TRUST_PICKLE"

# Where files keep their weights: detectron2 and AlphAction, pytorchvideo and PySlowFast, others,
# Caffe2.
_WEIGHTS = ("model", "model_state", "state_dict", "blobs")


def read_checkpoint(path: str | os.PathLike, *, trust_pickle: bool = False) -> dict[str, Any]:
    """Read a file of weights, which come under "model" as tensors, names as in the file.

    Args:
        path: a local file of torch, or a pickle.
        trust_pickle: also unpickle, which lets the file run any code (TRUST_PICKLE does the same).

    Raises:
        ValueError: the file needs unpickling, and nobody allowed it; or it is no checkpoint.
    """
    data = _read_file(path, trust_pickle or os.environ.get(TRUST_PICKLE) == "1")
    if not isinstance(data, dict):
        raise ValueError(f"{path}: not a checkpoint, but a {type(data).__name__}")
    key = next((key for key in _WEIGHTS if isinstance(data.get(key), Mapping)), None)
    rest = {} if key is None else {name: value for name, value in data.items() if name != key}
    weights = {
        str(name): torch.as_tensor(value)
        for name, value in (data if key is None else data[key]).items()
        if isinstance(value, torch.Tensor) or hasattr(value, "__array__")
    }
    if not weights:
        raise ValueError(f"{path}: not a checkpoint: there are no weights in it")
    if all(name.startswith("module.") for name in weights):  # saved by a parallel model
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    if key == "blobs" and recognise(weights) is None:  # of a detector, by Detectron
        weights = {name: x for name, x in weights.items() if not name.endswith("_momentum")}
        rest |= {"__author__": "Caffe2", "matching_heuristics": True}
    return {**rest, "model": weights}


def _read_file(path: str | os.PathLike, trust: bool) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # unpickling raises nearly anything on other files
        with open(path, "rb") as file:
            start = file.read(2)
        is_pickle, is_torch = start[:1] == b"\x80", start == b"PK"
        refused = isinstance(error, pickle.UnpicklingError)
        if not (is_pickle or is_torch and refused):
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"{path}: not a checkpoint, or a damaged one ({type(error).__name__}: {reason})"
            ) from error
        if not trust:
            raise ValueError(
                f"{path}: holds more than tensors, and reading that may run any code. If you trust "
                "where it comes from, convert it once with tools/convert_weights.py "
                f"--trust-pickle, or set {TRUST_PICKLE}=1"
            ) from None
    return _unpickle(path)


def _unpickle(path: str | os.PathLike) -> Any:
    """Unpickle a file that its user trusts."""
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except OSError:
        raise
    except Exception:  # not torch's: numpy arrays, pickled
        with open(path, "rb") as file:
            try:
                return pickle.load(file, encoding="latin1")
            except Exception as error:
                raise ValueError(
                    f"{path}: cannot be unpickled ({type(error).__name__}: {error})"
                ) from error
