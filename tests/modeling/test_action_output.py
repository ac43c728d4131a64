"""Losses and scores against the released model's numbers (golden/README 2.4) and by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, Instances

from alphaaction_d2.modeling.action_output import (
    ClassGroup,
    action_inference,
    action_losses,
    action_scores,
)
from tests.modeling.golden import GoldenCase, assert_close

CASES = [
    "d1_action_loss",
    "d2_action_loss_avg_box_num_multi_gpu",
    "d3_action_loss_alpha025",
    "d4_action_loss_gamma0",
    "d6_action_loss_15_classes",
]


def released_groups(case: GoldenCase) -> list[ClassGroup]:
    config, weights = case.config, case.config["loss_weights"]
    pose, objects, persons = (config[f"num_{g}"] for g in ("pose", "object", "person"))
    # The released weights belong to means over a group's classes, ours to sums.
    return [
        ClassGroup("pose", 0, pose, True, weights["loss_pose_action"]),
        ClassGroup(
            "object", pose, pose + objects, False, weights["loss_object_interaction"] / objects
        ),
        ClassGroup(
            "person",
            pose + objects,
            pose + objects + persons,
            False,
            weights["loss_person_interaction"] / persons,
        ),
    ]


@pytest.mark.parametrize("name", CASES)
def test_focal_losses_as_released(shared, name):
    case = GoldenCase(shared / "golden" / "data", name)
    groups = released_groups(case)
    labels = case["in/labels"].float()
    # NOTE the released code trains a person without a pose label as class 1; we don't (METHODS.md).
    labels[~labels[:, groups[0].columns].any(dim=1), 0] = 1
    logits = case["in/logits"].requires_grad_()
    losses = action_losses(
        logits,
        labels,
        groups,
        case.config["avg_box_num"],
        case.config["gamma"],
        case.config["alpha"],
    )
    total = sum(losses.values())
    assert total.item() == pytest.approx(case["out/total_loss"].item(), rel=1e-5)
    names = {"pose": "pose_action", "object": "object_interaction", "person": "person_interaction"}
    for group in groups:
        released = case[f"out/loss_{names[group.name]}"].item()
        released *= case.config["loss_weights"][f"loss_{names[group.name]}"]
        assert losses[f"loss_{group.name}"].item() == pytest.approx(released, rel=1e-5)
    total.backward()
    if "grad/logits" in case.arrays.files:
        assert_close(logits.grad, case["grad/logits"])


def test_scores_as_released(shared):
    case = GoldenCase(shared / "golden" / "data", "d7_post_processor")
    groups = [ClassGroup("pose", 0, 14, True), ClassGroup("rest", 14, 80, False)]
    assert_close(action_scores(case["in/logits"], groups), case["out/scores"])


GROUPS = [ClassGroup("pose", 0, 3, True), ClassGroup("rest", 3, 5, False, 2.0)]


def test_plain_losses_by_hand():
    logits = torch.tensor([[1.0, 0.0, -1.0, 0.5, -0.5], [0.0, 0.0, 0.0, 0.0, 0.0]])
    labels = torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]])
    losses = action_losses(logits, labels, GROUPS, num_persons=2.0)
    # The second person has no pose label and so no pose loss.
    expected = F.cross_entropy(logits[:1, :3], torch.tensor([1])) / 2
    torch.testing.assert_close(losses["loss_pose"], expected)
    expected = F.binary_cross_entropy(logits[:, 3:].sigmoid(), labels[:, 3:], reduction="sum")
    torch.testing.assert_close(losses["loss_rest"], expected)  # weight 2, mean over 2 persons


def test_no_persons_gives_zero_with_gradient():
    logits = torch.zeros(0, 5, requires_grad=True)
    losses = action_losses(logits, torch.zeros(0, 5), GROUPS, num_persons=1.0)
    total = sum(losses.values())
    total.backward()
    assert total.item() == 0 and logits.grad.shape == (0, 5)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_extreme_logits_are_finite(gamma):
    logits = torch.tensor([[1e4, -1e4, 0.0, 1e4, -1e4]], requires_grad=True)
    labels = torch.tensor([[0.0, 1.0, 0.0, 0.0, 1.0]])
    total = sum(action_losses(logits, labels, GROUPS, 1.0, gamma).values())
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
