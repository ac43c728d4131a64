"""Tracks as graphs, against a slow literal reference made of dictionaries and loops."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from alphaaction_d2.modeling.interaction.graph import (
    NOBODY,
    TrackGraph,
    actor_distances,
    build_graph,
    down_sample,
    follow,
    same_track,
    track_starts,
)


# ------------------------------------------------------------------ the reference
@dataclass
class Node:
    """A person at a time; `name` is its index in the tensors of the first level."""

    name: int
    slot: int
    track: int | None


@dataclass
class Graph:
    """Nodes by name, and undirected intra-actor edges as sets of two names."""

    nodes: dict[int, Node]
    edges: set[frozenset[int]] = field(default_factory=set)

    def neighbours(self, name: int) -> set[int]:
        return {other for edge in self.edges if name in edge for other in edge if other != name}


def reference_graph(ids: list[int], slots: list[int], valid: list[bool]) -> Graph:
    nodes, carriers = {}, set()
    for name, (person, slot, exists) in enumerate(zip(ids, slots, valid)):
        if not exists:
            continue
        track = None
        if person >= 0 and (person, slot) not in carriers:  # the first one carries the identity
            carriers.add((person, slot))
            track = person
        nodes[name] = Node(name, slot, track)
    graph = Graph(nodes)
    for a in nodes.values():
        for b in nodes.values():
            if a.track is not None and a.track == b.track and b.slot == a.slot + 1:
                graph.edges.add(frozenset((a.name, b.name)))
    return graph


def reference_distances(graph: Graph) -> dict[int, int]:
    """Breadth first from every actor; what is not in the result reaches none."""
    distances = {}
    for actor in (x for x in graph.nodes.values() if x.slot == 0):
        front, steps = {actor.name}, 0
        while front:
            for name in front:
                assert name not in distances, "a node reaches one actor at most"
                distances[name] = steps
            front = {n for name in front for n in graph.neighbours(name) if n not in distances}
            steps += 1
    return distances


def reference_down_sample(graph: Graph, keep_unreachable: bool) -> Graph:
    distances = reference_distances(graph)
    kept = {}
    for name, node in graph.nodes.items():
        if name in distances:
            stays = distances[name] % 2 == 0
        else:
            stays = keep_unreachable and node.slot % 2 == 0
        if stays:
            kept[name] = Node(name, node.slot // 2, node.track)
    edges = set()
    for removed in set(graph.nodes) - set(kept):
        linked = graph.neighbours(removed)
        if len(linked) == 2 and linked <= set(kept):  # they share a removed neighbour
            edges.add(frozenset(linked))
    return Graph(kept, edges)


# ------------------------------------------------------------------ random clips
def random_layout(generator: torch.Generator) -> tuple[torch.Tensor, int]:
    """Slots of a random window with its actors, and how many nodes are actors."""

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    before, after, persons, actors = draw(0, 9), draw(0, 9), draw(1, 4), draw(1, 6)
    slots = [0] * actors + [s for s in range(-before, after + 1) for _ in range(persons)]
    order = torch.randperm(len(slots), generator=generator) if draw(0, 1) else slice(None)
    return torch.tensor(slots)[order], actors


def random_ids(
    slots: torch.Tensor, clips: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tracks with gaps, swaps, duplicates, unknown persons, crowded and empty slots."""
    shape = (clips, len(slots))
    tracks = int(torch.randint(1, 6, (), generator=generator))
    if torch.rand((), generator=generator) < 0.5:  # orderly: place k of a slot is track k
        place = torch.zeros(len(slots), dtype=torch.long)
        for slot in slots.unique():
            here = slots == slot
            place[here] = torch.arange(int(here.sum()))
        ids = place.expand(shape).clone()
        swapped = torch.rand(shape, generator=generator) < 0.1
        ids[swapped] = torch.randint(0, tracks, shape, generator=generator)[swapped]
    else:
        ids = torch.randint(0, tracks, shape, generator=generator)
    ids = ids * 10**12 + 7  # ids are names, not small numbers
    unknown = torch.rand(shape, generator=generator) < 0.1
    ids[unknown] = -1
    share = torch.rand((clips, 1), generator=generator)
    valid = torch.rand(shape, generator=generator) < 0.5 + 0.6 * share
    for clip in range(clips):
        emptied = slots.unique()[torch.rand(len(slots.unique()), generator=generator) < 0.1]
        valid[clip, torch.isin(slots, emptied)] = False
    return ids, valid


def as_reference(graph: TrackGraph, clip: int, names: list[int]) -> Graph:
    """One clip of the tensors as nodes and edges; checks that both directions agree."""
    result = Graph({})
    for i in graph.valid[clip].nonzero()[:, 0].tolist():
        result.nodes[names[i]] = Node(names[i], int(graph.slots[i]), None)
    for i, (before, after) in enumerate(zip(graph.before[clip].tolist(), graph.after[clip])):
        if before != NOBODY:
            assert graph.after[clip, before] == i
            result.edges.add(frozenset((names[i], names[before])))
        if after != NOBODY:
            assert graph.before[clip, after] == i
    return result


def shape_of(graph: Graph) -> tuple[dict[int, int], set[frozenset[int]]]:
    return {x.name: x.slot for x in graph.nodes.values()}, graph.edges


@pytest.mark.parametrize("keep_unreachable", [False, True])
@pytest.mark.parametrize("seed", range(150))
def test_random_graphs_equal_the_reference_at_every_level(seed, keep_unreachable):
    generator = torch.Generator().manual_seed(seed)
    slots, _ = random_layout(generator)
    clips = 3
    ids, valid = random_ids(slots, clips, generator)
    graph = build_graph(ids, slots, valid)
    references = [
        reference_graph(ids[i].tolist(), slots.tolist(), valid[i].tolist()) for i in range(clips)
    ]
    names = list(range(len(slots)))
    for _ in range(5):
        distances = actor_distances(graph)
        for i, reference in enumerate(references):
            assert shape_of(as_reference(graph, i, names)) == shape_of(reference)
            found = {names[j]: d for j, d in enumerate(distances[i].tolist()) if d >= 0}
            assert found == reference_distances(reference)
        graph, layout = down_sample(graph, keep_unreachable)
        names = [names[j] for j in layout.tolist()]
        references = [reference_down_sample(x, keep_unreachable) for x in references]


@pytest.mark.parametrize("seed", range(40))
def test_random_tracks_equal_the_reference(seed):
    generator = torch.Generator().manual_seed(seed)
    slots, _ = random_layout(generator)
    ids, valid = random_ids(slots, 2, generator)
    starts = track_starts(build_graph(ids, slots, valid))
    for i in range(2):
        nodes = reference_graph(ids[i].tolist(), slots.tolist(), valid[i].tolist()).nodes
        for j, start in enumerate(starts[i].tolist()):
            if j not in nodes or nodes[j].track is None:
                assert start == j
                continue
            track = [x for x in nodes.values() if x.track == nodes[j].track]
            assert start == min(track, key=lambda x: x.slot).name


# ------------------------------------------------------------------ by hand
def line(ids: list[list[int]]) -> TrackGraph:
    """One clip, a list of ids per slot, the middle slot being the actors."""
    slots = [i - len(ids) // 2 for i, slot in enumerate(ids) for _ in slot]
    flat = torch.tensor([[x for slot in ids for x in slot]])
    return build_graph(flat, torch.tensor(slots), torch.ones_like(flat, dtype=torch.bool))


def test_an_unbroken_track_by_hand():
    graph = line([[4], [4], [4], [4], [4]])
    assert graph.before.tolist() == [[-1, 0, 1, 2, 3]] and graph.after.tolist() == [
        [1, 2, 3, 4, -1]
    ]
    assert actor_distances(graph).tolist() == [[2, 1, 0, 1, 2]]
    coarse, layout = down_sample(graph)
    assert layout.tolist() == [0, 2, 4] and coarse.slots.tolist() == [-1, 0, 1]
    assert coarse.before.tolist() == [[-1, 0, 1]] and coarse.after.tolist() == [[1, 2, -1]]
    alone, layout = down_sample(coarse)
    assert layout.tolist() == [1] and alone.before.tolist() == alone.after.tolist() == [[-1]]


def test_a_gap_breaks_the_chain():
    graph = line([[4], [7], [4], [4], [4]])
    assert actor_distances(graph).tolist() == [[-1, -1, 0, 1, 2]]
    coarse, _ = down_sample(graph)
    assert coarse.valid.tolist() == [[False, True, True]]
    assert down_sample(graph, keep_unreachable=True)[0].valid.tolist() == [[True, True, True]]
    assert track_starts(graph).tolist() == [[0, 1, 0, 0, 0]], "a convolution ignores gaps"


def test_kept_unreachable_nodes_stay_linked():
    coarse, layout = down_sample(line([[1], [1], [1], [5], [1]]), keep_unreachable=True)
    assert layout.tolist() == [0, 2, 4] and coarse.valid.all()
    assert coarse.after.tolist() == [[1, -1, -1]], "slots -2 and 0 are one track, share slot -1"
    graph = line([[4], [4], [4], [7], [6], [8], [9], [9], [9]])  # slots -4 .. 4
    assert actor_distances(graph).tolist() == [[-1, -1, -1, -1, 0, -1, -1, -1, -1]]
    coarse, layout = down_sample(graph, keep_unreachable=True)
    assert layout.tolist() == [0, 2, 4, 6, 8] and coarse.valid.all()
    assert coarse.before[0].tolist() == [-1, 0, -1, -1, 3]
    assert down_sample(graph)[0].valid.tolist() == [[False, False, True, False, False]]


def test_the_first_of_two_carries_the_identity():
    graph = line([[4, 4], [4, 4], [4]])
    assert graph.before.tolist() == [[-1, -1, 0, -1, 2]]
    assert actor_distances(graph).tolist() == [[1, -1, 0, 0, 1]], "the second actor is alone"


def test_nobody_knows_the_unknown():
    graph = line([[-1], [-1], [-1]])
    assert (graph.before == NOBODY).all() and (graph.after == NOBODY).all()
    assert actor_distances(line([[-5], [-5], [-5]])).tolist() == [[-1, 0, -1]]
    assert track_starts(graph).tolist() == [[0, 1, 2]]
    assert not same_track(graph, slice(0, 1), slice(1, 3)).any()


def test_same_track_reaches_over_gaps():
    graph = line([[4, 5], [6], [5, 4, -1]])
    assert same_track(graph, slice(3, 6), slice(0, 3)).int().tolist() == [
        [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    ]


def test_invalid_actors_are_nobody():
    ids = torch.tensor([[4, 4, 4]])
    valid = torch.tensor([[True, False, True]])
    graph = build_graph(ids, torch.tensor([-1, 0, 1]), valid)
    assert actor_distances(graph).tolist() == [[-1, -1, -1]]
    assert not down_sample(graph, keep_unreachable=True)[0].valid.any()


def test_follow():
    first, then = torch.tensor([[1, -1, 0]]), torch.tensor([[2, -1, 0]])
    assert follow(first, then).tolist() == [[-1, -1, 2]]
