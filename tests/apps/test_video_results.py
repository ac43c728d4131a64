"""What is kept of a video's results."""

from __future__ import annotations

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from alphaaction_d2.apps.video_results import keyframe_result


def test_a_kept_keyframe_keeps_nothing_else():
    """What the demo holds of every second: were it a view, memory would grow by all rows."""
    classes, persons = 80, 2
    index = torch.arange(persons).repeat_interleave(classes)
    instances = Instances((100, 100), pred_boxes=Boxes(torch.tensor([[1.0, 2, 30, 40]] * 160)))
    instances.person_index, instances.person_ids = index, index + 7
    instances.action_scores = torch.rand(persons, classes)[index]
    result = keyframe_result(3, instances, [f"class {i}" for i in range(classes)])
    assert [person.person_id for person in result.persons] == [7, 8]
    for i, person in enumerate(result.persons):
        expected = instances.action_scores[i * classes].numpy()
        np.testing.assert_array_equal(person.scores, expected)
        assert not np.shares_memory(person.scores, instances.action_scores.numpy())
    nobody = keyframe_result(3, instances[:0], ["class 0"])
    assert nobody.persons == []
