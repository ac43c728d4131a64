"""Dual attention: every formula of the paper by hand, where gradients go, and odd clips."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, Instances
from torch import Tensor

from alphaaction_d2.modeling.action_output import build_class_groups
from alphaaction_d2.modeling.interaction import dam
from alphaaction_d2.modeling.interaction.dam import LOSSES, DualAttentionModule
from alphaaction_d2.structures import ClipFeatures
from tests.helpers import small_cfg

C, D, OUT, GRID, CLASSES = 5, 6, 7, 3, 4
SIZE = (48, 64)
LOSS_NAMES = {f"loss_{name}" for name in LOSSES}


def build(**options) -> DualAttentionModule:
    """Classes 0 and 1 are poses."""
    torch.manual_seed(0)
    options = {"classes": [2, 3], **options}
    module = DualAttentionModule(
        dim_in=C, dim_memory=D, dim_out=OUT, dim_inner=8, dim_reduced=4, **options
    )
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def clip(boxes: Tensor) -> ClipFeatures:
    """Persons in original `boxes`; their RoI grid lies in boxes a little larger."""
    n = len(boxes)
    grown = boxes + torch.tensor([-1.0, -2.0, 3.0, 1.0])
    persons = Instances(SIZE, proposal_boxes=Boxes(grown))
    persons.roi_maps = torch.randn(n, C, GRID, GRID)
    gt_classes = torch.randint(0, 2, (n, CLASSES)).float()
    nothing = Instances(SIZE, boxes=Boxes(boxes[:0]))
    return ClipFeatures(persons, nothing, gt_classes=gt_classes, gt_boxes=Boxes(boxes))


def random_clips(counts: list[int]) -> list[ClipFeatures]:
    corners = [torch.rand(n, 2, 2).sort(dim=1).values for n in counts]
    return [clip((x * torch.tensor([64.0, 48.0])).flatten(1)) for x in corners]


# ------------------------------------------------------------------ geometry
def test_cell_centres():
    points = dam.cell_centres(torch.tensor([[10.0, 20.0, 14.0, 28.0]]), 2)
    assert points.tolist() == [[[[11, 22], [13, 22]], [[11, 26], [13, 26]]]]


def test_points_inside_count_their_edge():
    points = torch.tensor([[[1.0, 1.0], [2.0, 3.0]], [[2.1, 2.0], [0.0, 2.0]]])
    inside = dam.points_inside(points, torch.tensor([1.0, 1.0, 2.0, 3.0]))
    assert inside.tolist() == [[True, True], [False, False]]


def test_polar_angles():
    """About (2, 2), in eighths of a turn; y points down. At the centre rounding decides nothing."""
    box = torch.tensor([0.0, 1.0, 4.0, 3.0])
    points = torch.tensor([[[1.0, 1.0], [2.0, 0.0], [3.0, 1.0]],
                           [[0.0, 2.0], [2.0 - 1e-5, 2.0 - 1e-5], [9.0, 2.0]],
                           [[1.0, 3.0], [2.0, 7.0], [5.0, 5.0]]])  # fmt: skip
    expected = [[-3 / 4, -1 / 2, -1 / 4], [1, 0, 0], [3 / 4, 1 / 2, 1 / 4]]
    torch.testing.assert_close(dam.polar_angles(points, box), torch.tensor(expected))


def own_angles(boxes: Tensor) -> Tensor:
    """Of 7 x 7 cells of boxes enlarged as in testing, about these boxes: (n, 7, 7) float64."""
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.25 / 2
    points = dam.cell_centres(boxes + torch.cat([-half, half], dim=1), 7)
    return dam.polar_angles(points, boxes).double()


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (17, 5), (100, 64)])
def test_neither_precision_nor_a_shift_turns_an_angle(shift):
    torch.manual_seed(0)
    size = torch.tensor([455.0, 256.0], dtype=torch.float64)
    # As a file has them, in thousandths of the picture.
    boxes = (torch.rand(100, 2, 2, dtype=torch.float64).sort(dim=1).values * 1000).round() / 1000
    boxes = (boxes * size).flatten(1)
    exact = own_angles(boxes)
    assert (exact[:, 3, :3] == 1).all(), "the middle row, left of the centre"
    moved = boxes + torch.tensor([*shift, *shift])
    for found in (own_angles(boxes.float()), own_angles(moved.float()), own_angles(moved)):
        torch.testing.assert_close(found, exact, atol=1e-4, rtol=0)


THREE = torch.tensor([[[0.0, 0.0, 4.0, 4.0], [2.0, 0.0, 4.0, 6.0], [3.0, -3.0, 9.0, 3.0]]])


def test_eq_1_by_hand():
    """Cells of person 0: (1, 1), (3, 1), (1, 3), (3, 3). Box 1 holds the two at x = 3, about (3, 3)
    at angles -1/2 and, at its centre, 0; box 2 holds both too, about (6, 0)."""
    points = dam.cell_centres(THREE, 2)
    mask = torch.tensor([[True, True, True]])
    geometry = dam.geometry_channels(points, THREE, mask)[0, 0]
    torch.testing.assert_close(geometry[0], torch.tensor([[0.25, 0.75], [0.25, 0.75]]))
    torch.testing.assert_close(geometry[1], torch.tensor([[0.25, 0.25], [0.75, 0.75]]))
    torch.testing.assert_close(geometry[2], torch.tensor([[-0.75, -0.25], [0.75, 0.25]]))
    upper, lower = math.atan2(1, -3) / math.pi, math.atan2(3, -3) / math.pi
    expected = torch.tensor([[0, (-0.5 + upper) / 2], [0, (0 + lower) / 2]])
    torch.testing.assert_close(geometry[3], expected)
    # Who is only padding interferes with nobody.
    mask = torch.tensor([[True, True, False]])
    geometry = dam.geometry_channels(points, THREE, mask)[0, 0]
    torch.testing.assert_close(geometry[3], torch.tensor([[0, -0.5], [0, 0]]))
    geometry = dam.geometry_channels(points, THREE, torch.tensor([[True, False, False]]))[0, 0]
    assert not geometry[3].any()


def test_eq_7_by_hand():
    points = dam.cell_centres(THREE, 2)
    covered = dam.interference(points, THREE, torch.tensor([[True, True, True]]))[0]
    assert covered[0].tolist() == [[False, True], [False, True]]
    # Person 1's cells are (2.5, 1.5), (3.5, 1.5), (2.5, 4.5), (3.5, 4.5).
    assert covered[1].tolist() == [[True, True], [False, False]]
    covered = dam.interference(points, THREE, torch.tensor([[True, False, False]]))[0, 0]
    assert not covered.any(), "alone"


def test_cells_outside_the_own_original_box_are_covered():
    pooled = torch.tensor([[[0.0, 0.0, 9.0, 9.0]]])
    original = torch.tensor([[[3.0, 0.0, 6.0, 6.0]]])
    covered = dam.interference(dam.cell_centres(pooled, 3), original, torch.tensor([[True]]))
    assert covered[0, 0].tolist() == [[True, False, True], [True, False, True], [True] * 3]


# ------------------------------------------------------------------ losses
def test_relaxation_by_hand():
    """IoU of 0 and 1: 8 / (16 + 12 - 8); of 0 and 2: 3 / (16 + 36 - 3)."""
    gt_classes = torch.tensor([[[0.0, 0, 1], [1, 0, 0], [1, 0, 0]]])
    relaxed = dam.relaxation(THREE, gt_classes)
    torch.testing.assert_close(relaxed[0, 0], torch.tensor([8 / 20, 0, 1]))
    torch.testing.assert_close(relaxed[0, 1], torch.tensor([1, 0, 8 / 20]))
    gt_classes[0, 1, 0] = 0
    torch.testing.assert_close(dam.relaxation(THREE, gt_classes)[0, 0, 0], torch.tensor(3 / 49))


def test_eq_4_and_5_by_hand():
    p = torch.tensor([[0.9, 0.2, 0.6]])
    y = torch.tensor([[1.0, 0.0, 0.0]])
    relaxed = torch.tensor([[1.0, 0.75, 0.0]])
    logits = torch.logit(p)
    plain = -math.log(0.9) - math.log(0.8) - math.log(0.4)
    torch.testing.assert_close(dam.relaxed_bce(logits, y), torch.tensor([plain]))
    softer = -math.log(0.9) - 0.25 * math.log(0.8) - math.log(0.4)
    torch.testing.assert_close(dam.relaxed_bce(logits, y, relaxed), torch.tensor([softer]))
    # A box without area does not even overlap itself; a positive class stays positive.
    torch.testing.assert_close(dam.relaxed_bce(logits, y, 0 * relaxed), torch.tensor([plain]))
    expected = F.binary_cross_entropy_with_logits(100 * logits, y, reduction="sum")
    torch.testing.assert_close(dam.relaxed_bce(100 * logits, y)[0], expected)


def test_weights_of_classes():
    p = torch.tensor([[0.9, 0.2, 0.6]])
    y = torch.tensor([[1.0, 0.0, 0.0]])
    relaxed = torch.tensor([[0.0, 0.75, 0.0]])
    weighted = -2 * math.log(0.9) - 3 * 0.25 * math.log(0.8) - 0.5 * math.log(0.4)
    result = dam.relaxed_bce(torch.logit(p), y, relaxed, torch.tensor([2.0, 3.0, 0.5]))
    torch.testing.assert_close(result, torch.tensor([weighted]))


def test_auxiliary_losses_weigh_classes_as_the_main_loss_does():
    """Group by group; exclusive groups have no part in them, and the default is 1 for all."""
    cfg = small_cfg(None, "MODEL.INTERACTION.NAME", "IGMN")
    weights = tuple(range(2, 2 + len(cfg.MODEL.ROI_ACTION_HEAD.GROUP_NAMES)))
    cfg.MODEL.ROI_ACTION_HEAD.GROUP_LOSS_WEIGHTS = weights
    module = DualAttentionModule(cfg, C, D, OUT)
    groups = [g for g in build_class_groups(cfg) if not g.exclusive]
    by_class = {c: g.loss_weight for g in groups for c in range(g.start, g.stop)}
    assert module.class_weights.tolist() == [by_class[c] for c in module.classes]
    assert "class_weights" not in module.state_dict(), "it is configuration, not what was learned"

    one, other = build(class_weights=(1.0, 1.0)), build(class_weights=(1.0, 3.0))
    plain, clips, graph = build(), random_clips([3, 1]), torch.randn(4, D)
    (_, expected), (_, ones), (_, heavy) = (m(clips, graph) for m in (plain, one, other))
    torch.testing.assert_close(ones, expected)
    for name, loss in heavy.items():
        assert (loss > 1.01 * expected[name]) == name.endswith("cls"), name


MAPS = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]] * 3)
COVERED = torch.tensor([[[1, 0], [0, 1]], [[0, 0], [0, 0]], [[1, 1], [1, 1]]]).bool()


def test_eq_6_by_hand():
    """Half covered, alone, fully covered."""
    expected = [(0.8**2 + 0.7**2) / 4, (0.9**2 + 0.8**2 + 0.7**2 + 0.6**2) / 4, 0]
    torch.testing.assert_close(dam.identity_prior(MAPS, COVERED), torch.tensor(expected))


def test_eq_8_by_hand():
    """0.1 + 0.4 against 0.2 + 0.3: no difference, the margin is missed in full. Others have nothing
    to rank."""
    torch.testing.assert_close(dam.semantic_prior(MAPS, COVERED, 0.1), torch.tensor([0.1, 0, 0]))
    assert dam.has_both_kinds(COVERED).tolist() == [True, False, False]
    higher = MAPS + 0.4 * COVERED
    expected = torch.tensor([1 - 0.8 / 4, 0, 0])
    torch.testing.assert_close(dam.semantic_prior(higher, COVERED, 1.0), expected)
    assert not dam.semantic_prior(higher, COVERED, 0.1).any(), "0.2 exceeds the margin"


def test_eq_3_by_hand():
    x, weights = torch.randn(2, 9, 5), torch.rand(2, 3, 3)
    expected = (x * weights.flatten(1)[..., None]).sum(dim=1) / 9
    torch.testing.assert_close(dam.attended_mean(x, weights), expected)
    assert dam.attended_mean(x[:0], weights[:0]).shape == (0, 5)


def test_weighted_mean():
    """Normalised weights say which cells, not how much: their scale does not matter."""
    x, weights = torch.randn(2, 9, 5), torch.rand(2, 3, 3)
    result = dam.attended_mean(x, weights, normalize=True)
    expected = (x * weights.flatten(1)[..., None]).sum(dim=1) / weights.sum(dim=(1, 2))[:, None]
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(dam.attended_mean(x, weights / 50, normalize=True), expected)
    one_cell = torch.zeros(2, 3, 3)
    one_cell[:, 1, 2] = 0.3
    torch.testing.assert_close(dam.attended_mean(x, one_cell, normalize=True), x[:, 5])
    assert not dam.attended_mean(x, torch.zeros(2, 3, 3), normalize=True).any(), "and finite"
    assert dam.attended_mean(x[:0], weights[:0], normalize=True).shape == (0, 5)


# ------------------------------------------------------------------ the module
def by_definition(module: DualAttentionModule, clips: list[ClipFeatures], graph: Tensor):
    """f_idt and the four losses, person by person, all attentions and losses on, lambda 1."""
    results, start = [], 0
    losses: dict[str, list[Tensor]] = {name: [] for name in LOSSES}
    for clip in (clip for clip in clips if len(clip.persons)):
        x, gt_classes = clip.persons, clip.gt_classes
        pooled, boxes = x.proposal_boxes.tensor[None], clip.gt_boxes.tensor[None]
        mask = torch.ones(1, len(x), dtype=torch.bool)
        points = dam.cell_centres(pooled, GRID)
        geometry = dam.geometry_channels(points, boxes, mask)[0]
        covered = dam.interference(points, boxes, mask)[0]
        relaxed = dam.relaxation(boxes, gt_classes[None, :, 2:])[0]
        for i in range(len(x)):
            reduced = module.reduce(graph[start + i])[:, None, None].expand(-1, GRID, GRID)
            f = torch.cat([x.roi_maps[i], geometry[i], reduced])
            semantic, identity = (
                network(f.flatten(1).t()).sigmoid().reshape(GRID, GRID)
                for network in (module.attention.semantic, module.attention.identity)
            )
            f_sem = module.projections["sem"]((f * semantic).mean(dim=(1, 2)))
            f_idt = module.projections["idt"]((f * semantic * identity).mean(dim=(1, 2)))
            results.append(f_idt)
            y, p = gt_classes[i, 2:], covered[i].float()
            sem = module.classifiers["sem"](f_sem).sigmoid()
            idt = module.classifiers["idt"](f_idt).sigmoid()
            weight = (1 - relaxed[i]) * (1 - y)
            losses["sem_cls"].append(-(y * sem.log() + weight * (1 - sem).log()).sum())
            losses["idt_cls"].append(-(y * idt.log() + (1 - y) * (1 - idt).log()).sum())
            losses["idt_prior"].append(((1 - p) * (identity - 1) ** 2).mean())
            if 0 < p.sum() < p.numel():
                rank = ((p * semantic).sum() - ((1 - p) * semantic).sum()) / p.numel()
                losses["sem_prior"].append(F.relu(module.margin - rank))
        start += len(x)
    means = {f"loss_{name}": torch.stack(x).mean() for name, x in losses.items()}
    return torch.stack(results), means


def test_module_is_its_definition():
    module = build(loss_weight=1.0, margin=0.3)
    clips, graph = random_clips([3, 0, 1, 4]), torch.randn(8, D)
    expected, expected_losses = by_definition(module, clips, graph)
    result, losses = module(clips, graph)
    torch.testing.assert_close(result, expected)
    assert expected_losses["loss_sem_prior"] > 0 and expected_losses["loss_idt_prior"] > 0
    torch.testing.assert_close(losses, expected_losses)
    module.loss_weight = 0.25
    for name, loss in module(clips, graph)[1].items():
        torch.testing.assert_close(loss, 0.25 * losses[name])


def test_louder_geometry_is_heavier_weights():
    """A factor on the geometry channels does what the same factor on their weights does."""
    loud, quiet = build(geometry_scale=3.0), build()
    layers = [quiet.attention.semantic[0], quiet.attention.identity[0]]
    layers += quiet.projections.values()
    with torch.no_grad():
        for layer in layers:
            layer.weight[:, C : C + dam.NUM_GEOMETRY] *= 3
    clips, graph = random_clips([3, 1]), torch.randn(4, D)
    torch.testing.assert_close(loud(clips, graph), quiet(clips, graph))


def test_testing_looks_at_detected_boxes_only():
    module = build().eval()
    (x,), graph = random_clips([3]), torch.randn(3, D)
    boxes = x.persons.proposal_boxes
    moved = Boxes(boxes.tensor + torch.tensor([-20, 0, 0, 9]))
    with torch.no_grad():
        result, losses = module([x], graph)
        assert losses == {}
        other = replace(x, gt_boxes=Boxes(torch.rand(3, 4)), gt_classes=torch.rand(3, CLASSES))
        torch.testing.assert_close(module([other], graph)[0], result)
        torch.testing.assert_close(module([replace(x, pooled_boxes=boxes)], graph)[0], result)
        elsewhere, _ = module([replace(x, pooled_boxes=moved)], graph)
        assert not torch.allclose(elsewhere, result), "cells lie elsewhere"


def test_boxes_far_away_do_not_matter_nor_do_other_clips():
    module = build().eval()
    clips, graph = random_clips([2, 1]), torch.randn(3, D)
    far = clip(torch.tensor([[500.0, 500.0, 510.0, 510.0]]))
    with torch.no_grad():
        expected, _ = module(clips, graph)
        alone = torch.cat([module(clips[:1], graph[:2])[0], module(clips[1:], graph[2:])[0]])
        torch.testing.assert_close(expected, alone)
        both = Instances.cat([clips[0].persons, far.persons])
        together, _ = module([ClipFeatures(both, far.objects)], graph)
    torch.testing.assert_close(together[:2], expected[:2])


SEM, IDT = "attention.semantic", "attention.identity"
REACHES = {  # which parts of the module a loss, or the result, teaches
    "loss_sem_cls": {SEM, "reduce", "projections.sem", "classifiers.sem"},
    "loss_idt_cls": {SEM, IDT, "reduce", "projections.idt", "classifiers.idt"},
    "loss_sem_prior": {SEM, "reduce"},
    "loss_idt_prior": {IDT, "reduce"},
    "result": {SEM, IDT, "reduce", "projections.idt"},
}


@pytest.mark.parametrize("name", REACHES)
def test_where_gradients_go(name):
    module = build(margin=1.0)  # which nobody keeps
    clips = random_clips([3, 2])
    graph = torch.randn(5, D, requires_grad=True)
    for x in clips:
        x.persons.roi_maps.requires_grad_()
    result, losses = module(clips, graph)
    (result.sum() if name == "result" else losses[name]).backward()
    reached = {
        part
        for parameter, p in module.named_parameters()
        for part in set().union(*REACHES.values())
        if parameter.startswith(part + ".") and p.grad is not None and p.grad.abs().max() > 0
    }
    assert reached == REACHES[name]
    assert graph.grad.abs().max() > 0, "the graph learns what attention wants to know"
    assert all(x.persons.roi_maps.grad.abs().max() > 0 for x in clips)


def test_identity_prior_on_the_product():
    module = build(prior_on_product=True, loss_weight=1.0)
    clips, graph = random_clips([2]), torch.randn(2, D)
    seen = []
    module.attention.register_forward_hook(lambda _, args, maps: seen.append(maps))
    _, losses = module(clips, graph)
    points = dam.cell_centres(clips[0].persons.proposal_boxes.tensor[None], GRID)
    original = clips[0].gt_boxes.tensor[None]
    covered = dam.interference(points, original, torch.ones(1, 2).bool())[0]
    product = seen[0].semantic * seen[0].identity
    expected = dam.identity_prior(product, covered).mean()
    torch.testing.assert_close(losses["loss_idt_prior"], expected)
    losses["loss_idt_prior"].backward()
    assert module.attention.semantic[0].weight.grad.abs().max() > 0


def test_counts_make_the_losses_of_two_workers_those_of_one():
    """Every person counts the same, however persons, ranked or not, are spread over workers."""
    module = build(margin=1.0)
    clips, graph = random_clips([4, 1, 0, 2]), torch.randn(7, D)
    whole = module(clips, graph)[1]
    assert whole.counts["loss_sem_cls"] == whole.counts["loss_idt_prior"] == 7
    assert 0 < whole.counts["loss_sem_prior"] < 7
    shares = [module(clips[:1], graph[:4])[1], module(clips[1:], graph[4:])[1]]
    for name, loss in whole.items():
        assert sum(share.counts[name] for share in shares) == whole.counts[name]
        total = sum(share.counts[name] * share[name] for share in shares)
        torch.testing.assert_close(total / whole.counts[name], loss)


def test_pose_labels_do_not_count():
    module = build()
    clips, graph = random_clips([3]), torch.randn(3, D)
    gt_classes = clips[0].gt_classes
    expected = module(clips, graph)[1]
    gt_classes[:, :2] = 1 - gt_classes[:, :2]
    assert module(clips, graph)[1] == expected
    gt_classes[:, 2:] = 1 - gt_classes[:, 2:]
    changed = module(clips, graph)[1]
    assert changed["loss_idt_cls"] != expected["loss_idt_cls"]
    assert changed["loss_idt_prior"] == expected["loss_idt_prior"]


@pytest.mark.parametrize("losses", [LOSSES, (), ("sem_cls",), ("idt_prior", "sem_prior")])
@pytest.mark.parametrize("attentions", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("counts", [[2, 0, 3], [0], [1]])
def test_every_switch_and_every_parameter(attentions, losses, counts):
    semantic, identity = attentions
    module = build(semantic=semantic, identity=identity, losses=losses)
    graph = torch.randn(sum(counts), D)
    result, found = module(random_clips(counts), graph)
    active = {"sem": semantic, "idt": identity}
    assert set(found) == {f"loss_{name}" for name in losses if active[name[:3]]}
    assert result.shape == (sum(counts), OUT)
    total = result.sum() + sum(found.values())
    assert total.isfinite()
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    if not sum(counts):
        assert not any(found.values()), "nobody, no loss"


@pytest.mark.parametrize("attentions", [(True, False), (False, True)])
def test_one_attention_alone(attentions):
    module = build(semantic=attentions[0], identity=attentions[1]).eval()
    clips, graph = random_clips([2]), torch.randn(2, D)
    seen = []
    module.attention.register_forward_hook(lambda _, args, maps: seen.append((args[0], maps)))
    with torch.no_grad():
        result, _ = module(clips, graph)
    x, maps = seen[0]
    only = maps.semantic if attentions[0] else maps.identity
    assert (maps.identity if attentions[0] else maps.semantic) is None
    (projection,) = module.projections.values()
    weighted = x * only.flatten(1)[..., None]
    torch.testing.assert_close(result, projection(weighted.mean(dim=1)))


@pytest.mark.parametrize(
    "boxes",
    [
        [[10.0, 10.0, 30.0, 40.0]],  # alone
        [[10.0, 10.0, 30.0, 40.0]] * 2,  # each covers the other fully
        [[10.0, 10.0, 30.0, 40.0], [0.0, 0.0, 64.0, 48.0]],
        [[10.0, 10.0, 10.0, 10.0], [10.0, 10.0, 10.0, 10.0]],  # without area
    ],
)
def test_alone_covered_and_without_area(boxes):
    module = build()
    x = clip(torch.tensor(boxes))
    x.persons.roi_maps.requires_grad_()
    result, losses = module([x], torch.randn(len(boxes), D))
    assert set(losses) == LOSS_NAMES
    total = result.sum() + sum(losses.values())
    assert total.isfinite()
    total.backward()
    assert x.persons.roi_maps.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in module.parameters())


def test_mixed_precision():
    module = build(loss_weight=1.0)
    clips, graph = random_clips([3, 1]), torch.randn(4, D)
    full, full_losses = module(clips, graph)
    with torch.autocast("cpu", torch.bfloat16):
        half, losses = module(clips, graph.bfloat16())
    torch.testing.assert_close(half.float(), full, atol=0.1, rtol=0.1)
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, full_losses[name], atol=0.05, rtol=0.05)


def test_poses_only():
    """All classes exclude each other: nothing is left to classify beside the prior losses."""
    module = build(classes=[])
    _, losses = module(random_clips([2]), torch.randn(2, D))
    assert set(losses) == {"loss_sem_prior", "loss_idt_prior"}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"semantic": False, "identity": False}, "both off; use HGNN"),
        ({"losses": ("sem", "idt_cls")}, r"LOSSES \['sem'\]: use some of sem_cls, idt_cls"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
