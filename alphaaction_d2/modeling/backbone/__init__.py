"""Video backbones, registered in detectron2's BACKBONE_REGISTRY, and what others know of one."""

from .slowfast import Slow, SlowFast, build_slow_backbone, build_slowfast_backbone
from .video_backbone import VideoBackbone, has_frozen_normalisation, stands_still

__all__ = [
    "Slow",
    "SlowFast",
    "VideoBackbone",
    "build_slow_backbone",
    "build_slowfast_backbone",
    "has_frozen_normalisation",
    "stands_still",
]
