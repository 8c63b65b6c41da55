"""SLUB's side of a cache: opened without any slab, shrunk, and closed.

Linux: mm/slub.c (kmem_cache_open, __kmem_cache_shrink, __kmem_cache_shutdown).
"""

from typing import TYPE_CHECKING

from node.counters import Knob
from node.kalloc.kmem_cache import NO_OBJECT, SlabError
from node.kalloc.slab_report import report
from node.kalloc.slub_flush import shrink_lists
from node.kalloc.slub_layout import lay_out_cache
from node.kalloc.slub_records import SlubStat
from node.kalloc.slub_slab import node_index
from shared.constants import NIL
from shared.jit import cold_kernel

if TYPE_CHECKING:
    from node.state import State


@cold_kernel
def open_cache(state: "State", cache: int) -> int:
    """Lay out a cache and give it empty lists; return 0, or NIL if no slab can hold one of its objects."""
    if lay_out_cache(state, cache) == NIL:
        return NIL
    nr_cpus = state.knob[Knob.NR_CPUS]
    for cpu in range(nr_cpus):
        per_cpu = state.kmem_cache_cpu[cache * nr_cpus + cpu]
        per_cpu.freelist = NO_OBJECT
        per_cpu.tid = cpu
        per_cpu.slab = NIL
        per_cpu.nr_frames = 0
        per_cpu.link_offset = state.slub_cache[cache].link_offset
        per_cpu.partial = NIL
        per_cpu.alloc_fastpath = 0
        per_cpu.free_fastpath = 0
    for nid in range(state.knob[Knob.NR_NODES]):
        node = state.kmem_cache_node[node_index(state, cache, nid)]
        node.first = NIL
        node.last = NIL
        node.nr_partial = 0
        node.nr_slabs = 0
        node.total_objects = 0
    for item in range(SlubStat.NR):
        state.slub_stat[cache * SlubStat.NR + item] = 0
    return 0


@cold_kernel
def close_cache(state: "State", cache: int) -> int:
    """Give back all slabs; return 0, or how many objects are in use, which is reported, and nothing is done."""
    remaining = state.kmem_cache[cache].nr_objects
    if remaining == 0:
        shrink_lists(state, cache)
        # Not 0 where objects were lost behind a broken link.
        remaining = state.kmem_cache[cache].nr_slabs
    if remaining:
        report(state, SlabError.OBJECTS_REMAIN, cache, NO_OBJECT, NIL)
    return remaining
