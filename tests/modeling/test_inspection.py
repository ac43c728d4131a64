"""What is recorded of attention: the right weights, at the right place, and nothing disturbed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from alphaaction_d2.memory.window import empty_window
from alphaaction_d2.modeling.interaction import (
    InteractionModule,
    NonLocalInteraction,
    SerialInteraction,
)
from alphaaction_d2.modeling.interaction.attention import InteractionBlock
from alphaaction_d2.modeling.interaction.build import MemoryAttention
from alphaaction_d2.modeling.interaction.hgnn import HGNN
from alphaaction_d2.modeling.interaction.inspection import has_attention, record_attention
from alphaaction_d2.structures import MemoryWindow
from tests.modeling.test_hgnn import random_clips, random_memory
from tests.modeling.test_igmn import igmn_cfg, training_input

C, D = 6, 8
BEFORE, AFTER, PERSONS = 4, 4, 3


def aia(**options) -> SerialInteraction:
    torch.manual_seed(0)
    module = SerialInteraction(
        dim_in=C,
        dim_inner=D,
        dim_out=D,
        num_slots=BEFORE + AFTER + 1,
        blocks=tuple("PMM"),
        **options,
    )
    return randomised(module)


def hgnn(**options) -> HGNN:
    torch.manual_seed(0)
    return randomised(HGNN(dim_in=C, dim_inner=D, dim_out=D, **options))


def randomised(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.eval()


def record(module: nn.Module, clips, memory):
    with torch.no_grad(), record_attention(module) as recorded:
        result, _ = module(clips, memory)
    return result, recorded


MODULES = {
    "AIA": aia,
    "AIA, padding attended": lambda: aia(attend_padding=True),
    "HGNN": hgnn,
    "HGNN-s": lambda: hgnn(aggregator="", down_sample=False),
    "others only": lambda: hgnn(exclude_self=True, down_sample=False),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("counts", [[2, 0, 3], [0], [1]])
def test_weights_add_up_and_nothing_changes(name, counts):
    module = MODULES[name]()
    clips, memory = random_clips(counts), random_memory(len(counts), BEFORE, AFTER, PERSONS)
    with torch.no_grad():
        expected, _ = module(clips, memory)
    result, recorded = record(module, clips, memory)
    assert torch.equal(result, expected)
    assert [len(x.map_boxes) for x in recorded] == counts
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    for clip in recorded:
        assert len(clip.memory) == (2 if name.startswith("AIA") else 3)
        for attention in clip.memory:
            sums = attention.weights.sum(axis=1)
            sees_somebody = attention.seen.any(axis=1) | ("padding" in name)
            np.testing.assert_allclose(sums, sees_somebody, rtol=1e-5, atol=1e-6)
            if "padding" not in name:
                assert not attention.weights[~attention.seen].any()


def numbered(memory: MemoryWindow) -> MemoryWindow:
    """Everybody is there, with an id that says where: 10 * slot + column."""
    slots, persons = memory.valid.shape[1:]
    ids = 10 * torch.arange(slots)[:, None] + torch.arange(persons)
    valid = torch.ones_like(memory.valid)
    return replace(memory, valid=valid, person_ids=ids.expand(valid.shape).clone())


@pytest.mark.parametrize("name", ["AIA", "HGNN", "HGNN, not down-sampled"])
def test_places_are_those_of_the_window(name):
    if name == "AIA":
        module, steps = aia(), [1, 1]
    else:
        coarser = name == "HGNN"
        module = hgnn(down_sample=coarser, keep_unreachable=True)
        steps = [1, 2, 4] if coarser else [1, 1, 1]
    memory = numbered(empty_window(2, (BEFORE, AFTER), PERSONS, C, torch.device("cpu"), stride=2))
    _, recorded = record(module, random_clips([1, 2]), memory)
    for clip in recorded:
        for attention, step in zip(clip.memory, steps, strict=True):
            slots = (attention.offsets // 2 + BEFORE).tolist()
            expected = [s for s in range(BEFORE + AFTER + 1) if (s - BEFORE) % step == 0]
            assert slots == [s for s in expected for _ in range(PERSONS)]
            assert attention.step == 2 * step
            numbers = [10 * s + column for s in expected for column in range(PERSONS)]
            assert attention.person_ids.tolist() == numbers
            # The actors stand in the centre of the graph; of AIA's window it is a slot like others.
            not_centre = attention.offsets != 0
            for seen in attention.seen:
                assert (seen == (not_centre | (name == "AIA"))).all()


def test_time_is_recorded_in_seconds():
    module, clips, memory = aia(), random_clips([1]), random_memory(1, BEFORE, AFTER, PERSONS)
    with torch.no_grad(), record_attention(module, slots_per_second=5.0) as recorded:
        module(clips, memory)
    attention = recorded[0].memory[0]
    assert attention.step == pytest.approx(0.2)
    seconds = [k / 5 for k in range(-BEFORE, AFTER + 1) for _ in range(PERSONS)]
    assert attention.offsets.tolist() == pytest.approx(seconds)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_weights_lie_where_attention_was_drawn_to(layer):
    """A temporal position that draws all attention shows at its time, whatever the level."""
    module = hgnn(temporal_position=True, window=(BEFORE, AFTER), keep_unreachable=True)
    block = module.layers[layer].inter_clip
    nn.init.zeros_(block.query.weight)
    nn.init.constant_(block.query.bias, 5.0)
    memory = numbered(empty_window(1, (BEFORE, AFTER), PERSONS, C, torch.device("cpu")))
    for slot in range(block.num_slots):
        offset = (slot - block.num_slots // 2) * 2**layer
        if offset == 0:
            continue
        nn.init.zeros_(block.temporal_position_k)
        block.temporal_position_k.data[slot] = 50.0
        (recorded,) = record(module, random_clips([2]), memory)[1]
        attention = recorded.memory[layer]
        there = attention.weights[:, attention.offsets == offset].sum(axis=1)
        np.testing.assert_allclose(there, np.ones(2), rtol=1e-5)


def test_an_empty_memory_has_no_weights():
    memory = empty_window(1, (BEFORE, AFTER), PERSONS, C, torch.device("cpu"))
    (recorded,) = record(hgnn(), random_clips([2]), memory)[1]
    for attention in recorded.memory:
        assert attention.weights.shape == attention.seen.shape
        assert not attention.seen.any() and not attention.weights.any()


class Places(InteractionModule):
    """Two places a person attend to the memory, each for itself."""

    def __init__(self) -> None:
        super().__init__()
        widths = {"dim_query": C, "dim_other": C, "dim_inner": D, "dim_out": D}
        self.block = randomised(InteractionBlock(**widths))

    def memory_attention(self) -> list[MemoryAttention]:
        return [MemoryAttention("block", self.block.weights)]

    def forward(self, clips, memory):
        persons = torch.stack([clip.persons.roi_features for clip in clips])  # N x P x C
        query = torch.stack([persons, -persons], dim=2)
        return self.block(query, memory.features.flatten(1, 2), memory.valid.flatten(1)), {}


def test_places_of_a_person_are_averaged():
    torch.manual_seed(0)
    module, clips = Places(), random_clips([2, 2])
    memory = random_memory(2, BEFORE, AFTER, PERSONS)
    single = []
    for sign in (1, -1):
        query = torch.stack([sign * clip.persons.roi_features for clip in clips])
        found = []
        handle = module.block.weights.register_forward_hook(
            lambda m, i, out, f=found: f.append(out)
        )
        with torch.no_grad():
            module.block(query, memory.features.flatten(1, 2), memory.valid.flatten(1))
        handle.remove()
        single.append(found[0])
    for i, clip in enumerate(record(module, clips, memory)[1]):
        expected = (single[0][i] + single[1][i]) / 2
        np.testing.assert_allclose(clip.memory[0].weights, expected, rtol=1e-5, atol=1e-6)
        assert (clip.memory[0].seen == memory.valid[i].flatten().numpy()).all()


@pytest.mark.parametrize("switch", [None, "SEMANTIC", "IDENTITY"])
def test_maps_are_those_that_weight_the_features(switch):
    torch.manual_seed(0)
    opts = ("MODEL.ROI_ACTION_HEAD.BOX_EXTEND_TEST", "(0.25,0.25)")
    cfg = igmn_cfg(None, "IGMN", *opts, *((f"MODEL.DAM.{switch}", False) if switch else ()))
    model = build_model(cfg).eval()
    attention = model.roi_heads.interaction.dam.attention
    batch = [training_input(cfg, n) for n in (3, 0, 1)]
    outputs = []
    handle = attention.register_forward_hook(lambda m, i, out: outputs.append(out))
    with torch.no_grad():
        expected = model(batch)
        handle.remove()
        with record_attention(model.roi_heads.interaction) as recorded:
            results = model(batch)
    for a, b in zip(expected, results, strict=True):
        assert torch.equal(a["instances"].scores, b["instances"].scores)
    names = {None: ["semantic", "identity"], "SEMANTIC": ["identity"], "IDENTITY": ["semantic"]}
    assert all(list(clip.maps) == names[switch] for clip in recorded)
    found = {name: np.concatenate([x.maps[name] for x in recorded]) for name in names[switch]}
    if "semantic" in found:
        assert np.array_equal(found["semantic"], outputs[0].semantic)
    if "identity" in found:  # the one in use: Eq. 2 multiplies it with the semantic one
        product = outputs[0].identity * (1 if switch else outputs[0].semantic)
        assert np.array_equal(found["identity"], product)
    with torch.no_grad():
        clip = model.extract([batch[0]])[0]
    height, width = clip.persons.image_size
    boxes = recorded[0].map_boxes * [width, height, width, height]
    np.testing.assert_allclose(boxes, clip.pooled_boxes.tensor, rtol=1e-5, atol=1e-5)


def test_hooks_go_also_after_an_error():
    module = aia()
    with pytest.raises(RuntimeError, match="stop"), record_attention(module):
        raise RuntimeError("stop")
    assert not any(m._forward_hooks for m in module.modules())


def test_without_attention_nothing_is_recorded():
    scene = NonLocalInteraction(dim_in=C, dim_inner=D, dim_out=D)
    assert not any(map(has_attention, (None, scene)))
    with record_attention(None) as recorded:
        pass
    assert recorded == []


# ----------------------------------------------------------------------------- inside of the clip


def pom(**options) -> SerialInteraction:
    torch.manual_seed(0)
    sizes = {"dim_in": C, "dim_inner": D, "dim_out": D, "num_slots": BEFORE + AFTER + 1}
    return randomised(SerialInteraction(**sizes, blocks=tuple("POMP"), **options))


IN_CLIP = {
    "AIA": (pom, ["P-block 1", "O-block 1", "P-block 2"]),
    "AIA, padding attended": (
        lambda: pom(attend_padding=True, max_persons=6, max_objects=4),
        ["P-block 1", "O-block 1", "P-block 2"],
    ),
    "HGNN": (hgnn, ["layer 1", "layer 2", "layer 3"]),
}


@pytest.mark.parametrize("name", IN_CLIP)
def test_attention_inside_the_clip_leaves_empty_places_out(name):
    build, names = IN_CLIP[name]
    module = build()
    clips, memory = random_clips([2, 0, 3]), random_memory(3, BEFORE, AFTER, PERSONS)
    blocks = [x.weights for x in module.clip_attention()]
    given: dict[nn.Module, torch.Tensor] = {}

    def keep(weights: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        given.setdefault(weights, output)  # HGNN asks again, for the memory

    for block in blocks:
        block.register_forward_hook(keep)
    _, recorded = record(module, clips, memory)
    for i, (clip, found) in enumerate(zip(clips, recorded, strict=True)):
        assert [x.name for x in found.clip] == names
        for attention, block in zip(found.clip, blocks):
            others = clip.objects if attention.name.startswith("O") else clip.persons
            p, j = len(clip.persons), len(others)
            assert attention.boxes.shape == (j, 4) and attention.weights.shape == (p, j)
            raw = given[block][i, :p, :j].double().numpy()
            sums = raw.sum(axis=1, keepdims=True)
            if p and j:
                np.testing.assert_allclose(attention.weights, raw / sums, rtol=1e-6)
                assert (sums < 0.99).any() == ("padding" in name), "only these look elsewhere"
            elif p:
                assert not attention.weights.any()


def test_a_model_without_memory_has_attention_to_show():
    assert has_attention(pom()) and not has_attention(None)
    module = SerialInteraction(
        dim_in=C, dim_inner=D, dim_out=D, num_slots=1, blocks=("P", "O")
    ).eval()
    assert has_attention(module) and not module.memory_attention()
