"""Caches of objects of one size: the interface, whichever allocator is behind it.

    kmem_cache_create -> cache         kmalloc(size)  -> a cache by size, or frames
    kmem_cache_alloc  -> address                |
          |                                     |
          +--- Knob.ALLOCATOR: SLUB | SLAB | SLOB ---> alloc_frames, free_frames

An object's address is that of its first byte in physical memory. Its bytes, where the allocator itself keeps
something in them (the link to the next free object, poison, red zones), are in ``state.slab_word``, eight to a
word, little-endian.

What stands here are kernels: a loop that allocates makes them part of its own machine code. Python, and kernels
for which one more call does not matter, use the entries of the same names in ``node.joints`` (bodies in
node/kalloc/calls.py). Creating, shrinking and destroying caches is in node/kalloc/cache_list.py.

A cache is known by its number, from 1. Its record holds what all three allocators share; what one of them
needs besides is in a table of its own, by the same number. ``kmem_cache[0]`` is never a cache: its ``serial``
counts the caches ever made.

Linux: include/linux/slab.h, mm/slab_common.c, mm/slab.h.
# Differs from Linux: __GFP_ZERO writes nothing, since the bytes of an object that is in use are its user's and
# are not kept; there are no constructors and no caches whose slabs wait for RCU.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Knob
from node.joints import (
    slab_cache_alloc,
    slab_cache_free,
    slab_kfree,
    slab_kmalloc,
    slab_ksize,
    slob_cache_alloc,
    slob_cache_free,
    slob_kfree,
    slob_kmalloc,
    slob_ksize,
    slub_cache_alloc,
    slub_cache_free,
    slub_kfree,
    slub_kmalloc,
    slub_ksize,
)
from shared.constants import PAGE_SHIFT
from shared.jit import kernel
from shared.wrap64 import to_signed, to_unsigned

if TYPE_CHECKING:
    from node.state import State

MAX_CACHES: Final = 512  # a running Debian has about 200; index 0 is never a cache
WORD_SHIFT: Final = 3  # bytes of a word of state.slab_word, as a power of two
WORD_BYTES: Final = 1 << WORD_SHIFT
MAX_BLOCK_ORDER: Final = 10  # of frames in one piece (MAX_ORDER - 1 in Linux 6.1)
KMALLOC_MAX_SIZE: Final = 1 << (PAGE_SHIFT + MAX_BLOCK_ORDER)  # bytes: 4 MiB (include/linux/slab.h)
NO_OBJECT: Final = 0  # a null pointer: frame 0 is never a slab

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
        ("serial", np.int32),  # caches are listed by age: the number of caches made before and with it
        ("spare", np.int32),
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
    KMALLOC = 0x1000  # one of kmalloc's: shared with no other
    HWCACHE_ALIGN = 0x2000
    CACHE_DMA = 0x4000
    CACHE_DMA32 = 0x8000
    STORE_USER = 0x10000
    RECLAIM_ACCOUNT = 0x20000
    NO_MERGE = 0x1000000  # not one of Linux's: never shares a cache with others


SLAB_DEBUG_FLAGS: Final = (
    SlabFlag.CONSISTENCY_CHECKS | SlabFlag.RED_ZONE | SlabFlag.POISON | SlabFlag.STORE_USER
)


class SlabError(IntEnum):
    """What a call found wrong; 0, which is none of them, is success."""

    DOUBLE_FREE = 1
    FOREIGN_ADDRESS = 2  # not in a frame of the allocator's
    WRONG_CACHE = 3
    NOT_OBJECT_START = 4
    LEFT_RED_ZONE = 5
    RIGHT_RED_ZONE = 6
    POISON = 7
    PADDING = 8
    FREELIST = 9  # a link that leads out of its slab
    OBJECTS_REMAIN = 10  # a cache is to be destroyed, and its objects are in use
    SLAB_DISABLED = 11  # an object of a slab that an earlier error took out of use


# --- names, in Python -----------------------------------------------------------------------------------

NAME_WORDS: Final = 4
NAME_BYTES: Final = NAME_WORDS * WORD_BYTES


def pack_name(name: str) -> tuple[int, int, int, int]:
    """Return the four words of a cache's name.

    Raises ValueError if it is empty, longer than 32 bytes, or has a character that would confuse those who
    read /proc/slabinfo.
    """
    if not name or not name.isascii() or not name.isprintable() or " " in name or len(name) > NAME_BYTES:
        raise ValueError(f"cache name {name!r}: must have 1..{NAME_BYTES} ASCII characters and no space")
    padded = name.encode().ljust(NAME_BYTES, b"\0")
    words = [
        to_signed(int.from_bytes(padded[at : at + WORD_BYTES], "little"))
        for at in range(0, NAME_BYTES, WORD_BYTES)
    ]
    return words[0], words[1], words[2], words[3]


def cache_name(state: "State", cache: int) -> str:
    """Return the name of a cache; of a merged one, that of its first user."""
    record = state.kmem_cache[cache]
    words = (record.name0, record.name1, record.name2, record.name3)
    text = b"".join(to_unsigned(word).to_bytes(WORD_BYTES, "little") for word in words)
    return text.rstrip(b"\0").decode("ascii")


# --- the calls ------------------------------------------------------------------------------------------


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


@kernel
def kmalloc(state: "State", size: int, gfp: int) -> int:
    """Return the physical address of ``size`` bytes, 1..KMALLOC_MAX_SIZE, or NIL without memory or beyond it."""
    allocator = state.knob[Knob.ALLOCATOR]
    if allocator == Allocator.SLUB:
        return slub_kmalloc(state, size, gfp)
    if allocator == Allocator.SLAB:
        return slab_kmalloc(state, size, gfp)
    return slob_kmalloc(state, size, gfp)


@kernel
def kfree(state: "State", paddr: int) -> int:
    """Take back what ``kmalloc`` gave; return 0, or a ``SlabError``."""
    allocator = state.knob[Knob.ALLOCATOR]
    if allocator == Allocator.SLUB:
        return slub_kfree(state, paddr)
    if allocator == Allocator.SLAB:
        return slab_kfree(state, paddr)
    return slob_kfree(state, paddr)


@kernel
def ksize(state: "State", paddr: int) -> int:
    """Return how many bytes the holder of ``paddr``, which kmalloc gave, may use; 0 for any other address."""
    allocator = state.knob[Knob.ALLOCATOR]
    if allocator == Allocator.SLUB:
        return slub_ksize(state, paddr)
    if allocator == Allocator.SLAB:
        return slab_ksize(state, paddr)
    return slob_ksize(state, paddr)
