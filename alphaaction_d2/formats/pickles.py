"""Reads pickles of numbers without running anything that they say.

A pickle is a program. This module accepts those programs only that put together plain containers,
text, numbers and numpy arrays of numbers. Every instruction is looked at before the first one is
carried out, and not even numpy's own constructors are called: what a pickle names as one becomes a
stand-in of this module, which checks the shape, the type and the bytes before it makes an array.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["UnsafePickleError", "loads_numbers"]

# Everything that builds containers, text and numbers, and the three instructions that call
# something; what they may call is in _STAND_INS. Not here: the ways to make objects of other
# classes, persistent ids, and the registry of extensions.
_INSTRUCTIONS = frozenset(
    """
    PROTO FRAME STOP MARK POP POP_MARK DUP MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8
    SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8
    EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
    EMPTY_DICT DICT SETITEM SETITEMS
    GLOBAL STACK_GLOBAL REDUCE BUILD
    """.split()
)
_DTYPE = re.compile(r"([<>|=]?)(b1|[iu][1248]|f[248]|U\d{1,5})")
_UTF_32 = {"<": "utf-32-le", ">": "utf-32-be", "=": f"utf-32-{sys.byteorder[0]}e"}


class UnsafePickleError(ValueError):
    """A pickle that is damaged, or that holds or does something else than numbers need."""


def loads_numbers(data: bytes) -> Any:
    """Reads a pickle of dicts, lists, tuples, text, numbers and numpy arrays of numbers.

    Pickles of Python 2 and 3 and of numpy 1 and 2, of any protocol, are understood. Nothing that
    the pickle says is imported or executed.

    Args:
        data: the pickle.

    Returns:
        The object. Dicts of any kind are plain dicts, tuples are lists; numpy's numbers are arrays
        without axes, its text is text.

    Raises:
        UnsafePickleError: with what the pickle wants, in one line.
    """
    try:
        _check_instructions(data)
        return _plain(_Unpickler(data).load())
    except UnsafePickleError:
        raise
    except (Exception, RecursionError, MemoryError) as error:
        # the parsers raise whatever a damaged byte leads them to
        text = " ".join(str(error).split())[:200]
        raise UnsafePickleError(f"a damaged pickle ({text or type(error).__name__})") from None


def _check_instructions(data: bytes) -> None:
    for instruction, argument, position in pickletools.genops(data):
        if instruction.name not in _INSTRUCTIONS:
            raise UnsafePickleError(
                f"a pickle with the instruction {instruction.name} at byte {position}; only "
                "containers, numbers and numpy arrays are read"
            )
        # the reader reserves a place for each number up to the highest one
        if instruction.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > len(data):
            raise UnsafePickleError(f"a damaged pickle (a memo of {argument} places)")
        if instruction.name == "GLOBAL" and tuple(argument.split(" ", 1)) not in _STAND_INS:
            raise _unsafe(*argument.split(" ", 1))


def _unsafe(module: str, name: str) -> UnsafePickleError:
    wanted = repr(f"{module}.{name}"[:80])
    return UnsafePickleError(
        f"a pickle that wants {wanted}; only containers, numbers and numpy arrays are read"
    )


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")

    def find_class(self, module: str, name: str) -> _StandIn:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise _unsafe(module, name) from None

    def persistent_load(self, pid: object) -> None:
        raise UnsafePickleError("a pickle with references to objects outside of it")


class _StandIn:
    """What a pickle gets instead of the function or class that it names. It can only be called."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: object) -> None:
        raise UnsafePickleError("a pickle that changes a function")


class _Dtype:
    """A numpy type in the making: its name when it is called, its byte order afterwards."""

    __slots__ = ("_order", "_text")

    def __init__(self, text: object, *_: object) -> None:
        if not isinstance(text, str) or not _DTYPE.fullmatch(text):
            raise UnsafePickleError(f"a pickle with an array of {str(text)[:40]!r}, not of numbers")
        self._order, self._text = _DTYPE.fullmatch(text).groups()

    def __setstate__(self, state: tuple) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise UnsafePickleError("a damaged pickle (the byte order of an array)")
        self._order = order

    @property
    def encoding(self) -> str | None:
        """How a piece of text of this type is written; None for numbers."""
        return _UTF_32.get(self._order) if self._text.startswith("U") else None

    def build(self) -> np.dtype:
        if self._text.startswith("U"):
            raise UnsafePickleError("a pickle with an array of text, not of numbers")
        return np.dtype(self._order + self._text)


class _Array:
    """An array in the making: made empty, filled by its state."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise UnsafePickleError("a damaged pickle (the state of an array)")
        shape, dtype, is_fortran, data = state[-4:]
        self.value = _array(data, dtype, shape, "F" if is_fortran else "C")


def _array(data: object, dtype: object, shape: object, order: str) -> np.ndarray:
    """An array of checked contents."""
    if isinstance(data, str):  # Python 2's text is its bytes
        data = data.encode("latin1")
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray):
        raise UnsafePickleError("a pickle with an array of objects, not of numbers")
    if not isinstance(shape, tuple) or len(shape) > 8:
        raise UnsafePickleError("a damaged pickle (the shape of an array)")
    built = dtype.build()
    sizes_ok = all(isinstance(size, int) and size >= 0 for size in shape)
    if not sizes_ok or math.prod(shape) * built.itemsize != len(data):
        raise UnsafePickleError("a damaged pickle (shape and bytes of an array do not fit)")
    return np.frombuffer(data, built).reshape(shape, order=order)


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _from_buffer(data: object, dtype: object, shape: object, order: object, *_: object) -> _Array:
    array = _Array()
    array.value = _array(data, dtype, shape, "F" if order == "F" else "C")
    return array


def _scalar(dtype: object, data: object = None) -> _Array | str:
    if isinstance(dtype, _Dtype) and dtype.encoding is not None:
        data = data.encode("latin1") if isinstance(data, str) else data  # of Python 2
        if not isinstance(data, bytes):
            raise UnsafePickleError("a damaged pickle (a piece of text)")
        return data.decode(dtype.encoding).rstrip("\0")  # numpy fills its text up with zeros
    return _from_buffer(data, dtype, (), "C")


def _encode(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise UnsafePickleError("a damaged pickle (text that should be bytes)")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


def _mapping(pairs: object = ()) -> dict:
    if not isinstance(pairs, dict | list | tuple):
        raise UnsafePickleError("a damaged pickle (the contents of a dict)")
    return dict(pairs)


def _stand_ins() -> dict[tuple[str, str], _StandIn]:
    found: dict[tuple[str, str], _StandIn] = {
        ("numpy", "ndarray"): _StandIn(_reconstruct),
        ("numpy", "dtype"): _StandIn(_Dtype),
        ("_codecs", "encode"): _StandIn(_encode),
        ("collections", "OrderedDict"): _StandIn(_mapping),
        # what Python 3 writes for no bytes at all, in protocols of Python 2
        ("__builtin__", "bytes"): _StandIn(_no_bytes),
        ("builtins", "bytes"): _StandIn(_no_bytes),
    }
    for core in ("numpy.core", "numpy._core"):  # before and since numpy 2
        found[f"{core}.multiarray", "_reconstruct"] = _StandIn(_reconstruct)
        found[f"{core}.multiarray", "scalar"] = _StandIn(_scalar)
        found[f"{core}.numeric", "_frombuffer"] = _StandIn(_from_buffer)
    return found


_STAND_INS = _stand_ins()


def _plain(value: object) -> object:
    """Puts the arrays in the place of their stand-ins, at any depth.

    A pickle can hold one list in itself a million times: every object is looked at once.
    """
    done: dict[int, object] = {}
    being_done = object()

    def plain(item: object) -> object:
        if type(item) not in (dict, list, tuple):
            return _finished(item)
        if id(item) not in done:
            done[id(item)] = being_done
            if type(item) is dict:
                done[id(item)] = {_finished(key): plain(entry) for key, entry in item.items()}
            else:
                done[id(item)] = [plain(entry) for entry in item]
        if done[id(item)] is being_done:
            raise UnsafePickleError("a pickle with a container in itself")
        return done[id(item)]

    return plain(value)


def _finished(value: object) -> object:
    if isinstance(value, _Array):
        if value.value is None:
            raise UnsafePickleError("a damaged pickle (an array without contents)")
        return value.value
    if isinstance(value, _StandIn | _Dtype):
        raise UnsafePickleError("a pickle of types or functions, not of numbers")
    return value
