"""The miniature of UCF101-24: its files, and a training on it from end to end."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from alphaaction_d2 import register_datasets, setup_cfg
from alphaaction_d2.apps.evaluate import main as evaluate
from alphaaction_d2.apps.evaluate import parse_args
from alphaaction_d2.data.dataset_mapper import ActionDatasetMapper
from alphaaction_d2.data.datasets import register_folder
from alphaaction_d2.data.video import iterate_frames
from alphaaction_d2.engine import Trainer
from alphaaction_d2.engine.inference import build_delayed_inference, build_stream
from alphaaction_d2.evaluation import UCF_PROTOCOLS
from alphaaction_d2.formats.ucf101_24 import read_ucf_split
from tests.helpers import build_trainer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    path = ROOT / "projects" / "AIA" / "ucf_puppets.py"
    spec = importlib.util.spec_from_file_location("ucf_puppets", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["ucf_puppets"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["ucf_puppets"]


@pytest.fixture(scope="module")
def data(script, tmp_path_factory) -> Path:
    return script.generate(tmp_path_factory.mktemp("ucf") / "ucf_puppets", counts=(2, 1))


def test_files_are_those_of_ucf101_24(script, data):
    found = read_ucf_split(data / "pyannot.pkl", "train", data / "testlist01.txt")
    assert len(found.videos) == 8 and found.class_names == list(script.CLASSES)
    assert found.num_frames.tolist() == [100] * 8 and len(found.frames) == 8 * 75
    made = (data / "pyannot.pkl").read_bytes()
    assert script.generate(data, counts=(2, 1)) == data
    assert (data / "pyannot.pkl").read_bytes() == made
    names = register_folder(data)
    dicts = DatasetCatalog.get(names[1])
    assert [len(DatasetCatalog.get(name)) for name in names] == [600, 400]
    videos = {x["video_id"]: x for x in dicts}
    assert all(sum(1 for _ in iterate_frames(x["file_name"])) == 100 for x in videos.values())
    assert sum(len(x["persons"]) for x in dicts) > 700, "bystanders, too"


def test_the_two_classes_differ_in_the_past_alone(script):
    """With one seed, frames of Greet and Return are the same but for the bystander's flash."""
    for seed in range(3):
        one, other = (script.plan(name, np.random.default_rng(seed)) for name in script.REMEMBERED)
        assert (bool(one.events), bool(other.events)) == (False, True)
        assert one.cells == other.cells and one.puppets == other.puppets
        for k in range(100):
            pictures = [script.render_frame(x, k / 25) for x in (one, other)]
            assert np.array_equal(*pictures) == (k > 16), k


def cfg_of(method: str, data: Path, *opts: object):
    cfg = setup_cfg(
        str(ROOT / "configs" / "UCF101-24" / "miniature" / f"{method}.yaml"),
        [
            *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.SLOWFAST.FROZEN", False),
            *("DATALOADER.STORED_VARIANTS", 0, "SOLVER.MAX_ITER", 4, "SOLVER.STEPS", "()"),
            *("SOLVER.WARMUP_ITERS", 1, "SOLVER.IMS_PER_BATCH", 4, *opts),
        ],
    )
    cfg.DATASETS.FOLDERS = (str(data),)
    return cfg


@pytest.mark.parametrize("method", ["c2d", "aia"])
def test_training_and_every_evaluator(data, tmp_path, method, capsys):
    trainer = build_trainer(cfg_of(method, data), tmp_path)
    assert len(trainer._trainer.data_loader.keyframes) == 8 * 15, "every fifth annotated frame"
    trainer.train()
    numbers = trainer._last_eval_results["ucf101_24"]
    if method == "aia":  # every training keyframe has a slot, with room for the bystander
        room = np.diff(trainer.pool.slots.starts)
        assert len(room) == 8 * 15 and {2, 3} >= set(room) >= {3}
        assert 4 * 4 <= len(trainer.pool) <= 4 * 4 * 3
    for key in ("frame_mAP@0.5", "video_mAP@0.2", "video_mAP@0.5:0.95", "linked_video_mAP@0.5"):
        assert 0 <= numbers[key] <= 100
    results = json.loads((tmp_path / "ucf101_24_results.json").read_text())
    assert set(results["video"]) == {"linked", "identities"}
    for protocol in UCF_PROTOCOLS:
        given = ["--annotations", data / "pyannot.pkl", "--videos", data / "testlist01.txt"]
        given += ["--detections", tmp_path / "ucf101_24_detections.csv.gz", "--protocol", protocol]
        given += ["--output", tmp_path / "again.json"]
        assert not evaluate(parse_args(["ucf101-24", *map(str, given)]))
        assert f"protocol {protocol}" in capsys.readouterr().out
        if protocol == "gurkirt":
            again = json.loads((tmp_path / "again.json").read_text())
            assert again["mAP@0.5"] == pytest.approx(numbers["frame_mAP@0.5"] / 100, abs=1e-9)
            assert again["video"]["linked"] == pytest.approx(results["video"]["linked"], abs=1e-6)


def test_a_pass_decodes_each_frame_once(data, tmp_path, monkeypatch):
    """And convolves it once: 100 frames of a video are 100 clips, of which 20 are remembered."""
    cfg = cfg_of("aia", data)
    register_datasets(cfg)
    keyframes = DatasetCatalog.get(f"{data.name}_test")[:100]
    assert len({x["video_id"] for x in keyframes}) == 1
    model = Trainer.build_model(cfg).eval()
    delayed = build_delayed_inference(cfg, model)
    stream = build_stream(cfg, keyframes)
    mapper: ActionDatasetMapper = stream.loader.dataset._map_func._obj
    clips, writes = 0, []
    extract, update = model.extract, delayed.pool.update
    monkeypatch.setattr(delayed.pool, "update", lambda x, loss: (writes.extend(x), update(x, loss)))

    def counting(batch):
        nonlocal clips
        clips += len(batch)
        return extract(batch)

    monkeypatch.setattr(model, "extract", counting)
    results = [result for batch in stream for result in delayed(batch)]
    assert [round(x["timestamp"] * 25) for x in results] == list(range(100))
    assert (clips, mapper.frames_decoded) == (100, 100)
    assert [x.slot for x in writes] == list(range(20))


def test_of_all_frames_every_fifth_is_written_in_training(data, tmp_path, monkeypatch):
    """With every annotated frame in the training set, those between slots only read."""
    options = ("DATASETS.UCF101_24.TRAIN_FRAME_STRIDE", 1, "DATASETS.TEST", "()", "SEED", 3)
    trainer = build_trainer(cfg_of("aia", data, *options, "SOLVER.IMS_PER_BATCH", 8), tmp_path)
    assert len(trainer._trainer.data_loader.keyframes) == 8 * 75
    written, seen = [], []
    prepare = trainer.pool.prepare

    def recording(clip, persons):
        written.append(round(clip["timestamp"] * 25))
        return prepare(clip, persons)

    monkeypatch.setattr(trainer.pool, "prepare", recording)
    attach = trainer.pool.attach
    monkeypatch.setattr(
        trainer.pool,
        "attach",
        lambda batch, training: (seen.extend(batch), attach(batch, training))[1],
    )
    trainer.train()
    frames = [round(x["timestamp"] * 25) for x in seen]
    assert len(frames) == 4 * 8 and any(k % 5 for k in frames)
    assert written == [k for k in frames if k % 5 == 0] != []
    assert all("memory" in x for x in seen), "those between slots read"
