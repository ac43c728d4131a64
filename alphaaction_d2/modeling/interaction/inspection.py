"""What an interaction module looks at, read off while it works.

Forward hooks listen to the modules that compute attention. Nothing is computed a second time, and
nothing changes for the module: its results are the same with and without a recorder.

Shape letters: N clips, Ri persons of clip i, P persons of a clip after padding, S slots and M
persons a slot of the memory window, J persons of the memory that an attention reaches, K RoI grid
side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...structures import MemoryWindow, fractions
from .build import InteractionModule, MemoryAttention
from .dam import AttentionMaps


@dataclass(frozen=True)
class MemoryWeights:
    """How the persons of one clip share their attention among the memory.

    Attributes:
        name: of the `MemoryAttention`.
        step: seconds from one slot that is reached to the next.
        offsets: (J,) float64, seconds relative to the clip.
        person_ids: (J,), -1 where unknown.
        seen: (Ri, J) bool, somebody is there and counts. With `ATTEND_PADDING` attention also falls
            on places where nobody is.
        weights: (Ri, J). A person's weights add up to 1, or to 0 for who sees nobody.
    """

    name: str
    step: float
    offsets: Tensor
    person_ids: Tensor
    seen: Tensor
    weights: Tensor


@dataclass(frozen=True)
class ClipAttention:
    """All that was recorded of one clip, on the CPU.

    Attributes:
        map_boxes: (Ri, 4) boxes that the maps divide, XYXY as fractions of the picture's width and
            height.
        maps: name -> (Ri, K, K) in (0, 1), rows first: "semantic" and "identity", as far as the
            module has them. The identity map is the one in use, multiplied with the semantic one.
        memory: one entry per attention to the memory, in order of computation.
    """

    map_boxes: Tensor
    maps: dict[str, Tensor]
    memory: Sequence[MemoryWeights]


def has_attention(interaction: InteractionModule | None) -> bool:
    """Say whether there is anything to record."""
    return interaction is not None and (
        bool(interaction.memory_attention()) or interaction.map_attention is not None
    )


class AttentionRecorder:
    """Records the attention of every clip that goes through an interaction module.

    Example::

        with AttentionRecorder(model.roi_heads.interaction) as recorder:
            results = model(batched_inputs)
        for result, attention in zip(results, recorder.clips): ...

    Attributes:
        clips: one `ClipAttention` per clip, in the order of the calls and in each of its clips.
    """

    def __init__(
        self, interaction: InteractionModule | None, slots_per_second: float = 1.0
    ) -> None:
        """
        Args:
            interaction: of INTERACTION_REGISTRY. Of None, or of a module that has no attention,
                nothing is recorded.
            slots_per_second: the clock of the memory.
        """
        self.clips: list[ClipAttention] = []
        self._interaction = interaction
        self._slots_per_second = slots_per_second
        self._heard: dict[nn.Module, tuple[tuple, Any]] = {}  # inputs and output of this call
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> AttentionRecorder:
        module = self._interaction
        if module is not None and has_attention(module):
            sources = [x.weights for x in module.memory_attention()]
            sources += [] if module.map_attention is None else [module.map_attention]
            self._handles = [x.register_forward_hook(self._hear) for x in sources]
            self._handles.append(module.register_forward_hook(self._end_call))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._heard.clear()

    def _hear(self, module: nn.Module, inputs: tuple, output: Any) -> None:
        self._heard[module] = (inputs, output)

    def _end_call(self, interaction: InteractionModule, inputs: tuple, _: Any) -> None:
        clips, memory = inputs
        counts = [len(clip.persons) for clip in clips]
        maps = interaction.map_attention
        named = {} if maps is None else _named_maps(self._heard[maps][1])
        maps_per_clip = {name: x.split(counts) for name, x in named.items()}
        memory_per_clip = [
            self._memory_weights(attention, memory, counts)
            for attention in interaction.memory_attention()
        ]
        for i, clip in enumerate(clips):
            self.clips.append(
                ClipAttention(
                    map_boxes=_on_cpu(fractions(clip.grid_boxes, clip.persons.image_size)),
                    maps={name: _on_cpu(x[i]) for name, x in maps_per_clip.items()},
                    memory=[x[i] for x in memory_per_clip],
                )
            )
        self._heard.clear()

    def _memory_weights(
        self, attention: MemoryAttention, memory: MemoryWindow, counts: list[int]
    ) -> list[MemoryWeights]:
        """Split by clip what `AttentionWeights` was given (logits, mask) and gave (N, P, J)."""
        inputs, output = self._heard[attention.weights]
        places = attention.places(memory).to(output.device)
        valid = memory.valid.flatten(1)[:, places]  # N x J
        # A person may attend from several places, each of which counts alike.
        per_person = (max([1, *counts]), -1)
        weights = output.unflatten(1, per_person).mean(dim=2)  # N x P x J
        seen = valid[:, None].expand_as(weights)
        mask = inputs[1]
        if mask is not None:
            mask = mask[:, None].expand_as(output) if mask.dim() == 2 else mask
            seen = seen & mask.unflatten(1, per_person).any(dim=2)
        offsets = memory.offsets.to(output.device).double() / self._slots_per_second
        steps = offsets.diff()
        step = attention.stride * (float(steps[0]) if len(steps) else 1 / self._slots_per_second)
        offsets = offsets.repeat_interleave(memory.valid.shape[-1])[places]
        person_ids = memory.person_ids.flatten(1)[:, places]
        return [
            MemoryWeights(
                name=attention.name,
                step=step,
                offsets=_on_cpu(offsets),
                person_ids=_on_cpu(person_ids[i]),
                seen=_on_cpu(seen[i, :n]),
                weights=_on_cpu(weights[i, :n].float()),
            )
            for i, n in enumerate(counts)
        ]


def _named_maps(found: AttentionMaps) -> dict[str, Tensor]:
    """Name those (R, K, K) that are switched on."""
    maps = {"semantic": found.semantic}
    if found.identity is not None:
        maps["identity"] = found.own_action
    return {name: x for name, x in maps.items() if x is not None}


def _on_cpu(x: Tensor) -> Tensor:
    """Copy so that nothing else is held in memory."""
    return x.detach().to("cpu", copy=True)
