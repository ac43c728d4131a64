"""Detectors by name: torchvision's and RF-DETR, with random weights of the real architectures."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import get_model

from alphaaction_d2.modeling import coco_detectors
from alphaaction_d2.modeling.coco_detectors import (
    TransformersDetector,
    choose_detector,
    license_of,
    rf_detr_name,
)
from alphaaction_d2.modeling.detector import load_detector
from alphaaction_d2.modeling.picture_boxes import PictureBoxes, name_classes

ROOT = Path(__file__).resolve().parents[2]
SMALL = "ssdlite320_mobilenet_v3_large"  # the fastest of torchvision's


def picture(seed: int = 0, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


# ---------------------------------------------------------------------------------- boxes and names


def test_what_is_no_class_is_no_box():
    names = name_classes(["__background__", "Person", "N/A", "cup"])
    assert names == [None, "", None, "cup"]
    boxes = np.array([[0, 0, 10, 10]] * 4 + [[5, 5, 5, 9], [0, 0, np.nan, 9]])
    found = PictureBoxes.of(
        boxes, np.array([0.9] * 6), np.array([0, 1, 2, 3, 1, 1]), names, (20, 40), 0.3
    )
    assert list(found.names) == ["", "cup"]
    assert found.persons.boxes.tolist() == [[0, 0, 0.5, 0.25]]


# -------------------------------------------------------------------------------------- torchvision


@pytest.fixture(scope="module")
def torchvision_weights(tmp_path_factory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "ssdlite.pth"
    model = get_model(SMALL, weights=None, weights_backbone=None)
    for layer in model.head.classification_head.module_list:
        torch.nn.init.normal_(layer[1].bias, std=3)  # else all classes are equally likely
    torch.save(model.state_dict(), path)  # as torchvision publishes them
    return str(path)


def test_equal_to_torchvisions_own_model(torchvision_weights):
    detect = load_detector(
        f"torchvision:{SMALL}", torchvision_weights, device="cpu", score_threshold=0.001
    )
    stock = get_model(SMALL, weights=None, weights_backbone=None).eval()
    stock.load_state_dict(torch.load(torchvision_weights))
    pictures = [picture(0), picture(1)]
    with torch.no_grad():
        expected = stock([torch.from_numpy(p.transpose(2, 0, 1)).float() / 255 for p in pictures])
    categories = coco_detectors.get_model_weights(SMALL).DEFAULT.meta["categories"]
    for found, one in zip(detect(pictures), expected, strict=True):
        names = [categories[label] for label in one["labels"]]
        real = [i for i, name in enumerate(names) if name not in ("N/A", "__background__")]
        x1, y1, x2, y2 = one["boxes"].T
        is_box = (one["scores"] >= 0.001) & (x2 > x1) & (y2 > y1)
        real = [i for i in real if is_box[i]]
        assert len(found.found) == len(real) > 0
        np.testing.assert_allclose(found.found.in_pixels(80, 60), one["boxes"][real], atol=0.01)
        np.testing.assert_allclose(found.found.scores, one["scores"][real], atol=1e-4)
        assert list(found.names) == ["" if names[i] == "person" else names[i] for i in real]
    assert detect([]) == []


@pytest.mark.parametrize("name", ["fasterrcnn_mobilenet_v3_large_fpn"])
def test_threshold_and_size_reach_a_faster_rcnn(name):
    detect = coco_detectors.TorchvisionDetector(
        name, device="cpu", score_threshold=0.4, short_side=96
    )
    assert detect.model.roi_heads.score_thresh == 0.4
    assert detect.model.transform.min_size == (96,)
    assert isinstance(detect([picture()])[0], PictureBoxes)
    assert detect.names[1] == "" and detect.names[12] is None and detect.names[3] == "car"


def test_published_weights_are_fetched_and_must_fit(torchvision_weights, monkeypatch):
    asked = []
    load = coco_detectors.load_for_inference
    monkeypatch.setattr(coco_detectors, "load_for_inference", lambda _, path: asked.append(path))
    load_detector(f"torchvision:{SMALL}", device="cpu")
    assert len(asked) == 1
    assert asked[0].startswith(f"https://download.pytorch.org/models/{SMALL}_coco-")
    monkeypatch.setattr(coco_detectors, "load_for_inference", load)
    with pytest.raises(ValueError, match="does not fit the configured model"):
        load_detector("torchvision:ssd300_vgg16", torchvision_weights, device="cpu")


# ------------------------------------------------------------------------------------- transformers


def rf_detr(folder: Path, **kwargs) -> Path:
    """A folder as transformers saves it: a small random RF-DETR."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.RfDetrConfig(
        d_model=32,
        num_queries=10,
        decoder_layers=2,
        decoder_ffn_dim=32,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2,
        decoder_n_points=2,
        group_detr=2,
        num_labels=91,
        backbone_config={
            "model_type": "rf_detr_dinov2",
            "hidden_size": 24,
            "image_size": 64,
            "patch_size": 16,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_windows": 2,
            "out_features": ["stage1", "stage3"],
        },
        **kwargs,
    )
    model = transformers.RfDetrForObjectDetection(config)
    torch.nn.init.normal_(model.class_embed.weight, std=0.3)
    model.save_pretrained(folder)
    # The published files name DETR's processor, whose softmax would read these scores wrongly.
    size = {"height": 64, "width": 64}
    transformers.DetrImageProcessor(size=size).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return rf_detr(tmp_path_factory.mktemp("rf_detr"))


def test_rf_detr_from_a_folder(folder):
    import transformers

    detect = load_detector(f"transformers:{folder}", device="cpu", score_threshold=0.6)
    assert isinstance(detect, TransformersDetector)
    # 91 classes without names are COCO's
    assert detect.names[1] == "" and detect.names[12] is None and detect.names[3] == "car"
    pictures = [picture(0), picture(1)]
    found = detect(pictures)
    model = transformers.RfDetrForObjectDetection.from_pretrained(folder).eval()
    inputs = transformers.RfDetrImageProcessor.from_pretrained(folder)(
        images=pictures, return_tensors="pt"
    )
    assert inputs["pixel_values"].shape == (2, 3, 64, 64)
    with torch.no_grad():
        answer = model(**inputs)
    scores = answer.logits.sigmoid()
    for i in range(2):
        # of each query all classes count by themselves; 10 best pairs of query and class remain
        best = scores[i].flatten().topk(10).values
        real = [detect.names[k] for k in (scores[i].flatten().topk(10).indices % 91).tolist()]
        wanted = [s for s, name in zip(best.tolist(), real) if s > 0.6 and name is not None]
        assert len(found[i].found) == len(wanted) > 0
        np.testing.assert_allclose(found[i].found.scores, wanted, atol=1e-5)
        assert (found[i].found.boxes >= -0.5).all() and (found[i].found.boxes <= 1.5).all()
    assert detect([]) == []


def test_weights_that_are_not_all_there(folder, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = safetensors.load_file(folder / "model.safetensors")
    del weights["class_embed.weight"]
    safetensors.save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="1 are not in its file, such as class_embed.weight"):
        load_detector(f"transformers:{tmp_path}", device="cpu")


def test_what_is_not_there_is_one_line(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError) as error:
        load_detector(f"transformers:{tmp_path}", device="cpu")
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


class Hub(SimpleHTTPRequestHandler):
    """Serves a folder as Hugging Face serves `Roboflow/rf-detr-nano`."""

    PREFIX = "/Roboflow/rf-detr-nano/resolve/main/"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = Path(self.directory) / self.path.removeprefix(self.PREFIX).partition("?")[0]
        if not self.path.startswith(self.PREFIX) or not path.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{len(content)}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


def in_a_process(code: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run some Python as a user would who has no cache yet."""
    own = {"HF_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **own, **environment},
        capture_output=True,
        text=True,
    )


LOAD = """
import numpy as np
from alphaaction_d2.modeling.coco_detectors import has_weights
from alphaaction_d2.modeling.detector import load_detector
config = "transformers:rf-detr-nano"
before = has_weights(config)
for _ in range(2):
    detect = load_detector(config, device="cpu", score_threshold=0.1)
print(before, has_weights(config), len(detect([np.zeros((60, 80, 3), np.uint8)])[0].names))
"""


def test_a_name_is_downloaded_once(folder, tmp_path):
    asked: list[str] = []

    class Counted(Hub):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path.rpartition('/')[2]}")
            super().do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Counted, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        done = in_a_process(LOAD, tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    before, after, boxes = done.stdout.split()
    assert (before, after) == ("False", "True") and int(boxes) > 0
    assert asked.count("GET model.safetensors") == 1, asked


# ------------------------------------------------------------------------------- names and licenses


def test_sizes_of_rf_detr_that_are_free():
    assert rf_detr_name("rf-detr-nano") == rf_detr_name("roboflow/RF-DETR-Nano".lower())
    assert rf_detr_name("Roboflow/rf-detr-large") == "Roboflow/rf-detr-large"
    assert rf_detr_name("PekingU/rtdetr_r50vd") == "PekingU/rtdetr_r50vd"
    for name in ("rf-detr-xlarge", "Roboflow/rf-detr-2xlarge", "Roboflow/rf-detr-seg-xlarge"):
        with pytest.raises(ValueError, match="with the Apache license are nano, small"):
            rf_detr_name(name)
    assert license_of("transformers:rf-detr-medium") == "Apache-2.0"
    assert license_of("torchvision:fasterrcnn_resnet50_fpn_v2") == "BSD-3-Clause"
    assert "model card" in license_of("transformers:PekingU/rtdetr_r50vd")


@pytest.mark.parametrize(
    "installed, device, expected",
    [
        (True, "cpu", "transformers:Roboflow/rf-detr-nano"),
        (True, "cuda", "transformers:Roboflow/rf-detr-medium"),
        (False, "cpu", "torchvision:fasterrcnn_mobilenet_v3_large_fpn"),
        (False, "cuda:1", "torchvision:fasterrcnn_resnet50_fpn_v2"),
    ],
)
def test_what_auto_means(monkeypatch, installed, device, expected):
    monkeypatch.setattr(coco_detectors, "has_rf_detr", lambda: installed)
    assert choose_detector(device) == expected


@pytest.mark.parametrize(
    "config, more, message",
    [
        ("torchvision:nothing", {}, "torchvision has fasterrcnn_"),
        (f"torchvision:{SMALL}", {"opts": ["A", "1"]}, "are for detectron2's"),
        ("transformers:rf-detr-nano", {"short_side": 300}, "no weights or size besides"),
        ("transformers:rf-detr-xlarge", {}, "with the Apache license"),
    ],
)
def test_mistakes(config, more, message):
    with pytest.raises(ValueError, match=message) as error:
        load_detector(config, device="cpu", **more)
    assert "\n" not in str(error.value)


def test_without_transformers(tmp_path):
    """The package never imports it unasked, and its default detector works without it."""
    code = """
import importlib.util, sys
import alphaaction_d2, alphaaction_d2.apps.demo
print("transformers" in sys.modules)
sys.modules["transformers"] = sys.modules["huggingface_hub"] = None  # now an ImportError
found = importlib.util.find_spec
gone = ("transformers", "huggingface_hub")
importlib.util.find_spec = lambda name, *a: None if name in gone else found(name, *a)
from alphaaction_d2.modeling.detector import load_detector
from alphaaction_d2.modeling import coco_detectors
coco_detectors.find_spec = importlib.util.find_spec
print(coco_detectors.choose_detector("cpu"), coco_detectors.has_weights("transformers:a/b"))
try:
    load_detector("transformers:rf-detr-nano", device="cpu")
except ValueError as error:
    print(error)
"""
    done = in_a_process(code, tmp_path)
    assert done.returncode == 0, done.stderr
    imported, chosen, refused = done.stdout.strip().splitlines()[-3:]
    assert imported == "False"
    assert chosen == "torchvision:fasterrcnn_mobilenet_v3_large_fpn True"
    assert "pip install 'alphaaction_d2[backbones]'" in refused
