"""Dual attention, IGMN (Sec. 3.3): which RoI cells show the action, and whose they are.

Shape letters: N clips, R persons of the batch, P persons of a clip after padding, C width of RoI
features, K RoI grid side, A action classes, B those of them that do not exclude each other, D
width of the graph's features.

Two kinds of boxes meet here. *Pooled* boxes are those that the RoI grid divides: jittered and
enlarged in training, enlarged in testing. *Original* boxes say where persons are: annotated in
training, detected in testing. A cell stands for its centre point; a point on an edge lies inside.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.structures import Boxes, pairwise_iou
from fvcore.nn import weight_init
from torch import Tensor, nn

from ...config import LOSS_WEIGHT, WIDTH, check_keys, number, one_of, several
from ...structures import ClipFeatures, Losses
from ..action_output import build_class_groups
from .attention import count_rows, pad_sets, projection, unpad

EPSILON = 1e-6  # added to sums that are divided by: Eq. 1, and normalised weights
NUM_GEOMETRY = 4  # channels of geometry_channels
LOSSES = ("sem_cls", "idt_cls", "sem_prior", "idt_prior")


# ------------------------------------------------------------------ geometry
def cell_centres(boxes: Tensor, grid: int) -> Tensor:
    """Find x, y of the centres of K x K equal cells, rows first: (..., 4) XYXY -> (..., K, K, 2).

    These are the cells of `ROIAlign` without its half-pixel offset on the feature map.
    """
    shares = (torch.arange(grid, device=boxes.device, dtype=boxes.dtype) + 0.5) / grid
    size = boxes[..., 2:] - boxes[..., :2]
    x = boxes[..., :1] + size[..., :1] * shares  # ... x K
    y = boxes[..., 1:2] + size[..., 1:] * shares
    shape = (*boxes.shape[:-1], grid, grid)
    return torch.stack([x[..., None, :].expand(shape), y[..., None].expand(shape)], dim=-1)


def points_inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Test whether points (..., K, K, 2) lie in boxes (..., 4), leading axes alike: (..., K, K)."""
    corners = boxes[..., None, None, :]
    return ((points >= corners[..., :2]) & (points <= corners[..., 2:])).all(dim=-1)


def polar_angles(points: Tensor, boxes: Tensor) -> Tensor:
    """Compute polar angles of points about the centres of boxes, divided by pi: in [-1, 1].

    Shapes as in :func:`points_inside`. What lies a thousandth of a pixel or less from the centre,
    in x or in y, lies on it there: rounding must not decide. The middle row of a grid about its own
    box does, and left of the centre its angle would be 1 or -1 by chance. It is 1; 0 at the centre.
    """
    away = points - ((boxes[..., :2] + boxes[..., 2:]) / 2)[..., None, None, :]
    away = away.masked_fill(away.abs() < 1e-3, 0.0)  # 0.0 and not -0.0, whose angle would be -1
    return torch.atan2(away[..., 1], away[..., 0]) / math.pi


def interferers(points: Tensor, boxes: Tensor, mask: Tensor) -> Tensor:
    """Find p_j of every cell: (N, P, P, K, K) bool, the point (N, P, K, K, 2) of i lies in the
    original box (N, P, 4) of j != i; the mask is (N, P)."""
    num_persons = boxes.shape[1]
    others = mask[:, None] & ~torch.eye(num_persons, dtype=torch.bool, device=mask.device)
    return points_inside(points[:, :, None], boxes[:, None]) & others[..., None, None]


def geometry_channels(points: Tensor, boxes: Tensor, mask: Tensor) -> Tensor:
    """Compute f_geo (N, P, 4, K, K); arguments as in :func:`interferers`.

    Channels: x and y within the pooled box, in (0, 1); the polar angle about the own original box;
    the mean polar angle about the boxes of all others that the point lies in (Eq. 1).
    """
    grid = points.shape[2]
    unit = cell_centres(points.new_tensor([0.0, 0.0, 1.0, 1.0]), grid)  # K x K x 2
    unit = unit.expand(points.shape)
    p = interferers(points, boxes, mask).to(points.dtype)
    angles = polar_angles(points[:, :, None], boxes[:, None])  # N x P x P x K x K
    others = (p * angles).sum(dim=2) / (p.sum(dim=2) + EPSILON)
    own = polar_angles(points, boxes)
    return torch.stack([unit[..., 0], unit[..., 1], own, others], dim=2)


def interference(points: Tensor, boxes: Tensor, mask: Tensor) -> Tensor:
    """Find p (Eq. 7): (N, P, K, K) bool, in another's box or outside the own original one.

    Arguments as in :func:`interferers`.
    """
    return interferers(points, boxes, mask).any(dim=2) | ~points_inside(points, boxes)


# ------------------------------------------------------------------ losses
def relaxation(boxes: Tensor, gt_classes: Tensor) -> Tensor:
    """Compute E (Eq. 4): (N, P, B), the largest IoU of original boxes (N, P, 4) with a person of
    the clip who does the action, by `gt_classes` (N, P, B) of 0 and 1, where rows of padding are
    0."""
    iou = torch.stack([pairwise_iou(Boxes(x), Boxes(x)) for x in boxes])  # N x P x P
    return (iou[..., None] * gt_classes[:, None]).amax(dim=2)


def relaxed_bce(
    logits: Tensor,
    gt_classes: Tensor,
    relaxed: Tensor | None = None,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Sum every person's binary cross entropy over classes, (R, B) -> (R,) (Eq. 4; Eq. 5 without
    E).

    The negative term counts 1 - E of `relaxed` E (R, B); the classes have weights (B,), or 1 each.
    """
    positive = gt_classes * F.softplus(-logits)
    negative = (1 - gt_classes) * F.softplus(logits)
    if relaxed is not None:
        negative = (1 - relaxed) * negative
    loss = positive + negative
    return (loss if class_weights is None else loss * class_weights).sum(dim=1)


def identity_prior(identity: Tensor, covered: Tensor) -> Tensor:
    """Compute Eq. 6 of every person: (R,). identity: omega (R, K, K). covered: p (R, K, K) bool."""
    return ((identity - 1) ** 2 * ~covered).mean(dim=(1, 2))


def semantic_prior(semantic: Tensor, covered: Tensor, margin: float) -> Tensor:
    """Compute Eq. 8 of every person: (R,), 0 for persons who do not have both kinds of cells.

    Who lacks one kind has nothing to rank: the loss would only push the whole map up or down.
    Arguments as in :func:`identity_prior`; margin: gamma.
    """
    sign = torch.where(covered, 1.0, -1.0).to(semantic.dtype)
    loss = (margin - (sign * semantic).mean(dim=(1, 2))).clamp(min=0)
    return loss * has_both_kinds(covered)


def has_both_kinds(covered: Tensor) -> Tensor:
    """Say of whom some cells are covered and others not: (R, K, K) -> (R,) bool."""
    return covered.flatten(1).any(dim=1) & ~covered.flatten(1).all(dim=1)


# ------------------------------------------------------------------ modules
class AttentionMaps(NamedTuple):
    """What :class:`DualAttention` finds, (R, K, K) in (0, 1) each; None for one switched off."""

    semantic: Tensor | None
    identity: Tensor | None

    @property
    def own_action(self) -> Tensor:
        """The map that weights the actor's features: the product, or the only one there is."""
        maps = [x for x in (self.semantic, self.identity) if x is not None]
        return functools.reduce(torch.mul, maps)


class DualAttention(nn.Module):
    """Semantic and identity attention (Eq. 2): two 1x1 convolutions and a sigmoid each."""

    def __init__(self, dim_in: int, dim_inner: int, semantic: bool, identity: bool) -> None:
        super().__init__()
        self.semantic = self._network(dim_in, dim_inner) if semantic else None
        self.identity = self._network(dim_in, dim_inner) if identity else None

    @staticmethod
    def _network(dim_in: int, dim_inner: int) -> nn.Sequential:
        first, second = _CellConv(dim_in, dim_inner, 1), _CellConv(dim_inner, 1, 1)
        weight_init.c2_msra_fill(first)
        nn.init.normal_(second.weight, std=0.01)
        nn.init.zeros_(second.bias)  # type: ignore[arg-type]  # it has one
        return nn.Sequential(first, nn.ReLU(), second)

    def forward(self, x: Tensor) -> AttentionMaps:
        """Find the maps of f_dam (R, KK, dim_in), cell by cell."""
        grid = math.isqrt(x.shape[1])
        maps = [
            None if network is None else network(x)[..., 0].unflatten(1, (grid, grid)).sigmoid()
            for network in (self.semantic, self.identity)
        ]
        return AttentionMaps(*maps)


class _CellConv(nn.Conv2d):
    """A 1x1 convolution of cells (R, KK, C): a product of matrices, whatever R is."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.flatten(1), self.bias)


class DualAttentionModule(nn.Module):
    """Short-term context: what of an actor's box belongs to the actor and tells the action.

    Where the paper is silent:

    * the RoI features enter as they are pooled, and only the graph's features are reduced;
    * attended features get a linear layer to `dim_out`, and a linear classifier follows it, one of
      each per attention;
    * with one attention alone, its map weights the result and its losses remain (Table 1d);
    * L_idt_prior looks at the identity map itself, before it is multiplied with the semantic one:
      of the product it would also push the semantic map to 1 everywhere else, against L_sem_prior
      (`prior_on_product` for the other reading). The classification of f_idt reaches both;
    * the classes of softmax groups are the pose classes; the others weigh what their group does in
      the main loss: where a rare class is made to count, attention has to learn from it, too;
    * no gradient is stopped: attention teaches backbone and graph through its input.
    """

    class_weights: Tensor

    @configurable
    def __init__(
        self,
        *,
        dim_in: int,
        dim_memory: int,
        dim_out: int,
        dim_inner: int,
        dim_reduced: int,
        classes: Sequence[int],
        class_weights: Sequence[float] = (),
        semantic: bool = True,
        identity: bool = True,
        losses: Sequence[str] = LOSSES,
        loss_weight: float = 0.5,
        margin: float = 0.1,
        prior_on_product: bool = False,
        normalize_weights: bool = False,
        geometry_scale: float = 1.0,
        init_std: float = 0.01,
    ) -> None:
        """
        Args:
            dim_in, dim_memory, dim_out: C, D and the width of the result.
            dim_inner: width inside the attention networks.
            dim_reduced: width to which the graph's features are reduced.
            classes: indices of the B classes that the auxiliary classifiers learn.
            class_weights: factors of the B classes in their losses; (): 1 each.
            semantic, identity: the attentions in use, at least one.
            losses: of LOSSES; those of an attention that is off do nothing.
            loss_weight: lambda_aux. margin: gamma.
            normalize_weights: pool by the weighted mean instead of Eq. 3, see
                :func:`attended_mean`.
            geometry_scale: factor of the geometry channels. They are four among hundreds of
                features; at 1 the networks begin nearly blind to them, and learn where something is
                only after what it is.
            init_std: standard deviation of the initial projections.
        """
        super().__init__()
        if not (semantic or identity):
            raise ValueError("MODEL.DAM: SEMANTIC and IDENTITY are both off; use HGNN instead")
        unknown = sorted(set(losses) - set(LOSSES))
        if unknown:
            raise ValueError(f"MODEL.DAM.LOSSES {unknown}: use some of {', '.join(LOSSES)}")
        self.loss_weight, self.margin = loss_weight, margin
        self.prior_on_product = prior_on_product
        self.normalize_weights = normalize_weights
        self.geometry_scale = geometry_scale
        self.classes = list(classes)
        weights = torch.tensor(list(class_weights or [1.0] * len(self.classes)))
        self.register_buffer("class_weights", weights, persistent=False)
        active = {"sem": semantic, "idt": identity}
        self.losses = {x for x in losses if active[x[:3]] and (classes or not x.endswith("cls"))}

        self.reduce = projection(dim_memory, dim_reduced, init_std)  # 1x1, of a single cell
        dim = dim_in + NUM_GEOMETRY + dim_reduced
        self.attention = DualAttention(dim, dim_inner, semantic, identity)
        # Only what is used exists: a parameter without gradient stops distributed training.
        self.main = "idt" if identity else "sem"
        self.projections, self.classifiers = nn.ModuleDict(), nn.ModuleDict()
        for name in ("sem", "idt"):
            if name == self.main or f"{name}_cls" in self.losses:
                self.projections[name] = projection(dim, dim_out, init_std)
            if f"{name}_cls" in self.losses:
                self.classifiers[name] = projection(dim_out, len(self.classes), 0.01)

    @classmethod
    def from_config(cls, cfg: CfgNode, num_channels: int, dim_memory: int, dim_out: int) -> dict:
        check_keys(
            cfg,
            "MODEL.DAM",
            {
                "DIM": WIDTH,
                "DIM_MEMORY": WIDTH,
                "LOSSES": several(one_of(LOSSES), range(5)),
                "LOSS_WEIGHT": LOSS_WEIGHT,
                "MARGIN": number(0, 1000),
                "GEOMETRY_SCALE": number(0, 10_000),
            },
        )
        node = cfg.MODEL.DAM
        groups = [g for g in build_class_groups(cfg) if not g.exclusive]
        options = ["semantic", "identity", "losses", "loss_weight", "margin"]
        options += ["prior_on_product", "normalize_weights", "geometry_scale"]
        return {
            **{name: node[name.upper()] for name in options},
            "dim_in": num_channels,
            "dim_memory": dim_memory,
            "dim_out": dim_out,
            "dim_inner": node.DIM,
            "dim_reduced": node.DIM_MEMORY,
            "classes": [c for g in groups for c in range(g.start, g.stop)],
            "class_weights": [g.loss_weight for g in groups for _ in range(g.start, g.stop)],
            "init_std": cfg.MODEL.INTERACTION.INIT_STD,
        }

    def forward(self, clips: list[ClipFeatures], graph_features: Tensor) -> tuple[Tensor, Losses]:
        """Give f_idt (R, dim_out), and in training the auxiliary losses, weighted.

        Persons have `roi_maps` (Ri, C, K, K); in training clips have `gt_classes` (Ri, A) and
        `gt_boxes` (else the proposals count as original). The graph's features (R, D) are the mean
        over its layers.
        """
        persons = [clip.persons for clip in clips]
        counts = count_rows(x.roi_maps for x in persons)
        maps = torch.cat([x.roi_maps for x in persons])
        grid = maps.shape[-1]
        pooled, mask = pad_sets(torch.cat([x.grid_boxes for x in clips]), counts)
        boxes, _ = pad_sets(torch.cat([original_boxes(x, self.training) for x in clips]), counts)
        points = cell_centres(pooled, grid)  # N x P x K x K x 2
        geometry = self.geometry_scale * geometry_channels(points, boxes, mask)
        geometry = unpad(geometry, counts)
        cells = [y.flatten(2).transpose(1, 2) for y in (maps, geometry)]  # R x KK x ...
        cells.append(self.reduce(graph_features)[:, None].expand(-1, grid**2, -1))
        x = torch.cat([y.to(maps.dtype) for y in cells], dim=2)

        attention = self.attention(x)
        weights = {"idt": attention.own_action, "sem": attention.semantic}
        features = {
            name: projection(attended_mean(x, weights[name], self.normalize_weights))
            for name, projection in self.projections.items()
        }
        losses = Losses()
        if self.training:
            covered = interference(points, boxes, mask)[mask]
            self._add_prior_losses(losses, attention, covered)
            if self.classifiers:
                gt_classes = torch.cat([x.gt_classes for x in clips])  # type: ignore[misc]
                gt_classes = gt_classes[:, self.classes].float()
                padded, _ = pad_sets(gt_classes, counts)
                relaxed = relaxation(boxes, padded)[mask]
                self._add_classification_losses(losses, features, gt_classes, relaxed)
        return features[self.main], losses

    def _add_classification_losses(
        self, losses: Losses, features: dict[str, Tensor], gt_classes: Tensor, relaxed: Tensor
    ) -> None:
        for name, classifier in self.classifiers.items():
            logits = classifier(features[name]).float()
            softer = relaxed if name == "sem" else None
            loss = relaxed_bce(logits, gt_classes, softer, self.class_weights)
            losses.add(f"loss_{name}_cls", self.loss_weight * loss.sum(), len(loss))

    def _add_prior_losses(self, losses: Losses, attention: AttentionMaps, covered: Tensor) -> None:
        if "idt_prior" in self.losses:
            identity = attention.own_action if self.prior_on_product else attention.identity
            assert identity is not None
            loss = identity_prior(identity.float(), covered)
            losses.add("loss_idt_prior", self.loss_weight * loss.sum(), len(loss))
        if "sem_prior" in self.losses:
            assert attention.semantic is not None
            loss = semantic_prior(attention.semantic.float(), covered, self.margin)
            # The mean is over those who have something to rank: in films most persons stand alone,
            # and would thin the loss out to nothing.
            num_ranked = int(has_both_kinds(covered).sum())
            losses.add("loss_sem_prior", self.loss_weight * loss.sum(), num_ranked)


def attended_mean(x: Tensor, weights: Tensor, normalize: bool = False) -> Tensor:
    """Compute Eq. 3: the mean over the cells of x (R, KK, C) times weights (R, K, K): (R, C).

    The paper divides by the number of cells, not by the sum of the weights: a map that picks few
    cells makes what it has picked fainter. To `normalize` is to divide by the sum: what is picked
    then keeps its size, whether from all cells or from one. A product of matrices, so that the
    weighted features are never written down.
    """
    cells = weights.flatten(1)  # R x KK
    shares = cells / (cells.sum(dim=1, keepdim=True) + EPSILON if normalize else cells.shape[1])
    return torch.bmm(shares[:, None].to(x.dtype), x)[:, 0]


def original_boxes(clip: ClipFeatures, training: bool) -> Tensor:
    """Give the Ri boxes that are neither jittered nor enlarged, as far as they are known."""
    if training and clip.gt_boxes is not None:
        return clip.gt_boxes.tensor
    return clip.persons.proposal_boxes.tensor
