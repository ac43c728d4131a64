"""Files of numpy's arrays that are damaged or meant to fill the memory."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from alphaaction_d2.formats.arrays import read_arrays
from alphaaction_d2.formats.tables import DataFileError


def test_both_forms(tmp_path):
    numbers = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "a.npy", numbers)
    np.savez(tmp_path / "a.npz", x=numbers, y=numbers[0])
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.npy")[""], numbers)
    assert sorted(read_arrays(tmp_path / "a.npz")) == ["x", "y"]
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "b.npy")


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_damaged_headers_are_one_line(tmp_path, name):
    """Every byte of the header once, with values that Python's parser stumbles over."""
    path, good = tmp_path / name, io.BytesIO()
    (np.save if name == "a.npy" else np.savez)(good, np.arange(6.0).reshape(2, 3))
    refused = 0
    for place in range(160):
        for value in b"\0({'9\xff\n":
            data = bytearray(good.getvalue())
            data[place] = value
            path.write_bytes(data)
            try:
                read_arrays(path)
            except ValueError as error:
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
                refused += 1
    assert refused > 100


def test_shapes_beyond_the_file(tmp_path):
    path, good = tmp_path / "a.npy", io.BytesIO()
    np.save(good, np.arange(6.0))
    for shape in (b"(6" + b"0" * 10 + b",)", b"(-6,)", b"(6,6,6)", b"(6.5,)"):
        path.write_bytes(
            good.getvalue().replace(b"(6,), }" + b" " * (len(shape) - 4), shape + b", }")
        )
        assert shape in path.read_bytes()
        with pytest.raises(ValueError, match="not an array of numbers"):
            read_arrays(path)


def test_archives_that_unpack_to_too_much(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as file:
            file.write(bytes(1 << 25))
    with pytest.raises(DataFileError, match="unpacks to more than 50 times its size"):
        read_arrays(tmp_path / "a.npz")
