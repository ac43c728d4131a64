"""From a video to pictures of what a model looked at; the results stay what they were."""

from __future__ import annotations

import copy

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from alphaaction_d2 import register_datasets
from alphaaction_d2.apps.attention_pictures import KeyframeChoice
from alphaaction_d2.apps.video_results import keyframe_result, process_video
from alphaaction_d2.engine import AttentionPredictor, Trainer, VideoPredictor
from alphaaction_d2.engine.box_sources import KeyframeBoxes
from alphaaction_d2.engine.inference import AttentiveInference, build_delayed_inference
from alphaaction_d2.formats.results import ClipAttention, KeyframeResult, PersonResult
from tests.engine.test_inference import stream
from tests.helpers import small_cfg, write_dataset
from tests.modeling.test_igmn import igmn_cfg

NAMES = ["left", "right", "bright"]


def small_model(name: str):
    opts = ("MODEL.MEMORY.WINDOW", "(2,1)", "MODEL.MEMORY.DTYPE", "float32")
    cfg = small_cfg(None, *opts, "MODEL.INTERACTION.NAME", name)
    if name in ("HGNN", "IGMN"):
        cfg = igmn_cfg(None, name, *opts)
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for key, parameter in model.named_parameters():
        if ".out." in key:
            torch.nn.init.normal_(parameter, std=0.5)
    return cfg, model


@pytest.mark.parametrize("name", ["", "NonLocalInteraction", "DenseSerialInteraction", "IGMN"])
def test_results_are_the_same_with_attention(name):
    cfg, model = small_model(name)
    runs = []
    for form in (None, AttentiveInference):
        delayed = build_delayed_inference(cfg, model, *([form] if form else []))
        with torch.no_grad():
            clips = copy.deepcopy(stream(cfg))
            runs.append(delayed(clips[:3]) + delayed(clips[3:]) + delayed([]))
    plain, attentive = runs
    assert len(plain) == len(attentive) == 8
    for a, b in zip(plain, attentive):
        assert (a["video_id"], a["timestamp"]) == (b["video_id"], b["timestamp"])
        assert torch.equal(a["instances"].scores, b["instances"].scores)
        assert "attention" not in a
    has = name in ("DenseSerialInteraction", "IGMN")
    assert all(("attention" in x) == has for x in attentive)


def test_attention_belongs_to_its_persons_and_seconds():
    cfg, model = small_model("DenseSerialInteraction")
    clips = stream(cfg)
    delayed = build_delayed_inference(cfg, model, AttentiveInference)
    with torch.no_grad():
        results = delayed(copy.deepcopy(clips)) + delayed([])
    ids = {(x["video_id"], x["timestamp"]): x["proposals"].person_ids.tolist() for x in clips}
    for x in results:
        keyframe = keyframe_result(x, NAMES)
        seen = ids[x["video_id"], x["timestamp"]]
        assert len(keyframe.attention.map_boxes) == len(keyframe.persons) == len(seen)
        for box, person in zip(keyframe.attention.map_boxes, keyframe.persons):
            # In the middle of the box that is reported: nothing is enlarged here.
            np.testing.assert_allclose(box * [128, 96, 128, 96], person.box, atol=1e-3)
        for memory in keyframe.attention.memory:
            np.testing.assert_allclose(memory.weights.sum(axis=1), 1, atol=1e-5)
            for there in memory.seen:
                seconds = x["timestamp"] + memory.offsets[there]
                for time, person_id in zip(seconds, memory.person_ids[there]):
                    assert person_id in ids[x["video_id"], int(time)]


# -------------------------------------------------------------------------------------- the choice


def keyframe(time: float, persons: int, score: float) -> KeyframeResult:
    person = PersonResult.from_scores([0, 0, 9, 9], [score], ["walk"], 1)
    return KeyframeResult(time, [person] * persons, ClipAttention(np.zeros((persons, 4)), {}, []))


def choose(count: int, keyframes) -> list[float]:
    choice = KeyframeChoice(count)
    for x in keyframes:
        choice.add(x)
        assert len(choice.chosen) <= count
    return [x.timestamp for x in choice.chosen]


def test_the_fullest_keyframes_are_chosen_and_then_the_surest():
    persons = [1, 2, 0, 3, 3, 1, 3, 0]
    scores = [0.9, 0.9, 0.9, 0.5, 0.9, 0.9, 0.7, 0.9]
    keyframes = [keyframe(10.0 * t, n, s) for t, (n, s) in enumerate(zip(persons, scores))]
    assert choose(2, keyframes) == [40, 60]
    assert choose(3, keyframes) == [30, 40, 60]
    assert choose(9, keyframes) == [0, 10, 30, 40, 50, 60]  # never those without persons
    assert choose(0, keyframes) == []


def test_chosen_keyframes_keep_a_distance():
    scores = [0.1, 0.2, 0.9, 0.3, 0.3, 0.8, 0.7]
    keyframes = [keyframe(float(t), 1, s) for t, s in enumerate(scores)]
    assert choose(3, keyframes) == [2, 5]
    alike = [keyframe(float(t), 1, 0.5) for t in range(9)]
    assert choose(2, alike) == [0, 3], "the first of equals"


# ---------------------------------------------------------------------------------------- the demo


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = write_dataset(tmp_path_factory.mktemp("attention") / "attended")
    boxes = [folder / "boxes" / "val_persons.csv", folder / "boxes" / "val_objects.csv"]
    return folder, folder / "videos" / "val_1.mp4", KeyframeBoxes.from_files(boxes, "val_1")


def predictor_of(folder, cfg, kind=AttentionPredictor):
    register_datasets(cfg)
    weights = folder / f"{cfg.MODEL.INTERACTION.NAME or 'none'}.pth"
    torch.manual_seed(0)
    torch.save({"model": Trainer.build_model(cfg).state_dict()}, weights)
    cfg.MODEL.WEIGHTS = str(weights)
    return kind(cfg)


@pytest.mark.parametrize("name", ["", "DenseSerialInteraction", "IGMN"])
def test_a_processed_video_has_pictures_of_attention(scene, tmp_path, name):
    folder, video, boxes = scene
    cfg = igmn_cfg(folder) if name == "IGMN" else small_cfg(folder)
    cfg.MODEL.INTERACTION.NAME = name
    predictor = predictor_of(folder, cfg)
    assert predictor.has_attention == bool(name)
    files = process_video(predictor, video, boxes, tmp_path, NAMES)
    found = sorted(p.name for p in tmp_path.glob("attention_*"))
    aia = ["clip.jpg", "memory.png"]
    kinds = {"": [], "DenseSerialInteraction": aia, "IGMN": ["maps.jpg", *aia]}
    assert {x.split("_")[2] for x in found} == set(kinds[name])
    assert sorted(p.name for p in files.attention.values()) == found
    assert len(files.attention) <= 3 * len(kinds[name])
    assert all(cv2.imread(str(path)) is not None for path in files.attention.values())
    # What an earlier run left goes, what is somebody else's stays.
    (tmp_path / "attention_0999_maps.jpg").touch()
    (tmp_path / "attention_0999_clip.jpg").touch()
    (tmp_path / "attention_0998.500_memory.png").touch()
    (tmp_path / "attention_of_mine_maps.jpg").touch()
    process_video(predictor, video, boxes, tmp_path, NAMES)
    again = sorted(p.name for p in tmp_path.glob("attention_*"))
    assert again == [*found, "attention_of_mine_maps.jpg"]
    # A plain predictor gives the same results, and no pictures of attention.
    plain = process_video(
        predictor_of(folder, cfg, VideoPredictor), video, boxes, tmp_path / "p", NAMES
    )
    assert plain.attention == {}
    assert plain.tables[1].read_text() == files.tables[1].read_text()
