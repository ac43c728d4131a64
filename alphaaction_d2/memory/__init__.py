"""The memory pool (AIA, Sec. 3.3): what is remembered of every clip, its file, its windows."""

from .file import MemoryFileError
from .pool import FixedSlots, MemoryPool, MemoryWrite, RingSlots, slot_of

__all__ = ["FixedSlots", "MemoryFileError", "MemoryPool", "MemoryWrite", "RingSlots", "slot_of"]
