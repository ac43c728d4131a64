"""Found boxes: thresholds, sizes, who is a person, and what the model is shown of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, pairwise_iou
from hypothesis import given, settings
from hypothesis import strategies as st

from alphaaction_d2.structures import AnnotatedPersons, BoxChoice, FoundBoxes, TimedBoxes, box_iou


def place(found: FoundBoxes) -> np.ndarray:
    return found.in_pixels(20, 10)


def test_a_score_at_the_threshold_counts():
    # 0.7 and 0.3 are no binary fractions, and scores are float32
    scores = [0.7, np.nextafter(np.float32(0.7), np.float32(0)), 0.3, 0.9, 0.29999]
    found = FoundBoxes.of(np.arange(20).reshape(5, 4), scores, range(5))
    assert found.above(0.7).ids.tolist() == [0, 3]
    choice = BoxChoice(min_person_score=0.7, min_object_score=0.3, max_objects=5)
    persons = choice.persons(found, place, (10, 20))
    assert persons.person_ids.tolist() == [0, 3]
    assert persons.objectness_logits.tolist() == pytest.approx([0.7, 0.9])
    objects = choice.objects(found, place, (10, 20))
    assert objects.scores.tolist() == pytest.approx([0.3, 0.7, 0.7, 0.9])


@pytest.mark.parametrize("number, expected", [(0, []), (1, [3]), (3, [2, 0, 3]), (9, [1, 2, 0, 3])])
def test_the_best_come_last(number, expected):
    found = FoundBoxes.of(np.zeros((4, 4)), [0.6, 0.1, 0.5, 0.6], range(4))
    assert found.best(number).ids.tolist() == expected
    choice = BoxChoice(0.0, 0.0, max_objects=number)
    assert len(choice.objects(found, place, (10, 20))) == len(expected)


def test_what_the_model_is_shown_does_not_share_memory_with_what_was_found():
    found = FoundBoxes.of([[0.5, 0, 1, 0.5]], 0.9, 7)
    choice = BoxChoice(0.0, 0.0, 5)
    for shown in (choice.persons(found, place, (10, 20)), choice.objects(found, place, (10, 20))):
        assert shown.image_size == (10, 20)
        for values in shown.get_fields().values():
            values = values.tensor if isinstance(values, Boxes) else values
            values += 1
    assert found.boxes.tolist() == [[0.5, 0, 1, 0.5]] and found.ids.tolist() == [7]
    assert found.scores.tolist() == [np.float32(0.9)]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.floats(0, 4000, width=32), min_size=4, max_size=4), max_size=5),
    st.tuples(st.integers(1, 8000), st.integers(1, 8000)),
)
def test_pixels_come_back_as_they_were(boxes, size):
    """Fractions are float64, so that a picture of any size has the boxes of its detector."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    back = FoundBoxes.of(boxes, size=size).in_pixels(*size)
    np.testing.assert_array_equal(back, boxes)
    assert back.dtype == np.float32


def test_nobody():
    nobody = FoundBoxes.of()
    assert len(nobody) == len(nobody.above(0.5)) == len(nobody.best(3)) == 0
    assert nobody.boxes.shape == nobody.in_pixels(8, 6).shape == (0, 4)
    assert list(TimedBoxes.join({}).moments()) == []


def test_moments_in_one_value():
    first, second = FoundBoxes.of([[0, 0, 1, 1]] * 2, [0.9, 0.8], [1, 2]), FoundBoxes.of([0] * 4)
    joined = TimedBoxes.join({0.25: first, 0.5: FoundBoxes.of(), 0.75: second})
    assert joined.timestamps.tolist() == [0.25, 0.25, 0.75]
    assert [(t, found.ids.tolist()) for t, found in joined.moments()] == [
        (0.25, [1, 2]),
        (0.75, [-1]),
    ]


def test_a_person_is_a_box_with_an_id():
    boxes, ids = [[0, 0, 1, 1], [2, 2, 3, 3]], [5, -1]
    rows = [0, 1, 0, 1]
    persons = AnnotatedPersons.of(
        {"annotations": [{"bbox": boxes[r], "person_id": ids[r]} for r in rows]}
    )
    assert persons.boxes.tolist() == boxes and persons.ids.tolist() == ids
    assert persons.rows.tolist() == rows
    assert persons.found(4, 2).boxes.tolist() == [[0, 0, 0.25, 0.5], [0.5, 1, 0.75, 1.5]]
    two = [{"bbox": boxes[0], "person_id": i} for i in (5, 6)]
    assert len(AnnotatedPersons.of({"annotations": two})) == 2, "one box, two persons"
    assert AnnotatedPersons.of({"annotations": []}).boxes.shape == (0, 4)


def test_iou_by_hand():
    boxes = np.array([[0, 0, 2, 2], [5, 5, 5, 9]], dtype=float)
    others = np.array([[1, 0, 3, 2], [0, 0, 2, 2], [5, 5, 5, 9]], dtype=float)
    np.testing.assert_allclose(box_iou(boxes[:, None], others), [[1 / 3, 1, 0], [0, 0, 0]])
    assert box_iou(np.full((1, 4), np.nan), others).tolist() == [0, 0, 0]


def test_iou_is_detectron2s():
    rng = np.random.default_rng(0)
    boxes, others = (np.sort(rng.random((n, 2, 2)), axis=1).reshape(-1, 4) for n in (6, 9))
    expected = pairwise_iou(*(Boxes(torch.from_numpy(x).double()) for x in (boxes, others)))
    np.testing.assert_allclose(box_iou(boxes[:, None], others), expected, atol=1e-6)
