"""SLUB, the allocator of Linux 6.1: no queues of objects, but a slab that each CPU has to itself.

    slub_fast.py    a CPU's freelist: what nearly every call does
    slub_slow.py    the CPU's slab, its partial list, the node's, the page allocator; frees to other slabs
    slub_partial.py the lists of slabs with free objects          slub_flush.py   slabs taken from CPUs; shrinking
    slub_slab.py    a slab made, and given back; its links
    slub_layout.py  sizes, orders and limits of a cache           slub_cache.py   a cache opened and closed
    slub_kmalloc.py size classes, and frames for what is larger   slub_records.py the records
    slub_debug.py   red zones, poison, marks of the last user     slub_debug_paths.py  the paths that look at them
    slub_stats.py   what was counted, for Python                  slub_check.py   what must always hold

Here are the entries, which node.joints declares. Each is charged to the current CPU's clock (Cost.SLUB_...).

Linux: mm/slub.c.
"""

from typing import TYPE_CHECKING

from node.kalloc.slub_cache import close_cache, open_cache
from node.kalloc.slub_fast import slub_alloc, slub_free
from node.kalloc.slub_flush import shrink_lists
from node.kalloc.slub_kmalloc import kfree_of_slub, kmalloc_of_slub, ksize_of_slub, make_kmalloc_caches
from shared.jit import entry

if TYPE_CHECKING:
    from node.state import State


@entry
def slub_cache_create(state: "State", cache: int) -> int:
    """Lay out the objects of a new cache whose size, align and flags are set; return 0, or NIL if they do not fit."""
    return open_cache(state, cache)


@entry
def slub_cache_alloc(state: "State", cache: int, gfp: int) -> int:
    """Return the physical address of a new object, or NIL if there is no memory."""
    return slub_alloc(state, cache, gfp)


@entry
def slub_cache_free(state: "State", cache: int, paddr: int) -> int:
    """Take an object back; return 0, or a SlabError."""
    return slub_free(state, cache, paddr)


@entry
def slub_cache_shrink(state: "State", cache: int) -> int:
    """Give back the cache's slabs that have no object in use; return how many frames those were."""
    return shrink_lists(state, cache)


@entry
def slub_cache_destroy(state: "State", cache: int) -> int:
    """Give back all slabs; return 0, or the number of objects that are still in use, with nothing done."""
    return close_cache(state, cache)


@entry
def slub_kmalloc(state: "State", size: int, gfp: int) -> int:
    """Return the physical address of ``size`` bytes, or NIL if there is no memory or no such size."""
    return kmalloc_of_slub(state, size, gfp)


@entry
def slub_kfree(state: "State", paddr: int) -> int:
    """Take back what ``slub_kmalloc`` gave; return 0, or a SlabError."""
    return kfree_of_slub(state, paddr)


@entry
def slub_ksize(state: "State", paddr: int) -> int:
    """Return how many bytes the holder of ``paddr``, which kmalloc gave, may use; 0 for any other address."""
    return ksize_of_slub(state, paddr)


@entry
def slub_boot(state: "State") -> int:
    """Make kmalloc's caches, so that /proc/slabinfo lists them before they are used; return 0."""
    make_kmalloc_caches(state)
    return 0
