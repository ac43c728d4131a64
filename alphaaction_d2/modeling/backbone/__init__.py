"""Video backbones, registered in detectron2's BACKBONE_REGISTRY."""

from .slowfast import SlowFast, build_slowfast_backbone

__all__ = ["SlowFast", "build_slowfast_backbone"]
