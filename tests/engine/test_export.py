"""Exported models equal those that they were exported from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode

from alphaaction_d2.apps.command_line import run_module
from alphaaction_d2.data.video import VideoWriter
from alphaaction_d2.deploy import Runner
from alphaaction_d2.engine import VideoPredictor, export, inference
from alphaaction_d2.engine.box_sources import BoxSource
from alphaaction_d2.engine.export import check_exportable, export_model
from alphaaction_d2.structures import BoxesAt, FoundBoxes, TimedBoxes

from ..helpers import small_cfg

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

NAMES = ["left", "right", "bright"]
SMALL = ("INPUT.MIN_SIZE_TEST", 48, "MODEL.SLOWFAST.NUM_STAGES", 1)
SLOW = ("MODEL.BACKBONE.NAME", "build_slow_backbone", "MODEL.SLOWFAST.ALPHA", 8)
SLOW += ("MODEL.SLOWFAST.BETA_INV", 8, "MODEL.SLOWFAST.LATERAL_KERNEL", 5)
SLOW += ("MODEL.SLOWFAST.STEM_CHANNELS", 8)
NAME, OUT = "MODEL.INTERACTION.NAME", ("MODEL.INTERACTION.DIM_OUT", 16)
REPLACE = (*OUT, "MODEL.INTERACTION.FUSION", "replace")
VIT = "MODEL.VIDEO_BACKBONE.VIT"


class MadeUp(BoxSource):
    """Nobody, somebody, crowds; with and without ids, objects, looks in between."""

    largest_person_id = 10

    def at(self, seconds: float) -> BoxesAt:
        rng = np.random.default_rng(int(seconds))
        persons, objects = [3, 1, 0, 2, 6][int(seconds) % 5], int(seconds) % 3

        def boxes(n: int) -> np.ndarray:
            return np.sort(rng.random((n, 2, 2)), axis=1).reshape(n, 4)

        ids = rng.integers(-1, 4, persons)
        found = FoundBoxes.of(boxes(persons), rng.uniform(0.7, 1, persons), ids)
        things = FoundBoxes.of(boxes(objects), rng.uniform(0.4, 1, objects))
        between = {seconds - 0.5: FoundBoxes.of(boxes(2), 0.9)} if seconds else {}
        return BoxesAt(found, things, TimedBoxes.join(between))


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    rng = np.random.default_rng(0)
    with VideoWriter(path, 8, 100, 64, gop=8) as writer:
        for _ in range(6 * 8):
            writer.write(
                np.kron(rng.integers(0, 255, (8, 10, 3)), np.ones((8, 10, 1))).astype("u1")
            )
    return path


def predictor_of(cfg: CfgNode) -> VideoPredictor:
    predictor = VideoPredictor(cfg)
    stir(predictor.model)
    return predictor


def stir(model: torch.nn.Module) -> None:
    """Weights that let everything take part: new blocks are nothing but their shortcuts."""
    generator = torch.Generator().manual_seed(0)
    for name, x in model.named_parameters():
        size = 0.3 if "roi_heads" in name and x.dim() > 1 else 0.02
        x.data.add_(size * torch.randn(x.shape, generator=generator))
    classifier = [x for x in model.roi_heads.head.modules() if isinstance(x, torch.nn.Linear)][-1]
    classifier.weight.data.mul_(0.1)  # scores of exactly 0 and 1 would hide differences


def compare(predictor: VideoPredictor, folder: Path, film: Path, runtime: str = "onnxruntime"):
    """The largest difference of scores between a model and its export, which is nearly nothing."""
    want = list(predictor(film, MadeUp()))
    got = list(Runner(folder, runtime)(film, MadeUp().at, first_id=11))
    assert len(got) == len(want) > 2
    differences = [0.0]
    for x, y in zip(want, got):
        rows = x["instances"]
        classes = y.scores.shape[1]
        assert x["timestamp"] == y.timestamp and (x["height"], x["width"]) == y.size
        assert rows.person_ids.numpy()[::classes].tolist() == y.person_ids.tolist()
        boxes = rows.pred_boxes.tensor.numpy()[::classes]
        np.testing.assert_allclose(boxes, y.boxes, atol=1e-4)
        if len(y.scores):
            scores = rows.scores.numpy().reshape(y.scores.shape)
            differences.append(float(np.abs(scores - y.scores).max()))
    found = np.concatenate([y.scores for y in got])
    assert found.std(axis=0).max() > 1e-3, "of persons who all score alike this says nothing"
    return max(differences)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, film) -> tuple[VideoPredictor, Path]:
    folder = tmp_path_factory.mktemp("exported")
    predictor = predictor_of(small_cfg(None, *SMALL))
    export_model(predictor.cfg, predictor.model, NAMES, folder)
    return predictor, folder


def test_aia_gives_the_same_scores_boxes_and_ids(exported, film):
    predictor, folder = exported
    assert compare(predictor, folder, film) <= 1e-5


def test_files_of_torch_export_give_the_same(exported):
    predictor, folder = exported
    graph = torch.export.load(folder / "features.pt2").module()
    model = predictor.model.roi_heads
    for persons, objects, size in ((1, 0, (64, 96)), (4, 2, (96, 64))):
        clip = torch.randn(1, 3, predictor.mapper.num_frames, *size)
        boxes = torch.rand(persons + objects, 2, 2).sort(dim=1).values.flatten(1) * 60
        found = graph(clip, boxes[:persons], boxes[persons:])
        maps = model.over_time(predictor.model.backbone(clip))
        want = model.pooler(maps, [type("Rows", (), {"tensor": boxes})]).amax(dim=(2, 3))
        torch.testing.assert_close(found["person_features"], want[:persons])
        torch.testing.assert_close(found["object_features"], want[persons:])


def test_it_runs_where_torch_and_detectron2_cannot_be_imported(exported, film):
    _, folder = exported
    program = f"""
import sys
for name in ("torch", "torchvision", "detectron2", "fvcore"):
    sys.modules[name] = None  # what Python makes an ImportError of
import json
from alphaaction_d2.deploy import BoxesAt, Runner
boxes = {{t: BoxesAt.of([[0.1, 0.1, 0.6, 0.9]]) for t in (0.0, 1.0, 2.0)}}
found = Runner({str(folder)!r})({str(film)!r}, boxes)
print(json.dumps([[x.timestamp, x.person_ids.tolist(), x.scores.tolist()] for x in found]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [x[:2] for x in found[:4]] == [[0, [1]], [1, [1]], [2, [1]], [3, []]]
    boxes = {t: BoxesAt.of([[0.1, 0.1, 0.6, 0.9]]) for t in (0.0, 1.0, 2.0)}
    here = [x.scores.tolist() for x in Runner(folder)(film, boxes)]
    np.testing.assert_allclose(np.concatenate([x[2] for x in found[:3]]), np.concatenate(here[:3]))


def test_demo_runs_an_exported_folder(exported, film, tmp_path):
    _, folder = exported
    arguments = [film, "--weights", folder, "--boxes", "whole-frame", "--output", tmp_path / "out"]
    arguments += ["--runtime", "onnxruntime"]
    assert run_module("demo", list(map(str, arguments))) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "bright" in json.dumps(results) and (tmp_path / "out" / "annotated.mp4").is_file()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--config-file", "Small/aia"], "is an exported model: leave --config-file out"),
        (["--runtime", "onnxruntime-int8"], "features_int8.onnx is missing"),
        (["--random"], "--random is without weights"),
        (["--opts", "MODEL.MEMORY.DELAY", "0"], "MODEL.MEMORY.DELAY: is part of the exported"),
        (["--opts", "MODEL.NONSENSE", "0"], "there is no key MODEL.NONSENSE"),
        (["--opts", "MODEL.DEVICE"], "MODEL.DEVICE"),
    ],
)
def test_demo_says_what_is_wrong_in_one_line(exported, film, capsys, arguments, complaint):
    _, folder = exported
    given = [film, "--weights", folder, "--boxes", "whole-frame", *arguments]
    assert run_module("demo", list(map(str, given))) == 2
    assert complaint in capsys.readouterr().err


def test_8_bits_stay_close(exported, film):
    pytest.importorskip("onnx")
    predictor, folder = exported
    from alphaaction_d2.engine.quantise import quantise

    quantise(folder, [film], max_clips=3)
    assert 1e-6 < compare(predictor, folder, film, "onnxruntime-int8") < 0.1


def test_openvino_gives_the_same(exported, film):
    pytest.importorskip("openvino")
    predictor, folder = exported
    assert compare(predictor, folder, film, "openvino") <= 1e-5


@pytest.mark.parametrize(
    ("opts", "key"),
    [
        ((NAME, "NonLocalInteraction"), NAME),
        (("TEST.AUG.ENABLED", True), "TEST.AUG.ENABLED"),
        (("TRACKER_HEADS.TRACKER_NAME", "BBoxIOUTracker"), "TRACKER_HEADS.TRACKER_NAME"),
        (("MODEL.ROI_HEADS.NAME", "SegmentHeads"), "MODEL.ROI_HEADS.NAME"),
    ],
)
def test_what_cannot_be_exported_is_named(opts, key):
    cfg = small_cfg(None, *SMALL)
    model = predictor_of(cfg).model if "TEST.AUG" not in key and "TRACKER" not in key else None
    if key in (NAME, "MODEL.ROI_HEADS.NAME"):
        cfg = small_cfg(None, *SMALL, *opts)
        model = VideoPredictor(cfg).model
    else:
        model = VideoPredictor(cfg).model
        cfg.merge_from_list(list(opts))
    with pytest.raises(ValueError, match=f"{key} .* cannot be exported"):
        check_exportable(cfg, model)


@pytest.mark.slow
@pytest.mark.parametrize(
    "opts",
    [
        (NAME, ""),
        (NAME, "SerialInteraction", "TEST.MULTIPLY_PERSON_SCORE", True),
        (NAME, "ParallelInteraction", "MODEL.INTERACTION.ATTEND_PADDING", True),
        (NAME, "HGNN", *REPLACE),
        (NAME, "HGNN", "MODEL.HGNN.AGGREGATOR", "gcn", "MODEL.HGNN.EXCLUDE_SELF", True, *REPLACE),
        (NAME, "IGMN", "MODEL.MEMORY.OWN_TRACKS_FIRST", True, "MODEL.MEMORY.MAX_PERSONS", 2)
        + REPLACE,
        (NAME, "SerialInteraction + IGMN", "MODEL.MEMORY.DELAY", 1),
        ("MODEL.MEMORY.FROZEN_WEIGHTS", "frozen"),
        SLOW,
        (*SLOW, "MODEL.SLOWFAST.TEMPORAL_BLOCKS", "(0,0,0,0)"),  # C2D
        ("MODEL.BACKBONE.NAME", "build_video_transformer_backbone")
        + (f"{VIT}.CHANNELS", 64, f"{VIT}.DEPTH", 2, "MODEL.SLOWFAST.NORM", "FrozenBN"),
    ],
    ids=str,
)
def test_every_part_gives_the_same_on_a_real_clip(opts, tmp_path, shared, monkeypatch):
    if "frozen" in opts:

        def built(cfg: CfgNode):
            torch.manual_seed(5)
            cfg = cfg.clone()
            cfg.MODEL.MEMORY.FROZEN_WEIGHTS = ""
            model = inference.build_model(inference.frozen_cfg(cfg))
            stir(model)
            return model.eval()

        for module in (inference, export):
            monkeypatch.setattr(module, "build_frozen_model", built)
    cfg = small_cfg(None, "INPUT.MIN_SIZE_TEST", 64, *opts)
    predictor = predictor_of(cfg)
    export_model(predictor.cfg, predictor.model, NAMES, tmp_path)
    clip = shared / "videos" / "clips" / "chaplin_policeman.mp4"
    assert compare(predictor, tmp_path, clip) <= 1e-5
