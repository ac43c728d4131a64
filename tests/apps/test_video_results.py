"""What is kept of a video's results."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from alphaaction_d2.apps.video_results import action_tubes, keyframe_result
from alphaaction_d2.formats.results import (
    ClipAttention,
    KeyframeResult,
    MemoryWeights,
    PersonResult,
    VideoResult,
)


def test_a_kept_keyframe_keeps_nothing_else():
    """What the demo holds of every second: were it a view, memory would grow by all rows."""
    classes, persons = 80, 2
    index = torch.arange(persons).repeat_interleave(classes)
    instances = Instances((100, 100), pred_boxes=Boxes(torch.tensor([[1.0, 2, 30, 40]] * 160)))
    instances.person_index, instances.person_ids = index, index + 7
    instances.action_scores = torch.rand(persons, classes)[index]
    names = [f"class {i}" for i in range(classes)]
    result = keyframe_result({"timestamp": 3, "instances": instances}, names)
    assert [person.person_id for person in result.persons] == [7, 8]
    for i, person in enumerate(result.persons):
        expected = instances.action_scores[i * classes].numpy()
        np.testing.assert_array_equal(person.scores, expected)
        assert not np.shares_memory(person.scores, instances.action_scores.numpy())
    nobody = keyframe_result({"timestamp": 3, "instances": instances[:0]}, names)
    assert nobody.persons == []


def test_attention_follows_its_persons():
    """With SCORE_THRESH_TEST, who has no action left is not reported: attention neither."""
    instances = Instances((100, 100), pred_boxes=Boxes(torch.rand(2, 4)))
    instances.person_index = instances.person_ids = torch.tensor([0, 2])
    instances.action_scores = torch.rand(2, 1)
    rows = np.arange(3.0)[:, None]
    memory = MemoryWeights("layer 1", 1.0, np.zeros(1), np.zeros(1, int), rows > 1, rows)
    attention = ClipAttention(rows.repeat(4, axis=1), {"semantic": rows[..., None]}, [memory])
    result = {"timestamp": 3, "instances": instances, "attention": attention}
    kept = keyframe_result(result, ["walk"]).attention
    assert kept.map_boxes[:, 0].tolist() == [0, 2]
    assert kept.maps["semantic"].ravel().tolist() == [0, 2]
    assert kept.memory[0].weights.ravel().tolist() == [0, 2]
    assert kept.memory[0].seen.ravel().tolist() == [False, True]


def test_tubes_of_identities():
    """From keyframe to keyframe, also over one in which somebody was not seen."""
    rows = {1: [(3, 0.9), (4, 0.1)], 2: [(3, 0.8), (-1, 0.9)], 3: [(4, 0.8)], 4: [(3, 0.9)]}
    keyframes = [
        KeyframeResult(
            float(second),
            [
                PersonResult.from_scores(
                    np.array([0.0, 0, 9, 9]), np.array([score, 0.0, 0.0]), ["sit", "", "run"], i
                )
                for i, score in persons
            ],
        )
        for second, persons in rows.items()
    ]
    result = VideoResult("film", 10, 10, ["sit", "", "run"], keyframes)
    found = action_tubes(result, 0.5)
    assert [(who, what, start, stop) for who, what, start, stop, _ in found] == [
        (3, "sit", 1.0, 4.0),
        (4, "sit", 3.0, 3.0),
    ]
    assert found[0][4] == pytest.approx(np.mean([0.9, 0.8, 0.85, 0.9]), abs=1e-6)
