"""Interaction modules: what relates a person to other persons, objects and the memory."""

from .aia import DenseSerialInteraction, ParallelInteraction, SerialInteraction
from .build import INTERACTION_REGISTRY, build_interaction

__all__ = [
    "INTERACTION_REGISTRY",
    "DenseSerialInteraction",
    "ParallelInteraction",
    "SerialInteraction",
    "build_interaction",
]
