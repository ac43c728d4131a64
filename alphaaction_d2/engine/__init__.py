"""Training, testing and prediction."""

from .hooks import MemoryHook
from .inference import DelayedInference
from .predictor import VideoPredictor
from .trainer import Trainer

__all__ = ["DelayedInference", "MemoryHook", "Trainer", "VideoPredictor"]
