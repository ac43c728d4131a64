"""Files that are no weights, or are damaged: told by their contents, in one line with a remedy."""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import tarfile
import zipfile

import pytest
import torch
from torch import nn

from alphaaction_d2.checkpoint import load_for_inference
from alphaaction_d2.checkpoint.reading import TRUST_PICKLE, read_checkpoint


@pytest.fixture(autouse=True)
def trust_nobody(monkeypatch):
    monkeypatch.delenv(TRUST_PICKLE, raising=False)


def safetensors() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo("weights.pth"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"<!DOCTYPE html><html><title>Google Drive</title>", "web page.*download it again"),
        (b"\n<html><head></head></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"", "an empty file: download it again"),
        (b"epoch 3 loss 0.5\n", "a text that begins with 'epoch 3 loss 0.5'"),
        (b'{"model": 3}', "a text"),
        (b"\0" * 4096, "not a checkpoint of PyTorch, or a damaged one"),
        (safetensors()[:-1], "a damaged file of safetensors .*copy it again"),
        (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0", "ONNX"),
        (b"\x08\x01\x12\x05serve", "TensorFlow"),
        (b"\x89HDF\r\n\x1a\n", "Keras"),
        (b"\x1f\x8b\x08\0", "compressed: unpack it first"),
        (tar(), "a tar archive: unpack it first"),
        (archive(readme=b"x", weights=b"y"), "a zip archive of readme, weights: unpack it"),
        (
            archive(**{"m/data.pkl": b"x", "m/constants.pkl": b"y"}),
            r"TorchScript.*torch.jit.load\(IN\).state_dict\(\)",
        ),
        (pickle.dumps({"a": pickle.PickleBuffer}, 0), "--trust-pickle"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path, content, expected):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"weights.pth: .*{expected}") as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value) and "weights_only" not in str(error.value)


def test_safetensors(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors())
    assert read_checkpoint(path) == {"model": {"a": torch.zeros(1)}}
    for module in ("safetensors", "safetensors.torch"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match="to read this file, pip install safetensors"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["SLOWFAST_R101_K700.pth.tar", "lfs.pth"])
def test_downloads_that_were_met(shared, name):
    with pytest.raises(ValueError, match="web page|git lfs pull"):
        read_checkpoint(shared / "cases/19" / name)


def test_a_network_that_was_saved_as_a_whole(tmp_path):
    path = tmp_path / "whole.pth"
    network = nn.Linear(2, 2)
    torch.save(network, path)
    with pytest.raises(ValueError, match=r"names torch.nn.modules.linear.Linear.*--trust-pickle"):
        read_checkpoint(path)
    found = read_checkpoint(path, trust_pickle=True)["model"]
    assert torch.equal(found["weight"], network.weight)


X = {"backbone.x": torch.zeros(1)}


@pytest.mark.parametrize(
    "data",
    [
        {"model_ema": X, "epoch": 3},
        {"params": X, "params_ema": {"backbone.x": torch.ones(1)}},
        {"generator": X, "optimizer": {"state": {}, "lr": 0.1}},
        {"model": {"state_dict": X}},
        {"state_dict": {f"module._orig_mod.{name}": x for name, x in X.items()}},
    ],
)
def test_weights_under_other_keys(tmp_path, data):
    torch.save(data, tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth")["model"] == X


@pytest.mark.parametrize(
    "data, expected",
    [
        ({"student": X, "teacher": X}, "several sets of weights, it holds 'student', 'teacher'"),
        ({"epoch": 3, "arch": "slow"}, "no weights in it, it holds 'epoch', 'arch'"),
        ([torch.zeros(1)], "but a list: save the network's"),
        (torch.zeros(1), "but a Tensor: save the network's"),
    ],
)
def test_where_no_weights_are(tmp_path, data, expected):
    torch.save(data, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=expected):
        read_checkpoint(tmp_path / "x.pth")


def test_any_bit_that_flips_is_noticed(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"model": {"x": torch.arange(2000.0)}}, path)
    whole = path.read_bytes()
    start = whole.index(torch.arange(2000.0).numpy().tobytes())
    for place in (*range(start, start + 8000, 1000), whole.index(b"model")):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="x.pth: not a checkpoint, or a damaged one: the chec"):
            read_checkpoint(path)


@pytest.mark.parametrize("address", ["rtsp://127.0.0.1:9/x", "http://127.0.0.1:9/x.pth"])
def test_addresses_are_told_in_one_line(address):
    with pytest.raises(OSError, match=f"^{address}: .*name its path") as error:
        load_for_inference(nn.Linear(1, 1), address)
    assert "\n" not in str(error.value)


def test_an_archive_that_unpacks_to_too_much(tmp_path):
    """Torch packs nothing; who does may mean harm."""
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"\x80\x02}.")
        archive.writestr("bomb/data/0", bytes(1 << 26))
    with pytest.raises(ValueError, match="unpacks to more than 50 times its size"):
        read_checkpoint(path)
