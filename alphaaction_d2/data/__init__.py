"""Videos, clips and data sets."""

from .dataset_mapper import ActionDatasetMapper
from .datasets import register_ava, register_folder
from .video import VideoError
