"""What an exported model needs, and what it says of bad input: all without a network."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from alphaaction_d2.deploy import BoxesAt, Description, FoundBoxes, Runner, is_exported
from alphaaction_d2.deploy.description import FEATURES, FILE, SCORES, MemoryDescription
from alphaaction_d2.deploy.memory import Memory, Persons, rounded
from alphaaction_d2.found_boxes import TimedBoxes
from alphaaction_d2.memory.pool import MemoryPool

MEMORY = MemoryDescription(
    window=(2, 1),
    stride=1,
    max_persons=2,
    channels=4,
    dtype="float32",
    slots_per_second=1.0,
    delay=-1,
    fresh_centre=True,
    own_tracks_first=False,
)
DESCRIPTION = Description(
    class_names=["stand", "run"],
    num_frames=4,
    sampling_rate=1,
    clip_fps=8,
    short_side=0,
    max_long_side=100,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    multiple=16,
    min_person_score=0.5,
    min_object_score=0.5,
    max_objects=2,
    extend=(0.2, 0.0),
    min_score=0.0,
    multiply_person_score=True,
    memory=MEMORY,
    tracking={},
    keep_given_ids=True,
)


def test_nothing_of_torch_or_detectron2_is_imported():
    program = (
        "import sys, alphaaction_d2.deploy as d\n"
        "heavy = {'torch', 'torchvision', 'detectron2', 'fvcore'}\n"
        "print(sorted(heavy & {x.partition('.')[0] for x in sys.modules}), d.Runner.__name__)\n"
        "import alphaaction_d2\n"
        "print(alphaaction_d2.setup_cfg.__name__, 'detectron2' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[] Runner\nsetup_cfg True\n", done.stderr


def test_a_description_comes_back_as_it_was(tmp_path):
    folder = written(tmp_path)
    read = Description.read(folder)
    assert json.loads(json.dumps(vars(read.memory))) == {**vars(MEMORY), "window": [2, 1]}
    assert replace(read, memory=None).class_names == ["stand", "run"]
    assert is_exported(folder) and not is_exported(tmp_path / "other") and not is_exported("")


def written(folder):
    DESCRIPTION.write(folder, "0")
    for name in (FEATURES, SCORES):
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda folder: (folder / FILE).unlink(), "this is no folder of `alphaaction export`"),
        (lambda folder: (folder / FILE).write_text("[1]"), "no description of an exported"),
        (lambda folder: (folder / FILE).write_text("{"), "no description of an exported"),
        (lambda folder: (folder / SCORES).unlink(), "scores.onnx missing: export the model again"),
        (lambda folder: edit(folder, version=99), "version 99 of alphaaction_d2 0, this one reads"),
        (lambda folder: edit(folder, later=1), "unexpected keyword argument 'later'"),
        (lambda folder: edit(folder, memory={"window": [1, 1]}), "required"),
    ],
)
def test_a_bad_folder_is_one_line(tmp_path, change, complaint):
    change(written(tmp_path))
    with pytest.raises(ValueError, match=complaint) as error:
        Runner(tmp_path)
    assert "\n" not in str(error.value)


def edit(folder, **values):
    known = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps({**known, **values}))


def test_unknown_runtimes_and_broken_graphs_are_one_line(tmp_path):
    pytest.importorskip("onnxruntime")
    written(tmp_path)
    with pytest.raises(ValueError, match="runtime 'cuda' is not one of onnxruntime"):
        Runner(tmp_path, runtime="cuda")
    with pytest.raises(ValueError, match="features.onnx: "):
        Runner(tmp_path)
    with pytest.raises(ValueError, match="features_int8.onnx is missing: .* --calibrate VIDEO"):
        Runner(tmp_path, runtime="onnxruntime-int8")


@pytest.mark.parametrize("own_tracks_first", [False, True])
@pytest.mark.parametrize("fresh_centre", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_memory_is_that_of_the_pool(own_tracks_first, fresh_centre, stride):
    options = replace(
        MEMORY, own_tracks_first=own_tracks_first, fresh_centre=fresh_centre, stride=stride
    )
    memory = Memory(options)
    pool = MemoryPool(
        num_channels=4,
        window=(2, 1),
        stride=stride,
        max_persons=2,
        own_tracks_first=own_tracks_first,
        fresh_centre=fresh_centre,
        dtype=torch.float32,
    )
    rng = np.random.default_rng(0)
    read = 0
    for slot in [0, 1, 2, 4, 5, 5, 6, 9, 10, 11, 12, 30, 31]:
        n = int(rng.integers(0, 6))
        persons = Persons(
            rng.random((n, 4), np.float32),
            rng.permutation(8)[:n] - 1,
            rng.random(n).astype(np.float32),
        )
        memory.write(slot, persons)
        instances = Instances(
            (10, 10),
            proposal_boxes=Boxes(torch.zeros(n, 4)),
            objectness_logits=torch.from_numpy(persons.scores),
            person_ids=torch.from_numpy(persons.ids),
            roi_features=torch.from_numpy(persons.features),
        )
        write = pool.prepare({"video_id": "v", "timestamp": float(slot)}, instances)
        pool.update([write], loss=1.0)
        for at in (slot - 1, slot):
            want = pool.read("v", at, False, instances)
            got = memory.window(at, persons)
            here = want.valid.numpy()
            mine = got["memory_valid"].copy()
            if fresh_centre:  # which the model fills from the clip itself
                assert mine[2].sum() == min(n, 2)
                mine[2] = False
            assert (mine == here).all()
            assert (got["memory_features"][mine] == want.features.numpy()[here]).all()
            assert (got["memory_ids"][mine] == want.person_ids.numpy()[here]).all()
            read += here.sum()
    assert read > 20


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_features_are_rounded_as_torch_does(dtype):
    x = np.concatenate([np.random.default_rng(0).normal(size=1000), [1e5, -1e-9, 0, 1 + 2**-8]])
    x = x.astype(np.float32)
    clamped = torch.from_numpy(x).clamp(-65504, 65504) if dtype == "float16" else torch.tensor(x)
    assert (rounded(x, dtype) == clamped.to(getattr(torch, dtype)).float().numpy()).all()


def runner_of(score, description=DESCRIPTION):
    """A runner whose graphs are functions: features are the boxes, scores what `score` says."""
    runner = Runner.__new__(Runner)
    runner.description, runner.class_names = description, list(description.class_names)

    def extract(inputs):
        x = inputs["person_boxes"]
        return {
            "person_features": x,
            "object_features": inputs["object_boxes"],
        }

    runner._extract, runner._score = extract, lambda inputs: {"scores": score(inputs)}
    return runner


def frames(seconds, size=(20, 40)):
    return [(i / 8, np.full((*size, 3), i, np.uint8)) for i in range(8 * seconds + 1)]


def test_results_come_when_the_window_is_complete_and_nobody_costs_nothing():
    asked = []

    def score(inputs):
        asked.append(inputs)
        return np.full((len(inputs["person_ids"]), 2), 0.5, np.float32)

    boxes = {
        t: BoxesAt(
            FoundBoxes.of([[0, 0, 0.5, 1], [0.6, 0, 0.9, 1]], [0.8, 0.4]),
            FoundBoxes.of([[0, 0, 1, 1]] * 4, [0.9, 0.4, 0.6, 0.7]),
            BoxesAt.of().between,
        )
        for t in (0.0, 1.0, 3.0)
    }
    runner = runner_of(score)
    results = list(runner(iter(frames(4)), boxes))
    assert [x.timestamp for x in results] == [0, 1, 2, 3, 4]
    assert [len(x.scores) for x in results] == [1, 1, 0, 1, 0] and len(asked) == 3
    assert [x.person_ids.tolist() for x in results] == [[1], [1], [], [1], []]
    assert results[0].scores.tolist() == [[np.float32(0.5) * np.float32(0.8)] * 2]
    assert results[2].scores.shape == (0, 2) and results[2].boxes.shape == (0, 4)
    assert results[0].boxes.tolist() == [[0, 0, 20, 20]], "as they were found, not enlarged"
    # The window of second 1: two before, itself, one after, which nobody is in.
    assert asked[1]["memory_valid"].any(axis=1).tolist() == [False, True, True, False]
    assert asked[1]["person_features"].tolist() == [[0, 0, 22, 20]], "enlarged by a fifth"
    assert asked[0]["object_features"].shape == (2, 4)


def test_ids_that_are_given_stay_and_new_ones_are_larger():
    runner = runner_of(lambda inputs: np.zeros((len(inputs["person_ids"]), 2), np.float32))
    one, other = [0, 0, 0.2, 1], [0.7, 0, 1, 1]
    between = BoxesAt.of().between
    boxes = {
        0.0: BoxesAt(FoundBoxes.of([one, other], 1, [7, -1]), FoundBoxes.of(), between),
        1.0: BoxesAt.of([other, one]),
    }
    ids = [x.person_ids.tolist() for x in runner(iter(frames(1)), boxes)]
    assert ids == [[7, 8], [8, 7]]
    seen = TimedBoxes.join({0.5: FoundBoxes.of([[0.3, 0, 0.5, 1]], 1, [40])})
    boxes[1.0] = replace(boxes[1.0], between=seen)
    first = next(runner(iter(frames(1)), boxes))
    assert first.person_ids.tolist() == [7, 41], "an id that comes later is taken, too"
    untracked = runner_of(runner._score, replace(DESCRIPTION, tracking=None))
    untracked._score = runner._score
    ids = [x.person_ids.tolist() for x in untracked(iter(frames(1)), boxes)]
    assert ids == [[7, -1], [-1, -1]]


def test_pictures_are_normalised_and_padded():
    runner = SimpleNamespace(description=replace(DESCRIPTION, mean=(1, 2, 3), std=(2, 4, 5)))
    clip = np.zeros((4, 20, 40, 3), np.uint8)
    clip[..., 2] = 13
    x = Runner.normalised(runner, clip)
    assert x.shape == (1, 3, 4, 32, 48) and x.dtype == np.float32
    assert x[0, :, 0, 0, 0].tolist() == [-0.5, -0.5, 2] and not x[..., 20:, :].any()


def test_no_frames_give_no_results():
    assert list(runner_of(None)(iter([]), {})) == []
