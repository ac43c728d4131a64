"""From features of persons to actions: logits, losses, results. The twin of detectron2's
fast_rcnn.py.

Shape letters: R persons of the batch, Ri of clip i, K action classes, C feature channels.
Naming: logits before and scores after softmax or sigmoid; gt_classes is multi-hot, (R, K).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ..config import check_keys, class_groups, number, one_of
from ..structures import Losses

TINY = torch.finfo(torch.float32).tiny  # smallest probability inside a logarithm


@dataclass(frozen=True)
class ClassGroup:
    """Consecutive classes that are scored alike."""

    name: str  # e.g. "pose"; the loss is called `loss_<name>`.
    # start, stop: 0-based class range
    start: int
    stop: int
    exclusive: bool  # softmax over the group (exactly one class holds) instead of sigmoids
    loss_weight: float = 1.0  # factor of the group's loss

    @property
    def columns(self) -> slice:
        return slice(self.start, self.stop)


def build_class_groups(cfg: CfgNode) -> list[ClassGroup]:
    """Read groups from `cfg.MODEL.ROI_ACTION_HEAD`; ValueError when its keys disagree."""
    read = class_groups(cfg)
    groups, start = [], 0
    for name, size, weight in zip(read.names, read.sizes, read.loss_weights):
        groups.append(ClassGroup(name, start, start + size, name in read.exclusive, weight))
        start += size
    return groups


def action_scores(logits: Tensor, groups: list[ClassGroup]) -> Tensor:
    """Turn (R, K) logits into scores: softmax inside exclusive groups, sigmoid elsewhere."""
    parts = [
        logits[:, g.columns].softmax(dim=1) if g.exclusive else logits[:, g.columns].sigmoid()
        for g in groups
    ]
    return torch.cat(parts, dim=1)


def softmax_loss(logits: Tensor, gt_classes: Tensor, gamma: float, alpha: float) -> Tensor:
    """Sum cross entropy (gamma 0, alpha < 0) or its focal form over persons, for (R, K) of one
    exclusive group.

    A person without any label has no loss; of several labels the first counts. With alpha >= 0
    class 0 is weighted 1 - alpha and every other class alpha, as the released AIA model does.
    """
    label = gt_classes.argmax(dim=1)
    log_p = F.log_softmax(logits, dim=1).gather(1, label[:, None])[:, 0]
    p = log_p.exp()
    # As the authors' released model has it: the loss stops growing where p leaves float32 and its
    # gradient goes on. A plain clamp would stop both: who is that wrong would learn nothing.
    stopped = log_p + (log_p.clamp(min=math.log(TINY)) - log_p).detach()
    loss = -((1 - p) ** gamma) * stopped
    if alpha >= 0:
        loss = loss * torch.where(label == 0, 1 - alpha, alpha)
    return (loss * (gt_classes > 0).any(dim=1)).sum()


def sigmoid_loss(logits: Tensor, gt_classes: Tensor, gamma: float, alpha: float) -> Tensor:
    """Sum binary cross entropy (gamma 0, alpha < 0) or focal loss (Lin et al., ICCV 2017) over (R,
    K), whose classes are independent of each other."""
    loss = F.binary_cross_entropy_with_logits(logits, gt_classes, reduction="none")
    if gamma > 0:
        p = logits.sigmoid()
        loss = loss * torch.where(gt_classes > 0, 1 - p, p) ** gamma
    if alpha >= 0:
        loss = loss * torch.where(gt_classes > 0, alpha, 1 - alpha)
    return loss.sum()


def action_inference(
    persons: Instances, boxes: Boxes, scores: Tensor, score_thresh: float
) -> Instances:
    """List the actions of one clip's persons, person after person, one row per person and action.

    Args:
        persons: the clip's persons with `person_ids` (Ri,).
        boxes: their Ri boxes as they are reported.
        scores: (Ri, K); actions below `score_thresh` are left out (0: all Ri * K rows).

    Returns:
        `Instances` with `pred_boxes`, `scores`, `pred_classes` (0-based), `person_ids`,
            `person_index` (row of the person in its clip) and `action_scores` (K,) of the row's
            person.
    """
    index, classes = (scores >= score_thresh).nonzero(as_tuple=True)
    result = Instances(persons.image_size)
    result.pred_boxes = boxes[index]
    result.scores = scores[index, classes]
    result.pred_classes = classes
    result.person_ids = persons.person_ids[index]
    result.person_index = index
    result.action_scores = scores[index]
    return result


class ActionOutputLayers(nn.Module):
    """The classifier, with its losses and its results."""

    @configurable
    def __init__(
        self,
        *,
        input_dim: int,
        groups: list[ClassGroup],
        dropout: float = 0.0,
        loss: str = "bce",
        focal_gamma: float = 2.0,
        focal_alpha: float = -1.0,
        score_thresh: float = 0.0,
        multiply_person_score: bool = False,
    ) -> None:
        """Args:
        groups: class groups that cover classes 0 .. K - 1 in order.
        loss: "bce" or "focal".
        multiply_person_score: an action counts as much as its person was found for sure, by
            `objectness_logits`, which are scores.
        """
        super().__init__()
        if loss not in ("bce", "focal"):
            raise ValueError(f"MODEL.ROI_ACTION_HEAD.LOSS {loss!r} is not one of 'bce', 'focal'")
        # A LazyConfig turns the dataclasses of a list into configurations of their fields.
        self.groups = [x if isinstance(x, ClassGroup) else ClassGroup(**x) for x in groups]
        self.gamma, self.alpha = (focal_gamma, focal_alpha) if loss == "focal" else (0.0, -1.0)
        self.score_thresh = score_thresh
        self.multiply_person_score = multiply_person_score
        self.dropout = nn.Dropout(dropout)
        self.cls_score = nn.Linear(input_dim, self.groups[-1].stop)
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.zeros_(self.cls_score.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_dim: int) -> dict:
        check_keys(
            cfg,
            "MODEL.ROI_ACTION_HEAD",
            {
                "DROPOUT": number(0, 1),
                "LOSS": one_of(["bce", "focal"]),
                "FOCAL_GAMMA": number(0, 100),
                "FOCAL_ALPHA": number(-1, 1),
                "SCORE_THRESH_TEST": number(0, 1),
            },
        )
        node = cfg.MODEL.ROI_ACTION_HEAD
        return {
            "input_dim": input_dim,
            "groups": build_class_groups(cfg),
            "dropout": node.DROPOUT,
            "loss": node.LOSS,
            "focal_gamma": node.FOCAL_GAMMA,
            "focal_alpha": node.FOCAL_ALPHA,
            "score_thresh": node.SCORE_THRESH_TEST,
            "multiply_person_score": cfg.TEST.MULTIPLY_PERSON_SCORE,
        }

    def forward(self, features: Tensor) -> Tensor:
        """Compute logits (R, K) of features (R, input_dim)."""
        return self.cls_score(self.dropout(features))

    def losses(self, logits: Tensor, gt_classes: Tensor) -> Losses:
        """Give one weighted loss a group, `loss_<group>`, of logits and multi-hot classes (R, K):
        sum over its classes, mean over persons; zeros connected to `logits` when there are none.

        The mean is over all persons, also those whom a softmax group leaves out for want of a
        label: loss weights, ours and those of the released AIA model, are meant for it.
        """
        losses = Losses()
        for group in self.groups:
            function = softmax_loss if group.exclusive else sigmoid_loss
            x, y = logits[:, group.columns].float(), gt_classes[:, group.columns]
            total = group.loss_weight * function(x, y, self.gamma, self.alpha)
            losses.add(f"loss_{group.name}", total, len(logits))
        return losses

    def scores(self, logits: Tensor) -> Tensor:
        """Turn logits into scores (R, K); FloatingPointError where the network gives NaN or
        infinity, since its weights are broken."""
        if not logits.isfinite().all():
            raise FloatingPointError("the network's logits are not finite: are its weights sound?")
        return action_scores(logits.float(), self.groups)

    def list_actions(self, persons: Instances, boxes: Boxes, scores: Tensor) -> Instances:
        """List one clip's actions by its scores (Ri, K), see :func:`action_inference`."""
        if self.multiply_person_score:
            scores = scores * persons.objectness_logits[:, None].to(scores)
        return action_inference(persons, boxes, scores, self.score_thresh)
