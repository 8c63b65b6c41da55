"""SLAB seen from outside: what /proc/slabinfo says of a cache, and which entries of arrays a snapshot keeps.

    name  active_objs num_objs objsize objperslab pagesperslab
          : tunables limit batchcount sharedfactor : slabdata active_slabs num_slabs sharedavail
          : globalstat ... : cpustat allochit allocmiss freehit freemiss         (with CONFIG_DEBUG_SLAB)

Objects in arrays are active to it: it counts what is out of slabs.

Linux: mm/slab.c (get_slabinfo, slabinfo_show_stats), mm/slab_common.c (cache_show).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from node.counters import Knob
from node.kalloc.kmem_cache import MAX_CACHES, Allocator
from node.kalloc.slab_lists import NR_SLAB_LISTS, SlabList

if TYPE_CHECKING:
    from node.state import State


@dataclass(frozen=True, slots=True)
class SlabInfo:
    """A line of /proc/slabinfo, without its name; counts of objects and slabs, ``objsize`` in bytes."""

    active_objs: int
    num_objs: int
    objsize: int
    objperslab: int
    pagesperslab: int
    limit: int
    batchcount: int
    sharedfactor: int
    active_slabs: int
    num_slabs: int
    sharedavail: int


@dataclass(frozen=True, slots=True)
class SlabStats:
    """The statistics of a cache with CONFIG_DEBUG_SLAB: globalstat and cpustat; then where refills came from."""

    allocs: int
    high: int
    grown: int
    reaped: int
    errors: int
    max_freeable: int
    node_allocs: int
    node_frees: int
    overflows: int  # of alien arrays, which there are none of
    allochit: int
    allocmiss: int
    freehit: int
    freemiss: int
    refill_shared: int
    refill_partial: int
    refill_free: int
    refill_new: int
    grow_failed: int


def _arrays_of(state: "State", cache: int) -> tuple[int, int]:
    """Return the index of a cache's first array, and of its first shared one."""
    cpus = int(state.knob[Knob.NR_CPUS])
    return cache * (cpus + state.knob[Knob.NR_NODES]), cache * (cpus + state.knob[Knob.NR_NODES]) + cpus


def slab_slabinfo(state: "State", cache: int) -> SlabInfo:
    """Return the numbers of a cache's line in /proc/slabinfo."""
    record = state.kmem_cache[cache]
    slab_cache = state.slab_cache[cache]
    nodes = slice(cache * state.knob[Knob.NR_NODES], (cache + 1) * state.knob[Knob.NR_NODES])
    lists = state.slab_list["nr_slabs"].reshape(-1, NR_SLAB_LISTS)[nodes]
    total_slabs = int(state.slab_node["total_slabs"][nodes].sum())
    free_objects = int(state.slab_node["free_objects"][nodes].sum())
    first_shared = _arrays_of(state, cache)[1]
    shared = state.slab_array["avail"][first_shared : first_shared + state.knob[Knob.NR_NODES]]
    num_objs = total_slabs * record.objects_per_slab
    return SlabInfo(
        active_objs=num_objs - free_objects,
        num_objs=num_objs,
        objsize=record.stride,
        objperslab=record.objects_per_slab,
        pagesperslab=1 << record.order,
        limit=slab_cache.limit,
        batchcount=slab_cache.batchcount,
        sharedfactor=slab_cache.shared,
        active_slabs=total_slabs - int(lists[:, SlabList.FREE].sum()),
        num_slabs=total_slabs,
        sharedavail=int(shared.sum()),
    )


def slab_stats(state: "State", cache: int) -> SlabStats:
    """Return what is counted of a cache."""
    first, first_shared = _arrays_of(state, cache)
    arrays = np.asarray(state.slab_array)[first:first_shared]
    counted = state.slab_cache[cache]
    return SlabStats(
        allocs=counted.num_allocations,
        high=counted.high_mark,
        grown=counted.grown,
        reaped=counted.reaped,
        errors=counted.errors,
        max_freeable=counted.max_freeable,
        node_allocs=counted.node_allocs,
        node_frees=counted.node_frees,
        overflows=0,
        allochit=int(arrays["alloc_hit"].sum()),
        allocmiss=int(arrays["alloc_miss"].sum()),
        freehit=int(arrays["free_hit"].sum()),
        freemiss=int(arrays["free_miss"].sum()),
        refill_shared=counted.refill_shared,
        refill_partial=counted.refill_partial,
        refill_free=counted.refill_free,
        refill_new=counted.refill_new,
        grow_failed=counted.grow_failed,
    )


def used_entries(state: "State") -> Iterator[npt.NDArray[Any]]:
    """Yield the parts of ``state.slab_entry`` that are caches' arrays, in ascending order."""
    if state.knob[Knob.ALLOCATOR] != Allocator.SLAB:
        return
    per_cache = len(state.slab_entry) // MAX_CACHES
    for cache in np.flatnonzero(state.kmem_cache["object_size"]).tolist():
        yield np.asarray(state.slab_entry)[cache * per_cache : (cache + 1) * per_cache]
