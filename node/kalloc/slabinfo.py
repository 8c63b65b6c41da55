"""/proc/slabinfo, byte for byte as Linux prints it: a line a cache, the newest first.

    # name   <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables ... : slabdata ...
    vm_area_struct       92    120    200   20    1 : tunables    0    0    0 : slabdata      6      6      0

What a line says is the allocator's: each has a function that fills in a ``SlabInfo``, and here is the form. Of
SLUB, an object on a CPU's freelist or in a slab on a CPU's partial list counts as active, since only the nodes'
lists are looked at; and it has nothing to tune. SLOB has no such file.

Linux: mm/slab_common.c (print_slabinfo_header, cache_show), mm/slub.c (get_slabinfo).
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from node.counters import Knob
from node.kalloc.cache_list import caches
from node.kalloc.kmem_cache import Allocator, cache_name
from node.kalloc.slab_numbers import SlabInfo, slab_slabinfo
from node.kalloc.slub_records import COUNT_MASK, OBJECTS_SHIFT

if TYPE_CHECKING:
    from node.state import State

HEADER: Final = (
    "slabinfo - version: 2.1\n"
    "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>"
    " : tunables <limit> <batchcount> <sharedfactor>"
    " : slabdata <active_slabs> <num_slabs> <sharedavail>\n"
)


def slub_slabinfo(state: "State", cache: int) -> SlabInfo:
    """Return what SLUB says of a cache."""
    nr_nodes = state.knob[Knob.NR_NODES]
    nodes = range(cache * nr_nodes, (cache + 1) * nr_nodes)
    nr_slabs = sum(state.kmem_cache_node[index].nr_slabs for index in nodes)
    nr_objs = sum(state.kmem_cache_node[index].total_objects for index in nodes)
    nr_free = sum(_free_on_list(state, index) for index in nodes)
    record = state.kmem_cache[cache]
    return SlabInfo(
        active_objs=nr_objs - nr_free,
        num_objs=nr_objs,
        objsize=record.stride,
        objperslab=record.objects_per_slab,
        pagesperslab=1 << record.order,
        limit=0,
        batchcount=0,
        sharedfactor=0,
        active_slabs=nr_slabs,
        num_slabs=nr_slabs,
        sharedavail=0,
    )


def _free_on_list(state: "State", index: int) -> int:
    node = state.kmem_cache_node[index]
    slab = node.first
    nr_free = 0
    for _ in range(node.nr_partial):
        counters = state.page[slab].private
        nr_free += ((counters >> OBJECTS_SHIFT) & COUNT_MASK) - (counters & COUNT_MASK)
        slab = state.page[slab].next
    return nr_free


_TELL: Final[Mapping[int, Callable[["State", int], SlabInfo]]] = {
    Allocator.SLUB: slub_slabinfo,
    Allocator.SLAB: slab_slabinfo,
}


def slabinfo(state: "State") -> str:
    """Return /proc/slabinfo; an empty text where SLOB is the allocator, with which Linux has no such file."""
    tell = _TELL.get(state.knob[Knob.ALLOCATOR])
    if tell is None:
        return ""
    return HEADER + "".join(_line(state, cache, tell(state, cache)) for cache in caches(state))


def _line(state: "State", cache: int, told: SlabInfo) -> str:
    return (
        f"{cache_name(state, cache):<17} {told.active_objs:6} {told.num_objs:6}"
        f" {told.objsize:6} {told.objperslab:4} {told.pagesperslab:4}"
        f" : tunables {told.limit:4} {told.batchcount:4} {told.sharedfactor:4}"
        f" : slabdata {told.active_slabs:6} {told.num_slabs:6} {told.sharedavail:6}\n"
    )
