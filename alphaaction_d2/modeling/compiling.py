"""Parts of a model that torch compiles; weights keep their names."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from .interaction.attention import InteractionBlock
from .interaction.dam import DualAttention
from .interaction.hgnn import GraphLayer

PARTS = ("backbone", "interaction")  # of ActionRCNN, as MODEL.COMPILE names them


def compile_parts(backbone: nn.Module, interaction: nn.Module | None, parts: Iterable[str]) -> None:
    """Have parts compiled when they are first called: of the interaction what takes and gives
    tensors alone, since around that are lists of clips, and hooks that look at them."""
    modules = [backbone] if "backbone" in parts else []
    if "interaction" in parts and interaction is not None:
        kinds = (InteractionBlock, GraphLayer, DualAttention)
        modules += [x for x in interaction.modules() if isinstance(x, kinds)]
    for module in modules:
        module.compile()


def check_compiler(device: str) -> None:
    """Raise ValueError where torch.compile does not work, instead of in the first step."""
    try:
        torch.compile(torch.neg)(torch.ones(2, device=device))
    except Exception as error:  # of many kinds
        raise ValueError(
            "MODEL.COMPILE: torch.compile does not work here; it needs a C++ compiler such as g++, "
            f"on a GPU also triton; install it, or set (). {str(error).strip().splitlines()[:1]}"
        ) from None
