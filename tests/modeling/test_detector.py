"""Any detector of detectron2: equal to its own predictor; what cannot be used is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.engine import DefaultPredictor
from detectron2.structures import Boxes, Instances
from torch import nn

from alphaaction_d2.modeling.detector import Detector, load_detector
from alphaaction_d2.modeling.picture_boxes import PictureBoxes
from alphaaction_d2.structures import FoundBoxes
from tests.detectors import write_detector
from tests.model_zoo.server import serve


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> tuple[str, str]:
    return write_detector(tmp_path_factory.mktemp("detector"))


@pytest.mark.parametrize("channel_order", ["BGR", "RGB"])
def test_equal_to_detectron2s_predictor(tiny, channel_order):
    config, weights = tiny
    threshold, opts = 0.2, ["INPUT.FORMAT", channel_order]
    detect = load_detector(config, weights, device="cpu", score_threshold=threshold, opts=opts)
    cfg = get_cfg()
    cfg.merge_from_file(config)
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", weights, *opts])
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = threshold
    stock = DefaultPredictor(cfg)
    picture = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    pictures = [picture, np.ascontiguousarray(picture[::-1])]
    for found, picture in zip(detect(pictures), pictures, strict=True):
        expected = stock(np.ascontiguousarray(picture[..., ::-1]))["instances"]
        names = stock.metadata.thing_classes
        assert len(found.found) == len(expected) > 0
        boxes = found.found.in_pixels(160, 120)
        np.testing.assert_allclose(boxes, expected.pred_boxes.tensor.numpy(), atol=0.02)
        np.testing.assert_allclose(found.found.scores, expected.scores.numpy(), atol=1e-3)
        classes = [names[c] for c in expected.pred_classes]
        assert list(found.names) == ["" if name == "person" else name for name in classes]


def test_short_side(tiny):
    detect = load_detector(*tiny, device="cpu", short_side=64)
    item = detect._input(np.zeros((100, 120, 3), np.uint8))
    assert item["image"].shape == (3, 64, 77) and (item["height"], item["width"]) == (100, 120)


class Fixed(nn.Module):
    """A network that always gives the same instances."""

    def __init__(self, instances) -> None:
        super().__init__()
        self.instances = instances

    def forward(self, inputs):
        return [{"instances": self.instances} for _ in inputs]


def fixed_detector(boxes, scores, classes, names=("person", "ball")) -> Detector:
    instances = Instances((48, 64), pred_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)))
    instances.scores, instances.pred_classes = torch.tensor(scores), torch.tensor(classes)
    return Detector(
        Fixed(instances),
        augmentations=[],
        channel_order="RGB",
        class_names=names,
        score_threshold=0.3,
    )


def test_persons_and_objects_are_told_apart():
    boxes = [[0.0, 0, 8, 8], [1, 1, 5, 5], [2, 2, 9, 9], [3, 3, 3, 9]]
    detect = fixed_detector(boxes, [0.9, 0.8, 0.2, 0.7], [1, 0, 0, 0])
    found = detect([np.zeros((48, 64, 3), np.uint8)])[0]
    # Not the third, whose score is too low, and not the fourth, which has no width.
    assert found.persons.in_pixels(64, 48).tolist() == [[1, 1, 5, 5]]
    assert found.persons.ids.tolist() == [-1]
    assert found.objects.in_pixels(64, 48).tolist() == [[0, 0, 8, 8]]
    assert found.objects.scores.tolist() == [np.float32(0.9)]
    nothing = fixed_detector([], [], [])([np.zeros((48, 64, 3), np.uint8)])[0]
    assert nothing.persons.boxes.shape == nothing.objects.boxes.shape == (0, 4)


def test_class_without_a_name():
    detect = fixed_detector([[0.0, 0, 8, 8]], [0.9], [2])
    with pytest.raises(ValueError, match="class 2, of 2 that have a name"):
        detect([np.zeros((48, 64, 3), np.uint8)])


@pytest.mark.parametrize(
    "opts, names, message",
    [
        (["MODEL.ROI_HEADS.NUM_CLASSES", "5"], (), "5 classes, its test set coco_2017_val has 80"),
        (["MODEL.ROI_HEADS.NUM_CLASSES", "5"], ("a",), "1 class names for a detector of 5"),
        (["INPUT.FORMAT", "YUV-BT.601"], (), "use RGB or BGR"),
        (["MODEL.NOTHING", "1"], (), "not a configuration of a detector"),
    ],
)
def test_configurations_that_cannot_be_used(tiny, opts, names, message):
    with pytest.raises(ValueError, match=message):
        load_detector(*tiny, device="cpu", class_names=names, opts=opts)


def test_something_else_as_configuration(tiny, tmp_path):
    config, weights = tiny
    (tmp_path / "x.yaml").write_text("MODEL: {a: [}")
    ours = Path(__file__).resolve().parents[2] / "configs" / "Small" / "aia.yaml"
    for path in (weights, tmp_path / "x.yaml", ours):
        with pytest.raises(ValueError, match="not a configuration of a detector"):
            load_detector(str(path), weights, device="cpu")


def test_weights_that_do_not_fit(tiny):
    opts = ["MODEL.FPN.OUT_CHANNELS", "8"]
    with pytest.raises(ValueError, match="does not fit the configured model"):
        load_detector(*tiny, device="cpu", opts=opts)


def test_what_is_missing_is_named(tiny, tmp_path, monkeypatch):
    config, _ = tiny
    with pytest.raises(FileNotFoundError, match="nothing.yaml.*model zoo has none.*COCO-Detection"):
        load_detector("nothing.yaml")
    with pytest.raises(FileNotFoundError, match="nothing.pth"):
        load_detector(config, "nothing.pth")
    with pytest.raises(ValueError, match="give the weights"):
        load_detector(config)

    monkeypatch.setenv("ALPHAACTION_MIRROR", "http://127.0.0.1:1")  # where nobody is
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    zoo = "COCO-Detection/faster_rcnn_R_50_FPN_3x"
    with pytest.raises(OSError) as error:
        load_detector(zoo)
    message = str(error.value)
    assert message.startswith("https://") and zoo in message and "\n" not in message
    assert "Connection refused" in message and "name its path" in message


def test_an_address_is_fetched(tiny, tmp_path, monkeypatch):
    config, weights = tiny
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    with serve() as server:
        monkeypatch.setenv("ALPHAACTION_MIRROR", server.address)
        server.contents["/example.org/model.pth"] = Path(weights).read_bytes()
        assert load_detector(config, "https://example.org/model.pth", device="cpu").names[0] == ""
        assert len(server.requests) == 1


def test_features_of_the_best_objects():
    names, scores = ["cup", "", "pan", "jar"], [0.3, 0.9, 0.7, 0.5]
    features = np.arange(8.0).reshape(4, 2)
    found = PictureBoxes(FoundBoxes.of(np.tile([0, 0, 1, 1], (4, 1)), scores), names, features)
    assert found.best_features(2).tolist() == features[[2, 3]].tolist(), "no person, best first"
    assert found.best_features(10).tolist() == features[[2, 3, 0]].tolist()
