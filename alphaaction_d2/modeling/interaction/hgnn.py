"""The hierarchical graph network of IGMN (Sec. 3.2): long-term context, along identities.

Shape letters: N clips, R persons of the batch, P actors of a clip after padding, S slots and M
persons a slot of the memory window at a level of the hierarchy, J = P + S * M nodes of a clip, C
width of RoI features, D inner width. Nodes come actors first, then the memory slot after slot.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ...config import check_keys, one_of, whole
from ...structures import ClipFeatures, Losses, MemoryWindow
from .attention import InteractionBlock, count_rows, init_projection, pad_sets, projection, unpad
from .build import (
    INTERACTION_REGISTRY,
    AttentionInClip,
    InteractionModule,
    MemoryAttention,
    common_options,
    memory_channels,
)
from .graph import NOBODY, TrackGraph, build_graph, down_sample, same_track, track_starts


class OrderedAggregator(nn.Module):
    """Intra-actor messages that know their direction (IGMN, Fig. 3b).

    x <- x + Dropout(ReLU(W_before x_before + W_after x_after)), both layers with bias; an absent
    neighbour contributes 0, bias included, so a node without any does not change.
    """

    def __init__(self, dim: int, dropout: float, init_std: float) -> None:
        super().__init__()
        self.before = nn.Linear(dim, dim)
        self.after = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.before, self.after):
            init_projection(layer, init_std)

    def forward(self, nodes: Tensor, graph: TrackGraph, count: int) -> Tensor:
        """Update the first `count` of the nodes (N, J, D)."""
        message = self._message(self.before, nodes, graph.before[:, :count])
        message = message + self._message(self.after, nodes, graph.after[:, :count])
        return nodes[:, :count] + self.dropout(F.relu(message))

    @staticmethod
    def _message(layer: nn.Linear, nodes: Tensor, pointer: Tensor) -> Tensor:
        absent = pointer == NOBODY
        return layer(take_rows(nodes, pointer)).masked_fill(absent[..., None], 0.0)


class TrackConvolution(nn.Module):
    """The paper's comparison (Table 1c): a graph convolution over the fully connected track.

    x <- x + Dropout(ReLU(W mean of the track)). In the complete graph with self-loops the
    normalised adjacency matrix of Kipf and Welling is 1 / n everywhere. A track is all nodes of one
    known id, across gaps, of several in one slot the first; everybody else is a track of one.
    """

    def __init__(self, dim: int, dropout: float, init_std: float) -> None:
        super().__init__()
        self.linear = projection(dim, dim, init_std)
        self.dropout = nn.Dropout(dropout)

    def forward(self, nodes: Tensor, graph: TrackGraph, count: int) -> Tensor:
        """Update the first `count` of the nodes (N, J, D)."""
        starts = track_starts(graph)
        rows = _flat_rows(starts, nodes.shape[1])
        x = nodes.flatten(0, 1)
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # a sum of up to S persons
        sums = torch.zeros_like(x).index_add(0, rows, x)
        sizes = torch.zeros_like(rows).index_add(0, rows, torch.ones_like(rows))
        means = (sums / sizes.clamp(min=1)[:, None]).unflatten(0, nodes.shape[:2])
        message = self.linear(take_rows(means, starts[:, :count]))
        return nodes[:, :count] + self.dropout(F.relu(message))


AGGREGATORS = {"ordered": OrderedAggregator, "gcn": TrackConvolution}


class GraphLayer(nn.Module):
    """One layer: messages along tracks, inside every slot, and from the memory to the actors.

    Intra-clip attention has the same weights for actors and memory nodes.
    """

    def __init__(
        self,
        tracks: nn.Module | None,
        intra_clip: InteractionBlock,
        inter_clip: InteractionBlock,
        *,
        update_memory: bool,
        exclude_self: bool,
    ) -> None:
        """Take messages along tracks, of AGGREGATORS or None, and attention inside a slot and to
        the memory; the rest as in :class:`HGNN`."""
        super().__init__()
        self.tracks, self.intra_clip, self.inter_clip = tracks, intra_clip, inter_clip
        self.update_memory = update_memory
        self.exclude_self = exclude_self

    def forward(
        self, actors: Tensor, memory: Tensor, graph: TrackGraph, max_persons: int
    ) -> tuple[Tensor, Tensor]:
        """Update actors (N, P, D) and memory (N, S * M, D), in a graph of P + S * M nodes, M =
        `max_persons`."""
        num_actors = actors.shape[1]
        here, there = slice(None, num_actors), slice(num_actors, None)
        # 1. Intra-actor.
        if self.tracks is not None:
            nodes = torch.cat([actors, memory], dim=1)
            if self.update_memory:
                nodes = self.tracks(nodes, graph, nodes.shape[1])
                actors, memory = nodes[:, here], nodes[:, there]
            else:
                actors = self.tracks(nodes, graph, num_actors)
        # 2. Inter-actor, intra-clip.
        ids, valid = graph.ids, graph.valid
        actors = self._attend_inside(actors, ids[:, here], valid[:, here])
        if self.update_memory:
            num_clips, num_nodes, dim = memory.shape
            slots = (-1, max_persons)  # NS x M
            memory = self._attend_inside(
                memory.reshape(*slots, dim),
                ids[:, there].reshape(slots),
                valid[:, there].reshape(slots),
            ).reshape(num_clips, num_nodes, dim)
        # 3. Inter-actor, inter-clip: only actors learn from it.
        seen = valid[:, there]
        if self.exclude_self:
            seen = seen[:, None] & ~same_track(graph, here, there)
        return self.inter_clip(actors, memory, seen), memory

    def _attend_inside(self, persons: Tensor, ids: Tensor, valid: Tensor) -> Tensor:
        """Relate the persons of each set (B, Q, D) with `ids` and `valid` (B, Q)."""
        if not self.exclude_self:
            return self.intra_clip(persons, persons, valid)
        same = (ids[:, :, None] == ids[:, None]) & (ids >= 0)[:, None]
        same |= torch.eye(ids.shape[1], dtype=torch.bool, device=ids.device)
        return self.intra_clip(persons, persons, valid[:, None] & ~same)


@INTERACTION_REGISTRY.register()
class HGNN(InteractionModule):
    """Actors in a graph with the persons of the memory window, coarser in time with every layer.

    The actors of the clip, all of them, with gradients, stand at the centre of the window in place
    of what the window holds there. Memory nodes start from detached features; actors and memory
    share one input projection C -> D, followed by dropout as in AIA. A slot of read weight 0 is
    empty, which breaks the tracks that cross it.

    The result is the actors' features after the last layer, through a linear layer if `dim_out` is
    not D.
    """

    needs_memory = True

    @configurable
    def __init__(
        self,
        *,
        dim_in: int,
        dim_inner: int,
        dim_out: int,
        dim_memory: int = 0,
        num_layers: int = 3,
        aggregator: str = "ordered",
        down_sample: bool = True,
        update_memory: bool = True,
        keep_unreachable: bool = False,
        exclude_self: bool = False,
        window: tuple[int, int] = (0, 0),
        temporal_position: bool = False,
        dropout: float = 0.0,
        init_std: float = 0.01,
        **of_blocks: Any,
    ) -> None:
        """
        Args:
            dim_in, dim_inner, dim_out: C, D and the width of the result.
            num_layers: at least 1.
            aggregator: along tracks, "ordered", "gcn" (graph convolution over whole tracks) or ""
                for none. HGNN-s is "" without down-sampling, the paper's GCN is without it too.
            down_sample: layer k connects persons 2^k slots apart; False: every layer all of them.
            update_memory: False freezes the memory nodes: only actors receive messages.
            keep_unreachable: see :func:`graph.down_sample`.
            exclude_self: attention leaves out persons of the own known identity, and in the own
                slot the person itself.
            window: slots before and after the clip, for temporal positions only.
            temporal_position: learned temporal positions of the memory in inter-clip attention, as
                in AIA's M-blocks; the paper has none.
            dim_memory: width of the memory's features, if another network has them; else 0.
            dropout, init_std: of projections, aggregators and blocks.
            of_blocks: further options of :class:`InteractionBlock`.
        """
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"MODEL.HGNN.NUM_LAYERS {num_layers}: use at least 1")
        if aggregator and aggregator not in AGGREGATORS:
            known = ", ".join(map(repr, [*AGGREGATORS, ""]))
            raise ValueError(f"MODEL.HGNN.AGGREGATOR {aggregator!r} is not one of {known}")
        self.dim_inner, self.dim_out = dim_inner, dim_out
        self.down_sample = down_sample
        self.keep_unreachable = keep_unreachable
        self.projection = projection(dim_in, dim_inner, init_std)
        self.memory_projection = None
        if dim_memory not in (0, dim_in):
            self.memory_projection = projection(dim_memory, dim_inner, init_std)
        self.dropout = nn.Dropout(dropout)

        def attention(num_slots: int) -> InteractionBlock:
            return InteractionBlock(
                dim_query=dim_inner,
                dim_other=dim_inner,
                dim_inner=dim_inner,
                dim_out=dim_inner,
                num_slots=num_slots if temporal_position else 0,
                dropout=dropout,
                init_std=init_std,
                **of_blocks,
            )

        self.layers = nn.ModuleList()
        for i in range(num_layers):
            layer = GraphLayer(
                AGGREGATORS[aggregator](dim_inner, dropout, init_std) if aggregator else None,
                attention(0),
                attention(sum(half // self.stride(i) for half in window) + 1),
                update_memory=update_memory,
                exclude_self=exclude_self,
            )
            self.layers.append(layer)
        self.output: nn.Module = nn.Identity()
        if dim_out != dim_inner:
            self.output = projection(dim_inner, dim_out, init_std)

    @classmethod
    def from_config(cls, cfg: CfgNode, num_channels: int) -> dict:
        aggregators = one_of([*AGGREGATORS, ""])
        check_keys(cfg, "MODEL.HGNN", {"NUM_LAYERS": whole(1, 16), "AGGREGATOR": aggregators})
        return {
            **common_options(cfg, num_channels),
            **{key.lower(): value for key, value in cfg.MODEL.HGNN.items()},
            "window": tuple(cfg.MODEL.MEMORY.WINDOW),
            "dim_memory": memory_channels(cfg, num_channels),
        }

    def memory_attention(self) -> list[MemoryAttention]:
        return [
            MemoryAttention(f"layer {i + 1}", layer.inter_clip.weights, self.stride(i))  # type: ignore
            for i, layer in enumerate(self.layers)
        ]

    def clip_attention(self) -> list[AttentionInClip]:
        return [
            AttentionInClip(f"layer {i + 1}", layer.intra_clip.weights)  # type: ignore
            for i, layer in enumerate(self.layers)
        ]

    def stride(self, layer: int) -> int:
        """Count the window's slots from one slot to the next in a layer."""
        return 2**layer if self.down_sample else 1

    def forward(self, clips: list[ClipFeatures], memory: MemoryWindow) -> tuple[Tensor, Losses]:
        return self.output(self.actor_features(clips, memory)[:, -1]), Losses()

    def actor_features(self, clips: list[ClipFeatures], memory: MemoryWindow) -> Tensor:
        """Compute (R, layers, D): all persons of the batch after every layer."""
        counts = count_rows(clip.persons.roi_features for clip in clips)
        features = torch.cat([clip.persons.roi_features for clip in clips])
        ids, mask = pad_sets(torch.cat([clip.persons.person_ids for clip in clips]), counts)
        graph = window_graph(ids, mask, memory)
        max_persons = memory.valid.shape[2]
        remembered = memory.features.detach().to(features.dtype).flatten(1, 2)  # N x SM x C
        actors, _ = pad_sets(self.dropout(self.projection(features)), counts)
        nodes = self.dropout((self.memory_projection or self.projection)(remembered))
        outputs = []
        slots = window_slots(memory)
        for i, layer in enumerate(self.layers):
            if i and self.down_sample:
                even = [k for k, slot in enumerate(slots) if slot % 2 == 0]
                slots = [slots[k] // 2 for k in even]
                kept = _persons_of_slots(even, max_persons).to(nodes.device)
                num_actors = actors.shape[1]
                itself = torch.arange(num_actors, device=nodes.device)
                layout = torch.cat([itself, num_actors + kept])
                graph, _ = down_sample(graph, self.keep_unreachable, layout)
                nodes = nodes.index_select(1, kept)
            actors, nodes = layer(actors, nodes, graph, max_persons)
            outputs.append(actors)
        return unpad(torch.stack(outputs, dim=2), counts)


def window_graph(ids: Tensor, mask: Tensor, memory: MemoryWindow) -> TrackGraph:
    """Build the graph of actors, `ids` and `mask` (N, P), and the persons in the memory around.

    The memory's own centre slot is left out: the actors are there.
    """
    max_persons = memory.valid.shape[2]
    known = window_slots(memory)
    slots = torch.tensor(known)
    outside = (slots != 0).to(mask.device)
    layout = torch.cat([torch.zeros(ids.shape[1]).long(), slots.repeat_interleave(max_persons)])
    remembered = (memory.valid & outside[:, None]).flatten(1)
    return build_graph(
        torch.cat([ids, memory.person_ids.flatten(1)], dim=1),
        layout,
        torch.cat([mask, remembered], dim=1),
        reach=max(-known[0], known[-1]),
    )


def window_slots(memory: MemoryWindow) -> list[int]:
    """List the S slots of a window, in slots from the clip's own."""
    return [k - memory.centre for k in range(memory.valid.shape[1])]


def _persons_of_slots(slots: list[int], max_persons: int) -> Tensor:
    """Index, among all persons of a window, those of some of its slots."""
    return (torch.tensor(slots)[:, None] * max_persons + torch.arange(max_persons)).flatten()


def take_rows(x: Tensor, pointer: Tensor) -> Tensor:
    """Take rows of x (N, J, D) that `pointer` (N, Q) names: (N, Q, D); nobody's is any row."""
    rows = _flat_rows(pointer, x.shape[1])
    return x.flatten(0, 1).index_select(0, rows).unflatten(0, pointer.shape)


def _flat_rows(pointer: Tensor, num_nodes: int) -> Tensor:
    """Turn pointers (N, Q) into J nodes into (N * Q,) rows of the flat (N * J,).

    Nobody becomes the row of the own place: a single common one would gather all their gradients.
    """
    places = torch.arange(pointer.shape[1], device=pointer.device).expand_as(pointer)
    offsets = num_nodes * torch.arange(len(pointer), device=pointer.device)[:, None]
    return (torch.where(pointer >= 0, pointer, places) + offsets).flatten()
