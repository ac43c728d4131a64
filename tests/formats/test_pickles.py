"""Pickles of numbers are read; whatever else a pickle may do is refused before it is done."""

from __future__ import annotations

import io
import os
import pickle
import time
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphaaction_d2.formats.pickles import UnsafePickleError, loads_numbers
from alphaaction_d2.formats.tables import DataFileError
from alphaaction_d2.formats.ucf101_24 import read_ucf_annotations


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i8", "|u1", "|b1", "<f2"])
def test_arrays_of_every_protocol(protocol, dtype):
    arrays = {
        "rows": np.arange(15).reshape(3, 5).astype(dtype),
        "columns": np.asfortranarray(np.arange(6).reshape(2, 3).astype(dtype)),
        "none": np.zeros((0, 5), dtype),
        "view": np.arange(30).astype(dtype).reshape(5, 6)[::2, 1:4],
    }
    back = loads_numbers(pickle.dumps(arrays, protocol))
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_and_numbers_of_numpy(protocol):
    value = OrderedDict(
        {"a": [1, 2.5, -(2**70), True, None, "ü", b"\x00\xff"], "b": (1, 2), "c": np.float32(0.5)}
    )
    back = loads_numbers(pickle.dumps(value, protocol))
    assert type(back) is dict
    assert back == {"a": value["a"], "b": [1, 2], "c": np.float32(0.5)}


def test_pickles_of_numpy_1_and_of_python_2():
    data = pickle.dumps({"v,0902": np.ones((1, 5))}, 2)
    old = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != data or np.__version__ < "2"
    np.testing.assert_array_equal(loads_numbers(old)["v,0902"], np.ones((1, 5)))
    # Python 2 wrote bytes as its text
    python2 = (
        b"\x80\x02}q\x00U\x06v,0902q\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray"
        b"\nq\x03K\x00\x85q\x04U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x01K\x02\x86q\x08cnumpy\ndtype\n"
        b"q\x09U\x02u1q\x0aK\x00K\x01\x87q\x0bRq\x0c(K\x03U\x01|q\x0dNNNJ\xff\xff\xff\xffJ\xff\xff"
        b"\xff\xffK\x00tq\x0eb\x89U\x02\x07\xe9q\x0ftq\x10bs."
    )
    np.testing.assert_array_equal(loads_numbers(python2)["v,0902"], [[7, 0xE9]])


class Calls:
    """Its pickle is a call."""

    def __init__(self, function, *args, state=None):
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.parts


def dangerous(mark: str) -> dict[str, object]:
    """Things whose pickles leave a file behind, or could, when they are loaded."""
    from numpy.testing import runstring

    command = f"touch {mark}"
    code = f"open({mark!r}, 'w').close()"
    return {
        "os.system": Calls(os.system, command),
        "eval": Calls(eval, code),
        "exec": Calls(exec, code),
        "open": Calls(open, mark, "w"),
        "getattr": Calls(getattr, "text", "upper"),
        "numpy.testing": Calls(runstring, code, {}),
        "numpy.save": Calls(np.save, mark + ".npy", 1),
        "numpy.load": Calls(np.load, mark, None, True),
        "numpy.fromfile": Calls(np.fromfile, "/etc/hostname"),
        "numpy.memmap": Calls(np.memmap, mark, "u1", "w+", 0, (1,)),
        "numpy.apply": Calls(np.apply_along_axis, os.system, 0, command),
        "numpy.vectorize": Calls(np.vectorize, os.system),
        "nested pickle": Calls(pickle.loads, pickle.dumps(Calls(os.system, command))),
        "array of objects": np.array([Calls(os.system, command), 1], dtype=object),
        "array of nothing bad, but objects": np.array(["text", None], dtype=object),
        "array of records": np.zeros(2, [("a", "f4"), ("b", "O")]),
        "array of text": np.array(["text"]),
        "masked array": np.ma.masked_array([1.0], [True]),
        "partial": Calls(__import__("functools").partial, os.system, command),
        "class": io.StringIO,
        "instance": Calls(io.BytesIO, b"x"),
        "set": {1, 2},
    }


@pytest.mark.parametrize("name", sorted(dangerous("x")))
@pytest.mark.parametrize("protocol", [0, 2, 4, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize("place", ["alone", "value", "second", "deep", "among"])
def test_nothing_is_executed(tmp_path, monkeypatch, name, protocol, place):
    monkeypatch.chdir(tmp_path)
    thing = dangerous(str(tmp_path / "mark"))[name]
    array = np.ones((1, 5))
    value = {
        "alone": thing,
        "value": {"v,0902": thing},
        "second": {"v,0902": array, "w,0902": [[thing]]},
        "deep": {"v,0902": [[[(thing,)]]]},
        "among": [array, {"v": (array, [thing])}, array],
    }[place]
    with pytest.raises(UnsafePickleError) as error:
        loads_numbers(pickle.dumps(value, protocol))
    assert len(str(error.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'touch mark'\ntR.",
        b"(S'touch mark'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch mark'\no.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0atouch mark\x85R.",
        # an attribute of an attribute, which protocol 4 allows
        b"\x80\x04\x8c\x05numpy\x8c\x13testing.os.system..\x93\x8c\x0atouch mark\x85R.",
        b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.",
        b"\x80\x02cnumpy\ndtype\n}X\x08\x00\x00\x00__call__K\x01sb.",  # changes a constructor
        b"\x80\x02cnumpy\ndtype\nU\x01O\x85R.",
        b"\x80\x02cnumpy\ndtype\nU\x02f8\x85R.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R.",  # never filled
        b"\x80\x02Pid\n.",
        b"\x80\x02\x82\x01.",  # the registry of extensions
        b"\x80\x02}r\xff\xff\xff\x7f.",  # two thousand million places
        b"\x80\x05\x97.",
        b"",
        b"\x80\x02",
        b"\x80\x07.",
        b"\x80\x02.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    ],
)
def test_hand_written_programs(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsafePickleError) as error:
        loads_numbers(data)
    assert len(str(error.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def filled(shape, data: bytes, dtype: bytes = b"U\x02f8") -> bytes:
    """A pickle of an array whose parts need not fit."""
    start = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R("
    parts = pickle.dumps(1, 2)[2:-1] + pickle.dumps(shape, 2)[2:-1]
    kind = b"cnumpy\ndtype\n" + dtype + b"\x85R"
    raw = b"T" + len(data).to_bytes(4, "little") + data
    return start + parts + kind + b"\x89" + raw + b"tb."


def test_shape_and_bytes_must_fit():
    assert loads_numbers(filled((2,), bytes(16))).tolist() == [0, 0]
    for shape in [(3,), (2**62, 4), (-1, -2), (2.0,), "ab", [2], (True, 2.5), (1,) * 9]:
        with pytest.raises(UnsafePickleError):
            loads_numbers(filled(shape, bytes(16)))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_lies_deeper(protocol):
    """As in the annotations of UCF101-24: text and arrays of numpy below dicts and lists."""
    boxes = np.array([[250, 200, 60, 40]], np.uint8)
    value = {np.str_("Dive/ü"): {"numf": np.uint8(9), "tubes": [{"boxes": boxes, "sf": 0}] * 2}}
    back = loads_numbers(pickle.dumps(value, protocol))
    assert list(back) == ["Dive/ü"] and type(next(iter(back))) is str
    (video,) = back.values()
    assert video["numf"].dtype == np.uint8 and int(video["numf"]) == 9
    for tube in video["tubes"]:
        assert tube["boxes"].dtype == np.uint8
        np.testing.assert_array_equal(tube["boxes"], boxes)


def test_a_container_in_itself_is_refused():
    loop: list = [1]
    loop.append({"a": loop})
    with pytest.raises(UnsafePickleError, match="in itself"):
        loads_numbers(pickle.dumps(loop))


def test_a_list_in_itself_a_thousand_million_times_costs_nothing():
    lists: list = [1, 2, 3]
    for _ in range(40):
        lists = [lists] * 10
    assert loads_numbers(pickle.dumps({"v,0902": lists}))["v,0902"][0] is not None


@given(
    st.integers(0, 10**6),
    st.integers(0, 255),
    st.integers(0, 10**6),
    st.booleans(),
    st.integers(0, 5),
)
def test_damaged_pickles_are_refused_or_read(place, byte, end, cut, protocol):
    good = {"v,0902": np.arange(10.0).reshape(2, 5), "w,0903": [[1, 2, 3, 4, 5]]}
    data = bytearray(pickle.dumps(good, protocol))
    data[place % len(data)] = byte
    if cut:
        del data[end % len(data) :]
    try:
        loads_numbers(bytes(data))
    except UnsafePickleError as error:
        assert len(str(error).splitlines()) == 1


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_read(data):
    for start in (b"", b"\x80\x02", b"\x80\x04"):
        try:
            loads_numbers(start + data + b".")
        except UnsafePickleError as error:
            assert len(str(error).splitlines()) == 1


def test_keys_that_take_for_ever_to_hash_are_refused():
    key: tuple = ()
    for _ in range(60):
        key = (key, key)
    start = time.perf_counter()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        text = pickle.dumps(key, protocol)[:-1]
        start_of = b"}" if protocol else b"(d"
        with pytest.raises(UnsafePickleError, match="in a dict's key"):
            loads_numbers(start_of + text + b"K\x01s.")
        with pytest.raises(UnsafePickleError):
            loads_numbers(b"(" + text + b"K\x01d.")
        with pytest.raises(UnsafePickleError):
            loads_numbers(b"\x8f(" + text + b"\x90.")
    assert time.perf_counter() - start < 2


def test_hostile_pickles(shared):
    hostile = shared / "cases" / "hostile"
    with pytest.raises(UnsafePickleError):
        loads_numbers((hostile / "dos" / "pickle_tuple_key" / "b.pkl").read_bytes())
    with pytest.raises(DataFileError, match="label is 1000000000000"):
        path = hostile / "ucf_label_1e12.pkl"
        read_ucf_annotations(path, list(pickle.loads(path.read_bytes()))[:1])
