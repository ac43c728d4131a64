"""The file of a memory pool: written whole or not at all, and verified when it is read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from ..formats.writing import write_atomically

FORMAT = "alphaaction_d2 memory pool"
VERSION = 2
_CHUNK = 1 << 24  # bytes hashed at a time


class MemoryFileError(ValueError):
    """A memory file that is damaged, of another kind, or of another model. One line."""


def write_memory_file(path: str | Path, state: dict) -> str:
    """Write nested dicts of tensors and plain values with their checksum, which is returned."""
    checksum = state_checksum(state)
    payload = {"format": FORMAT, "version": VERSION, "checksum": checksum, "state": state}
    write_atomically(path, lambda file: torch.save(payload, file))
    return checksum


def read_memory_file(path: str | Path, checksum: str | None = None) -> dict:
    """Read the state in a file, of a checksum if one is given; its tensors are mapped from the
    file, not loaded. MemoryFileError says what is wrong."""
    if not Path(path).is_file():
        raise MemoryFileError("no such memory file")
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch.load raises nearly anything on a damaged file
        raise MemoryFileError(f"damaged memory file ({type(error).__name__})") from error
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise MemoryFileError("not a memory pool")
    if payload.get("version") != VERSION:
        raise MemoryFileError(
            f"memory pool of version {payload.get('version')}, expected {VERSION}"
        )
    if not {"state", "checksum"} <= set(payload):
        raise MemoryFileError("damaged memory file (it is not whole)")
    if state_checksum(payload["state"]) != payload["checksum"]:
        raise MemoryFileError("damaged memory file (its checksum does not fit)")
    if checksum is not None and checksum != payload["checksum"]:
        raise MemoryFileError("memory of another checkpoint")
    return payload["state"]


def state_checksum(state: dict) -> str:
    """Compute the SHA-256 of names, types, shapes and contents of nested dicts."""
    digest = hashlib.sha256()
    _digest(state, digest)
    return digest.hexdigest()


def _digest(value: object, digest: hashlib._Hash) -> None:
    if isinstance(value, dict):
        for key in sorted(value):
            digest.update(f"{key}:".encode())
            _digest(value[key], digest)
    elif isinstance(value, Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        # A copy, for of a single number `contiguous` leaves a stride of 0 as it is.
        value = value.clone(memory_format=torch.contiguous_format)
        data = value.reshape(-1).view(torch.uint8).numpy().data
        for start in range(0, len(data), _CHUNK):
            digest.update(data[start : start + _CHUNK])
    else:
        digest.update(repr(value).encode())
    digest.update(b";")
