"""Cases of losses and of scores."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alphaaction_d2.modeling.action_output import (
    ActionOutputLayers,
    ClassGroup,
    sigmoid_loss,
    softmax_loss,
)

from .case import GoldenCase
from .memory import persons_of_clips

RELEASED = {"pose": "pose_action", "object": "object_interaction", "person": "person_interaction"}
NO_POSE = (
    "a person without pose label is trained as class 1 there (a defect) and not at all here; the "
    "label was put in"
)
SATURATED = (
    "the loss of a positive stops growing there where its probability is 1.2e-38, and goes on "
    "here; logits below were raised to that point (not for the gradients)"
)
NO_ACCURACIES = "figures of the released training log, which ours does not have"
TINY = 1.1754944e-38  # the smallest normal float32


def released_groups(sizes: dict[str, int], weights: dict[str, float]) -> list[ClassGroup]:
    """Pose, object, person; the released weights belong to means over a group's classes.

    Ours belong to sums, except for the softmax group, which has one term a person.
    """
    groups, start = [], 0
    for name, size in sizes.items():
        weight = weights[f"loss_{RELEASED[name]}"] / (1 if name == "pose" else size)
        groups.append(ClassGroup(name, start, start + size, name == "pose", weight))
        start += size
    return groups


def with_pose(case: GoldenCase, labels: Tensor, groups: list[ClassGroup]) -> Tensor:
    """Labels (R, K), float, where everybody has a pose."""
    labels = labels.to(torch.float32, copy=True)
    without = ~labels[:, groups[0].columns].any(dim=1)
    if without.any():
        case.note(NO_POSE)
        labels[without, 0] = 1
    return labels


def compare_losses(
    case: GoldenCase, losses: dict[str, Tensor], weights: dict[str, float]
) -> Tensor:
    """Compare the losses by group, unweighted, and their sum; returns the sum."""
    for name, released in RELEASED.items():
        weight = weights[f"loss_{released}"]
        case.compare(f"out/loss_{released}", losses[f"loss_{name}"] / weight)
    total = sum(losses.values())
    case.compare("out/total_loss", total)
    return total


def check_losses(case: GoldenCase) -> None:
    """The three losses of a batch of persons."""
    config = case.config
    sizes = {name: config[f"num_{name}"] for name in RELEASED}
    groups = released_groups(sizes, config["loss_weights"])
    layers = ActionOutputLayers(
        input_dim=1,
        groups=groups,
        loss="focal",
        focal_gamma=config["gamma"],
        focal_alpha=config["alpha"],
    )
    labels = with_pose(case, case["in/labels"], groups)
    logits = case["in/logits"].requires_grad_()
    share = max(len(labels), 1) / config["avg_box_num"]  # of several workers' persons

    def losses(logits: Tensor) -> dict[str, Tensor]:
        return {name: share * loss for name, loss in layers.losses(logits, labels).items()}

    sum(losses(logits).values()).backward()
    case.compare_gradients({"logits": logits.grad})
    case.skip([f"out/accuracy_{released}" for released in RELEASED.values()], NO_ACCURACIES)
    with torch.no_grad():
        logits = _unsaturated(case, logits, labels, groups)
        compare_losses(case, losses(logits), config["loss_weights"])
        _compare_terms(case, logits, labels, groups)


def _unsaturated(
    case: GoldenCase, logits: Tensor, labels: Tensor, groups: list[ClassGroup]
) -> Tensor:
    floor = math.log(TINY)
    columns = slice(groups[0].stop, None)
    low = torch.zeros_like(labels, dtype=torch.bool)
    low[:, columns] = (labels[:, columns] > 0) & (logits[:, columns] < floor)
    if not low.any():
        return logits
    case.note(SATURATED)
    return torch.where(low, torch.full_like(logits, floor), logits)


def _compare_terms(
    case: GoldenCase, logits: Tensor, labels: Tensor, groups: list[ClassGroup]
) -> None:
    """Every person's pose loss and every other class's loss, before anything is added up."""
    gamma, alpha = case.config["gamma"], case.config["alpha"]
    pose, rest = groups[0].columns, slice(groups[0].stop, None)
    if "mid/pose_loss_per_box" in case:
        rows = zip(logits[:, pose].split(1), labels[:, pose].split(1))
        terms = torch.stack([softmax_loss(x, y, gamma, alpha) for x, y in rows])
        case.compare("mid/pose_loss_per_box", terms)
    if "mid/interaction_loss_elementwise" in case:
        pairs = zip(logits[:, rest].flatten(), labels[:, rest].flatten())
        terms = torch.stack([sigmoid_loss(x, y, gamma, alpha) for x, y in pairs])
        shape = logits[:, rest].shape
        case.compare("mid/interaction_loss_elementwise", terms.reshape(shape))


def check_scores(case: GoldenCase) -> None:
    """Scores of persons and their boxes."""
    pose, other = case.config["num_pose"], case.config["num_other"]
    groups = [ClassGroup("pose", 0, pose, True), ClassGroup("other", pose, pose + other, False)]
    layers = ActionOutputLayers(input_dim=1, groups=groups)
    persons = persons_of_clips(case.image_size, case["in/boxes"], case.counts("in/counts"))
    boxes = [x.proposal_boxes for x in persons]
    scores = layers.scores(case["in/logits"]).split([len(x) for x in persons])
    results = [layers.list_actions(*clip) for clip in zip(persons, boxes, scores)]
    compare_results(case, results, pose + other)


def compare_results(case: GoldenCase, results: list, num_classes: int) -> None:
    """Scores and boxes of the results' rows, one row a person and class."""
    scores = torch.cat([x.scores for x in results]).reshape(-1, num_classes)
    boxes = torch.cat([x.pred_boxes.tensor for x in results])[::num_classes]
    case.compare("out/scores", scores)
    case.compare("out/boxes", boxes)
