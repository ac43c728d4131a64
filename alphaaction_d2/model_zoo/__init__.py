"""Weights and configurations by name, as `detectron2.model_zoo`.

from alphaaction_d2 import model_zoo
model = model_zoo.get("AVA/published/pytorchvideo_slowfast_R50_8x8.yaml", trained=True)
"""

from .files import find_config, get_checkpoint_url, get_config_file, local_weights
from .models import get, get_config
from .table import Published, find, names

__all__ = [
    "Published",
    "find",
    "find_config",
    "get",
    "get_checkpoint_url",
    "get_config",
    "get_config_file",
    "local_weights",
    "names",
]
