"""Pickles of numbers, read without running anything that they say.

A pickle is a program that calls what it names. Here it gets `_STAND_INS` for names, and nothing
else. numpy's own constructors are not among them: the states that its dtypes and arrays take from a
pickle are not checked, and made-up ones let an array of numbers pass for one of objects, which
crashes. The standard library's reader in Python keeps its memo in a dict; the one in C makes room
for as many objects as the file says there are.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import re
import sys
from typing import Any

import numpy as np

from .tables import DataFileError, gunzipping

_DTYPE = re.compile(r"([<>|=]?)(b1|[iu][1248]|f[248]|[US]\d{1,5}|O8?)")
_UTF_32 = {"<": "utf-32-le", ">": "utf-32-be", "=": f"utf-32-{sys.byteorder[0]}e"}


class UnsafePickleError(ValueError):
    """A pickle that is damaged, or that holds or does something else than numbers need."""


def read_numbers(path: str | os.PathLike) -> Any:
    """Read a pickle file, gzipped or not, as `loads_numbers` does; DataFileError for any other."""
    with gunzipping(path) as file:
        content = file.read()
    try:
        return loads_numbers(content)
    except UnsafePickleError as error:
        raise DataFileError(path, str(error)) from None


def loads_numbers(data: bytes) -> Any:
    """Read a pickle of dicts, lists, tuples, text, numbers and numpy arrays of numbers.

    Pickles of Python 2 and 3 and of numpy 1 and 2, of any protocol, are understood. Dicts of any
    kind come back as plain dicts, tuples as lists; numpy's numbers as arrays without axes, its text
    as text.

    Raises:
        UnsafePickleError: with what the pickle wants, in one line.
    """
    try:
        unpickler = _Unpickler(io.BytesIO(data), encoding="latin1")
        loaded = unpickler.load()
        if max(unpickler.memo, default=0) > len(data):
            raise UnsafePickleError("a damaged pickle (more places in its memo than bytes)")
        return _plain(loaded, {})
    except UnsafePickleError:
        raise
    except (Exception, RecursionError, MemoryError) as error:
        # the reader raises whatever a damaged byte leads it to
        text = " ".join(str(error).split())[:200]
        raise UnsafePickleError(f"a damaged pickle ({text or type(error).__name__})") from None


_Reader: Any = pickle._Unpickler  # whose parts have no types


class _Unpickler(_Reader):
    dispatch = dict(_Reader.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            wanted = repr(f"{module}.{name}"[:80])
            raise UnsafePickleError(
                f"a pickle that wants {wanted}; only containers, numbers and numpy arrays are read"
            ) from None

    def load_build(self) -> None:
        if not isinstance(self.stack[-2], _Dtype | _Array):
            raise UnsafePickleError("a pickle that changes a function or an object")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build

    # Keys are looked at before they are hashed: that of nested tuples takes for ever.

    def load_setitem(self) -> None:
        self.stack[-2] = _key(self.stack[-2])
        super().load_setitem()

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self) -> None:
        self.stack[::2] = map(_key, self.stack[::2])
        super().load_setitems()

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def load_dict(self) -> None:
        self.stack[::2] = map(_key, self.stack[::2])
        super().load_dict()

    dispatch[pickle.DICT[0]] = load_dict

    def load_set(self) -> None:
        raise UnsafePickleError("a pickle of a set, not of numbers")

    dispatch[pickle.EMPTY_SET[0]] = dispatch[pickle.FROZENSET[0]] = load_set


def _key(key: Any) -> Any:
    """Give a key of a dict that costs nothing to hash: a text, a number, or a tuple of a few."""
    parts = [
        x.item() if isinstance(x, np.ndarray) and x.ndim == 0 else x
        for x in (key if type(key) is tuple and len(key) <= 4 else (key,))
    ]
    for part in parts:
        if not (part is None or isinstance(part, str | bytes | int | float)):
            raise UnsafePickleError(f"a pickle with a {type(part).__name__} in a dict's key")
        if isinstance(part, int) and part.bit_length() > 64:
            raise UnsafePickleError("a pickle with a huge number as a dict's key")
    return tuple(parts) if type(key) is tuple else parts[0]


def _ordered(pairs: Any = ()) -> dict:
    """Stand in for OrderedDict, which Python 2 makes of pairs."""
    return {_key(key): value for key, value in pairs}


class _Dtype:
    """A numpy type in the making: its name when it is called, its byte order afterwards."""

    def __init__(self, text: str, *_: object) -> None:
        found = _DTYPE.fullmatch(text)
        if found is None:
            raise UnsafePickleError(f"a pickle with an array of {text[:40]!r}, not of numbers")
        self.order, self.name = found.groups()

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]
        if self.order not in ("<", ">", "|", "="):
            raise UnsafePickleError("a damaged pickle (the byte order of an array)")


class _Array:
    """An array in the making: made empty, filled by its state."""

    value: np.ndarray | None = None

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        shape, dtype, is_fortran, data = state[-4:]
        self.value = _array(data, dtype, shape, "F" if is_fortran else "C")


_BYTES = (bytes, bytearray)


def _numbers(items: list, shape: tuple, order: Any, kind: np.dtype) -> np.ndarray:
    """Make an array of objects or text that are numbers one of numbers."""
    try:
        if any(isinstance(x, (_Array, list, tuple, dict)) or x is None for x in items):
            raise ValueError
        numbers = np.array([float(x) for x in items], kind)
    except (TypeError, ValueError):
        bad = next((x for x in items if isinstance(x, str | bytes)), None)
        what = "objects" if bad is None else f"text ({bad[:20]!r})"
        raise UnsafePickleError(f"a pickle with an array of {what}, not of numbers") from None
    return numbers.reshape(shape, order="F" if order == "F" else "C")


def _array(data: Any, dtype: Any, shape: Any, order: Any, *_: object) -> np.ndarray:
    if isinstance(data, str):  # Python 2's text is its bytes
        data = data.encode("latin1")
    is_object = isinstance(dtype, _Dtype) and dtype.name.startswith("O")
    if not isinstance(dtype, _Dtype) or not isinstance(data, list if is_object else _BYTES):
        raise UnsafePickleError("a pickle with an array of objects, not of numbers")
    kind = np.dtype("f8" if is_object else dtype.order + dtype.name)
    is_shape = isinstance(shape, tuple) and len(shape) <= 8
    is_shape = is_shape and all(isinstance(size, int) and size >= 0 for size in shape)
    if not is_shape or math.prod(shape) * (1 if is_object else kind.itemsize) != len(data):
        raise UnsafePickleError("a damaged pickle (shape and bytes of an array do not fit)")
    if isinstance(data, list):
        return _numbers(data, shape, order, kind)
    array = np.frombuffer(data, kind).reshape(shape, order="F" if order == "F" else "C")
    if kind.kind in "US":
        return _numbers(array.reshape(-1).tolist(), shape, "C", np.dtype("f8"))
    return array


def _scalar(dtype: Any, data: Any) -> np.ndarray | str:
    if isinstance(dtype, _Dtype) and dtype.name.startswith("U"):
        raw = data.encode("latin1") if isinstance(data, str) else data  # of Python 2
        return raw.decode(_UTF_32[dtype.order]).rstrip("\0")  # numpy fills its text up with zeros
    return _array(data, dtype, (), "C")


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise UnsafePickleError("a damaged pickle (text that should be bytes)")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): _ordered,
    # what Python 3 writes for no bytes at all, in protocols of Python 2
    ("__builtin__", "bytes"): lambda: b"",
    ("builtins", "bytes"): lambda: b"",
}
for _core in ("numpy.core", "numpy._core"):  # before and since numpy 2
    _STAND_INS[f"{_core}.multiarray", "_reconstruct"] = _Array
    _STAND_INS[f"{_core}.multiarray", "scalar"] = _scalar
    _STAND_INS[f"{_core}.numeric", "_frombuffer"] = _array


def _plain(item: Any, done: dict[int, Any]) -> Any:
    """Put the arrays in the place of their stand-ins, at any depth; refuse what is no number.

    A pickle can hold one list in itself a million times: every object is looked at once, and `done`
    has what became of it, by its id.
    """
    if isinstance(item, _Array):
        if item.value is None:
            raise UnsafePickleError("a damaged pickle (an array without contents)")
        return item.value
    if item is None or type(item) in (bool, int, float, str, bytes, np.ndarray):
        return item
    if type(item) not in (dict, list, tuple):
        raise UnsafePickleError(f"a pickle of a {type(item).__name__}, not of numbers")
    if id(item) not in done:
        done[id(item)] = None  # until it is done
        if isinstance(item, dict):
            keys = (key if type(key) is tuple else _plain(key, done) for key in item)
            done[id(item)] = dict(zip(keys, [_plain(entry, done) for entry in item.values()]))
        else:
            done[id(item)] = [_plain(entry, done) for entry in item]
    if done[id(item)] is None:
        raise UnsafePickleError("a pickle with a container in itself")
    return done[id(item)]
