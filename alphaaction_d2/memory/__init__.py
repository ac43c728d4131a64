"""The memory pool (AIA, Sec. 3.3): what is remembered of every clip, its file, its windows."""

from .file import MemoryFileError
from .pool import MemoryPool, MemoryWrite

__all__ = ["MemoryFileError", "MemoryPool", "MemoryWrite"]
