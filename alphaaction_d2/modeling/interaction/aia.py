"""Asynchronous Interaction Aggregation: serial, dense serial, parallel structures (AIA, Sec. 3.2).

Shape letters: N clips, R persons of the batch, P persons of a clip after padding, J others of a
clip after padding, S slots and M persons a slot of the memory window, C width of RoI features, D
inner width.
"""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Instances
from torch import Tensor, nn

from ...structures import ClipFeatures, Losses, MemoryWindow
from .attention import InteractionBlock, count_rows, pad_sets, projection, unpad
from .build import (
    INTERACTION_REGISTRY,
    AttentionInClip,
    InteractionModule,
    MemoryAttention,
    common_options,
    memory_channels,
)

_HANDS = "hands"  # the set that P-blocks look at beside the persons


class InteractionAggregation(InteractionModule):
    """Input projections and blocks of the structures; a subclass says how blocks are connected.

    A set is what a block attends to: persons of the same clip (P), its objects (O), its memory
    window (M). Persons enter as queries and, for a P-block in first position, as keys through a
    projection of their own; later P-blocks take the current queries as keys. Hands, where there are
    any, are further keys of all P-blocks, through the projection of keys (AIA, Sec. 6).
    """

    takes_segments = True

    @configurable
    def __init__(
        self,
        *,
        dim_in: int,
        dim_inner: int,
        dim_out: int,
        blocks: tuple[str, ...],
        num_slots: int,
        temporal_position: bool = True,
        dropout: float = 0.0,
        init_std: float = 0.01,
        attend_padding: bool = False,
        max_persons: int = 25,
        max_objects: int = 5,
        dim_memory: int = 0,
        hands: bool = False,
        **of_blocks: Any,
    ) -> None:
        """
        Args:
            dim_in, dim_inner, dim_out: C, D and the width of the result.
            blocks: types "P", "O", "M" in order, any number of each.
            num_slots: S, slots of the memory window.
            temporal_position: M-blocks have learned temporal positions.
            dropout, init_std: of projections and blocks.
            attend_padding: attention also falls on empty slots, as in the released models; persons
                and objects are then padded to `max_persons` and `max_objects`.
            dim_memory: width of the memory's features; 0: `dim_in`.
            hands: P-blocks also attend to the clips' hands.
            of_blocks: further options of :class:`InteractionBlock`.
        """
        super().__init__()
        unknown = sorted(set(blocks) - set("POM"))
        if unknown or not blocks:
            raise ValueError(f"MODEL.INTERACTION.BLOCKS {blocks}: use one or more of P, O, M")
        self.dim_out = dim_out
        self.kinds = blocks
        self.needs_memory = "M" in blocks
        self.attend_padding = attend_padding
        self.max_persons, self.max_objects = max_persons, max_objects

        def inward(width: int = dim_in) -> nn.Sequential:
            return nn.Sequential(projection(width, dim_inner, init_std), nn.Dropout(dropout))

        self.person_projection = inward()
        # Only what is used exists: a parameter without gradient stops distributed training.
        self.hands = hands and "P" in blocks
        has_keys = self.hands or "P" in self.first_blocks(blocks)
        self.person_key_projection = inward() if has_keys else None
        self.object_projection = inward() if "O" in blocks else None
        self.memory_projection = inward(dim_memory or dim_in) if "M" in blocks else None

        last = self.last_blocks(blocks)
        self.blocks = nn.ModuleDict()
        numbers: Counter[str] = Counter()
        for i, kind in enumerate(blocks):
            numbers[kind] += 1
            self.blocks[f"{kind}_block_{numbers[kind]}"] = InteractionBlock(
                dim_query=dim_inner,
                dim_other=dim_inner,
                dim_inner=dim_inner,
                dim_out=dim_out if i in last else dim_inner,
                num_slots=num_slots if kind == "M" and temporal_position else 0,
                dropout=dropout,
                init_std=init_std,
                **of_blocks,
            )

    @classmethod
    def from_config(cls, cfg: CfgNode, num_channels: int) -> dict:
        node = cfg.MODEL.INTERACTION
        own = ("blocks", "temporal_position", "attend_padding", "max_persons", "max_objects")
        return {
            **common_options(cfg, num_channels),
            **{name: node[name.upper()] for name in own},
            "num_slots": sum(cfg.MODEL.MEMORY.WINDOW) + 1,
            "dim_memory": memory_channels(cfg, num_channels),
            "hands": cfg.INPUT.MAX_HANDS > 0,
        }

    def memory_attention(self) -> list[MemoryAttention]:
        blocks = [block for kind, block in self.kinds_and_blocks() if kind == "M"]
        return [MemoryAttention(f"M-block {i}", b.weights) for i, b in enumerate(blocks, 1)]

    def clip_attention(self) -> list[AttentionInClip]:
        found = []
        for name, block in self.blocks.items():  # such as P_block_1
            kind, _, number = name.partition("_block_")
            if kind in "PO":
                title = f"{kind}-block {number}"
                found.append(AttentionInClip(title, block.weights, kind == "O"))  # type: ignore
        return found

    def kinds_and_blocks(self) -> Iterator[tuple[str, InteractionBlock]]:
        """Go through the blocks in order, each with its type."""
        return zip(self.kinds, self.blocks.values())  # type: ignore[arg-type]  # not any Module

    @staticmethod
    def first_blocks(blocks: tuple[str, ...]) -> tuple[str, ...]:
        """Name the types of blocks that see the persons before any interaction."""
        return blocks[:1]

    @staticmethod
    def last_blocks(blocks: tuple[str, ...]) -> set[int]:
        """Give the positions of the blocks whose output has width `dim_out`."""
        return {len(blocks) - 1}

    def forward(self, clips: list[ClipFeatures], memory: MemoryWindow) -> tuple[Tensor, Losses]:
        features = torch.cat([x.persons.roi_features for x in clips])
        counts = count_rows(x.persons.roi_features for x in clips)
        query, mask = pad_sets(self.person_projection(features), counts)
        sets: dict[str, tuple[Tensor, Tensor | None]] = {}
        if self.hands and self.person_key_projection is not None:
            hands = [x.hands for x in clips if x.hands is not None]
            found = torch.cat([features[:0], *(x.roi_features for x in hands)])
            numbers = [0 if x.hands is None else len(x.hands) for x in clips]
            sets[_HANDS] = pad_sets(self.person_key_projection(found), numbers)
        if self.person_key_projection is not None:
            keys, _ = pad_sets(self.person_key_projection(features), counts)
            sets["P"] = self._person_set(keys, mask, sets)
        if self.object_projection is not None:
            sets["O"] = self._object_set(self.object_projection, [x.objects for x in clips])
        if self.memory_projection is not None:
            # N x SM x D; an empty place of the window is zero, and so here the bias.
            others = self.memory_projection(memory.features.flatten(1, 2))
            sets["M"] = others, None if self.attend_padding else memory.valid.flatten(1, 2)
        return unpad(self.aggregate(query, mask, sets), counts), Losses()

    @abstractmethod
    def aggregate(
        self, query: Tensor, mask: Tensor, sets: dict[str, tuple[Tensor, Tensor | None]]
    ) -> Tensor:
        """Run the blocks on the projected persons (N, P, D) with their mask (N, P): (N, P,
        dim_out).

        `sets` are type -> (others (N, J, D), mask (N, J) or None); "P" only for first blocks, and
        hands for :meth:`_person_set`.
        """

    # With ATTEND_PADDING the sets are what they were when the released models were trained, empty
    # places included, and nothing is masked. The two paddings below differ on purpose: what an
    # empty place looks like to the attention is part of those models.

    def _person_set(
        self, keys: Tensor, mask: Tensor, sets: dict[str, tuple[Tensor, Tensor | None]]
    ) -> tuple[Tensor, Tensor | None]:
        """Take the clip's persons; padded after the projection: an empty place is zero. And its
        hands."""
        if _HANDS in sets:
            hands, seen = sets[_HANDS]
            assert seen is not None  # as pad_sets makes it
            keys, mask = torch.cat([keys, hands], dim=1), torch.cat([mask, seen], dim=1)
        if not self.attend_padding:
            return keys, mask
        places = keys.new_zeros(len(keys), self.max_persons, keys.shape[2])
        # Of more persons than places the first ones stay.
        return torch.cat([keys * mask[..., None], places], dim=1)[:, : self.max_persons], None

    def _object_set(
        self, project: nn.Module, objects: list[Instances]
    ) -> tuple[Tensor, Tensor | None]:
        """Take the clip's objects; padded before the projection: an empty place is its bias."""
        features = torch.cat([x.roi_features for x in objects])
        counts = count_rows(x.roi_features for x in objects)
        if not self.attend_padding:
            return pad_sets(project(features), counts)
        padded, _ = pad_sets(features, counts, self.max_objects)
        return project(padded), None


@INTERACTION_REGISTRY.register()
class SerialInteraction(InteractionAggregation):
    """Each block's output is the next one's query (AIA, Fig. 3b)."""

    def aggregate(
        self, query: Tensor, mask: Tensor, sets: dict[str, tuple[Tensor, Tensor | None]]
    ) -> Tensor:
        outputs: list[Tensor] = []
        for kind, block in self.kinds_and_blocks():
            if outputs:
                query = self.mix(outputs)
                sets = {**sets, "P": self._person_set(query, mask, sets)}
            outputs.append(block(query, *sets[kind]))
        return outputs[-1]

    def mix(self, outputs: list[Tensor]) -> Tensor:
        """Make the next block's query from the outputs (N, P, D) of all blocks so far."""
        return outputs[-1]


@INTERACTION_REGISTRY.register()
class DenseSerialInteraction(SerialInteraction):
    """From the third block on, a query is a learned mixture of all outputs before it (AIA, Eq. 1).

    The mixture starts with nearly all weight on the newest output: training begins as serial.
    """

    @configurable
    def __init__(self, *, blocks: tuple[str, ...], dim_inner: int, **kwargs) -> None:
        super().__init__(blocks=blocks, dim_inner=dim_inner, **kwargs)
        self.dense_params = nn.ParameterDict()
        for i in range(2, len(blocks)):
            logits = torch.full((i, dim_inner), -5 * math.log(10))
            logits[-1] = 0
            self.dense_params[str(i)] = nn.Parameter(logits)

    def mix(self, outputs: list[Tensor]) -> Tensor:
        if len(outputs) < 2:
            return outputs[-1]
        weights = self.dense_params[str(len(outputs))].softmax(dim=0)  # j x D
        return sum(weight * output for weight, output in zip(weights, outputs))


@INTERACTION_REGISTRY.register()
class ParallelInteraction(InteractionAggregation):
    """One branch of blocks per type, summed at the end (AIA, Fig. 4a).

    The k-th blocks of all types form layer k. The keys of a P-block are the output of the P-block
    before it, in the first layer the persons through their own projection.
    """

    @staticmethod
    def first_blocks(blocks: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(set(blocks))

    @staticmethod
    def last_blocks(blocks: tuple[str, ...]) -> set[int]:
        return {max(i for i, kind in enumerate(blocks) if kind == k) for k in set(blocks)}

    def aggregate(
        self, query: Tensor, mask: Tensor, sets: dict[str, tuple[Tensor, Tensor | None]]
    ) -> Tensor:
        branches: dict[str, Tensor] = {}
        for kind, block in self.kinds_and_blocks():
            if kind == "P" and kind in branches:
                sets = {**sets, "P": self._person_set(branches[kind], mask, sets)}
            branches[kind] = block(branches.get(kind, query), *sets[kind])
        return functools.reduce(torch.add, branches.values())
