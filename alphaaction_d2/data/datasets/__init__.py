"""Data sets; importing this package registers those that have a name."""

from .ava import (
    AVAFiles,
    annotated_persons,
    keyframes_of,
    load_ava,
    read_metadata,
    register_ava,
)
from .builtin import datasets_root, register_datasets, register_folder

__all__ = [
    "AVAFiles",
    "annotated_persons",
    "datasets_root",
    "keyframes_of",
    "load_ava",
    "read_metadata",
    "register_ava",
    "register_datasets",
    "register_folder",
]
