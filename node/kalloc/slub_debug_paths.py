"""SLUB's paths of caches that are debugged: one object at a time from the node's list, each one looked at.

No CPU has a slab of its own here, so every slab with a free object is on its node's list, and a full one on none.

Linux: mm/slub.c (alloc_single_from_partial, alloc_single_from_new_slab, free_to_partial_list, on_freelist).
"""

from typing import TYPE_CHECKING

from node.counters import Knob
from node.hw.cost import Cost
from node.kalloc.kmem_cache import NO_OBJECT, SlabError, SlabFlag
from node.kalloc.slab_report import report
from node.kalloc.slub_debug import allow_alloc, disable_slab, refuse_free, track_of
from node.kalloc.slub_partial import add_partial, node_has_enough, remove_partial
from node.kalloc.slub_records import COUNT_MASK, SlubStat
from node.kalloc.slub_slab import (
    charge,
    count,
    discard_slab,
    is_frozen,
    link_of,
    new_slab,
    node_index,
    nr_in_slab,
    nr_inuse,
    set_link,
)
from shared.constants import NIL
from shared.jit import cold_kernel, kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def _alloc_single(state: "State", cache: int, slab: int) -> int:
    """Take the first free object of a slab on its node's list; if it is found wrong the slab goes; NIL then."""
    page = state.page[slab]
    paddr = page.index
    page.index = link_of(state, cache, slab, paddr)
    page.private += 1
    if not allow_alloc(state, cache, slab, paddr):
        disable_slab(state, slab)
        remove_partial(state, cache, slab)
        return NIL
    if page.index == NO_OBJECT:
        remove_partial(state, cache, slab)
    return paddr


@cold_kernel
def alloc_debug(state: "State", cache: int, gfp: int) -> int:
    """Return a checked object, or NIL if there is no memory."""
    charge(state, Cost.SLUB_NODE_LIST)
    for nid in range(state.knob[Knob.NR_NODES]):
        node = state.kmem_cache_node[node_index(state, cache, nid)]
        while node.nr_partial:
            paddr = _alloc_single(state, cache, node.first)
            if paddr != NIL:
                count(state, cache, SlubStat.ALLOC_FROM_PARTIAL)
                state.kmem_cache[cache].nr_objects += 1
                return paddr
    slab = new_slab(state, cache, gfp)
    if slab == NIL:
        return NIL
    count(state, cache, SlubStat.ALLOC_SLAB)
    add_partial(state, cache, slab, 0)
    paddr = _alloc_single(state, cache, slab)
    if paddr != NIL:
        state.kmem_cache[cache].nr_objects += 1
    return paddr


@kernel
def _is_on_freelist(state: "State", cache: int, slab: int, paddr: int) -> int:
    """Return whether an object is free; where links were overwritten, what they led to counts as in use from now."""
    page = state.page[slab]
    objects = nr_in_slab(state, slab)
    nr_free = 0
    at = page.index
    while at != NO_OBJECT and nr_free < objects:
        if at == paddr:
            return 1
        nr_free += 1
        at = link_of(state, cache, slab, at)
    page.private = (page.private & ~COUNT_MASK) | (objects - nr_free)
    return 0


@cold_kernel
def free_debug(state: "State", cache: int, slab: int, paddr: int) -> int:
    """Take back an object after a look at it; return 0, or a SlabError, and then it is not taken back."""
    page = state.page[slab]
    marks = track_of(state, cache, paddr)
    if is_frozen(state, slab):
        return report(state, SlabError.SLAB_DISABLED, cache, paddr, marks)
    checks = state.kmem_cache[cache].slab_flags & SlabFlag.CONSISTENCY_CHECKS
    prior = page.index
    if checks and _is_on_freelist(state, cache, slab, paddr):
        return report(state, SlabError.DOUBLE_FREE, cache, paddr, marks)
    if prior == paddr or nr_inuse(state, slab) == 0:
        return report(state, SlabError.DOUBLE_FREE, cache, paddr, marks)
    error = refuse_free(state, cache, slab, paddr)
    if error:
        return error
    charge(state, Cost.SLUB_NODE_LIST)
    set_link(state, cache, paddr, prior)
    page.index = paddr
    page.private -= 1
    state.kmem_cache[cache].nr_objects -= 1
    is_spare = nr_inuse(state, slab) == 0 and node_has_enough(state, cache, slab)
    if prior == NO_OBJECT:
        # It was full, and on no list.
        if not is_spare:
            add_partial(state, cache, slab, 1)
            count(state, cache, SlubStat.FREE_ADD_PARTIAL)
    elif is_spare:
        remove_partial(state, cache, slab)
        count(state, cache, SlubStat.FREE_REMOVE_PARTIAL)
    if is_spare:
        discard_slab(state, cache, slab)
    return 0
