"""Data sets; importing this package registers those that have a name."""

from .ava import (
    AVAFiles,
    keyframes_of,
    load_ava,
    read_metadata,
    register_ava,
    registered_files,
)
from .builtin import datasets_root, register_datasets, register_folder

__all__ = [
    "AVAFiles",
    "datasets_root",
    "keyframes_of",
    "load_ava",
    "read_metadata",
    "register_ava",
    "register_datasets",
    "register_folder",
    "registered_files",
]
