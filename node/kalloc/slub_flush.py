"""SLUB: a CPU's slab, how it comes and goes; and shrinking, which takes all slabs from all CPUs.

    CPU's freelist   A --> B               joined when the CPU gives its slab up:
    slab's freelist  C --> D               A --> B --> C --> D, and the slab goes to its node's list, or back

Whoever shrinks a cache wants its memory: all slabs without an object in use go back, however few the nodes then
keep. Of the others those that are nearly full come first, so that they are filled, and those that are nearly empty
get a chance to be emptied.

Linux: mm/slub.c (deactivate_slab, flush_slab, flush_all, __kmem_cache_do_shrink).
# Differs from Linux: the CPU that asks does the work of all; there, each CPU does its own.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Knob
from node.hw.cost import Cost
from node.kalloc.kmem_cache import NO_OBJECT, SlabError
from node.kalloc.slab_report import report
from node.kalloc.slub_partial import add_partial, node_has_enough, remove_partial, unfreeze_partials
from node.kalloc.slub_records import FROZEN, SlubStat
from node.kalloc.slub_slab import (
    charge,
    count,
    discard_slab,
    link_of,
    node_index,
    nr_in_slab,
    nr_inuse,
    set_link,
    vm_stat_of,
)
from shared.constants import NIL
from shared.jit import cold_kernel, kernel

if TYPE_CHECKING:
    from node.state import State

SHRINK_PROMOTE_MAX: Final = 32  # slabs with more free objects than this stay where they are


@kernel
def set_cpu_slab(state: "State", index: int, slab: int, freelist: int) -> None:
    """Give a CPU's record a slab and the objects that it may take from it, or NIL and none."""
    cpu = state.kmem_cache_cpu[index]
    cpu.slab = slab
    cpu.nr_frames = 0 if slab == NIL else 1 << state.page[slab].order
    cpu.freelist = freelist
    cpu.tid += 1


@kernel
def _join_freelists(state: "State", cache: int, slab: int, freelist: int) -> None:
    """Put the objects of a CPU's freelist before those of its slab's own."""
    page = state.page[slab]
    tail = NO_OBJECT
    nr_objects = 0
    limit = nr_inuse(state, slab)
    at = freelist
    while at != NO_OBJECT and nr_objects < limit:
        tail = at
        nr_objects += 1
        at = link_of(state, cache, slab, at)
    if tail == NO_OBJECT:
        return
    set_link(state, cache, tail, page.index)
    if at != NO_OBJECT:
        # A circle, since an object was freed twice: it is cut behind ``tail``, and what is left counted.
        report(state, SlabError.DOUBLE_FREE, cache, at, NIL)
        nr_objects = 1
        at = freelist
        while at != tail:
            nr_objects += 1
            at = link_of(state, cache, slab, at)
    page.index = freelist
    page.private -= nr_objects


@cold_kernel
def deactivate_slab(state: "State", cache: int, slab: int, freelist: int) -> None:
    """Take a slab from a CPU for good: join its two freelists, and put it where it belongs."""
    page = state.page[slab]
    to_tail = 0
    if page.index != NO_OBJECT:
        count(state, cache, SlubStat.DEACTIVATE_REMOTE_FREES)
        to_tail = 1
    _join_freelists(state, cache, slab, freelist)
    page.private &= ~FROZEN
    page.next = NIL
    page.prev = NIL
    if nr_inuse(state, slab) == 0 and node_has_enough(state, cache, slab):
        count(state, cache, SlubStat.DEACTIVATE_EMPTY)
        discard_slab(state, cache, slab)
    elif page.index != NO_OBJECT:
        charge(state, Cost.SLUB_NODE_LIST)
        add_partial(state, cache, slab, to_tail)
        count(state, cache, SlubStat.DEACTIVATE_TO_HEAD + to_tail)
    else:
        count(state, cache, SlubStat.DEACTIVATE_FULL)


@cold_kernel
def flush_slab(state: "State", cache: int, index: int) -> None:
    """Take its slab from a CPU's record, if it has one."""
    cpu = state.kmem_cache_cpu[index]
    slab = cpu.slab
    if slab != NIL:
        freelist = cpu.freelist
        set_cpu_slab(state, index, NIL, NO_OBJECT)
        deactivate_slab(state, cache, slab, freelist)
        count(state, cache, SlubStat.CPUSLAB_FLUSH)


@cold_kernel
def flush_all(state: "State", cache: int) -> None:
    """Take from every CPU its slab and its partial list."""
    nr_cpus = state.knob[Knob.NR_CPUS]
    for index in range(cache * nr_cpus, (cache + 1) * nr_cpus):
        flush_slab(state, cache, index)
        cpu = state.kmem_cache_cpu[index]
        partial = cpu.partial
        if partial != NIL:
            cpu.partial = NIL
            unfreeze_partials(state, cache, partial)


@kernel
def _discard_empty(state: "State", cache: int, nid: int) -> None:
    node = state.kmem_cache_node[node_index(state, cache, nid)]
    slab = node.first if node.nr_partial else NIL
    while slab != NIL:
        following = state.page[slab].next
        if nr_inuse(state, slab) == 0:
            remove_partial(state, cache, slab)
            discard_slab(state, cache, slab)
        slab = following


@kernel
def _promote_fullest(state: "State", cache: int, nid: int) -> None:
    """Move slabs with few free objects to the front of a node's list, the fullest first."""
    node = state.kmem_cache_node[node_index(state, cache, nid)]
    for step in range(SHRINK_PROMOTE_MAX):
        nr_free = SHRINK_PROMOTE_MAX - step
        slab = node.first
        for _ in range(node.nr_partial):
            following = state.page[slab].next
            if nr_in_slab(state, slab) - nr_inuse(state, slab) == nr_free:
                remove_partial(state, cache, slab)
                add_partial(state, cache, slab, 0)
            slab = following


@cold_kernel
def shrink_lists(state: "State", cache: int) -> int:
    """Give back all slabs without objects in use, sort the others; return how many frames went back."""
    counted = vm_stat_of(state, cache)
    frames_before = state.vm_stat[counted]
    flush_all(state, cache)
    for nid in range(state.knob[Knob.NR_NODES]):
        _discard_empty(state, cache, nid)
        _promote_fullest(state, cache, nid)
    return frames_before - state.vm_stat[counted]
