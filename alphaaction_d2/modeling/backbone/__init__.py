"""Video backbones, registered in detectron2's BACKBONE_REGISTRY, and what others know of one."""

from .joined import JoinedBackbone, build_joined_backbone
from .map_backbone import MapBackbone
from .networks import (
    build_pytorchvideo_backbone,
    build_torchvision_video_backbone,
    build_transformers_backbone,
)
from .slowfast import Slow, SlowFast, build_slow_backbone, build_slowfast_backbone
from .video_backbone import VideoBackbone, has_frozen_normalisation, stands_still
from .video_transformer import build_video_transformer_backbone

__all__ = [
    "JoinedBackbone",
    "build_joined_backbone",
    "MapBackbone",
    "Slow",
    "SlowFast",
    "VideoBackbone",
    "build_pytorchvideo_backbone",
    "build_slow_backbone",
    "build_slowfast_backbone",
    "build_torchvision_video_backbone",
    "build_transformers_backbone",
    "build_video_transformer_backbone",
    "has_frozen_normalisation",
    "stands_still",
]
