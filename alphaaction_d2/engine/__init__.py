"""Training, testing and prediction."""

from .hooks import MemoryHook
from .inference import DelayedInference, build_delayed_inference
from .memory_fill import attach_memory
from .predictor import AttentionPredictor, VideoPredictor
from .trainer import Trainer

__all__ = [
    "AttentionPredictor",
    "DelayedInference",
    "MemoryHook",
    "Trainer",
    "VideoPredictor",
    "attach_memory",
    "build_delayed_inference",
]
