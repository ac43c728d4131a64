"""Prediction on videos: the same numbers as data-set evaluation, whatever form the video has."""

from __future__ import annotations

import csv
import json
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from detectron2.engine import DefaultPredictor

from alphaaction_d2 import register_datasets
from alphaaction_d2.apps.video_results import constant_rate, process_video
from alphaaction_d2.data.video import VideoError, VideoWriter, iterate_frames, probe_video
from alphaaction_d2.engine import Trainer, VideoPredictor, inference
from alphaaction_d2.engine import predictor as predictor_module
from alphaaction_d2.engine.box_sources import KeyframeBoxes
from alphaaction_d2.engine.inference import build_delayed_inference
from alphaaction_d2.engine.predictor import class_names
from alphaaction_d2.modeling import ActionRCNN
from tests.helpers import small_cfg, watched, write_dataset


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    folder = write_dataset(tmp_path_factory.mktemp("predict") / "shapes")
    cfg = small_cfg(folder)
    register_datasets(cfg)
    torch.manual_seed(0)
    model = Trainer.build_model(cfg)
    for name, parameter in model.named_parameters():
        if ".out." in name:
            torch.nn.init.normal_(parameter, std=0.5)
    weights = folder / "weights.pth"
    torch.save({"model": model.state_dict()}, weights)
    cfg.MODEL.WEIGHTS = str(weights)
    return VideoPredictor(cfg), folder


def boxes_of(folder, video):
    return KeyframeBoxes.from_files(
        [folder / "boxes" / "val_persons.csv", folder / "boxes" / "val_objects.csv"], video
    )


def by_time(results):
    return {r["timestamp"]: r["instances"].scores for r in results if len(r["instances"])}


def test_equal_to_dataset_evaluation(predictor):
    predict, folder = predictor
    cfg = predict.cfg
    delayed = build_delayed_inference(cfg, predict.model).eval()
    expected = {}
    with torch.no_grad():
        for batch in Trainer.build_test_loader(cfg, "shapes_val"):
            for r in delayed(batch):
                expected.setdefault(r["video_id"], []).append(r)
    # val_0 has an excluded second, whose persons the data set never shows to the memory.
    video = "val_1"
    found = by_time(predict(folder / "videos" / f"{video}.mp4", boxes_of(folder, video)))
    known = by_time(expected[video])
    assert set(found) == set(known) == {1, 2, 3, 4}
    for time, scores in known.items():
        torch.testing.assert_close(found[time], scores, atol=1e-6, rtol=1e-5)


def test_results_hold_what_their_actions_are_told_of(predictor):
    """Another classifier on `context_features` is all that somebody needs; a search uses them."""
    predict, folder = predictor
    heads = predict.model.roi_heads
    for result in predict(folder / "videos" / "val_1.mp4", boxes_of(folder, "val_1")):
        instances = result["instances"]
        scores = heads.predictor.scores(heads.predictor(result["context_features"]))
        torch.testing.assert_close(scores[instances.person_index], instances.action_scores)
        assert result["roi_features"].shape == (len(scores), heads.num_channels)


def test_file_array_and_iterator_agree(predictor):
    predict, folder = predictor
    path = folder / "videos" / "val_1.mp4"
    frames = list(iterate_frames(path))
    boxes = boxes_of(folder, "val_1")
    runs = [
        by_time(predict(path, boxes)),
        by_time(predict(np.stack([f for _, f in frames]), boxes, fps=8)),
        by_time(predict(iter(frames), boxes)),
    ]
    for run in runs[1:]:
        assert set(run) == set(runs[0])
        for time, scores in run.items():
            assert torch.equal(scores, runs[0][time])


def test_every_second_has_a_result_also_without_persons(predictor):
    predict, folder = predictor
    results = list(predict(folder / "videos" / "val_0.mp4", boxes_of(folder, "val_0")))
    assert [r["timestamp"] for r in results] == [0, 1, 2, 3, 4]
    assert len(results[0]["instances"]) == 0
    assert results[1]["instances"].image_size == (48, 64)
    assert results[1]["instances"].person_ids.tolist() == [1, 1, 1]


def test_whole_frame(predictor):
    predict, folder = predictor
    first = next(iter(predict(folder / "videos" / "val_0.mp4")))
    assert first["instances"].pred_boxes.tensor[0].tolist() == [0, 0, 64, 48]


def test_results_folder(predictor, tmp_path):
    predict, folder = predictor
    names = class_names(predict.cfg)
    assert names == ["left", "right", "bright"]
    path = folder / "videos" / "val_1.mp4"
    files = process_video(predict, path, boxes_of(folder, "val_1"), tmp_path, names)
    info = probe_video(files.video)
    assert info.average_fps == 8 and min(info.width, info.height) >= 480
    assert len(list(iterate_frames(files.video))) == len(list(iterate_frames(path)))
    assert cv2.imread(str(tmp_path / "timeline.png")) is not None
    assert cv2.imread(str(files.poster)).shape[:2] == (info.height, info.width)
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert len(rows) == 4 * 3 and {r["action_name"] for r in rows} == set(names)
    assert len(json.loads((tmp_path / "results.json").read_text())["keyframes"]) == 5


def test_boxes_at_other_times_are_told(predictor, tmp_path, caplog):
    predict, folder = predictor
    rows = [f"val_1,{t:04d},0.1,0.1,0.5,0.9,,0.9,1\n" for t in (1, 5, 902, 902)]
    rows[3] = rows[3].replace("0.1", "0.2")
    (tmp_path / "boxes.csv").write_text("".join(rows))
    boxes = KeyframeBoxes.from_files([tmp_path / "boxes.csv"], "val_1")
    path = folder / "videos" / "val_1.mp4"
    process_video(predict, path, boxes, tmp_path / "out", class_names(predict.cfg))
    expected = "val_1: 3 boxes are not used, they are at seconds that the video does not have, "
    assert f"{expected}such as 5; it has seconds 0.0 to 5.0" in caplog.text
    caplog.clear()
    process_video(predict, path, boxes_of(folder, "val_1"), tmp_path, class_names(predict.cfg))
    assert "not used" not in caplog.text


def test_unreadable_video(predictor, tmp_path):
    predict, _ = predictor
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(VideoError, match="empty"):
        list(predict(tmp_path / "empty.mp4"))


def test_very_short_and_strange_videos(predictor, tmp_path):
    predict, _ = predictor
    for name, fps, size, count in (("one", 25, (30, 20), 1), ("slow", 1, (301, 77), 3)):
        path = tmp_path / f"{name}.mp4"
        with VideoWriter(path, fps, *size) as writer:
            for _ in range(count):
                writer.write(np.zeros((size[1], size[0], 3), np.uint8))
        results = list(predict(path))
        assert [r["timestamp"] for r in results] == list(range(count if fps == 1 else 1))


def test_boxes_of_another_video_are_refused(predictor):
    _, folder = predictor
    with pytest.raises(ValueError, match="no boxes of video 'film'; it has val_0, val_1"):
        boxes_of(folder, "film")


def test_boxes_are_those_of_the_second(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("film,0001,0.5,0.5,1.0,1.0,,0.9,3\nfilm,0001,0.0,0.0,0.5,0.5,cup,0.8\n")
    boxes = watched(KeyframeBoxes.from_files([path], "film"), 20, 10)
    here, nothing = boxes.at(1.0), boxes.at(2.0)
    assert here.persons.in_pixels(20, 10).tolist() == [[10, 5, 20, 10]]
    assert here.persons.ids.tolist() == [3]
    assert here.objects.in_pixels(20, 10).tolist() == [[0, 0, 10, 5]]
    assert len(nothing.persons) == len(nothing.objects) == 0


def test_detectron2s_own_predictor_takes_an_image(predictor):
    predict, _ = predictor
    stock = DefaultPredictor(predict.cfg)
    assert isinstance(stock.model, ActionRCNN)
    rows = stock(np.zeros((96, 128, 3), np.uint8))["instances"]
    assert rows.image_size == (96, 128) and rows.pred_classes.tolist() == [0, 1, 2]


def test_times_that_are_none_are_named(predictor):
    predict, _ = predictor
    picture = np.zeros((48, 64, 3), np.uint8)
    for times, message in {
        (0.0, float("nan")): "frame 1: its time is nan",
        (0.0, 0.5, float("inf")): "frame 2: its time is inf",
        (0.5, 0.4): "frame 1: its time is 0.4 s, before the 0.5 s of the frame before it",
    }.items():
        with pytest.raises(ValueError, match=message):
            list(predict((time, picture) for time in times))
    with pytest.raises(ValueError, match=r"frame 0: expected \(seconds, frame\)"):
        list(predict([picture]))
    for fps in (0, -25, float("nan")):
        with pytest.raises(ValueError, match="fps is .*: give the frames per second"):
            predict(np.zeros((2, 48, 64, 3), np.uint8), fps=fps)


def test_a_stream_with_a_hole_has_no_keyframes_in_it(predictor, caplog):
    predict, _ = predictor
    picture = np.zeros((48, 64, 3), np.uint8)
    times = [*np.arange(20) / 8, *(5000 + np.arange(20) / 8)]
    results = list(predict([(time, picture) for time in times], video_id="camera"))
    assert [x["timestamp"] for x in results] == [0, 1, 2, 3, 4, 5000, 5001, 5002]
    holes = [x.getMessage() for x in caplog.records if "no frames up to 5000.0 s" in x.getMessage()]
    assert len(holes) == 1 and holes[0].startswith("camera: ")


def test_holes_are_cut_out_of_annotated_videos():
    frames = [(t, t) for t in (0.0, 0.5, 1.0, 7.0, 7.5, 100.0)]
    cuts = []
    shown = list(constant_rate(frames, 2.0, cuts))
    assert [frame for _, frame in shown] == [0, 0.5, *[1.0] * 5, 7.0, *[7.5] * 5, 100.0]
    assert [time for time, _ in shown][6:9] == [3, 7, 7.5]
    assert cuts == [(7.0, 3.5), (100.0, 90.0)]


def test_constant_rate():
    frames = [(t, t) for t in (0.0, 0.1, 0.35, 0.4, 1.0)]
    shown = list(constant_rate(frames, 10.0))
    np.testing.assert_allclose([t for t, _ in shown], np.arange(11) / 10)
    assert [f for _, f in shown] == [0, 0.1, 0.1, 0.1, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 1.0]


@pytest.mark.parametrize("together, number", [(None, 2), (True, 5)])
def test_several_videos_at_a_time_are_as_each_alone(predictor, tmp_path, together, number):
    """Of other lengths and sizes, one without persons, and one that is none: on the CPU to the bit,
    in one batch as on a GPU but for rounding."""
    predict, folder = predictor
    (tmp_path / "broken.mp4").write_bytes(b"")
    with VideoWriter(tmp_path / "wide.mp4", 8, 96, 48) as writer:
        for i in range(20):
            writer.write(np.full((48, 96, 3), 12 * i, np.uint8))
    shapes = [folder / "videos" / f"{split}_{i}.mp4" for split in ("val", "train") for i in (0, 1)]
    videos = [*shapes[:2], tmp_path / "broken.mp4", tmp_path / "wide.mp4", *shapes[2:]]
    boxes = {x.stem: boxes_of(folder, x.stem) for x in shapes[:2]}
    alone = {x.stem: list(predict(x, boxes.get(x.stem))) for x in videos if x.stem != "broken"}
    opened: list[str] = []
    ended: list[str] = []
    found = {x.stem: [] for x in videos}

    def given():
        for x in videos:
            opened.append(x.stem)
            assert len(opened) - len(ended) <= number
            yield x.stem, x, boxes.get(x.stem)

    build = inference.build_delayed_inference

    def built(*arguments):
        delayed = build(*arguments)
        delayed.together = together
        return delayed

    with mock.patch.object(predictor_module, "build_delayed_inference", built):
        for name, x in predict.several(given(), number):
            if isinstance(x, dict):
                found[name].append(x)
            else:
                ended.append(name)
                assert isinstance(x, VideoError) if name == "broken" else x is None
    assert sorted(ended) == sorted(found) and found.pop("broken") == []
    for name, results in found.items():
        assert [x["timestamp"] for x in results] == [x["timestamp"] for x in alone[name]]
        for x, y in zip(results, alone[name]):
            assert x["video_id"] == name
            x, y = x["instances"], y["instances"]
            assert torch.equal(x.person_ids, y.person_ids)
            if together is None:
                assert torch.equal(x.action_scores, y.action_scores)
            torch.testing.assert_close(x.action_scores, y.action_scores, atol=1e-5, rtol=1e-5)
