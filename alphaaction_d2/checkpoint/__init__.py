"""Checkpoints: safe loading, weights published by others, the pool beside the weights."""

from .checkpointer import ActionCheckpointer, CheckpointMismatch, load_for_inference
from .reading import read_checkpoint

__all__ = ["ActionCheckpointer", "CheckpointMismatch", "load_for_inference", "read_checkpoint"]
