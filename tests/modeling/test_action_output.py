"""Losses and scores by hand (against the released model's numbers: tests/golden)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import LazyCall, instantiate
from detectron2.structures import Boxes, Instances

from alphaaction_d2.modeling.action_output import (
    ActionOutputLayers,
    ClassGroup,
    action_inference,
)

GROUPS = [ClassGroup("pose", 0, 3, True), ClassGroup("rest", 3, 5, False, 2.0)]
LAYERS = ActionOutputLayers(input_dim=1, groups=GROUPS)


def test_plain_losses_by_hand():
    logits = torch.tensor([[1.0, 0.0, -1.0, 0.5, -0.5], [0.0, 0.0, 0.0, 0.0, 0.0]])
    labels = torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]])
    losses = LAYERS.losses(logits, labels)
    # The second person has no pose label and so no pose loss.
    expected = F.cross_entropy(logits[:1, :3], torch.tensor([1])) / 2
    torch.testing.assert_close(losses["loss_pose"], expected)
    expected = F.binary_cross_entropy(logits[:, 3:].sigmoid(), labels[:, 3:], reduction="sum")
    torch.testing.assert_close(losses["loss_rest"], expected)  # weight 2, mean over 2 persons
    assert losses.counts == {"loss_pose": 2, "loss_rest": 2}


def test_no_persons_gives_zero_with_gradient():
    logits = torch.zeros(0, 5, requires_grad=True)
    losses = LAYERS.losses(logits, torch.zeros(0, 5))
    total = sum(losses.values())
    assert set(losses.counts.values()) == {0}
    total.backward()
    assert total.item() == 0 and logits.grad.shape == (0, 5)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_extreme_logits_are_finite(gamma):
    logits = torch.tensor([[1e4, -1e4, 0.0, 1e4, -1e4]], requires_grad=True)
    labels = torch.tensor([[0.0, 1.0, 0.0, 0.0, 1.0]])
    loss = "focal" if gamma else "bce"
    layers = ActionOutputLayers(input_dim=1, groups=GROUPS, loss=loss, focal_gamma=gamma)
    total = sum(layers.losses(logits, labels).values())
    total.backward()
    assert total.isfinite() and logits.grad.isfinite().all()


def test_inference_lists_persons_and_actions():
    persons = Instances((10, 10), person_ids=torch.tensor([7, -1]))
    boxes = Boxes(torch.tensor([[0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 3.0, 3.0]]))
    scores = torch.tensor([[0.9, 0.1, 0.6], [0.2, 0.3, 0.1]])
    rows = action_inference(persons, boxes, scores, 0.0)
    assert len(rows) == 6
    assert rows.person_index.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(rows.action_scores[4], scores[1])
    rows = action_inference(persons, boxes, scores, 0.5)
    assert rows.pred_classes.tolist() == [0, 2] and rows.person_ids.tolist() == [7, 7]
    assert torch.equal(rows.pred_boxes.tensor, boxes.tensor[[0, 0]])


@pytest.mark.parametrize("multiply", [False, True])
def test_an_action_counts_as_much_as_its_person(multiply):
    layers = ActionOutputLayers(
        input_dim=4, groups=[ClassGroup("all", 0, 2, False)], multiply_person_score=multiply
    )
    persons = Instances((10, 10), person_ids=torch.tensor([3, 4]))
    persons.objectness_logits = torch.tensor([0.5, 1.0])
    boxes = Boxes(torch.rand(2, 4))
    logits = torch.randn(2, 2)
    found = layers.list_actions(persons, boxes, layers.scores(logits))
    factors = torch.tensor([[0.5], [1.0]]) if multiply else 1.0
    torch.testing.assert_close(found.scores.view(2, 2), logits.sigmoid() * factors)
    torch.testing.assert_close(found.action_scores[::2], logits.sigmoid() * factors)


def test_built_by_a_lazy_config():
    group = LazyCall(ClassGroup)(name="pose", start=0, stop=3, exclusive=True)
    for groups in ([group], [ClassGroup("pose", 0, 3, True)]):
        layers = instantiate(LazyCall(ActionOutputLayers)(input_dim=4, groups=groups))
        assert layers.groups == [ClassGroup("pose", 0, 3, True)]
        assert layers(torch.zeros(2, 4)).shape == (2, 3)
        assert layers.losses(torch.zeros(2, 3), torch.eye(3)[:2])["loss_pose"] > 0
