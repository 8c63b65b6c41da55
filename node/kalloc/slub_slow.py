"""SLUB beyond the fast paths: where an object comes from when the CPU has none, and where one goes to.

    allocate                                    counted                       free
    1  the CPU's slab: what others freed        ALLOC_REFILL                  to a frozen slab     FREE_FROZEN
    2  the CPU's partial list                   CPU_PARTIAL_ALLOC             to a full slab       CPU_PARTIAL_FREE
    3  the node's partial list                  ALLOC_FROM_PARTIAL            the last of a slab   FREE_SLAB, or it
    4  the page allocator                       ALLOC_SLAB                      stays on its list: min_partial

1 and 2 take no lock but the CPU's own; 3 takes the node's; 4 is the very slow path.

Linux: mm/slub.c (___slab_alloc, get_freelist, __slab_free).
# Differs from Linux: no request names a NUMA node. A free to the wrong cache is refused and reported, as is one
to an address that is no object; Linux stops at the one, and corrupts memory by the other.
"""

from typing import TYPE_CHECKING

from node.hw.cost import Cost
from node.kalloc.kmem_cache import NO_OBJECT, SlabError
from node.kalloc.slab_report import report
from node.kalloc.slub_debug_paths import alloc_debug, free_debug
from node.kalloc.slub_flush import deactivate_slab, set_cpu_slab
from node.kalloc.slub_partial import cpu_index, get_partial, node_has_enough, put_cpu_partial, remove_partial
from node.kalloc.slub_records import COUNT_MASK, FROZEN, SlubStat
from node.kalloc.slub_slab import (
    charge,
    count,
    discard_slab,
    is_frozen,
    link_of,
    new_slab,
    nr_in_slab,
    nr_inuse,
    set_link,
    slab_of,
    starts_object,
)
from shared.constants import NIL
from shared.jit import cold_kernel, kernel

if TYPE_CHECKING:
    from node.state import State


# --- allocation -----------------------------------------------------------------------------------------


@kernel
def _get_freelist(state: "State", slab: int) -> int:
    """Take all objects off a slab's freelist; a full slab is no CPU's any more. Return the first, or NO_OBJECT."""
    page = state.page[slab]
    first = page.index
    objects = nr_in_slab(state, slab)
    page.index = NO_OBJECT
    page.private = (page.private & ~(COUNT_MASK | FROZEN)) | objects | (FROZEN if first != NO_OBJECT else 0)
    return first


@kernel
def _hand_out(state: "State", cache: int, slab: int, first: int) -> int:
    """Make ``slab`` the CPU's, and the objects behind ``first`` those of its freelist; return ``first``."""
    set_cpu_slab(state, cpu_index(state, cache), slab, link_of(state, cache, slab, first))
    state.kmem_cache[cache].nr_objects += 1
    return first


@kernel
def _from_cpu(state: "State", cache: int) -> int:
    """Return an object of the CPU's slab or of its partial list, or NO_OBJECT if the CPU has none."""
    index = cpu_index(state, cache)
    cpu = state.kmem_cache_cpu[index]
    slab = cpu.slab
    while True:
        if slab == NIL:
            slab = cpu.partial
            if slab == NIL:
                return NO_OBJECT
            cpu.partial = state.page[slab].next
            count(state, cache, SlubStat.CPU_PARTIAL_ALLOC)
        first = _get_freelist(state, slab)
        if first != NO_OBJECT:
            count(state, cache, SlubStat.ALLOC_REFILL)
            return _hand_out(state, cache, slab, first)
        set_cpu_slab(state, index, NIL, NO_OBJECT)
        count(state, cache, SlubStat.DEACTIVATE_BYPASS)
        slab = NIL


@cold_kernel
def _from_new_slab(state: "State", cache: int, gfp: int) -> int:
    slab = new_slab(state, cache, gfp)
    if slab == NIL:
        return NIL
    count(state, cache, SlubStat.ALLOC_SLAB)
    state.page[slab].private |= FROZEN
    # Reclaim may have run in between, and have allocated here.
    index = cpu_index(state, cache)
    cpu = state.kmem_cache_cpu[index]
    if cpu.slab != NIL:
        flushed = cpu.slab
        freelist = cpu.freelist
        set_cpu_slab(state, index, NIL, NO_OBJECT)
        deactivate_slab(state, cache, flushed, freelist)
        count(state, cache, SlubStat.CPUSLAB_FLUSH)
    return _hand_out(state, cache, slab, _get_freelist(state, slab))


@cold_kernel
def slub_alloc_slow(state: "State", cache: int, gfp: int) -> int:
    """Return an object though the CPU's freelist has none, or NIL if there is no memory (___slab_alloc)."""
    count(state, cache, SlubStat.ALLOC_SLOWPATH)
    charge(state, Cost.SLUB_ALLOC_SLOW)
    if state.slub_cache[cache].is_debug:
        return alloc_debug(state, cache, gfp)
    found = _from_cpu(state, cache)
    if found != NO_OBJECT:
        return found
    slab = get_partial(state, cache)
    if slab != NIL:
        return _hand_out(state, cache, slab, _get_freelist(state, slab))
    return _from_new_slab(state, cache, gfp)


# --- free -----------------------------------------------------------------------------------------------


@cold_kernel
def freed_twice(state: "State", cache: int, paddr: int) -> int:
    """Report that an object which is free was freed; return the error."""
    return report(state, SlabError.DOUBLE_FREE, cache, paddr, NIL)


@cold_kernel
def _wrong_address(state: "State", cache: int, paddr: int) -> int:
    """Report that ``paddr`` is no object of the cache, and what it is; return the error."""
    slab = slab_of(state, paddr)
    error = int(SlabError.NOT_OBJECT_START)
    if slab == NIL:
        error = int(SlabError.FOREIGN_ADDRESS)
    elif state.page[slab].mapping != cache:
        error = int(SlabError.WRONG_CACHE)
    return report(state, error, cache, paddr, NIL)


@kernel
def _free_unfrozen(state: "State", cache: int, slab: int, prior: int) -> None:
    """Place a slab that is no CPU's after an object came back, where ``prior`` was the first free one."""
    page = state.page[slab]
    if prior == NO_OBJECT:
        # It was full, and on no list. Whoever frees one of its objects may soon free more of them.
        page.private |= FROZEN
        put_cpu_partial(state, cache, slab, 1)
        count(state, cache, SlubStat.CPU_PARTIAL_FREE)
    elif nr_inuse(state, slab) == 0:
        charge(state, Cost.SLUB_NODE_LIST)
        if node_has_enough(state, cache, slab):
            remove_partial(state, cache, slab)
            count(state, cache, SlubStat.FREE_REMOVE_PARTIAL)
            discard_slab(state, cache, slab)


@cold_kernel
def slub_free_slow(state: "State", cache: int, paddr: int) -> int:
    """Take back an object that is not of the CPU's slab; return 0, or a SlabError (__slab_free)."""
    slab = slab_of(state, paddr)
    if slab == NIL or state.page[slab].mapping != cache or not starts_object(state, cache, slab, paddr):
        return _wrong_address(state, cache, paddr)
    count(state, cache, SlubStat.FREE_SLOWPATH)
    charge(state, Cost.SLUB_FREE_SLOW)
    if state.slub_cache[cache].is_debug:
        return free_debug(state, cache, slab, paddr)
    page = state.page[slab]
    prior = page.index
    if prior == paddr or nr_inuse(state, slab) == 0:
        return freed_twice(state, cache, paddr)
    set_link(state, cache, paddr, prior)
    page.index = paddr
    page.private -= 1
    state.kmem_cache[cache].nr_objects -= 1
    if is_frozen(state, slab):
        count(state, cache, SlubStat.FREE_FROZEN)
    else:
        _free_unfrozen(state, cache, slab, prior)
    return 0
