"""Files of numpy's arrays, from anywhere."""

from __future__ import annotations

import os
import zipfile
from typing import Any

import numpy as np

from .tables import DataFileError, check_unpacked_size


def read_arrays(path: str | os.PathLike) -> dict[str, Any]:
    """Read a `.npy` file, whose one array is called "", or the arrays of an `.npz` file.

    A file that is neither, or damaged, is a ValueError of one line.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                check_unpacked_size(path, sum(x.file_size for x in archive.infolist()))
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return {"": content}
        with content:
            return dict(content)
    except (FileNotFoundError, DataFileError):
        raise
    except Exception as error:  # a damaged header makes numpy raise nearly anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: not an array of numbers in numpy's format ({reason})") from None
