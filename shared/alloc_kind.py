"""What an event of an allocation trace does, and to what: written by recorders, read by kernels."""

from enum import IntEnum
from typing import Final

from shared.constants import MIB, PAGE_SHIFT


class AllocOp(IntEnum):
    """What an event does."""

    ALLOC = 0
    FREE = 1


class AllocKind(IntEnum):
    """Which allocator an event asks."""

    KMALLOC = 0  # by size, in bytes
    OBJECT = 1  # of a cache of its own: kmem_cache_alloc; by the object's size, in bytes
    FRAMES = 2  # alloc_pages; by order
    VMALLOC = 3  # by size, in bytes


MAX_EVENTS: Final = 1 << 24  # of a trace: 256 MiB in a machine
MAX_ALLOC_ORDER: Final = 10  # of a block of frames (Linux: MAX_ORDER - 1)
# What kmalloc gives at most, a block of the largest order, and what an object of a cache may be (KMALLOC_MAX_SIZE).
MAX_OBJECT_BYTES: Final = 1 << (MAX_ALLOC_ORDER + PAGE_SHIFT)
MAX_VMALLOC_BYTES: Final = 1024 * MIB
