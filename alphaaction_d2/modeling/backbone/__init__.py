"""Video backbones, registered in detectron2's BACKBONE_REGISTRY."""

from .slow import Slow, build_slow_backbone
from .slowfast import SlowFast, build_slowfast_backbone

__all__ = ["Slow", "SlowFast", "build_slow_backbone", "build_slowfast_backbone"]
