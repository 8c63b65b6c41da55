"""SLAB: the arrays of free objects between a cache's users and its slabs.

                     a CPU's own                     a node's, for its CPUs
    alloc, free <--> [ . . . o o o ]  <-- batch -->  [ . . . . . o o o ]  <-- batch -->  slabs
                            top first                     none on machines of one CPU

An array is a stack: the object freed last, whose lines are still in the data cache, is handed out first. Only when
it is empty (or at its limit) does a CPU go to the shared array, and only when that is empty (or full) to the
slabs; each time for a batch. What leaves a full array is what has been in it longest, at the bottom.

    object size   <= 256   <= 1024   <= 4096   <= 128 KiB   more
    limit            120        54        24            8      1      batch (limit + 1) / 2, shared 8 batches
                                                                      up to a page on machines of several CPUs

Linux: mm/slab.c (struct array_cache, enable_cpucache, cache_alloc_refill, cache_flusharray, transfer_objects,
drain_array).
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Current, Knob
from node.hw.cost import Cost
from node.kalloc.kmem_cache import SLAB_DEBUG_FLAGS
from node.kalloc.slab_lists import (
    NR_SLAB_LISTS,
    SlabList,
    grow,
    node_of_slab,
    object_back,
    object_from,
    put_on_list,
    slab_node_index,
    take_first_slab,
    trim,
)
from node.kalloc.slab_nodes import nid_here
from shared.constants import KIB, NIL, PAGE_SIZE
from shared.gfp_flags import RECLAIM, Gfp
from shared.jit import cold_kernel, hot_kernel, kernel

if TYPE_CHECKING:
    from node.state import State

ARRAY_CACHE = np.dtype(
    [
        ("first_entry", np.int64),  # of its entries in state.slab_entry
        ("avail", np.int32),  # objects in it
        ("limit", np.int32),  # most objects; 0: there is no such array
        ("batchcount", np.int32),
        ("touched", np.int32),  # 1: objects were taken from it since cache_reap looked
        ("alloc_hit", np.int64),
        ("alloc_miss", np.int64),
        ("free_hit", np.int64),
        ("free_miss", np.int64),
    ],
    align=True,
)

MAX_LIMIT: Final = 120  # enable_cpucache, here and below
_LIMIT_BY_SIZE: Final = ((128 * KIB, 1), (PAGE_SIZE, 8), (1024, 24), (256, 54))  # above so many bytes
SHARED_BATCHES: Final = 8
MAX_DEBUG_LIMIT: Final = 32
MAX_SHARED: Final = SHARED_BATCHES * ((MAX_LIMIT + 1) // 2)
UNTOUCHED_BATCH: Final = 16  # BATCHREFILL_LIMIT: what a cache gets at most that was hardly used of late
REAP_SHARE: Final = 5  # cache_reap drains a fifth of an array


# --- where the arrays are -------------------------------------------------------------------------------


def nr_arrays(max_caches: int, cpus: int, nodes: int) -> int:
    """Return the length of ``state.slab_array``: for each cache one array a CPU, then one a node."""
    return max_caches * (cpus + nodes)


def nr_entries(max_caches: int, cpus: int, nodes: int) -> int:
    """Return the length of ``state.slab_entry``."""
    return max_caches * (cpus * MAX_LIMIT + nodes * MAX_SHARED)


@hot_kernel
def cpu_array(state: "State", cache: int) -> int:
    """Return the index of the current CPU's array of a cache."""
    return cache * (state.knob[Knob.NR_CPUS] + state.knob[Knob.NR_NODES]) + state.current[Current.CPU]


@kernel
def shared_array(state: "State", cache: int, nid: int) -> int:
    """Return the index of a node's shared array of a cache."""
    nr_cpus = state.knob[Knob.NR_CPUS]
    return cache * (nr_cpus + state.knob[Knob.NR_NODES]) + nr_cpus + nid


# --- their sizes ----------------------------------------------------------------------------------------


@kernel
def array_limit(stride: int) -> int:
    """Return how many objects a CPU's array holds (enable_cpucache)."""
    for above, limit in _LIMIT_BY_SIZE:
        if stride > above:
            return limit
    return MAX_LIMIT


@kernel
def _setup_array(state: "State", index: int, first_entry: int, limit: int) -> None:
    array = state.slab_array[index]
    array.first_entry = first_entry
    array.avail = 0
    array.limit = limit
    array.touched = 0
    array.alloc_hit = 0
    array.alloc_miss = 0
    array.free_hit = 0
    array.free_miss = 0
    for entry in range(first_entry, first_entry + limit):
        state.slab_entry[entry] = 0


@cold_kernel
def setup_arrays(state: "State", cache: int) -> None:
    """Give a new cache, which is laid out, its empty arrays (enable_cpucache, init_arraycache)."""
    record = state.kmem_cache[cache]
    slab_cache = state.slab_cache[cache]
    nr_cpus = state.knob[Knob.NR_CPUS]
    limit = array_limit(record.stride)
    if record.slab_flags & SLAB_DEBUG_FLAGS:
        limit = min(limit, MAX_DEBUG_LIMIT)
    slab_cache.limit = limit
    slab_cache.batchcount = (limit + 1) // 2
    slab_cache.shared = SHARED_BATCHES if record.stride <= PAGE_SIZE and nr_cpus > 1 else 0
    first_array = cache * (nr_cpus + state.knob[Knob.NR_NODES])
    first_entry = cache * (nr_cpus * MAX_LIMIT + state.knob[Knob.NR_NODES] * MAX_SHARED)
    for cpu in range(nr_cpus):
        _setup_array(state, first_array + cpu, first_entry + cpu * MAX_LIMIT, limit)
        state.slab_array[first_array + cpu].batchcount = slab_cache.batchcount
    first_entry += nr_cpus * MAX_LIMIT
    for nid in range(state.knob[Knob.NR_NODES]):
        _setup_array(
            state,
            first_array + nr_cpus + nid,
            first_entry + nid * MAX_SHARED,
            slab_cache.shared * slab_cache.batchcount,
        )


# --- out of an array ------------------------------------------------------------------------------------


@kernel
def transfer(state: "State", to: int, source: int, most: int) -> int:
    """Move objects from the top of one array to that of another; return how many (transfer_objects)."""
    taker = state.slab_array[to]
    giver = state.slab_array[source]
    nr_objects = min(giver.avail, most, taker.limit - taker.avail)
    begin = giver.first_entry + giver.avail - nr_objects
    for step in range(nr_objects):
        state.slab_entry[taker.first_entry + taker.avail + step] = state.slab_entry[begin + step]
    giver.avail -= nr_objects
    taker.avail += nr_objects
    return nr_objects


@kernel
def _fill_from_slab(state: "State", array_index: int, slab: int, most: int) -> int:
    """Take up to ``most`` objects out of a slab, which then goes on its list; return how many (alloc_block)."""
    array = state.slab_array[array_index]
    page = state.page[slab]
    nr_objects = min(most, state.kmem_cache[page.mapping].objects_per_slab - page.word)
    for _ in range(nr_objects):
        state.slab_entry[array.first_entry + array.avail] = object_from(state, slab)
        array.avail += 1
    state.slab_node[node_of_slab(state, slab)].free_objects -= nr_objects
    put_on_list(state, slab)
    return nr_objects


@kernel
def _fill_from_node(state: "State", cache: int, array_index: int, batch: int) -> None:
    """Take up to ``batch`` objects out of partial slabs, then out of free ones."""
    slab_cache = state.slab_cache[cache]
    node = slab_node_index(state, cache, nid_here(state))
    left = batch
    while left > 0:
        slab = take_first_slab(state, node)
        if slab == NIL:
            break
        was_free = state.page[slab].word == 0
        taken = _fill_from_slab(state, array_index, slab, left)
        if was_free:
            slab_cache.refill_free += taken
        else:
            slab_cache.refill_partial += taken
        left -= taken


@kernel
def _refill(state: "State", cache: int, array_index: int, batch: int) -> None:
    """Get objects that are free already: from the shared array, or if that has none, from slabs."""
    nid = nid_here(state)
    shared_index = shared_array(state, cache, nid)
    shared = state.slab_array[shared_index]
    if state.slab_node[slab_node_index(state, cache, nid)].free_objects == 0 and shared.avail == 0:
        return
    taken = transfer(state, array_index, shared_index, batch)
    if taken:
        shared.touched = 1
        state.slab_cache[cache].refill_shared += taken
        return
    _fill_from_node(state, cache, array_index, batch)


@kernel
def _grow_here(state: "State", cache: int, gfp: int) -> int:
    """Return a new slab on this node, on no list yet; NIL if that has no memory, or if reclaim would be needed."""
    if state.knob[Knob.NR_NODES] > 1:
        gfp = (gfp | Gfp.THISNODE | Gfp.NOWARN) & ~(RECLAIM | Gfp.NOFAIL)
    return grow(state, cache, nid_here(state), gfp)


@kernel
def _one_from(state: "State", slab: int) -> int:
    """Hand out one object of a slab that is on no list, past the arrays (____cache_alloc_node)."""
    node = node_of_slab(state, slab)
    if node != slab_node_index(state, state.page[slab].mapping, nid_here(state)):
        state.slab_cache[state.page[slab].mapping].node_allocs += 1
    state.slab_node[node].free_objects -= 1
    start = object_from(state, slab)
    put_on_list(state, slab)
    return start


@cold_kernel
def _fall_back(state: "State", cache: int, gfp: int) -> int:
    """Hand out an object of another node, or of a new slab wherever there is memory; or NIL (fallback_alloc)."""
    if state.knob[Knob.NR_NODES] <= 1 or gfp & Gfp.THISNODE:
        return NIL
    for nid in range(state.knob[Knob.NR_NODES]):
        if state.slab_node[slab_node_index(state, cache, nid)].free_objects:
            return _one_from(state, take_first_slab(state, slab_node_index(state, cache, nid)))
    slab = grow(state, cache, nid_here(state), gfp)
    return NIL if slab == NIL else _one_from(state, slab)


@cold_kernel
def alloc_miss(state: "State", cache: int, gfp: int) -> int:
    """Fill the current CPU's empty array and hand out an object of it; NIL without memory (cache_alloc_refill)."""
    array_index = cpu_array(state, cache)
    array = state.slab_array[array_index]
    array.alloc_miss += 1
    state.current[Current.CLOCK_PS] += state.cost[Cost.SLAB_BATCH]
    batch = array.batchcount
    if not array.touched:
        batch = min(batch, UNTOUCHED_BATCH)
    _refill(state, cache, array_index, batch)
    if array.avail == 0:
        slab = _grow_here(state, cache, gfp)
        if slab == NIL:
            return _fall_back(state, cache, gfp)
        # Getting its free list, or reclaim, may have freed objects of this cache meanwhile.
        if array.avail:
            put_on_list(state, slab)
        else:
            state.slab_cache[cache].refill_new += _fill_from_slab(state, array_index, slab, batch)
    array.touched = 1
    array.avail -= 1
    return state.slab_entry[array.first_entry + array.avail]


# --- into an array --------------------------------------------------------------------------------------


@kernel
def _close_gap(state: "State", array_index: int, nr_objects: int) -> None:
    """Move an array's objects down after the lowest ``nr_objects`` have left."""
    array = state.slab_array[array_index]
    array.avail -= nr_objects
    for entry in range(array.first_entry, array.first_entry + array.avail):
        state.slab_entry[entry] = state.slab_entry[entry + nr_objects]


@kernel
def drain_lowest(state: "State", array_index: int, nr_objects: int, node: int) -> None:
    """Put the objects that were longest in an array back into the slabs of ``node``, whose array it is."""
    first_entry = state.slab_array[array_index].first_entry
    for entry in range(first_entry, first_entry + nr_objects):
        object_back(state, state.slab_entry[entry])
    _close_gap(state, array_index, nr_objects)
    trim(state, node)


@cold_kernel
def free_miss(state: "State", cache: int) -> None:
    """Make room in the current CPU's full array (cache_flusharray)."""
    nid = nid_here(state)
    array_index = cpu_array(state, cache)
    array = state.slab_array[array_index]
    array.free_miss += 1
    state.current[Current.CLOCK_PS] += state.cost[Cost.SLAB_BATCH]
    shared = state.slab_array[shared_array(state, cache, nid)]
    room = shared.limit - shared.avail
    if room > 0:
        nr_objects = min(array.batchcount, room)
        for step in range(nr_objects):
            state.slab_entry[shared.first_entry + shared.avail + step] = state.slab_entry[
                array.first_entry + step
            ]
        shared.avail += nr_objects
        _close_gap(state, array_index, nr_objects)
        return
    node = slab_node_index(state, cache, nid)
    drain_lowest(state, array_index, array.batchcount, node)
    free_list = node * NR_SLAB_LISTS + SlabList.FREE
    slab_cache = state.slab_cache[cache]
    slab_cache.max_freeable = max(slab_cache.max_freeable, state.slab_list[free_list].nr_slabs)


@kernel
def drain_if_idle(state: "State", cache: int, array_index: int) -> None:
    """Put a fifth of an array back into its slabs, unless it was used since the last time (drain_array)."""
    array = state.slab_array[array_index]
    if array.avail == 0:
        return
    if array.touched:
        array.touched = 0
        return
    nr_objects = (array.limit + REAP_SHARE - 1) // REAP_SHARE
    if nr_objects > array.avail:
        nr_objects = (array.avail + 1) // 2
    drain_lowest(state, array_index, nr_objects, slab_node_index(state, cache, nid_here(state)))


@cold_kernel
def drain_cpu_caches(state: "State", cache: int) -> None:
    """Put all objects of all arrays of a cache back into their slabs."""
    nr_cpus = state.knob[Knob.NR_CPUS]
    first_array = cache * (nr_cpus + state.knob[Knob.NR_NODES])
    for index in range(nr_cpus + state.knob[Knob.NR_NODES]):
        nid = state.cpu[index].nid if index < nr_cpus else index - nr_cpus
        array = first_array + index
        drain_lowest(state, array, state.slab_array[array].avail, slab_node_index(state, cache, nid))


@kernel
def is_in_arrays(state: "State", cache: int, start: int) -> int:
    """Return whether some array holds the object."""
    first_array = cache * (state.knob[Knob.NR_CPUS] + state.knob[Knob.NR_NODES])
    for index in range(first_array, first_array + state.knob[Knob.NR_CPUS] + state.knob[Knob.NR_NODES]):
        array = state.slab_array[index]
        for entry in range(array.first_entry, array.first_entry + array.avail):
            if state.slab_entry[entry] == start:
                return 1
    return 0
