"""Training, testing and prediction."""

from .hooks import MemoryHook
from .inference import DelayedInference
from .predictor import AttentionPredictor, VideoPredictor
from .trainer import Trainer

__all__ = ["AttentionPredictor", "DelayedInference", "MemoryHook", "Trainer", "VideoPredictor"]
