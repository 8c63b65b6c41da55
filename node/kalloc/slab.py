"""The SLAB allocator: objects from arrays of each CPU, and behind those from slabs.

    kmem_cache_alloc --> the CPU's array --+ hit: its top
                                           | empty: the node's shared array --> partial slabs --> free slabs
                                           |        --> a new slab                       (slab_array, slab_lists)
    kmem_cache_free ---> the CPU's array --+ room: on its top
                                           | full: its lower half to the shared array, or else to the slabs

    slab_layout   how a slab is laid out       slab_debug     poison, red zones, last users
    slab_frames   one slab                     slab_general   the 26 caches of kmalloc
    slab_lists    three lists a node           slab_reap      what is not needed goes back, every two seconds
    slab_array    arrays of free objects       slab_numbers   /proc/slabinfo

What a user gets is the address of its object; within the allocator an object begins with its debugging words.
A free of what is not an object in use is refused and reported, where it can be seen: an address that is not the
cache's always; an object that is free already if it was freed just before (CONFIG_SLAB_FREELIST_HARDENED), or
if the cache has any debugging flag.

Linux 6.1: mm/slab.c (____cache_alloc, ___cache_free, __kmem_cache_shrink, __kmem_cache_release).
# Differs from Linux: an address that is not the start of an object is refused in every cache, not only in those
# that are debugged. Descriptors of caches and arrays take no memory of the machine.
"""

from typing import TYPE_CHECKING

from node.counters import Current, Knob
from node.hw.cost import Cost
from node.kalloc.kmem_cache import SLAB_DEBUG_FLAGS, SlabError
from node.kalloc.slab_array import (
    alloc_miss,
    cpu_array,
    drain_cpu_caches,
    free_miss,
    is_in_arrays,
    setup_arrays,
)
from node.kalloc.slab_debug import debug_coming_back, debug_handed_out, slab_error
from node.kalloc.slab_frames import free_number, object_number, slab_of
from node.kalloc.slab_general import LARGEST, general_cache, is_large, large_alloc, large_free, large_size
from node.kalloc.slab_layout import slab_lay_out
from node.kalloc.slab_lists import (
    NR_SLAB_LISTS,
    give_back_all,
    object_back,
    slab_node_index,
    trim,
)
from node.kalloc.slab_nodes import nid_here, nid_of, nr_cpus_of
from node.kalloc.slab_reap import first_reap_ps, start_reaping
from node.kalloc.slab_report import report
from node.phys.page import PageFlag
from shared.constants import NIL, PAGE_SHIFT
from shared.jit import cold_kernel, entry, hot_kernel, kernel

if TYPE_CHECKING:
    from node.state import State


# --- caches ---------------------------------------------------------------------------------------------


@kernel
def _clear_counters(state: "State", cache: int) -> None:
    slab_cache = state.slab_cache[cache]
    slab_cache.num_active = 0
    slab_cache.num_allocations = 0
    slab_cache.high_mark = 0
    slab_cache.grown = 0
    slab_cache.reaped = 0
    slab_cache.errors = 0
    slab_cache.max_freeable = 0
    slab_cache.node_allocs = 0
    slab_cache.node_frees = 0
    slab_cache.refill_shared = 0
    slab_cache.refill_partial = 0
    slab_cache.refill_free = 0
    slab_cache.refill_new = 0
    slab_cache.grow_failed = 0


@kernel
def _setup_nodes(state: "State", cache: int) -> None:
    """Give a new cache its empty lists (kmem_cache_node_init, init_cache_node)."""
    batchcount = state.slab_cache[cache].batchcount
    per_slab = state.kmem_cache[cache].objects_per_slab
    for nid in range(state.knob[Knob.NR_NODES]):
        index = slab_node_index(state, cache, nid)
        node = state.slab_node[index]
        node.next_reap_ps = first_reap_ps(state, cache)
        node.free_objects = 0
        node.free_limit = (1 + nr_cpus_of(state, nid)) * batchcount + per_slab
        node.total_slabs = 0
        node.colour_next = 0
        node.free_touched = 0
        for which in range(NR_SLAB_LISTS):
            chain = state.slab_list[index * NR_SLAB_LISTS + which]
            chain.first = NIL
            chain.last = NIL
            chain.nr_slabs = 0


@entry
def slab_cache_create(state: "State", cache: int) -> int:
    """Lay out a new cache whose size, align and flags are set; return 0, or NIL if no slab can hold an object."""
    if slab_lay_out(state, cache) == NIL:
        return NIL
    _clear_counters(state, cache)
    setup_arrays(state, cache)
    _setup_nodes(state, cache)
    start_reaping(state)
    return 0


@cold_kernel
def _give_back_unused(state: "State", cache: int) -> int:
    """Empty all arrays, then give back all free slabs; return how many frames those were (__kmem_cache_shrink)."""
    record = state.kmem_cache[cache]
    before = record.nr_slabs
    drain_cpu_caches(state, cache)
    for nid in range(state.knob[Knob.NR_NODES]):
        give_back_all(state, slab_node_index(state, cache, nid))
    return (before - record.nr_slabs) << record.order


@entry
def slab_cache_shrink(state: "State", cache: int) -> int:
    """Empty all arrays and give back the slabs without an object in use; return how many frames those were."""
    return _give_back_unused(state, cache)


@entry
def slab_cache_destroy(state: "State", cache: int) -> int:
    """Give back all slabs; return 0, or the number of objects that are still in use, with nothing done."""
    remaining = state.kmem_cache[cache].nr_objects
    if remaining:
        report(state, SlabError.OBJECTS_REMAIN, cache, NIL, NIL)
        return remaining
    _give_back_unused(state, cache)
    return 0


# --- objects --------------------------------------------------------------------------------------------


@cold_kernel
def _hand_out_debugged(state: "State", cache: int, start: int) -> int:
    debug_handed_out(state, cache, start)
    return start + state.slab_cache[cache].object_offset


@hot_kernel
def _alloc(state: "State", cache: int, gfp: int) -> int:
    """Return the address of a new object, or NIL."""
    record = state.kmem_cache[cache]
    array = state.slab_array[cpu_array(state, cache)]
    state.current[Current.CLOCK_PS] += state.cost[Cost.SLAB_ARRAY]
    if array.avail:
        array.touched = 1
        array.alloc_hit += 1
        array.avail -= 1
        start = state.slab_entry[array.first_entry + array.avail]
    else:
        start = alloc_miss(state, cache, gfp)
        if start == NIL:
            return NIL
    record.nr_objects += 1
    if record.slab_flags & SLAB_DEBUG_FLAGS:
        return _hand_out_debugged(state, cache, start)
    return start


@cold_kernel
def _wrong_address(state: "State", error: int, cache: int, paddr: int) -> int:
    """Report a free of what is not an object of the cache; return ``error``."""
    if cache != NIL:
        state.slab_cache[cache].errors += 1
    return report(state, error, cache, paddr, NIL)


@cold_kernel
def _is_free(state: "State", slab: int, start: int) -> int:
    """Return whether an object is in an array or in its slab."""
    cache = state.page[slab].mapping
    number = object_number(state, slab, start)
    for position in range(state.page[slab].word, state.kmem_cache[cache].objects_per_slab):
        if free_number(state, slab, position) == number:
            return 1
    return is_in_arrays(state, cache, start)


@cold_kernel
def _take_back_debugged(state: "State", slab: int, start: int) -> int:
    """Check an object that is freed; return 0, or a SlabError, DOUBLE_FREE if it is to stay where it is."""
    cache = state.page[slab].mapping
    if _is_free(state, slab, start):
        return slab_error(state, SlabError.DOUBLE_FREE, cache, start)
    return debug_coming_back(state, cache, start)


@kernel
def _free_far(state: "State", slab: int, start: int) -> None:
    """Put an object of another node back into its slab (cache_free_alien)."""
    cache = state.page[slab].mapping
    state.slab_cache[cache].node_frees += 1
    object_back(state, start)
    trim(state, slab_node_index(state, cache, nid_of(state, slab)))


@hot_kernel
def _free(state: "State", cache: int, paddr: int) -> int:
    """Take back an object whose address lies in a slab of the cache; return 0, or a SlabError."""
    record = state.kmem_cache[cache]
    slab = slab_of(state, paddr)
    start = paddr - state.slab_cache[cache].object_offset
    state.current[Current.CLOCK_PS] += state.cost[Cost.SLAB_ARRAY]
    if object_number(state, slab, start) == NIL:
        return _wrong_address(state, SlabError.NOT_OBJECT_START, cache, paddr)
    error = 0
    if record.slab_flags & SLAB_DEBUG_FLAGS:
        error = _take_back_debugged(state, slab, start)
        if error == SlabError.DOUBLE_FREE:
            return error
    array = state.slab_array[cpu_array(state, cache)]
    if array.avail and state.slab_entry[array.first_entry + array.avail - 1] == start:
        return _wrong_address(state, SlabError.DOUBLE_FREE, cache, paddr)
    record.nr_objects -= 1
    if nid_of(state, slab) != nid_here(state):
        _free_far(state, slab, start)
        return error
    if array.avail < array.limit:
        array.free_hit += 1
    else:
        free_miss(state, cache)
    state.slab_entry[array.first_entry + array.avail] = start
    array.avail += 1
    return error


@hot_kernel
def _cache_at(state: "State", paddr: int) -> int:
    """Return the cache whose slab an address is in, any address; NIL if there is none."""
    pfn = paddr >> PAGE_SHIFT
    if pfn < 0 or pfn >= len(state.page) or not state.page[pfn].page_flags & PageFlag.SLAB:
        return NIL
    return state.page[pfn].mapping


@entry
def slab_cache_alloc(state: "State", cache: int, gfp: int) -> int:
    """Return the physical address of a new object, or NIL if there is no memory."""
    return _alloc(state, cache, gfp)


@entry
def slab_cache_free(state: "State", cache: int, paddr: int) -> int:
    """Take an object back; return 0, or a SlabError.

    The object is taken back unless the error is one of the address or DOUBLE_FREE.
    """
    found = _cache_at(state, paddr)
    if found != cache:
        error = SlabError.FOREIGN_ADDRESS if found == NIL else SlabError.WRONG_CACHE
        return _wrong_address(state, error, cache, paddr)
    return _free(state, cache, paddr)


# --- kmalloc --------------------------------------------------------------------------------------------


@entry
def slab_kmalloc(state: "State", size: int, gfp: int) -> int:
    """Return the physical address of ``size`` bytes; NIL without memory, for none, and for too many."""
    if size <= 0:
        return NIL
    if size > LARGEST:
        return large_alloc(state, size, gfp)
    return _alloc(state, general_cache(state, size, gfp), gfp)


@entry
def slab_kfree(state: "State", paddr: int) -> int:
    """Take back what ``slab_kmalloc`` gave; return 0, or a SlabError."""
    cache = _cache_at(state, paddr)
    if cache != NIL:
        return _free(state, cache, paddr)
    if is_large(state, paddr):
        large_free(state, paddr)
        return 0
    return _wrong_address(state, SlabError.FOREIGN_ADDRESS, NIL, paddr)


@entry
def slab_ksize(state: "State", paddr: int) -> int:
    """Return how many bytes the holder of ``paddr``, which kmalloc gave, may use; 0 for any other address."""
    cache = _cache_at(state, paddr)
    if cache != NIL:
        start = paddr - state.slab_cache[cache].object_offset
        if object_number(state, slab_of(state, paddr), start) == NIL:
            return 0
        return state.kmem_cache[cache].object_size
    return large_size(state, paddr) if is_large(state, paddr) else 0
