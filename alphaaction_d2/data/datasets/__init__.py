"""Data sets; importing this package registers those that have a name."""

from .ava import AVAFiles, keyframes_of, load_ava, register_ava, registered_files
from .builtin import check_data_sets, datasets_root, register_datasets, register_folder
from .catalog import read_metadata
