"""SLUB's records, and how it overlays the descriptors of a slab's frames.

    SLUB_CACHE       one a cache: where the link is in a free object, sizes and limits
    KMEM_CACHE_CPU   one a cache and CPU: the CPU's slab, the objects it may take without asking anyone,
                     and a list of slabs with free objects put by (per-CPU partial list)
    KMEM_CACHE_NODE  one a cache and NUMA node: the partial list, of slabs with free objects that no CPU has

A slab is a block of frames flagged SLAB. In each of its frames ``word`` is the slab's first frame; the first
frame's descriptor is what struct slab is in Linux:

    mapping   the cache                          (slab_cache)
    index     address of the first free object   (freelist), NO_OBJECT for none; a CPU's slab has a second
              list, in KMEM_CACHE_CPU, and this one gets only what other CPUs free
    private   three counters in one word         (counters)
                  | frozen 1 | objects 15 | inuse 15 |
              objects: how many the slab has; inuse: how many are not on ``index``; frozen: the slab belongs
              to a CPU, as its slab or on its partial list, and is on no node's list
    next      on the next slab of the list that it is on
    prev      on a node's list the slab before; on a CPU's list how many slabs follow, this one counted
    order     of the block

Linux: include/linux/slub_def.h, mm/slab.h (struct slab).
# Differs from Linux: full slabs are on no list even where users are recorded (SLAB_STORE_USER); cmpxchg never
# fails, since one CPU runs at a time; these records take no memory of the machine (caches kmem_cache, kmem_cache_node).
"""

from enum import IntEnum
from typing import Final

import numpy as np

SLUB_CACHE = np.dtype(
    [
        ("link_offset", np.int32),  # from an object's start to the link to the next free one (s->offset)
        ("inuse_bytes", np.int32),  # from an object's start to what is kept behind it (s->inuse)
        ("red_left", np.int32),  # bytes of red zone before each object (s->red_left_pad)
        ("track_offset", np.int32),  # from an object's start to the marks of its last users; 0: none
        ("min_order", np.int32),  # of a block that holds at least one object (s->min)
        ("min_objects", np.int32),  # in such a block
        ("min_partial", np.int32),  # empty slabs stay while a node has fewer on its list than this
        ("cpu_partial", np.int32),  # objects meant for a CPU's partial list
        ("cpu_partial_slabs", np.int32),  # slabs that makes, which is what is limited
        ("gfp", np.int32),  # Gfp bits of every request for a slab (s->allocflags)
        ("is_debug", np.int32),  # 1: no per-CPU lists, every object is looked at
        ("spare", np.int32),
    ],
    align=True,
)

# All that the fast paths touch, in one cache line.
KMEM_CACHE_CPU = np.dtype(
    [
        ("freelist", np.int64),  # address of the first object to hand out, or NO_OBJECT
        ("tid", np.int64),  # number of operations on freelist, by which Linux notices that it was interrupted
        ("slab", np.int32),  # first frame of the CPU's slab, or NIL
        ("nr_frames", np.int32),  # of that slab; 0 without one
        ("link_offset", np.int32),  # the cache's
        ("partial", np.int32),  # first frame of the first slab of the CPU's partial list, or NIL
        ("alloc_fastpath", np.int64),
        ("free_fastpath", np.int64),
        ("spare", np.int64),
        ("spare2", np.int64),
    ],
    align=True,
)

KMEM_CACHE_NODE = np.dtype(
    [
        ("first", np.int32),  # partial list: first frame of the slab that is taken next, or NIL
        ("last", np.int32),
        ("nr_partial", np.int32),
        ("nr_slabs", np.int32),
        ("total_objects", np.int64),  # of all its slabs
    ],
    align=True,
)

COUNT_BITS: Final = 15  # of objects and inuse
COUNT_MASK: Final = (1 << COUNT_BITS) - 1
OBJECTS_SHIFT: Final = COUNT_BITS
FROZEN: Final = 1 << (2 * COUNT_BITS)
MAX_OBJECTS: Final = COUNT_MASK  # of a slab (MAX_OBJS_PER_PAGE)


class SlubStat(IntEnum):
    """What CONFIG_SLUB_STATS counts, of each cache, by its names in lower case.

    The two fast paths are counted in KMEM_CACHE_CPU; their places here stay 0 (slub_stats adds them up).
    """

    ALLOC_FASTPATH = 0
    ALLOC_SLOWPATH = 1
    FREE_FASTPATH = 2
    FREE_SLOWPATH = 3
    FREE_FROZEN = 4
    FREE_ADD_PARTIAL = 5
    FREE_REMOVE_PARTIAL = 6
    ALLOC_FROM_PARTIAL = 7
    ALLOC_SLAB = 8
    ALLOC_REFILL = 9
    ALLOC_NODE_MISMATCH = 10
    FREE_SLAB = 11
    CPUSLAB_FLUSH = 12
    DEACTIVATE_FULL = 13
    DEACTIVATE_EMPTY = 14
    DEACTIVATE_TO_HEAD = 15
    DEACTIVATE_TO_TAIL = 16
    DEACTIVATE_REMOTE_FREES = 17
    DEACTIVATE_BYPASS = 18
    ORDER_FALLBACK = 19
    CMPXCHG_DOUBLE_CPU_FAIL = 20
    CMPXCHG_DOUBLE_FAIL = 21
    CPU_PARTIAL_ALLOC = 22
    CPU_PARTIAL_FREE = 23
    CPU_PARTIAL_NODE = 24
    CPU_PARTIAL_DRAIN = 25
    NR = 26


class KmallocType(IntEnum):
    """The rows of kmalloc's caches (enum kmalloc_cache_type, without CONFIG_MEMCG_KMEM's)."""

    NORMAL = 0
    RECLAIM = 1
    DMA = 2
    NR = 3


class LargeStat(IntEnum):
    """What is counted of kmalloc's requests that are too large for its caches."""

    ALLOCATED = 0
    FREED = 1
    FRAMES = 2  # held now
    FAILED = 3
    NR = 4


KMALLOC_SHIFT_HIGH: Final = 13  # the largest class has 2**13 bytes (include/linux/slab.h)
KMALLOC_SLOT_SHIFT: Final = 3  # sizes in one slot of state.kmalloc_cache, as a power of two: all of one class
NR_KMALLOC_SLOTS: Final = 1 << (KMALLOC_SHIFT_HIGH - KMALLOC_SLOT_SHIFT)
