"""tools/demo.py as a user calls it, on bad input and good."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from alphaaction_d2 import setup_cfg
from alphaaction_d2.apps import demo as demo_app
from alphaaction_d2.apps import video_arguments
from alphaaction_d2.apps.command_line import run_module
from alphaaction_d2.data.video import VideoWriter, iterate_frames
from alphaaction_d2.formats.people import read_people
from alphaaction_d2.model_zoo import download
from alphaaction_d2.model_zoo.table import find
from alphaaction_d2.modeling import coco_detectors
from tests.detectors import write_detector
from tests.helpers import loaded_tool

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "demo.py"
CONFIG = ROOT / "configs" / "Puppets" / "none.yaml"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Two videos, a broken one, boxes for the first two, and weights."""
    root = tmp_path_factory.mktemp("scene")
    for name in ("one", "two"):
        with VideoWriter(root / f"{name}.mp4", 8, 96, 64) as writer:
            for i in range(16):
                writer.write(np.full((64, 96, 3), 10 * i, np.uint8))
    (root / "broken.mp4").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    rows = [f"{v},000{t},0.1,0.1,0.5,0.9,,0.9,1" for v in ("one", "two") for t in (0, 1)]
    (root / "boxes.csv").write_text("\n".join(rows) + "\n")
    cfg = setup_cfg(str(CONFIG), ["MODEL.DEVICE", "cpu"])
    torch.save({"model": build_model(cfg).state_dict()}, root / "weights.pth")
    # One class, which is taken as "person"; random weights find it everywhere, at 1/2.
    write_detector(root, num_classes=1, std=0)
    return root


@pytest.fixture
def demo(scene, tmp_path, monkeypatch):
    """Runs the tool in this process, into `out`; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    with loaded_tool(TOOL) as run:
        yield lambda videos, *arguments: run(
            *("--config-file", CONFIG, "--weights", scene / "weights.pth", "--output", "out"),
            *("--input", *(scene / name for name in videos), *arguments),
        )


def test_a_bad_video_is_named_and_the_others_go_on(demo, scene, tmp_path, capsys):
    videos = ["one.mp4", "broken.mp4", "two.mp4"]
    assert demo(videos, "--boxes", scene / "boxes.csv") == 1
    errors = capsys.readouterr().err
    assert "1 of 3 videos failed" in errors and "git lfs pull" in errors
    assert "Traceback" not in errors
    page = (tmp_path / "out" / "report.html").read_text()
    assert "broken.mp4" in page
    for name in ("one", "two"):
        result = json.loads((tmp_path / "out" / name / "results.json").read_text())
        assert [len(k["persons"]) for k in result["keyframes"]] == [1, 1]


def test_an_index_of_people_is_searched(demo, scene, tmp_path, capsys):
    """From films to pictures of who is alike, as a user goes."""
    assert demo(["one.mp4", "two.mp4"], "--boxes", scene / "boxes.csv") == 0
    for name in ("one", "two"):
        assert len(read_people([tmp_path / "out" / name / "people.arrow"])) == 2
    capsys.readouterr()
    query = ("--index", "out", "--like", "one.mp4@1#1", "--pictures", "who.png")
    assert run_module("search", query, needs_models=False) == 0
    lines = capsys.readouterr().out.splitlines()
    # Both films show the same: equally alike are the same moments of each.
    video, second, person, similarity = lines[2].split()[:4]
    assert (video, second, person) == ("two", "1", "1") and float(similarity) > 0.99  # float16
    assert lines[-1] == "who.png"
    assert lines[3].split()[:3] == ["one", "0", "1"]
    assert (tmp_path / "who.png").is_file()


def test_videos_with_any_names_stay_in_the_output(demo, scene, tmp_path, capsys):
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    names = ["...mp4", "....mp4", "two\nlines.mp4", "caf\udce9.mp4", "report.html.mp4"]
    for name in names:
        (hostile / name).write_bytes((scene / "one.mp4").read_bytes())
    videos = [hostile / name for name in names]
    assert demo([scene / "two.mp4", *videos], "--boxes", "whole-frame") == 0
    assert sorted(x.name for x in tmp_path.iterdir()) == ["hostile", "out"]
    folders = [x for x in (tmp_path / "out").iterdir() if x.is_dir()]
    assert len(folders) == 1 + len(names)
    for folder in folders:
        assert (folder / "annotated.mp4").is_file() and (folder / "poster.png").is_file()
    assert (tmp_path / "out" / "report.html").is_file()


def test_addresses_are_named_as_they_were_given(scene, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    addresses = ["rtsp://127.0.0.1:9/stream", "http://127.0.0.1:9/a.mp4", "0"]
    given = ("--config-file", CONFIG, "--weights", scene / "weights.pth", "--output", "out")
    with loaded_tool(TOOL) as run:
        assert run(*given, "--boxes", "whole-frame", "--input", *addresses) == 1
    errors = capsys.readouterr().err
    for address in addresses:
        assert f"{address}: addresses and cameras are not read: record to a file first" in errors


def test_whole_frame_without_boxes(scene, tmp_path):
    """In a process of its own, as a user calls it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [
        *(sys.executable, TOOL, "--config-file", CONFIG, "--weights", scene / "weights.pth"),
        *("--input", scene / "one.mp4", "--output", "out", "--boxes", "whole-frame"),
    ]
    done = subprocess.run(
        list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "annotated.mp4").is_file()


def test_a_detector_gives_the_boxes(demo, scene, tmp_path):
    detector = ("--person-detector", scene / "detector.yaml", scene / "detector.pth")
    assert demo(["one.mp4"], *detector, "--opts", "INPUT.PERSON_SCORE_THRESH_TEST", 0.4) == 0
    keyframes = json.loads((tmp_path / "out" / "results.json").read_text())["keyframes"]
    assert [k["timestamp"] for k in keyframes] == [0, 1]
    assert all(k["persons"] for k in keyframes)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--random"], "leave it or --weights out"),
        (["--person-detector", "torchvision:nothing"], "torchvision has fasterrcnn_"),
        (["--person-detector", "transformers:rf-detr-2xlarge"], "with the Apache license"),
        (["--boxes", "whole-frame", "--person-detector", "x.yaml"], "no --boxes besides"),
        (["--person-detector", "x.yaml", "y.pth"], "x.yaml: no such configuration file"),
        (["--boxes", "nothing.csv"], "nothing.csv"),
        (["--boxes", "whole-frame", "--opts", "MODEL.X"], "KEY VALUE pairs"),
        (["--boxes", "whole-frame", "--weights", "boxes.csv"], "not a checkpoint"),
    ],
)
def test_mistakes_are_one_line(demo, scene, capsys, arguments, message):
    arguments = [scene / a if a == "boxes.csv" else a for a in arguments]
    assert demo(["one.mp4"], *arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.startswith("error: ") and errors.count("\n") == 1, errors


@pytest.mark.parametrize("what", ["weights", "detector"])
def test_without_network_there_are_two_ways_out(scene, tmp_path, monkeypatch, capsys, what):
    """`demo film.mp4` and nothing else, where nothing can be downloaded and nothing is there."""
    pytest.importorskip("transformers")

    def unreachable(*arguments, **_):
        raise OSError("Name or service not known")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(coco_detectors, "has_weights", lambda _: False)
    monkeypatch.setattr(coco_detectors, "urlopen", unreachable)
    monkeypatch.setattr(download, "_open", unreachable)
    given = () if what == "weights" else ("--weights", scene / "weights.pth")
    given += () if what == "weights" else ("--config-file", CONFIG)
    with loaded_tool(TOOL) as run:
        assert run(scene / "one.mp4", *given) == 2
    errors = capsys.readouterr().err
    address = "pytorchvideo/model_zoo/ava/SLOWFAST_8x8_R50_DETECTION.pyth"
    assert (address if what == "weights" else "Roboflow/rf-detr-nano") in errors
    assert "--weights FILE" in errors and "--boxes FILE" in errors
    assert errors.startswith("error: ") and errors.count("\n") == 1, errors
    assert not (tmp_path / "one_actions").exists()


def test_two_videos_of_one_name(demo, capsys):
    assert demo(["one.mp4", "one.mp4"], "--boxes", "whole-frame") == 2
    assert "several videos are called one" in capsys.readouterr().err


def test_names_of_the_classes(demo, scene, tmp_path):
    """Weights that know them, and a file that says otherwise."""
    content = torch.load(scene / "weights.pth", weights_only=True)
    names = [
        f"action {i}" for i in range(len(content["model"]["roi_heads.predictor.cls_score.bias"]))
    ]
    torch.save({**content, "class_names": names}, tmp_path / "named.pth")
    (tmp_path / "list.txt").write_text("\n".join(name.upper() for name in names))
    arguments = ("--weights", tmp_path / "named.pth", "--boxes", scene / "boxes.csv")
    for more, expected in (
        ((), names),
        (("--label-map", "list.txt"), (tmp_path / "list.txt").read_text().split("\n")),
    ):
        assert demo(["one.mp4"], *arguments, *more) == 0
        assert (
            json.loads((tmp_path / "out" / "results.json").read_text())["class_names"] == expected
        )


# ------------------------------------------------------------------------------ as a newcomer would


def test_folders_of_videos_and_what_is_missing_is_told_first(demo, scene, tmp_path, caplog):
    caplog.set_level(logging.INFO, "alphaaction_d2")
    folder = tmp_path / "films"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (folder / name).write_bytes((scene / "one.mp4").read_bytes())
    (folder / "notes.txt").write_text("no video")
    assert demo([], folder, tmp_path / "missing.mp4", "--boxes", "whole-frame") == 1
    told = [record.getMessage() for record in caplog.records]
    missing = next(i for i, line in enumerate(told) if "missing.mp4: no such file" in line)
    used = next(i for i, line in enumerate(told) if line.startswith("Actions: "))
    done = [i for i, line in enumerate(told) if "persons in" in line]
    assert missing < used < done[0] and len(done) == 2
    assert sorted(x.name for x in (tmp_path / "out").iterdir()) == ["a", "b", "report.html"]


def test_nothing_is_loaded_for_nothing(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo_app, "AttentionPredictor", lambda cfg: pytest.fail("loaded a model"))
    assert demo([], tmp_path / "a.mp4", "--boxes", "whole-frame") == 1
    assert "1 of 1 videos failed" in capsys.readouterr().err


def test_results_beside_the_film_unless_told(scene, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ("--config-file", CONFIG, "--weights", scene / "weights.pth", "--boxes", "whole-frame")
    with loaded_tool(TOOL) as run:
        assert run(scene / "one.mp4", *given) == 0
        assert run(scene / "one*.mp4", *given) == 0
    assert (tmp_path / "one_actions" / "annotated.mp4").is_file()
    assert (tmp_path / f"{scene.name}_actions" / "annotated.mp4").is_file()


def test_random_networks_are_refused_or_told(scene, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = ("--config-file", CONFIG, "--output", "out")
    given = (scene / "one.mp4", *model, "--boxes", "whole-frame")
    with loaded_tool(TOOL) as run:
        assert run(*given) == 2
        assert "give --weights FILE (docs/weights.md), or --random" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
        assert run(*given, "--random") == 0
    frame = next(iterate_frames(tmp_path / "out" / "annotated.mp4"))[1]
    # a red corner at the top right of every picture, none at the top left
    right, left = frame[1, -6:-2].astype(int), frame[1, 2:6].astype(int)
    assert abs(right - [190, 20, 20]).max() < 40 and left.max() < 100


def test_a_film_is_not_replaced_by_its_own_annotated_video(demo, scene, tmp_path, capsys):
    assert demo(["one.mp4"], "--boxes", scene / "boxes.csv") == 0
    drawn = tmp_path / "out" / "annotated.mp4"
    before = drawn.read_bytes()
    assert demo([drawn], "--boxes", "whole-frame") != 0
    assert drawn.read_bytes() == before


def test_ctrl_c_keeps_what_is_known(demo, scene, tmp_path, monkeypatch, caplog):
    original = demo_app.AttentionPredictor._predict

    def interrupted(self, *arguments):
        for x in original(self, *arguments):
            yield x
            raise KeyboardInterrupt

    monkeypatch.setattr(demo_app.AttentionPredictor, "_predict", interrupted)
    assert demo(["one.mp4", "two.mp4"], "--boxes", scene / "boxes.csv") == 130
    keyframes = json.loads((tmp_path / "out" / "one" / "results.json").read_text())["keyframes"]
    assert [k["timestamp"] for k in keyframes] == [0]
    last = [t for t, _ in iterate_frames(tmp_path / "out" / "one" / "annotated.mp4")][-1]
    assert 0.3 <= last <= 0.6  # half a second further than the last keyframe
    assert "Ended by Ctrl-C" in (tmp_path / "out" / "report.html").read_text()
    assert not (tmp_path / "out" / "two").exists()


def test_what_took_the_time_is_told(demo, scene, caplog):
    caplog.set_level(logging.INFO, "alphaaction_d2")
    detector = ("--person-detector", scene / "detector.yaml", scene / "detector.pth")
    assert demo(["one.mp4"], *detector) == 0
    told = [record.getMessage() for record in caplog.records]
    (line,) = [x for x in told if "for each second of video" in x]
    for stage in ("decoding", "detector", "network", "drawing and writing"):
        assert f"{stage} 0." in line, line
    # Its scores are all 1/2.
    (why,) = [x for x in told if "the detector finds nobody" in x]
    assert "the best score of a person is 0.5" in why
    assert "0 persons in 0 boxes at 2 keyframes" in line


def test_detectors_have_their_own_threshold(scene, tmp_path):
    """What RF-DETR means by 0.5 is not what an R-CNN means by it."""
    found = {}
    for detector in ("transformers:rf-detr-nano", "torchvision:fasterrcnn_resnet50_fpn_v2", None):
        for opts in ((), ("--opts", "INPUT.PERSON_SCORE_THRESH_TEST", "0.4")):
            given = ["--person-detector", detector] if detector else []
            argv = ["x.mp4", "--random", *given, *opts]
            args = demo_app.parse_args(argv)
            cfg = demo_app.model_cfg(args)
            demo_app.box_sources(args, cfg)
            found[detector, bool(opts)] = cfg.INPUT.PERSON_SCORE_THRESH_TEST
    assert found["transformers:rf-detr-nano", False] == 0.5
    assert found["torchvision:fasterrcnn_resnet50_fpn_v2", False] == 0.8
    assert found[None, False] in (0.5, 0.8)  # whichever is installed
    assert {score for (_, given), score in found.items() if given} == {0.4}


@pytest.mark.parametrize("computes, dtype", [(True, "bfloat16"), (False, "float32")])
def test_the_default_model_takes_what_the_cpu_computes(monkeypatch, computes, dtype):
    monkeypatch.setattr(video_arguments, "_computes_bfloat16", lambda device: computes)
    cfg = demo_app.model_cfg(demo_app.parse_args(["x.mp4"]))
    assert cfg.TEST.DTYPE == dtype
    assert cfg.MODEL.WEIGHTS == video_arguments.DEFAULT_MODEL
    for name in (video_arguments.DEFAULT_MODEL, *video_arguments.BEST_MODELS):
        cfg = demo_app.model_cfg(demo_app.parse_args(["x.mp4", "--config-file", name]))
        assert cfg.TEST.DTYPE == dtype and cfg.MODEL.WEIGHTS == name
        # what is recommended may be used by everybody
        assert find(name).licence.startswith(("MIT ", "Apache-2.0 ")), name
    own = demo_app.model_cfg(
        demo_app.parse_args(["x.mp4", "--config-file", str(CONFIG), "--random"])
    )
    assert own.TEST.DTYPE == "float32"  # what somebody names is computed as it says
    for key, value, expected in (
        ("MODEL.MEMORY.DELAY", "1", dtype),
        ("TEST.DTYPE", "float32", "float32"),
    ):
        cfg = demo_app.model_cfg(demo_app.parse_args(["x.mp4", "--opts", key, value]))
        assert cfg.TEST.DTYPE == expected, key


def test_scores_of_an_evaluation_beside_the_weights(demo, scene, tmp_path):
    """Who has evaluated a model sees from then on what was worth showing."""
    names = [f"action {i}" for i in range(12)]
    content = torch.load(scene / "weights.pth", weights_only=True)
    torch.save({**content, "class_names": names}, tmp_path / "named.pth")
    given = ("--weights", tmp_path / "named.pth", "--boxes", scene / "boxes.csv")
    pages = []
    for best in (0.9, 0.1):
        evaluation = {
            "class_names": {str(i + 1): name for i, name in enumerate(names)},
            "best_score_per_class": {str(i + 1): best for i in range(12)},
        }
        (tmp_path / "ava_results.json").write_text(json.dumps(evaluation))
        assert demo(["one.mp4"], *given) == 0
        pages.append((tmp_path / "out" / "report.html").read_text())
    assert demo(["one.mp4"], *given, "--min-score", 0.9) == 0
    pages.append((tmp_path / "out" / "report.html").read_text())
    shown = [sum(name in page for name in names) for page in pages]
    assert shown[1] > shown[0] == shown[2], shown
