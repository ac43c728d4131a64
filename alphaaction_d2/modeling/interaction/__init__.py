"""Interaction modules: what relates a person to other persons, objects and the memory."""

from .aia import DenseSerialInteraction, ParallelInteraction, SerialInteraction
from .build import INTERACTION_REGISTRY, InteractionModule, build_interaction
from .hgnn import HGNN
from .igmn import IGMN
from .non_local import NonLocalInteraction

__all__ = [
    "HGNN",
    "IGMN",
    "INTERACTION_REGISTRY",
    "DenseSerialInteraction",
    "InteractionModule",
    "NonLocalInteraction",
    "ParallelInteraction",
    "SerialInteraction",
    "build_interaction",
]
