"""Testing in several views, with several networks: one pass, a memory each, the mean of scores."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model

from alphaaction_d2 import register_datasets
from alphaaction_d2.checkpoint.checkpointer import ActionCheckpointer
from alphaaction_d2.data.dataset_mapper import ActionDatasetMapper
from alphaaction_d2.engine import Trainer, VideoPredictor, attach_memory
from alphaaction_d2.engine.box_sources import KeyframeBoxes
from alphaaction_d2.engine.inference import build_delayed_inference, build_stream
from tests.helpers import small_cfg, write_dataset

SIZES = (36, 48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("views") / "view_squares", seconds=4, videos=2)


def cfg_of(folder, *opts: object) -> CfgNode:
    memory = ("MODEL.MEMORY.WINDOW", "(2,1)", "MODEL.MEMORY.DTYPE", "float32")
    cfg = small_cfg(folder, *memory, "MODEL.WEIGHTS", "", *opts)
    register_datasets(cfg)
    return cfg


def several(folder, sizes: tuple[int, ...] = SIZES, flip: bool = True, *opts: object) -> CfgNode:
    views = ("TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", sizes, "TEST.AUG.FLIP", flip)
    return cfg_of(folder, *views, *opts)


def loud(cfg: CfgNode, seed: int = 0):
    """A network whose memory, boxes and pictures all matter for the scores."""
    torch.manual_seed(seed)
    model = build_model(cfg).eval()
    for name, parameter in model.named_parameters():
        if ".out." in name or "cls_score.weight" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def keyframes(cfg: CfgNode) -> list[dict]:
    return DatasetCatalog.get(cfg.DATASETS.TEST[0])


def results(cfg: CfgNode, model, only: int | None = None) -> list[dict]:
    """Results of the data set; `only`: by one view alone, as if it were all there is."""
    delayed = build_delayed_inference(cfg if only is None else cfg_of(None), model)
    found = []
    with torch.no_grad():
        for batch in build_stream(cfg, keyframes(cfg)):
            if only is not None:
                views = [[x, *x.pop("views")] for x in batch]
                batch = [{**x[0], **x[only]} for x in views]
            found += delayed(batch)
    return found


def test_a_view_is_a_transform_of_clip_and_boxes(folder):
    cfg = several(folder)
    mapper = ActionDatasetMapper(cfg, is_train=False)
    x = mapper(keyframes(cfg)[0])
    views = [x, *x["views"]]
    assert [tuple(v["video"].shape[-2:]) for v in views] == [(36, 48)] * 2 + [(48, 64)] * 2
    for plain, mirrored in (views[:2], views[2:]):
        assert torch.equal(mirrored["video"], plain["video"].flip(-1))
        assert torch.equal(mirrored["image"], plain["image"].flip(-1))
        width = plain["video"].shape[-1]
        for name, field in (("proposals", "proposal_boxes"), ("objects", "boxes")):
            a, b = plain[name].get(field).tensor, mirrored[name].get(field).tensor
            assert len(a) == 1 and not torch.equal(a, b)
            torch.testing.assert_close(
                b,
                (width - a)[:, [2, 1, 0, 3]] * torch.tensor([1, 0, 1, 0])
                + a * torch.tensor([0, 1, 0, 1]),
            )


def test_all_views_of_a_frame_come_from_one_decoding(folder):
    counts = []
    for cfg in (cfg_of(folder), several(folder)):
        mapper = ActionDatasetMapper(cfg, is_train=False)
        for x in keyframes(cfg):
            mapper(x)
        counts.append(mapper.frames_decoded)
    assert counts[0] == counts[1] > 0


def test_one_view_changes_no_bit(folder):
    model = loud(cfg_of(folder))
    expected = results(cfg_of(folder), model)
    found = results(several(folder, (48,), False), model)
    assert len(found) == len(expected) > 0
    for a, b in zip(expected, found):
        assert torch.equal(a["instances"].scores, b["instances"].scores)
        assert torch.equal(a["instances"].pred_boxes.tensor, b["instances"].pred_boxes.tensor)


def test_scores_are_the_mean_of_views_that_remember_for_themselves(folder):
    cfg = several(folder)
    model = loud(cfg)
    alone = [results(cfg, model, only=view) for view in range(4)]
    found = results(cfg, model)
    assert len(found) == len(alone[0]) == 5
    for result, *of_views in zip(found, *alone):
        scores = torch.stack([x["instances"].action_scores for x in of_views])
        assert scores.std(dim=0).max() > 1e-4, "views differ, or the mean says nothing"
        torch.testing.assert_close(
            result["instances"].action_scores, scores.mean(dim=0), atol=1e-6, rtol=0
        )


def test_mirrored_views_give_the_boxes_back_exactly(folder):
    model = loud(cfg_of(folder))
    expected = results(cfg_of(folder), model)
    found = results(several(folder, (48,), True), model)
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a["instances"].pred_boxes.tensor, b["instances"].pred_boxes.tensor)
        assert torch.equal(a["instances"].person_ids, b["instances"].person_ids)
        assert not torch.equal(a["instances"].scores, b["instances"].scores)


def test_the_threshold_is_for_the_mean(folder):
    model = loud(cfg_of(folder))
    every = results(several(folder), model)
    scores = torch.cat([x["instances"].scores for x in every])
    threshold = float(scores.median())
    cfg = several(folder, SIZES, True, "MODEL.ROI_ACTION_HEAD.SCORE_THRESH_TEST", threshold)
    thresholded = build_model(cfg).eval()
    thresholded.load_state_dict(model.state_dict())
    found = torch.cat([x["instances"].scores for x in results(cfg, thresholded)])
    assert torch.equal(found, scores[scores >= threshold]) and len(found) < len(scores)


def test_a_film_is_seen_as_a_data_set_is(folder):
    cfg = several(folder)
    predictor = VideoPredictor(cfg)
    predictor.model = loud(cfg)
    expected = [x for x in results(cfg, predictor.model) if x["video_id"] == "val_1"]
    boxes = KeyframeBoxes.from_files(
        [str(folder / "boxes" / f"val_{kind}.csv") for kind in ("persons", "objects")], "val_1"
    )
    found = {x["timestamp"]: x for x in predictor(folder / "videos" / "val_1.mp4", boxes)}
    for x in expected:
        torch.testing.assert_close(
            found[x["timestamp"]]["instances"].scores, x["instances"].scores, atol=1e-6, rtol=0
        )


@pytest.fixture(scope="module")
def second(folder, tmp_path_factory):
    """A model of another structure: its configuration and its weights."""
    place = tmp_path_factory.mktemp("second")
    cfg = cfg_of(folder, "MODEL.INTERACTION.NAME", "SerialInteraction")
    (place / "config.yaml").write_text(cfg.dump())
    model = loud(cfg, seed=5)
    ActionCheckpointer(model, str(place)).save_weights("model")
    return cfg, model, (str(place / "config.yaml"), str(place / "model.pth"))


@pytest.mark.parametrize("views", [False, True])
def test_networks_are_averaged_in_one_pass(folder, second, views):
    make = several if views else cfg_of
    cfg = make(folder)
    model, (_, other, files) = loud(cfg), second
    alone = [results(cfg, model), results(cfg, other)]
    found = results(
        make(folder, *([SIZES, True] if views else []), "TEST.ENSEMBLE", (files,)), model
    )
    for result, a, b in zip(found, *alone, strict=True):
        a, b = a["instances"].scores, b["instances"].scores
        assert not torch.allclose(a, b, atol=1e-3)
        torch.testing.assert_close(result["instances"].scores, (a + b) / 2, atol=1e-6, rtol=0)


def test_networks_that_see_other_clips_are_refused(folder, second):
    cfg = cfg_of(folder, "TEST.ENSEMBLE", (second[2],), "INPUT.NUM_FRAMES", 32)
    with pytest.raises(ValueError, match=r"INPUT.NUM_FRAMES 16, here it is 32.*--average"):
        build_delayed_inference(cfg, loud(cfg))


def test_an_odd_value_of_the_keys_is_refused(folder):
    with pytest.raises(ValueError, match="TEST.AUG.MIN_SIZES"):
        ActionDatasetMapper(several(folder, (0,)), is_train=False)
    with pytest.raises(ValueError, match="TEST.ENSEMBLE"):
        build_delayed_inference(cfg_of(folder, "TEST.ENSEMBLE", ("a.yaml",)), None)


def test_views_never_reach_a_model_that_cannot_see_them(folder):
    cfg = several(folder)
    model = loud(cfg)
    (batch, *_) = build_stream(cfg, keyframes(cfg))
    with pytest.raises(ValueError, match="build_delayed_inference"):
        model(copy.deepcopy(batch))
    with pytest.raises(ValueError, match="TEST.AUG.ENABLED"):
        Trainer.test(cfg, torch.nn.Linear(1, 1))


def test_a_frozen_memory_is_filled_in_one_view(folder, tmp_path):
    pools = []
    for make in (cfg_of, several):
        cfg = make(folder)
        (tmp_path / "w").mkdir(exist_ok=True)
        frozen = cfg.clone()
        frozen.MODEL.INTERACTION.NAME = ""
        ActionCheckpointer(loud(frozen), str(tmp_path / "w")).save_weights("frozen")
        cfg.MODEL.MEMORY.FROZEN_WEIGHTS = str(tmp_path / "w" / "frozen.pth")
        pools.append(attach_memory(cfg, loud(cfg)))
    assert torch.equal(pools[0]._features, pools[1]._features) and len(pools[0]) > 0
