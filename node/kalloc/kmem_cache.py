"""Caches of objects of one size: the interface, whichever allocator is behind it.

    kmem_cache_create -> cache         kmalloc(size)  -> a cache by size, or frames
    kmem_cache_alloc  -> address                |
          |                                     |
          +--- Knob.ALLOCATOR: SLUB | SLAB | SLOB ---> alloc_frames, free_frames

An object's address is that of its first byte in physical memory. Its bytes, where the allocator itself keeps
something in them (the link to the next free object, poison, red zones), are in ``state.slab_word``, eight to a
word, little-endian.

Linux: include/linux/slab.h, mm/slab_common.c.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Knob
from node.joints import (
    slab_cache_alloc,
    slab_cache_free,
    slob_cache_alloc,
    slob_cache_free,
    slub_cache_alloc,
    slub_cache_free,
)
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

MAX_CACHES: Final = 512  # a running Debian has about 200; index 0 is never a cache
WORD_SHIFT: Final = 3  # bytes of a word of state.slab_word, as a power of two

KMEM_CACHE = np.dtype(
    [
        ("name0", np.int64),  # 32 bytes of name, little-endian, see cache_name()
        ("name1", np.int64),
        ("name2", np.int64),
        ("name3", np.int64),
        ("object_size", np.int32),  # bytes that its user asked for; 0: the record is unused
        ("stride", np.int32),  # from one object to the next, in bytes
        ("align", np.int32),
        ("slab_flags", np.int32),  # SlabFlag bits
        ("users", np.int32),  # kmem_cache_create calls that were given this cache
        ("order", np.int32),  # of the blocks that become its slabs
        ("objects_per_slab", np.int32),
        ("nr_slabs", np.int32),
        ("nr_objects", np.int64),  # handed out now
    ],
    align=True,
)


class Allocator(IntEnum):
    """Values of Knob.ALLOCATOR."""

    SLUB = 0
    SLAB = 1
    SLOB = 2


class SlabFlag(IntEnum):
    """What a cache is to do, by Linux's bits (SLAB_...)."""

    CONSISTENCY_CHECKS = 0x100
    RED_ZONE = 0x400
    POISON = 0x800
    HWCACHE_ALIGN = 0x2000
    CACHE_DMA = 0x4000
    CACHE_DMA32 = 0x8000
    STORE_USER = 0x10000
    RECLAIM_ACCOUNT = 0x20000
    NO_MERGE = 0x1000000  # not one of Linux's: never shares a cache with others


@kernel
def kmem_cache_alloc(state: "State", cache: int, gfp: int) -> int:
    """Return the physical address of a new object, or NIL if there is no memory."""
    allocator = state.knob[Knob.ALLOCATOR]
    if allocator == Allocator.SLUB:
        return slub_cache_alloc(state, cache, gfp)
    if allocator == Allocator.SLAB:
        return slab_cache_alloc(state, cache, gfp)
    return slob_cache_alloc(state, cache, gfp)


@kernel
def kmem_cache_free(state: "State", cache: int, paddr: int) -> int:
    """Take an object back; return 0, or a ``SlabError``."""
    allocator = state.knob[Knob.ALLOCATOR]
    if allocator == Allocator.SLUB:
        return slub_cache_free(state, cache, paddr)
    if allocator == Allocator.SLAB:
        return slab_cache_free(state, cache, paddr)
    return slob_cache_free(state, cache, paddr)
