"""The model; importing this package registers its parts into detectron2's registries."""

from . import backbone, interaction, roi_heads
from .meta_arch import ActionRCNN

__all__ = ["ActionRCNN", "backbone", "interaction", "roi_heads"]
