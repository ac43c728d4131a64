"""What an interaction module looks at, read off while it works.

Forward hooks listen to the modules that compute attention. Nothing is computed a second time, and
nothing changes for the module: its results are the same with and without a recorder.

Shape letters: N clips, Ri persons of clip i, P persons of a clip after padding, S slots and M
persons a slot of the memory window, J persons of the memory that an attention reaches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...formats.results import ClipAttention, ClipWeights, MemoryWeights
from ...structures import ClipFeatures, MemoryWindow, fractions
from .build import AttentionInClip, InteractionModule, MemoryAttention
from .dam import AttentionMaps


def has_attention(interaction: InteractionModule | None) -> bool:
    """Say whether there is anything to record."""
    return interaction is not None and (
        bool(interaction.memory_attention() or interaction.clip_attention())
        or interaction.map_attention is not None
    )


@contextmanager
def record_attention(
    interaction: InteractionModule | None, slots_per_second: float = 1.0
) -> Iterator[list[ClipAttention]]:
    """Record the attention of every clip that goes through an interaction module.

    Example::

        with record_attention(model.roi_heads.interaction) as clips:
            results = model(batched_inputs)
        for result, attention in zip(results, clips): ...

    The list gets an entry per clip, in the order of the calls and in each of its clips;
    `slots_per_second` is the clock of the memory.
    """
    recorded: list[ClipAttention] = []
    heard: dict[nn.Module, tuple[tuple, Any]] = {}  # inputs and output of this call

    def hear(module: nn.Module, inputs: tuple, output: Any) -> None:
        # The first time: inside of slots HGNN attends for the clip, and then for the memory.
        heard.setdefault(module, (inputs, output))

    def end_call(module: InteractionModule, inputs: tuple, _: Any) -> None:
        clips, memory = inputs
        counts = [len(clip.persons) for clip in clips]
        maps: dict[str, Tensor | None] = {}
        if module.map_attention is not None:
            found: AttentionMaps = heard[module.map_attention][1]
            maps["semantic"] = found.semantic
            maps["identity"] = None if found.identity is None else found.own_action
        maps_per_clip = {name: x.split(counts) for name, x in maps.items() if x is not None}
        memory_per_clip = [
            _memory_weights(attention, *heard[attention.weights], memory, counts, slots_per_second)
            for attention in module.memory_attention()
        ]
        clip_weights = [
            _clip_weights(attention, heard[attention.weights][1], clips)
            for attention in module.clip_attention()
        ]
        for i, clip in enumerate(clips):
            recorded.append(
                ClipAttention(
                    map_boxes=_array(fractions(clip.grid_boxes, clip.persons.image_size)),
                    maps={name: _array(x[i]) for name, x in maps_per_clip.items()},
                    memory=[x[i] for x in memory_per_clip],
                    clip=[x[i] for x in clip_weights],
                )
            )
        heard.clear()

    with ExitStack() as hooks:
        if interaction is not None and has_attention(interaction):
            sources = [x.weights for x in interaction.memory_attention()]
            sources += [x.weights for x in interaction.clip_attention()]
            sources += [] if interaction.map_attention is None else [interaction.map_attention]
            for source in sources:
                hooks.enter_context(source.register_forward_hook(hear))
            hooks.enter_context(interaction.register_forward_hook(end_call))
            if any(x._compiled_call_impl for x in interaction.modules()):  # they hear no hooks
                hooks.enter_context(torch.compiler.set_stance("force_eager"))
        yield recorded


def _memory_weights(
    attention: MemoryAttention,
    inputs: tuple[Tensor, Tensor | None],
    output: Tensor,
    memory: MemoryWindow,
    counts: list[int],
    slots_per_second: float,
) -> list[MemoryWeights]:
    """Split by clip what `AttentionWeights` was given (logits, mask) and gave (N, P, J)."""
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
    offsets = memory.offsets.to(output.device).double() / slots_per_second
    steps = offsets.diff()
    step = attention.stride * (float(steps[0]) if len(steps) else 1 / slots_per_second)
    offsets = offsets.repeat_interleave(memory.valid.shape[-1])[places]
    person_ids = memory.person_ids.flatten(1)[:, places]
    return [
        MemoryWeights(
            name=attention.name,
            step=step,
            offsets=_array(offsets),
            person_ids=_array(person_ids[i]),
            seen=_array(seen[i, :n]),
            weights=_array(weights[i, :n]),
        )
        for i, n in enumerate(counts)
    ]


def _clip_weights(
    attention: AttentionInClip, output: Tensor, clips: list[ClipFeatures]
) -> list[ClipWeights]:
    """Split by clip what `AttentionWeights` gave, (N, P, J), and leave out what is empty."""
    per_person = (max([1, *(len(x.persons) for x in clips)]), -1)
    weights = output.unflatten(1, per_person).mean(dim=2)
    found = []
    for clip, of_clip in zip(clips, weights):
        others = clip.objects if attention.objects else clip.persons
        boxes = others.boxes if attention.objects else others.proposal_boxes
        of_clip = of_clip[: len(clip.persons), : len(others)].double()
        there = fractions(boxes.tensor[: of_clip.shape[1]], others.image_size)
        total = of_clip.sum(dim=1, keepdim=True)
        shares = torch.where(total > 0, of_clip / total, torch.zeros_like(of_clip))
        found.append(ClipWeights(attention.name, _array(there), _array(shares)))
    return found


def _array(x: Tensor) -> np.ndarray:
    """Copy so that nothing else is held in memory; real numbers become float64."""
    dtype = torch.float64 if x.is_floating_point() else x.dtype
    return x.detach().to("cpu", dtype, copy=True).numpy()
