"""The identity-aware graph of IGMN (Sec. 3.2): who follows whom along a track, and its coarsening.

Pure functions on index tensors, batched over clips, without a loop over nodes, tracks or time.

Shape letters: N clips, J nodes of a clip (padded). A node lies in a slot: 0 holds the actors of the
clip, slot k the persons seen k steps later, k < 0 earlier. All clips share one layout, the slots
(J,); validity says which nodes exist. A pointer (N, J) holds the index of another node of the same
clip, or -1.

Two rules that the paper does not need: any negative id is unknown and has no track; of several
nodes of one slot with the same id the first carries the identity, the others count as unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NOBODY = -1  # a pointer to no node


@dataclass(frozen=True)
class TrackGraph:
    """Intra-actor edges of N clips at one level of the hierarchy."""

    slots: Tensor  # (J,) int64 on the CPU, time of every node in steps of this level
    ids: Tensor  # (N, J) int64 track ids, negative where unknown
    valid: Tensor  # (N, J) bool, the nodes that exist
    # before, after: (N, J) int64 pointers along the track into the neighbouring slots; one is the
    # inverse of the other. A track that misses a slot is two chains.
    before: Tensor
    after: Tensor
    reach: int  # no slot is farther from 0


def build_graph(ids: Tensor, slots: Tensor, valid: Tensor, reach: int | None = None) -> TrackGraph:
    """Link the same track in neighbouring slots, of nodes with ids and validity (N, J) in slots
    (J,), J >= 1, in any order; `reach` as in the graph, if it is known."""
    reach = int(slots.abs().max()) if reach is None else reach
    tracks = _sort_by_track(ids, slots, valid)
    # The candidate of a node is the first node of its track in the last slot that is not its own.
    candidates = _last_where(tracks.leads)[:, :-1]
    linked = tracks.continues[:, 1:] & tracks.leads[:, 1:]
    linked &= tracks.slots[:, 1:] == tracks.slots.gather(1, candidates) + 1
    earlier = tracks.nodes.gather(1, candidates).masked_fill(~linked, NOBODY)
    before = torch.full_like(tracks.nodes, NOBODY).scatter(1, tracks.nodes[:, 1:], earlier)
    return TrackGraph(slots.cpu(), ids, valid, before, _inverse(before), reach)


def track_starts(graph: TrackGraph) -> Tensor:
    """Point (N, J) to the earliest node of the same track, across gaps.

    Who carries no identity points to itself.
    """
    tracks = _sort_by_track(graph.ids, graph.slots, graph.valid)
    start = _last_where(~tracks.continues)
    start = torch.where(tracks.leads, start, torch.arange(start.shape[1], device=start.device))
    return torch.empty_like(start).scatter(1, tracks.nodes, tracks.nodes.gather(1, start))


def same_track(graph: TrackGraph, rows: slice, columns: slice) -> Tensor:
    """Mark (N, rows, columns) nodes with the same known id, whatever their slots."""
    ids = graph.ids.masked_fill(~graph.valid, NOBODY)
    return (ids[:, rows, None] == ids[:, None, columns]) & (ids[:, rows, None] >= 0)


def actor_distances(graph: TrackGraph) -> Tensor:
    """Count (N, J) the intra-actor edges to the actor of the track; -1 where none is reached.

    Pointer jumping: every node points one step towards slot 0, then to where its target points, and
    so on; the number of rounds is the logarithm of the longest way.
    """
    slots = graph.slots.to(graph.ids.device)
    towards = torch.where(slots < 0, graph.after, graph.before).masked_fill(slots == 0, NOBODY)
    itself = torch.arange(slots.shape[0], device=slots.device).expand_as(towards)
    pointer = torch.where(towards >= 0, towards, itself)
    distance = (towards >= 0).long()
    for _ in range(graph.reach.bit_length()):
        distance = distance + distance.gather(1, pointer)
        pointer = pointer.gather(1, pointer)
    # Slot 0 may hold invalid nodes, but nobody links to them: only they themselves end there.
    return distance.masked_fill(~((slots[pointer] == 0) & graph.valid), -1)


def down_sample(
    graph: TrackGraph, keep_unreachable: bool = False, layout: Tensor | None = None
) -> tuple[TrackGraph, Tensor]:
    """Make the next level: nodes at even distance of the actor, linked across those between. Nodes
    that reach no actor go, or with `keep_unreachable` stay when their slot is even.

    Args:
        layout: the nodes of even slots, (J',), if they are known.

    Returns:
        The graph, whose steps are twice as long, and the index (J',) of its nodes in the old
            layout: that of even slots, in which all nodes that stay lie. Those that do not are no
            longer valid.
    """
    distance = actor_distances(graph)
    even = graph.slots % 2 == 0
    if layout is None:
        layout = even.nonzero()[:, 0]
    layout = layout.to(graph.ids.device)
    stays = graph.valid & (distance >= 0) & (distance % 2 == 0)
    if keep_unreachable:
        stays |= graph.valid & (distance < 0) & even.to(stays.device)
    number = (even.long().cumsum(0) - 1).to(graph.ids.device)  # old index -> new index
    level = []
    for pointer in (graph.before, graph.after):
        skipping = follow(pointer, pointer).masked_fill(~stays, NOBODY)[:, layout]
        level.append(torch.where(skipping >= 0, number[skipping], NOBODY))
    coarse = TrackGraph(
        graph.slots[layout.cpu()] // 2,
        graph.ids[:, layout],
        stays[:, layout],
        level[0],
        level[1],
        graph.reach // 2,
    )
    return coarse, layout


def follow(first: Tensor, then: Tensor) -> Tensor:
    """Go from (N, J) along `first` and from there along `then`; nobody leads to nobody."""
    return then.gather(1, first.clamp(min=0)).masked_fill(first < 0, NOBODY)


@dataclass(frozen=True)
class _SortedTracks:
    """Nodes in order of track and time, all (N, J)."""

    nodes: Tensor  # the node at a position
    slots: Tensor  # its slot
    continues: Tensor  # it is of the same track as the position before it
    leads: Tensor  # it is the first node of its track in its slot, or of unknown track


def _sort_by_track(ids: Tensor, slots: Tensor, valid: Tensor) -> _SortedTracks:
    keys = ids.masked_fill(~valid, NOBODY).clamp(min=NOBODY)
    by_time = slots.argsort(stable=True).to(ids.device)
    slots = slots.to(ids.device)
    nodes = by_time[keys[:, by_time].argsort(dim=1, stable=True)]
    keys, slots = keys.gather(1, nodes), slots[nodes]
    continues = torch.zeros_like(valid)
    continues[:, 1:] = (keys[:, 1:] == keys[:, :-1]) & (keys[:, 1:] >= 0)
    leads = torch.ones_like(valid)
    leads[:, 1:] = ~continues[:, 1:] | (slots[:, 1:] != slots[:, :-1])
    return _SortedTracks(nodes, slots, continues, leads)


def _last_where(marks: Tensor) -> Tensor:
    """Find (N, J) the last mark up to and including each position; the first is marked."""
    # By sorting: ONNX has no running maximum.
    marked = (~marks).long().argsort(dim=1, stable=True)
    return marked.gather(1, marks.cumsum(dim=1) - 1)


def _inverse(pointer: Tensor) -> Tensor:
    """Find who points to each node, for pointers of which no two meet."""
    num_nodes = pointer.shape[1]
    inverse = pointer.new_full((len(pointer), num_nodes + 1), NOBODY)  # the last takes nobody's
    nodes = torch.arange(num_nodes, device=pointer.device).expand_as(pointer)
    return inverse.scatter(1, torch.where(pointer >= 0, pointer, num_nodes), nodes)[:, :-1]
