"""The aggregation structures against the released model's numbers (golden/README 2.1, 2.2)."""

from __future__ import annotations

import pytest
import torch
from detectron2.structures import Boxes, Instances

from alphaaction_d2.modeling.interaction import (
    DenseSerialInteraction,
    ParallelInteraction,
    SerialInteraction,
)
from alphaaction_d2.modeling.interaction.attention import InteractionBlock
from alphaaction_d2.structures import ClipFeatures, MemoryWindow
from tests.modeling.golden import GoldenCase, assert_close, our_aia_params

STRUCTURES = {
    "serial": SerialInteraction,
    "dense": DenseSerialInteraction,
    "parallel": ParallelInteraction,
}
BLOCK_CASES = [
    "a1_block_ln",
    "a2_block_no_ln",
    "a3_block_temporal_ln",
    "a4_block_temporal_ln_shortcut",
    "a5_block_all_dims_differ_no_ln",
    "a7_block_temporal_no_ln_shortcut",
]
STRUCTURE_CASES = [
    "b1_ia_serial",
    "b2_ia_dense",
    "b3_ia_parallel",
    "b4_ia_serial_order_MOP_no_ln_no_temporal",
    "b5_ia_dense_order_OMP_dimout32",
    "b6_ia_dense_no_object_in_any_clip",
    "b7_ia_serial_person_memory_only",
    "b8_ia_parallel_one_layer",
]


@pytest.mark.parametrize("name", BLOCK_CASES)
def test_block(shared, name):
    case = GoldenCase(shared / "golden" / "data", name)
    config = case.config
    block = InteractionBlock(
        dim_query=config["dim_person"],
        dim_other=config["dim_other"],
        dim_inner=config["dim_inner"],
        dim_out=config["dim_out"],
        num_slots=max(config["temporal_position_length"], 0),
        layer_norm=config["layer_norm"],
    )
    block.load_state_dict(our_aia_params(case.params()))
    person = case["in/person"].requires_grad_()
    others = case["in/others"].requires_grad_()
    out = block(person[:, None], others)[:, 0]
    assert_close(out.detach(), case["out/out"])
    (out * case["in/grad_projection"]).sum().backward()
    assert_close(person.grad, case["grad/person"])
    assert_close(others.grad, case["grad/others"])
    gradients = our_aia_params(case.params("grad/param/"))
    largest = max(g.abs().max().item() for g in gradients.values())
    for key, parameter in block.named_parameters():
        limit = 1e-4 * gradients[key].abs().max().item() + 2e-6 * largest
        assert (parameter.grad - gradients[key]).abs().max().item() <= limit, key


def build_structure(case: GoldenCase):
    config = case.config["ia_structure"]
    blocks = config["I_BLOCK_LIST"]
    if config["STRUCTURE"] == "parallel":
        blocks = [kind for layer in blocks for kind in layer]
    module = STRUCTURES[config["STRUCTURE"]](
        dim_in=config["DIM_IN"],
        dim_inner=config["DIM_INNER"],
        dim_out=config["DIM_OUT"],
        blocks=tuple(blocks),
        num_slots=sum(config["LENGTH"]) + 1,
        layer_norm=config["LAYER_NORM"],
        temporal_position=config["TEMPORAL_POSITION"],
        attend_padding=True,
        max_persons=config["MAX_PERSON"],
        max_objects=config["MAX_OBJECT"],
    )
    unused = module.load_state_dict(our_aia_params(case.params()), strict=False)
    assert not unused.missing_keys
    return module, unused.unexpected_keys


def instances(features: torch.Tensor, counts: list[int], **fields) -> list[Instances]:
    clips = []
    for rows in features.split(counts):
        clip = Instances((128, 160), roi_features=rows)
        clip.proposal_boxes = Boxes(torch.zeros(len(rows), 4))
        clips.append(clip)
    return clips


@pytest.mark.parametrize("name", STRUCTURE_CASES)
def test_structure(shared, name):
    case = GoldenCase(shared / "golden" / "data", name)
    module, unused = build_structure(case)
    # A P-block that is not in first position takes the queries as keys: this projection is unused.
    kinds = "".join(case.config["ia_structure"]["I_BLOCK_LIST"][0])
    assert all("person_key" in key for key in unused)
    assert bool(unused) == ("P" not in kinds)
    config = case.config["ia_structure"]
    slots, per_slot = sum(config["LENGTH"]) + 1, config["MAX_PER_SEC"]
    memory = case["in/memory"].unflatten(1, (slots, per_slot)).requires_grad_()
    num_clips = len(memory)
    window = MemoryWindow(
        features=memory,
        valid=torch.ones(num_clips, slots, per_slot, dtype=torch.bool),
        person_ids=torch.zeros(num_clips, slots, per_slot, dtype=torch.int64),
        boxes=torch.zeros(num_clips, slots, per_slot, 4),
        weights=torch.ones(num_clips, slots),
        offsets=torch.arange(slots) - config["LENGTH"][0],
    )
    person = case["in/person"].requires_grad_()
    objects = instances(case["in/object"], case.counts("in/objects_per_clip"))
    persons = instances(person, case.counts("in/persons_per_clip"))
    out, losses = module(list(map(ClipFeatures, persons, objects)), window)
    assert not losses
    assert_close(out.detach(), case["out/out"])
    (out * case["in/grad_projection"]).sum().backward()
    assert_close(person.grad, case["grad/person"])
    gradients = our_aia_params(case.params("grad/param/"))
    largest = max(g.abs().max().item() for g in gradients.values())
    for key, parameter in module.named_parameters():
        limit = 1e-4 * gradients[key].abs().max().item() + 2e-6 * largest
        assert (parameter.grad - gradients[key]).abs().max().item() <= limit, key
