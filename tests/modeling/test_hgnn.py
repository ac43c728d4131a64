"""The graph network against its definition, node by node, and as an interaction module."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, Instances
from torch import Tensor

from alphaaction_d2.memory.window import empty_window
from alphaaction_d2.modeling.interaction.attention import InteractionBlock
from alphaaction_d2.modeling.interaction.hgnn import HGNN, OrderedAggregator
from alphaaction_d2.structures import ClipFeatures, MemoryWindow
from tests.modeling.test_graph import (
    Graph,
    reference_distances,
    reference_down_sample,
    reference_graph,
)

C, D = 6, 8
SIZE = (48, 64)

VARIANTS = {
    "one layer": {"num_layers": 1},
    "two layers": {"num_layers": 2},
    "three layers": {},
    "unreachable kept": {"keep_unreachable": True},
    "frozen": {"update_memory": False},
    "HGNN-s": {"aggregator": "", "down_sample": False},
    "GCN": {"aggregator": "gcn", "down_sample": False},
    "GCN, frozen": {"aggregator": "gcn", "down_sample": False, "update_memory": False},
    "GCN, down-sampled": {"aggregator": "gcn"},
    "ordered, not down-sampled": {"down_sample": False},
    "others only": {"exclude_self": True},
    "temporal positions": {"temporal_position": True, "window": (4, 4)},
    "no layer norm": {"layer_norm": False},
}


def clip(features: Tensor, person_ids: Tensor) -> ClipFeatures:
    boxes = Boxes(torch.zeros(len(features), 4))
    persons = Instances(SIZE, proposal_boxes=boxes, roi_features=features, person_ids=person_ids)
    objects = Instances(SIZE, boxes=boxes[:0], roi_features=features[:0])
    return ClipFeatures(persons, objects)


def random_clips(counts: list[int], tracks: int = 4) -> list[ClipFeatures]:
    return [clip(torch.randn(n, C), torch.randint(-1, tracks, (n,))) for n in counts]


def random_memory(clips: int, before: int, after: int, persons: int = 3, tracks: int = 4):
    """Mostly orderly tracks, so that chains are long; some persons missing, unknown, exchanged."""
    memory = empty_window(clips, (before, after), persons, C, torch.device("cpu"))
    ids = torch.arange(persons).expand(memory.valid.shape).clone() % tracks
    exchanged = torch.rand(ids.shape) < 0.2
    ids[exchanged] = torch.randint(-1, tracks, ids.shape)[exchanged]
    valid = torch.rand(ids.shape) < 0.85
    features = torch.randn(*ids.shape, C) * valid[..., None]
    return replace(memory, features=features, valid=valid, person_ids=ids)


def build(**options) -> HGNN:
    torch.manual_seed(0)
    module = HGNN(dim_in=C, dim_inner=D, dim_out=D, **options)
    for parameter in module.parameters():  # zeros hide what is behind them
        torch.nn.init.normal_(parameter, std=0.5)
    return module.eval()


# ------------------------------------------------------------------ by definition
def attention(block: InteractionBlock, query: Tensor, others: list[Tensor], slots: list[int]):
    """The interaction block with keys and values computed, for one query; slots for positions."""
    if others:
        keys, values = block.key(torch.stack(others)), block.value(torch.stack(others))
        if block.num_slots:
            rows = [s + (block.num_slots - 1) // 2 for s in slots]
            keys = keys + block.temporal_position_k[rows]
            values = values + block.temporal_position_v[rows]
        x = (block.query(query) @ keys.t() / D**0.5).softmax(dim=0) @ values
    else:
        x = query.new_zeros(D)
    x = F.layer_norm(x, x.shape) if block.layer_norm else x
    return query + block.out(F.relu(x))


def reference_layer(layer, features: dict[int, Tensor], graph: Graph, actors: set[int]):
    """Three kinds of messages, node by node."""

    def known(name: int) -> int:
        return ids[name] if ids[name] >= 0 else -1 - name

    ids = graph.ids
    active = set(graph.nodes) if layer.update_memory else actors
    # 1. Along tracks.
    messages = {}
    for name in active:
        x, node = features[name], graph.nodes[name]
        if isinstance(layer.tracks, OrderedAggregator):
            message = torch.zeros(D, dtype=x.dtype)
            for other in graph.neighbours(name):
                earlier = graph.nodes[other].slot < node.slot
                linear = layer.tracks.before if earlier else layer.tracks.after
                message = message + linear(features[other])
            messages[name] = x + F.relu(message)
        elif layer.tracks is not None:
            track = [
                features[other.name]
                for other in graph.nodes.values()
                if other.name == name or (node.track is not None and other.track == node.track)
            ]
            messages[name] = x + F.relu(layer.tracks.linear(torch.stack(track).mean(dim=0)))
    features = {**features, **messages}
    # 2. Inside every slot; actors and memory never share one.
    messages = {}
    for name in active:
        inside = [
            features[other]
            for other, node in graph.nodes.items()
            if node.slot == graph.nodes[name].slot
            and not (layer.exclude_self and known(other) == known(name))
        ]
        messages[name] = attention(layer.intra_clip, features[name], inside, [])
    features = {**features, **messages}
    # 3. From the memory to the actors.
    messages = {}
    for name in actors:
        seen = [
            other
            for other in graph.nodes
            if other not in actors and not (layer.exclude_self and known(other) == known(name))
        ]
        slots = [graph.nodes[other].slot for other in seen]
        others = [features[other] for other in seen]
        messages[name] = attention(layer.inter_clip, features[name], others, slots)
    return {**features, **messages}


def reference(module: HGNN, x: ClipFeatures, memory: MemoryWindow, row: int) -> Tensor:
    """(Ri, layers, D) of one clip."""
    num_actors = len(x.persons)
    ids = x.persons.person_ids.tolist()
    slots = [0] * num_actors
    rows = list(x.persons.roi_features)
    for s, offset in enumerate(memory.offsets.tolist()):
        for m in range(memory.valid.shape[2]):
            if memory.valid[row, s, m] and offset != 0:
                ids.append(int(memory.person_ids[row, s, m]))
                slots.append(offset)
                rows.append(memory.features[row, s, m])
    graph = reference_graph(ids, slots, [True] * len(ids))
    features = {i: module.projection(x) for i, x in enumerate(rows)}
    actors, outputs = set(range(num_actors)), []
    for i, layer in enumerate(module.layers):
        if i and module.down_sample:
            graph = reference_down_sample(graph, module.keep_unreachable)
            assert actors <= set(reference_distances(graph))
        graph.ids = ids
        features = reference_layer(layer, features, graph, actors)
        outputs.append(torch.stack([features[j] for j in range(num_actors)]))
    return torch.stack(outputs, dim=1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("variant", VARIANTS)
def test_module_is_its_definition(variant, seed):
    module = build(**VARIANTS[variant]).double()
    torch.manual_seed(seed)
    counts = [3, 1, 5]  # the last clip has more persons than a slot of the memory
    clips, memory = random_clips(counts), random_memory(3, 4, 4)
    for x in clips:
        x.persons.roi_features = x.persons.roi_features.double()
    memory = replace(memory, features=memory.features.double())
    with torch.no_grad():
        out = module.actor_features(clips, memory).split(counts)
        for row, x in enumerate(clips):
            torch.testing.assert_close(out[row], reference(module, x, memory, row))


@pytest.mark.parametrize("window", [(7, 2), (0, 5), (3, 0), (0, 0)])
def test_any_window(window):
    module = build().double()
    torch.manual_seed(1)
    clips, memory = random_clips([2, 3]), random_memory(2, *window)
    for x in clips:
        x.persons.roi_features = x.persons.roi_features.double()
    memory = replace(memory, features=memory.features.double())
    with torch.no_grad():
        out = module.actor_features(clips, memory).split([2, 3])
        for row, x in enumerate(clips):
            torch.testing.assert_close(out[row], reference(module, x, memory, row))


def test_ordered_aggregator_by_hand():
    """Three seconds of one track, one channel: W_before 2, W_after -1, biases 0.5 and 0.25."""
    module = HGNN(dim_in=1, dim_inner=1, dim_out=1, num_layers=1)
    with torch.no_grad():
        module.projection.weight.fill_(1.0)
        tracks = module.layers[0].tracks
        for layer, weight, bias in ((tracks.before, 2.0, 0.5), (tracks.after, -1.0, 0.25)):
            layer.weight.fill_(weight)
            layer.bias.fill_(bias)
        memory = random_window_of_one([3.0, 0.0, 4.0], [9, -1, 9])
        # The blocks start as the identity: their last layers are zero.
        x, _ = module([one_person(1.0, 9)], memory)
        assert x.item() == 1 + (2 * 3 + 0.5) + (-1 * 4 + 0.25)
        x, _ = module([one_person(1.0, 5)], memory)
        assert x.item() == 1, "a stranger to both: no message, no bias"
        memory = random_window_of_one([3.0, 0.0, 4.0], [9, -1, 5])
        x, _ = module([one_person(1.0, 5)], memory)
        assert x.item() == 1, "ReLU of -4 + 0.25"


def one_person(value: float, person_id: int) -> ClipFeatures:
    return clip(torch.tensor([[value]]), torch.tensor([person_id]))


def random_window_of_one(values: list[float], ids: list[int]) -> MemoryWindow:
    half = len(values) // 2
    memory = empty_window(1, (half, half), 1, 1, torch.device("cpu"))
    return replace(
        memory,
        features=torch.tensor(values)[None, :, None, None],
        valid=torch.ones(1, len(values), 1, dtype=torch.bool),
        person_ids=torch.tensor(ids)[None, :, None],
    )


def test_levels_reach_one_two_and_four_seconds():
    """What happened 7 s ago is heard through the track, step by step; after a gap it is not."""
    values = torch.zeros(15)
    ids = [1] * 15

    def heard(ids: list[int]) -> Tensor:
        module = HGNN(dim_in=1, dim_inner=1, dim_out=1)
        torch.nn.init.ones_(module.projection.weight)
        for layer in module.layers:  # no attention: its last layers are zero
            torch.nn.init.ones_(layer.tracks.before.weight)
            torch.nn.init.ones_(layer.tracks.after.weight)
        changes = []
        for i in range(15):
            window = random_window_of_one((values + (torch.arange(15) == i)).tolist(), ids)
            with torch.no_grad():
                changes.append(module([one_person(0.0, 1)], window)[0].item())
        return torch.tensor(changes)

    assert (heard(ids) > 0).tolist() == [True] * 7 + [False] + [True] * 7
    ids[4] = 2  # three seconds before: everything earlier is cut off
    assert (heard(ids) > 0).tolist() == [False] * 5 + [True] * 2 + [False] + [True] * 7


# ------------------------------------------------------------------ as an interaction module
@pytest.mark.parametrize("counts", [[2, 0, 3], [0], [0, 0], [1]])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("filled", [True, False])
def test_every_parameter_takes_part(variant, counts, filled):
    module = build(**VARIANTS[variant]).train()
    memory = empty_window(len(counts), (4, 4), 3, C, torch.device("cpu"))
    memory = random_memory(len(counts), 4, 4) if filled else memory
    out, losses = module(random_clips(counts), memory)
    assert out.shape == (sum(counts), D) and losses == {} and out.isfinite().all()
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_gradients_reach_persons_and_every_parameter_but_never_the_memory():
    module = build(temporal_position=True, window=(4, 4))
    clips, memory = random_clips([3, 2]), random_memory(2, 4, 4)
    ids = torch.arange(3).expand_as(memory.person_ids)  # unbroken tracks: work for every layer
    memory = replace(memory, valid=torch.ones_like(memory.valid), person_ids=ids)
    memory.features.requires_grad_()
    for x in clips:
        x.persons.person_ids = torch.arange(len(x.persons))
        x.persons.roi_features.requires_grad_()
    out, _ = module(clips, memory)
    (out * torch.randn_like(out)).sum().backward()
    assert memory.features.grad is None
    assert all((x.persons.roi_features.grad.abs().sum(dim=1) > 0).all() for x in clips)
    for name, p in module.named_parameters():
        # A softmax ignores what all keys share: the bias of the keys has no gradient.
        assert p.grad.abs().max() > (-1 if name.endswith("key.bias") else 0), name


def test_frozen_memory_nodes_stay_what_they_were():
    module = build(update_memory=False)
    clips, memory = random_clips([3]), random_memory(1, 4, 4)
    seen = []
    for layer in module.layers:
        layer.inter_clip.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    with torch.no_grad():
        module(clips, memory)
        nodes = module.projection(memory.features).flatten(1, 2)
    torch.testing.assert_close(seen[0], nodes)
    assert [x.shape[1] for x in seen] == [27, 15, 9], "slots -4..4, -4..4 by 2, -4..4 by 4"
    torch.testing.assert_close(seen[2], nodes.unflatten(1, (9, 3))[:, ::4].flatten(1, 2))


def test_what_is_not_valid_and_the_centre_of_the_window_do_not_matter():
    module = build()
    clips, memory = random_clips([3, 2]), random_memory(2, 4, 4)
    with torch.no_grad():
        expected, _ = module(clips, memory)
        ignored = ~memory.valid
        ignored[:, memory.centre] = True
        features = torch.where(ignored[..., None], torch.randn(()) * 100, memory.features)
        ids = memory.person_ids.masked_fill(ignored, 1)
        valid = memory.valid.clone()
        valid[:, memory.centre] = True
        out, _ = module(clips, replace(memory, features=features, person_ids=ids, valid=valid))
    torch.testing.assert_close(out, expected)


def test_clips_do_not_mix_and_the_order_of_persons_does_not_matter():
    module = build()
    clips, memory = random_clips([3, 5, 1]), random_memory(3, 4, 4)
    for x in clips:  # of two with one id the first carries it: order would matter
        x.persons.person_ids = torch.arange(len(x.persons))
    with torch.no_grad():
        together, _ = module(clips, memory)
        alone = []
        for i, x in enumerate(clips):
            order = torch.randperm(len(x.persons))
            fields = ("features", "valid", "person_ids", "boxes", "weights")
            window = replace(memory, **{f: getattr(memory, f)[i : i + 1] for f in fields})
            out, _ = module([ClipFeatures(x.persons[order], x.objects)], window)
            alone.append(out[order.argsort()])
    torch.testing.assert_close(together, torch.cat(alone))


def test_a_changed_identity_changes_hgnn_but_not_hgnn_s():
    clips, memory = random_clips([3]), random_memory(1, 4, 4)
    other = replace(memory, person_ids=torch.randint(0, 4, memory.person_ids.shape))
    with torch.no_grad():
        for variant, blind in (("three layers", False), ("GCN", False), ("HGNN-s", True)):
            module = build(**VARIANTS[variant])
            same = torch.allclose(module(clips, memory)[0], module(clips, other)[0])
            assert same == blind, variant


@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision(variant):
    module = build(**VARIANTS[variant]).train()
    clips, memory = random_clips([3, 0, 2]), random_memory(3, 4, 4)
    full, _ = module(clips, memory)
    memory = replace(memory, features=memory.features.half())
    with torch.autocast("cpu", torch.bfloat16):
        half, _ = module(clips, memory)
    half.float().sum().backward()
    assert (half.float() - full).abs().max() < 0.1 * full.abs().max()
    assert all(p.grad.isfinite().all() for p in module.parameters())


def test_another_output_width():
    module = HGNN(dim_in=C, dim_inner=D, dim_out=5)
    out, _ = module(random_clips([2, 1]), random_memory(2, 2, 2))
    assert out.shape == (3, 5) and module.dim_out == 5


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_layers": 0}, "NUM_LAYERS 0: use at least 1"),
        ({"aggregator": "mean"}, "AGGREGATOR 'mean' is not one of 'ordered', 'gcn', ''"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        HGNN(dim_in=C, dim_inner=D, dim_out=D, **options)


def look_alikes(clips: int, generator: torch.Generator):
    """Two persons who look alike now; one of them flashed within the last seven seconds.

    Returns:
        Clips, memory, (2 * clips,) whether it was this one.
    """
    memory = empty_window(clips, (7, 7), 2, C, torch.device("cpu"))
    shape = memory.valid.shape
    ids = torch.rand(shape, generator=generator).argsort(dim=2)  # their places are exchanged
    features = 0.3 * torch.randn(*shape, C, generator=generator)
    when = torch.randint(0, 7, (clips,), generator=generator)
    who = torch.randint(0, 2, (clips,), generator=generator)
    rows = torch.arange(clips)
    features[rows, when, ids[rows, when].argsort(dim=1)[rows, who]] += 2
    memory = replace(memory, features=features, valid=torch.ones_like(memory.valid), person_ids=ids)
    looks = 0.3 * torch.randn(clips, 2, C, generator=generator)
    return [clip(x, torch.arange(2)) for x in looks], memory, F.one_hot(who, 2).flatten().float()


@pytest.mark.parametrize("variant, learns", [("three layers", True), ("HGNN-s", False)])
def test_who_it_was_needs_the_track(variant, learns):
    """What the network is for: attention alone cannot tell which of the two it was."""
    torch.manual_seed(0)
    module = HGNN(dim_in=C, dim_inner=16, dim_out=1, init_std=0.2, **VARIANTS[variant])
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    right = []
    for _ in range(120):
        clips, memory, labels = look_alikes(32, generator)
        logits = module(clips, memory)[0][:, 0]
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(logits, labels).backward()
        optimizer.step()
        right.append(((logits > 0) == (labels > 0)).float().mean())
    accuracy = torch.stack(right[-20:]).mean()
    assert accuracy > 0.95 if learns else accuracy < 0.6
