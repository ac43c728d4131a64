"""Reading files of weights, from here or published, without running what is in them."""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..formats.pickles import UnsafePickleError, loads_numbers
from ..formats.tables import DataFileError, check_unpacked_size
from .sources import recognise

logger = logging.getLogger(__name__)

# Set to 1 to load files that only Python's pickle can read; they may run any code.
TRUST_PICKLE = "ALPHAACTION_TRUST_PICKLE"

# Where files keep their weights: detectron2 and AlphAction, pytorchvideo and PySlowFast, others,
# Caffe2. Where several are there, the first counts; what was averaged comes last.
_WEIGHTS = (
    *("model", "model_state", "state_dict", "model_state_dict", "blobs", "network", "net"),
    *("module", "weights", "params", "model_ema", "state_dict_ema", "params_ema", "ema"),
)
# What files begin with that are given as weights and are none, and what to do with them.
_OTHERS = (
    (rb"$", "an empty file: download it again"),
    (rb"\s*<(!doctype|html|head|\?xml)", "a web page (HTML), not weights: download it again"),
    (rb"version https://git-lfs", "a Git LFS pointer, not the weights themselves: git lfs pull"),
    (rb"\x89HDF", "of HDF5 (Keras): only weights of PyTorch are read"),
    (rb".{4}TFL3", "of TensorFlow Lite: only weights of PyTorch are read"),
    (rb"\x08.{0,200}(onnx|pytorch|producer)", "of ONNX: save the network's state_dict() instead"),
    (rb"[\x08\x0a].{0,4000}(Placeholder|tensorflow|serve)", "of TensorFlow, not of PyTorch"),
    (rb"\x93NUMPY", "an array of numpy: save a dict of name -> tensor with torch.save"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd", "compressed: unpack it first"),
    (rb".{257}ustar", "a tar archive: unpack it first and name the weights in it"),
    (rb"\x89PNG|\xff\xd8\xff|.{4}ftyp|RIFF|%PDF", "a picture, a film or a document, not weights"),
)
_SAFETENSORS = rb".{6}\0\0\{"
_TEXT_PICKLE = rb"\(d|\(l|\(i|\]|\}|c[\w.]+\n[\w.]+\n"  # protocol 0, of Python 2


def read_checkpoint(path: str | os.PathLike, *, trust_pickle: bool = False) -> dict[str, Any]:
    """Read a local file of weights, which come under "model" as tensors, names as in the file.

    Args:
        trust_pickle: also unpickle what holds more than arrays of numbers, which lets the file run
            any code (TRUST_PICKLE does the same).

    Raises:
        ValueError: the file needs unpickling, and nobody allowed it; or it is damaged; or it is no
            checkpoint: then with what it is.
    """
    data = _read_file(path, trust_pickle or os.environ.get(TRUST_PICKLE) == "1")
    if isinstance(data, torch.nn.Module):  # saved as a whole, and unpickled for somebody who asked
        data = data.state_dict()
    if not isinstance(data, Mapping):
        raise ValueError(
            f"{path}: not a checkpoint, but a {type(data).__name__}: save the network's "
            "state_dict(), a dict of name -> tensor"
        )
    key, found = _find_weights(data, path)
    rest = {} if key is None else {name: value for name, value in data.items() if name != key}
    weights = {str(name): _as_tensor(x) for name, x in found.items() if _is_array(x)}
    for prefix in ("module.", "_orig_mod."):  # saved by a parallel or a compiled model
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    if key == "blobs" and recognise(weights) is None:  # of a detector, by Detectron
        weights = {name: x for name, x in weights.items() if not name.endswith("_momentum")}
        rest |= {"__author__": "Caffe2", "matching_heuristics": True}
    return {**rest, "model": weights}


def _as_tensor(value: Any) -> torch.Tensor:
    # numpy's arrays of a pickle lie in its bytes, in the byte order of the machine that wrote it
    return (
        torch.tensor(value.astype(value.dtype.newbyteorder("=")))
        if isinstance(value, np.ndarray)
        else torch.as_tensor(value)
    )


def _is_array(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or hasattr(value, "__array__")


def _find_weights(data: Mapping, path: str | os.PathLike) -> tuple[str | None, Mapping]:
    """The weights of a file, and the key under which they are; None: they are the file."""
    found = {key: x for key, value in data.items() if (x := _inner_weights(value)) is not None}
    key = next((key for key in _WEIGHTS if key in found), None)
    if key is None and any(map(_is_array, data.values())):
        return None, data
    if key is None and len(found) == 1:
        key = next(iter(found))
        logger.info("%s: weights are taken from %r", path, key)
    if key is None:
        keys = ", ".join(map(repr, list(found or data)[:8])) or "nothing"
        reason = "several sets of weights" if found else "there are no weights in it"
        raise ValueError(
            f"{path}: not a checkpoint: {reason}, it holds {keys}; save the network's state_dict() "
            "under 'model'"
        )
    return key, found[key]


def _inner_weights(value: Any, depth: int = 3) -> Mapping | None:
    """Weights that are a value of a file or, under a known key, inside of it."""
    if isinstance(value, torch.nn.Module):
        return value.state_dict()
    if not isinstance(value, Mapping) or not depth:
        return None
    if any(map(_is_array, value.values())):
        return value
    inside = (_inner_weights(value[key], depth - 1) for key in _WEIGHTS if key in value)
    return next((x for x in inside if x is not None), None)


def _read_file(path: str | os.PathLike, trust: bool) -> Any:
    with open(path, "rb") as file:
        start = file.read(4096)
    if re.match(_SAFETENSORS, start, re.S):
        return _read_safetensors(path)
    if start[:4] == b"PK\3\4":
        _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # numpy's arrays, below
            with torch.serialization.safe_globals([argparse.Namespace]):  # how it was trained
                return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # unpickling raises nearly anything on other files
        is_pickle = start[:1] == b"\x80" or re.match(_TEXT_PICKLE, start) is not None
        if not is_pickle and start[:4] != b"PK\3\4":
            raise ValueError(f"{path}: {_what_it_is(start)}") from None
        if not isinstance(error, pickle.UnpicklingError) and not is_pickle:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"{path}: not a checkpoint, or a damaged one ({type(error).__name__}: {reason})"
            ) from error
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        names = f"it names {wanted[1]}" if wanted else ""
        if is_pickle:  # of Caffe2 or of detectron2's zoo: numpy's arrays
            try:
                numbers = loads_numbers(Path(path).read_bytes())
                if isinstance(numbers, dict):  # torch's own old files begin with another pickle
                    return numbers
            except UnsafePickleError as unsafe:
                names = str(unsafe)
        if not trust:
            raise ValueError(
                f"{path}: holds more than tensors{names and f' ({names})'}, and reading that may "
                "run any code. If you trust where it comes from, convert it once with `alphaaction "
                f"convert --trust-pickle`, or set {TRUST_PICKLE}=1"
            ) from None
    return _unpickle(path)


def _read_safetensors(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise ValueError(f"{path}: to read this file, pip install safetensors") from None
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path}: a damaged file of safetensors ({error}): copy it again"
        ) from None


def _what_it_is(start: bytes) -> str:
    """Say what a file is that is no checkpoint, by its first bytes, and what to do."""
    kinds = (what for begin, what in _OTHERS if re.match(begin, start, re.I | re.S))
    if (known := next(kinds, None)) is not None:
        return f"not a checkpoint, but {known}"
    line = start.decode("utf-8", "replace").strip().partition("\n")[0][:40]
    if line.isprintable() and "\ufffd" not in line:
        return f"not a checkpoint, but a text that begins with {line!r}: name the file of weights"
    return "not a checkpoint of PyTorch, or a damaged one: download or copy it again"


def _check_archive(path: str | os.PathLike) -> None:
    """Refuse an archive that torch did not write, or of which a bit has changed; ValueError says
    what it is.

    Torch keeps a checksum of every record, and does not look at it itself.
    """
    damaged = f"{path}: not a checkpoint, or a damaged one"
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            check_unpacked_size(path, sum(x.file_size for x in archive.infolist()))
            wrong = archive.testzip()
    # All that zipfile raises for damage; NotImplementedError where a changed bit names a method of
    # compression that it does not have, RuntimeError where it says that a record is encrypted.
    except DataFileError:
        raise
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{damaged} ({reason}): download or copy it again") from error
    if wrong is not None:
        raise ValueError(f"{damaged}: the checksum of {wrong} in it does not fit; copy it again")
    inside = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inside:
        raise ValueError(
            f"{path}: a TorchScript program, not a checkpoint: write its weights with "
            "torch.save(torch.jit.load(IN).state_dict(), OUT)"
        )
    if "data.pkl" not in inside:
        some = ", ".join(names[:3]) or "nothing"
        raise ValueError(
            f"{path}: not a checkpoint, but a zip archive of {some}: unpack it and name the weights"
        )


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
