"""The model; importing this package registers its parts into detectron2's registries."""

from .action_output import ActionOutputLayers, ClassGroup, build_class_groups
from .backbone import SlowFast, build_slowfast_backbone
from .interaction import INTERACTION_REGISTRY, build_interaction
from .meta_arch import ActionRCNN
from .roi_heads import ActionROIHeads

__all__ = [
    "INTERACTION_REGISTRY",
    "ActionOutputLayers",
    "ActionRCNN",
    "ActionROIHeads",
    "ClassGroup",
    "SlowFast",
    "build_class_groups",
    "build_interaction",
    "build_slowfast_backbone",
]
