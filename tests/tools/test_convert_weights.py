"""tools/convert_weights.py as a user calls it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from alphaaction_d2.apps.command_line import run_tool
from alphaaction_d2.apps.convert import main, parse_args, report
from alphaaction_d2.checkpoint.checkpointer import load_for_inference
from alphaaction_d2.checkpoint.sources import convert as convert_names
from alphaaction_d2.modeling.backbone import SlowFast
from tests.modeling.networks import small

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def convert(capsys):
    """Runs the tool in this process; returns its exit code, output and errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_tool(lambda: main(parse_args(list(map(str, arguments)))))
        return code, *capsys.readouterr()

    return run


def network() -> SlowFast:
    return small(norm="FrozenBN", lateral="pytorchvideo")


@pytest.fixture
def published(tmp_path) -> Path:
    weights = network().state_dict()
    weights |= {"blocks.6.proj.weight": torch.zeros(400, 9), "blocks.6.proj.bias": torch.zeros(400)}
    path = tmp_path / "kinetics.pyth"
    torch.save({"model_state": weights}, path)
    return path


def test_kinetics_weights(convert, published, tmp_path):
    output = tmp_path / "ours.pth"
    code, printed, _ = convert("--from", "pytorchvideo", published, output)
    assert code == 0
    assert "left over, the classifier of whole clips (Kinetics): blocks.6.proj.bias" in printed
    assert "MODEL.SLOWFAST.LATERAL: 'pytorchvideo'" in printed
    assert "MODEL.SLOWFAST.DEPTH: 18" in printed
    model = torch.nn.ModuleDict({"backbone": network()})
    load_for_inference(model, str(output))
    expected = torch.load(published, weights_only=True)["model_state"]
    for name, value in model["backbone"].state_dict().items():
        assert torch.equal(value, expected[name])


def test_report_on_the_released_detector(shared):
    table = json.loads((shared / "golden" / "alphaction_param_names.json").read_text())
    shapes = table["resnet50_4x16f_denseserial"]
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    found = convert_names(weights, "alphaction")
    lines = report("alphaction", found, "ours.pth")
    assert lines[0] == "ours.pth: 610 tensors from alphaction"
    assert not any("left over" in line for line in lines)
    assert "  a dense MODEL.INTERACTION.NAME: True" in lines
    assert "  the slots of MODEL.MEMORY.WINDOW: 61" in lines


def test_wrong_input_is_one_line(convert, published, tmp_path):
    output = tmp_path / "x.pth"
    code, _, error = convert("--from", "alphaction", published, output)
    assert code == 2 and not output.exists()
    assert "are those of pytorchvideo, not of alphaction" in error
    assert error.count("\n") == 1
    torch.save({"model": {"layer.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    _, _, error = convert(tmp_path / "other.pth", output)
    assert "are of no known source, not of alphaction or umt" in error
    assert "no such file" in convert(tmp_path / "nothing", output)[2]
    code, _, error = convert(published, published)
    assert code == 2 and "is the input" in error


def test_pickles_need_trust(convert, tmp_path, monkeypatch):
    monkeypatch.delenv("ALPHAACTION_TRUST_PICKLE", raising=False)
    path, output = tmp_path / "caffe2.pkl", tmp_path / "x.pth"
    blobs = {"conv1_w": torch.ones(8, 3, 1, 7, 7).numpy(), "res_conv1_bn_s": torch.ones(8).numpy()}
    path.write_bytes(pickle.dumps({"blobs": blobs, "more": Path("x")}, protocol=2))
    code, _, error = convert("--from", "pyslowfast", path, output)
    assert code == 2 and "--trust-pickle" in error
    code, _, error = convert("--from", "pyslowfast", "--trust-pickle", path, output)
    assert code == 0, error
    path.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))  # of arrays: nothing to trust
    assert convert("--from", "pyslowfast", path, output)[0] == 0
    saved = torch.load(output, weights_only=True)["model"]
    assert list(saved) == ["backbone.blocks.0.conv.weight", "backbone.blocks.0.norm.weight"]
