"""Training, testing and prediction."""

from .hooks import MemoryHook
from .inference import DelayedInference
from .trainer import Trainer

__all__ = ["DelayedInference", "MemoryHook", "Trainer"]
