"""Names, addresses and files of configurations and weights lead to the same."""

from __future__ import annotations

import pickle
import re
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from alphaaction_d2 import model_zoo
from alphaaction_d2.checkpoint import load_for_inference, read_checkpoint
from alphaaction_d2.checkpoint.sources import SOURCES, convert, recognise
from alphaaction_d2.formats.config_files import ConfigError, setup_cfg
from alphaaction_d2.model_zoo import table
from tests.model_zoo.server import serve

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(monkeypatch):
    with serve() as files:
        monkeypatch.setenv("ALPHAACTION_MIRROR", files.address)
        yield files


def test_every_row_is_whole():
    for name, entry in table.TABLE.items():
        assert entry.source in (*SOURCES, "torchvision") and entry.licence and entry.score
        if entry.config:
            path = Path(model_zoo.get_config_file(name))
            assert path.samefile(ROOT / "configs" / entry.config)
            model_zoo.get_config(name)  # it can be read
        if entry.address:
            assert re.fullmatch(r"https://[\w.-]+/[\w./-]+\.(pth|pyth|pkl)", entry.address)
            assert model_zoo.get_checkpoint_url(name) == entry.address
        else:
            assert entry.file and entry.page.startswith("https://")
    addresses = [entry.address for entry in table.TABLE.values() if entry.address]
    assert len(set(addresses)) == len(addresses)


def test_every_configuration_for_published_weights_is_in_the_table():
    known = {entry.config for entry in table.TABLE.values()}
    folder = ROOT / "configs" / "AVA" / "published"
    missing = {
        f"AVA/published/{path.name}" for path in folder.glob("*.yaml") if path.stem[:4] != "Base"
    } - known
    assert missing == set()


def test_torchvisions_addresses_and_scores_are_its_own():
    from torchvision.models import get_model_weights

    rows = {n: e for n, e in table.TABLE.items() if e.source == "torchvision"}
    assert len(rows) > 5
    for name, entry in rows.items():
        known = {w.url: w for w in get_model_weights(re.split("[:]|torchvision_", name)[-1])}
        (metrics,) = known[entry.address].meta["_metrics"].values()
        assert float(entry.score.split()[0]) == (metrics.get("acc@1") or metrics["box_map"])


def test_pytorchvideos_addresses_are_its_own():
    from pytorchvideo.models.hub import resnet, slowfast

    known = {*resnet.checkpoint_paths.values(), *slowfast.checkpoint_paths.values()}
    rows = [e.address for e in table.TABLE.values() if e.source == "pytorchvideo"]
    known.add(documented := f"{resnet.root_dir}/kinetics/SLOW_4x16_R50.pyth")
    assert len(rows) == 5 and set(rows) <= known and documented in rows


def test_scores_are_those_of_the_document():
    for name, entry in table.TABLE.items():
        if name.startswith("AVA/"):
            file = entry.file or entry.address.rpartition("/")[2]
            file = re.sub(r"_\d{8}-\w{8}\.pth$", "_*.pth", file)
            (line,) = (x for x in DOCUMENT.splitlines() if f"{file}`" in x and x.startswith("|"))
            assert line.split("|")[-2].strip() == entry.score.split()[0]


def test_configurations_by_name_address_and_path(server, tmp_path):
    by_path = setup_cfg(str(ROOT / "configs" / "Small" / "aia.yaml"))
    assert setup_cfg("Small/aia") == setup_cfg("Small/aia.yaml") == by_path
    assert model_zoo.get_config("Small/aia.yaml") == by_path
    for path in (ROOT / "configs").rglob("*.yaml"):
        name = path.relative_to(ROOT / "configs")
        server.contents[f"/host/configs/{name}"] = path.read_bytes()
    # its bases lie beside it
    assert setup_cfg("https://host/configs/Small/aia.yaml") == by_path
    with pytest.raises(FileNotFoundError, match=r"aiia: no such configuration file, and none"):
        setup_cfg("Small/aiia")
    with pytest.raises(FileNotFoundError, match="did you mean AVA/released/aia_dense_R50_4x16"):
        setup_cfg("aia_dense_R50_4x16")
    with pytest.raises(FileNotFoundError, match="no configuration of this project fits"):
        setup_cfg("torchvision:fasterrcnn_resnet50_fpn_v2")
    r3d_18 = setup_cfg("Kinetics/torchvision_r3d_18").MODEL.VIDEO_BACKBONE
    assert (r3d_18.NAME, r3d_18.WEIGHTS) == ("r3d_18", "Kinetics/torchvision_r3d_18")
    (tmp_path / "x.yaml").write_text("_BASE_: Small/aia\n")
    with pytest.raises(FileNotFoundError, match=r"x\.yaml: _BASE_: .*aia: no such"):
        setup_cfg(str(tmp_path / "x.yaml"))
    server.contents["/host/loop.yaml"] = b"_BASE_: loop.yaml\n"
    with pytest.raises(ConfigError, match="leads back to the file itself"):
        setup_cfg("https://host/loop.yaml")


def small_entry(monkeypatch, **changes) -> table.Published:
    """A row for a network that is built within a second."""
    entry = table.Published(
        "Small/aia.yaml", "https://host/zoo/small.pth", "pytorchvideo", "X", "1"
    )
    entry = entry._replace(**changes)
    monkeypatch.setitem(table.TABLE, "Small/aia", entry)
    return entry


def save_small(path: Path) -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    weights = build_model(setup_cfg("Small/aia")).state_dict()
    torch.save({"model": weights}, path)
    return weights


def test_a_model_by_name_with_its_weights(server, tmp_path, monkeypatch, caplog):
    small_entry(monkeypatch)
    weights = save_small(tmp_path / "small.pth")
    server.contents["/host/zoo/small.pth"] = (tmp_path / "small.pth").read_bytes()
    with caplog.at_level("INFO"):
        cfg = model_zoo.get_config("Small/aia.yaml", trained=True)
        assert cfg.MODEL.WEIGHTS == "https://host/zoo/small.pth"
        model = model_zoo.get("Small/aia.yaml", trained=True, device="cpu")
    assert model.training
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in weights.items())
    other = model_zoo.get("Small/aia.yaml", device="cpu").state_dict()
    assert not all(torch.equal(other[name], value) for name, value in weights.items())
    # a name is as good as the address, and tells the licence
    with caplog.at_level("INFO"):
        load_for_inference(model, "Small/aia")
    assert "Small/aia: 1; licence of the weights: X" in caplog.text
    load_for_inference(model, str(tmp_path / "small.pth"))


def test_weights_that_no_program_can_fetch(cache, tmp_path, monkeypatch):
    small_entry(monkeypatch, address="", file="small.pth", page="https://page", source="alphaction")
    place = cache / "alphaction" / "small.pth"
    with pytest.raises(FileNotFoundError) as caught:
        model_zoo.get("Small/aia", trained=True)
    assert "get it at https://page and put it at " + str(place) in str(caught.value)
    place.parent.mkdir(parents=True)
    save_small(place)
    assert model_zoo.local_weights("Small/aia.yaml") == str(place)
    model_zoo.get("Small/aia", trained=True, device="cpu")


def test_names_that_lead_nowhere():
    with pytest.raises(RuntimeError, match="aia_dense_R50_4x16.py with detectron2's LazyConfig"):
        model_zoo.get_config("lazy/aia_dense_R50_4x16.py")
    for function in (model_zoo.get_checkpoint_url, model_zoo.get_config_file, model_zoo.get_config):
        with pytest.raises(
            RuntimeError, match="no such .* in the model zoo; did you mean Kinetics"
        ):
            function("Kinetics/pytorchvideo_slow_R50_4x16_k40")
    with pytest.raises(RuntimeError, match=r"no program can download resnet50_4x16f_serial"):
        model_zoo.get_checkpoint_url("AVA/released/aia_serial_R50_4x16")
    with pytest.raises(FileNotFoundError, match="expected a file, an address or a name"):
        model_zoo.local_weights("nothing.pth")


@pytest.fixture
def trust_nobody(monkeypatch):
    monkeypatch.delenv("ALPHAACTION_TRUST_PICKLE", raising=False)


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_of_detectron2s_zoo_need_no_trust(server, protocol, trust_nobody, tmp_path):
    weights = save_small(tmp_path / "small.pth")
    arrays = {name: value.numpy() for name, value in weights.items()}
    content = {"model": arrays, "__author__": "Detectron2 Model Zoo"}
    path = "/dl.fbaipublicfiles.com/detectron2/a/model.pkl"
    server.contents[path] = pickle.dumps(content, protocol=protocol)
    torch.manual_seed(8)
    model = build_model(setup_cfg("Small/aia"))
    load_for_inference(model, "detectron2://a/model.pkl")
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in weights.items())
    next(iter(model.parameters())).data.add_(1)  # its memory is its own


def test_pickles_of_caffe2_need_no_trust(server, trust_nobody):
    """Names as PySlowFast's file has them, in miniature."""
    entry = table.TABLE["AVA/published/pyslowfast_slow_R50_4x16"]
    stem = np.arange(27 * 4, dtype=np.float32).reshape(4, 3, 1, 3, 3)
    blobs = {"conv1_w": stem, "res_conv1_bn_riv": np.ones(4, np.float32), "lr": np.float32(0.1)}
    content = pickle.dumps({"blobs": blobs}, protocol=2)
    server.contents["/" + entry.address.removeprefix("https://")] = content
    path = model_zoo.local_weights("AVA/published/pyslowfast_slow_R50_4x16.yaml")
    weights = read_checkpoint(path)["model"]
    assert weights["conv1_w"].equal(torch.from_numpy(stem))
    converted = convert(weights, recognise(weights))
    assert set(converted.weights) == {
        "backbone.blocks.0.conv.weight",
        "backbone.blocks.0.norm.running_var",
    }


def test_foreign_byte_order(tmp_path):
    numbers = np.arange(6, dtype=">f4").reshape(2, 3)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": {"x": numbers}}, protocol=2))
    assert read_checkpoint(tmp_path / "a.pkl")["model"]["x"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_old_files_of_torch_are_no_pickles_of_arrays(tmp_path, trust_nobody):
    content = {"model": {"x": torch.ones(2)}, "args": types.SimpleNamespace(a=1)}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"holds more than tensors \(it names types"):
        read_checkpoint(tmp_path / "a.pth")


def test_a_pickle_that_does_something_is_still_refused(tmp_path, trust_nobody):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": Evil()}, protocol=2))
    with pytest.raises(ValueError, match=r"wants '\w+\.print'.*run any code.*alphaaction convert"):
        read_checkpoint(tmp_path / "a.pkl")
