"""tools/visualize.py as a user calls it."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch
from detectron2.modeling import build_model

from alphaaction_d2 import setup_cfg
from alphaaction_d2.evaluation import results_as_json
from alphaaction_d2.formats.label_map import LabelMap
from tests.helpers import loaded_tool, write_dataset

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "visualize.py"
CONFIGS = ROOT / "configs" / "Puppets"


@pytest.fixture(scope="module")
def tool():
    with loaded_tool(TOOL) as run:
        yield run


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A video of five seconds with a person from second 1 on, boxes, and weights."""
    root = tmp_path_factory.mktemp("scene")
    folder = write_dataset(root / "seen", videos=1)
    for name in ("igmn", "none"):
        cfg = setup_cfg(str(CONFIGS / f"{name}.yaml"), ["MODEL.DEVICE", "cpu"])
        torch.manual_seed(0)
        torch.save({"model": build_model(cfg).state_dict()}, root / f"{name}.pth")
    return root, folder


def attention(tool, scene, output: Path, *arguments: object, model: str = "igmn") -> int:
    root, folder = scene
    return tool(
        "attention",
        *("--config-file", CONFIGS / f"{model}.yaml", "--weights", root / f"{model}.pth"),
        *("--input", folder / "videos" / "val_0.mp4"),
        *("--boxes", folder / "boxes" / "val_persons.csv", "--output", output, *arguments),
    )


def test_pictures_of_the_seconds_that_were_asked_for(tool, scene, tmp_path):
    assert attention(tool, scene, tmp_path / "out", "--at", 2, 4) == 0
    files = sorted(p.name for p in (tmp_path / "out").iterdir())
    kinds = ("clip.jpg", "maps.jpg", "memory.png")
    assert files == [f"attention_{t}_{kind}" for t in ("0002", "0004") for kind in kinds]
    assert all(cv2.imread(str(p)) is not None for p in (tmp_path / "out").iterdir())


@pytest.mark.parametrize("crowded", [(1, 4), (3,)])
def test_without_seconds_the_tool_chooses_where_most_persons_are(tool, scene, tmp_path, crowded):
    persons = [f"val_0,{t:04d},0.1,0.2,0.4,0.9,,0.9,1" for t in (1, 2, 3, 4)]
    persons += [f"val_0,{t:04d},0.5,0.2,0.9,0.9,,0.9,2" for t in crowded]
    boxes = tmp_path / "persons.csv"
    boxes.write_text("\n".join(persons) + "\n")
    assert attention(tool, scene, tmp_path / "out", "--boxes", boxes) == 0
    found = {p.name.split("_")[1] for p in (tmp_path / "out").iterdir()}
    assert found == {f"{t:04d}" for t in crowded}


def test_mistakes_are_one_line(tool, scene, tmp_path, capsys):
    def says(*parts: str) -> None:
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1, error
        assert all(part in error for part in parts), error

    assert attention(tool, scene, tmp_path, "--at", 0, 3) == 2
    says("val_0.mp4: nobody at second 0; somebody is there at 1, 2, 3")
    assert attention(tool, scene, tmp_path, "--at", 90) == 2
    says("nobody at second 90")
    assert attention(tool, scene, tmp_path, model="none") == 2
    says("none.yaml", "attends to nothing", "use a model of AIA, HGNN or IGMN")
    assert attention(tool, scene, tmp_path, "--person-detector", "x.yaml") == 2
    says("no --boxes besides")
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------------------------- compare


def write_results(path: Path, aps: dict[str, float], protocol: str = "official2018") -> Path:
    """What the evaluator writes, of made-up numbers."""
    from alphaaction_d2.evaluation.average_precision import FrameMAP

    names = dict(enumerate(aps, 1))
    numbers = {i: aps[name] for i, name in names.items()}
    counts = dict.fromkeys(names, 5)
    result = FrameMAP(
        mean_ap=sum(aps.values()) / len(aps),
        ap=numbers,
        num_ground_truth=counts,
        num_detections=counts,
        iou_threshold=0.5,
        protocol=protocol,
    )
    label_map = LabelMap(names, dict.fromkeys(names, "POSE"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(results_as_json(result, label_map), encoding="utf-8")
    return path


def test_two_runs_compared(tool, tmp_path):
    a = write_results(tmp_path / "hgnn" / "ava_results.json", {"walk": 0.4, "sit": 0.6})
    b = write_results(tmp_path / "igmn" / "ava_results.json", {"walk": 0.7, "sit": 0.5})
    for names in ([], ["--names", "HGNN", "IGMN"]):
        output = tmp_path / "compare.png"
        assert tool("compare", a, b, *names, "--output", output) == 0
        assert cv2.imread(str(output)) is not None
        output.unlink()


def test_files_that_cannot_be_compared(tool, tmp_path, capsys):
    good = write_results(tmp_path / "a.json", {"walk": 0.4})
    other = write_results(tmp_path / "b.json", {"run": 0.4})
    protocol = write_results(tmp_path / "c.json", {"walk": 0.4}, "official2020")
    text, list_ = tmp_path / "text.json", tmp_path / "list.json"
    text.write_text("mAP 30\n")
    list_.write_text("[1]\n")
    for wrong, message in (
        (text, "text.json: not a result file of the AVA evaluator"),
        (list_, "list.json: not a result file of the AVA evaluator"),
        (tmp_path / "missing.json", "missing.json"),
        (other, "not evaluated on the same classes"),
        (protocol, "measured by official2018"),
    ):
        assert tool("compare", good, wrong, "--output", tmp_path / "out.png") == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error
    assert not (tmp_path / "out.png").exists()
