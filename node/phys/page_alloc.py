"""Allocation of frames: the short way, which is taken nearly always.

    alloc_pages --> the preferred zone above low?  its per-CPU list not empty?  --> a frame
                              | no                        | no
                              v                           v
                       node/phys/alloc_slowpath.py: other zones, the buddy system, reserves, compaction, reclaim

The preferred zone is the highest that the request allows, of the CPU's own NUMA node if that has memory.

Linux: mm/page_alloc.c (__alloc_pages, get_page_from_freelist, free_unref_page).
"""

from typing import TYPE_CHECKING

from node.counters import Current, Knob, VmEvent
from node.hw.ept_view import ept_wrote
from node.joints import alloc_beyond_lists, free_block
from node.phys.gfp import gfp_migrate_type, gfp_zone
from node.phys.migrate_type import MigrateType, pageblock_type
from node.phys.page import PageFlag
from node.phys.pcp import pcp_free, pcp_index, pop_frame
from node.phys.zone import NR_ZONES
from shared.constants import NIL
from shared.jit import hot_kernel, kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def preferred_zone(state: "State", gfp: int) -> int:
    """Return the zone that a request of the current CPU looks into first, or NIL if no zone will do."""
    nid = state.cpu[state.current[Current.CPU]].nid
    return state.zonelist[(nid * NR_ZONES + gfp_zone(gfp)) * (len(state.zone) + 1)]


@kernel
def _frame_from_lists(state: "State", gfp: int) -> int:
    """Return a frame off the CPU's list for the preferred zone, or NIL if that is below low or the list empty.

    NIL too if that zone is another node's: what that means is up to the long way.
    """
    zone_index = preferred_zone(state, gfp)
    if zone_index == NIL:
        return NIL
    zone = state.zone[zone_index]
    if zone.nid != state.cpu[state.current[Current.CPU]].nid:
        return NIL
    reserve = state.lowmem_reserve[zone_index * NR_ZONES + gfp_zone(gfp)]
    if zone.nr_free - zone.nr_reserved_highatomic <= zone.low + zone.boost + reserve:
        return NIL
    pfn = pop_frame(state, pcp_index(state, zone_index), gfp_migrate_type(gfp), 1)
    if pfn != NIL:
        state.vm_event[VmEvent.PGALLOC_DMA + zone.kind] += 1
        zone.numa_hit += 1
    return pfn


@kernel
def alloc_pages(state: "State", order: int, gfp: int) -> int:
    """Return the first of 2**order frames with one reference to it, or NIL if there is no memory.

    ``gfp`` is Gfp bits (node/phys/gfp.py). An order above 10 has no blocks, so the answer is NIL.
    """
    pfn = NIL
    if order == 0:
        pfn = _frame_from_lists(state, gfp)
    if pfn == NIL:
        pfn = alloc_beyond_lists(state, order, gfp)
        if pfn == NIL:
            return NIL
    page = state.page[pfn]
    page.refcount = 1
    page.content = 0
    page.word = 0
    page.page_flags = 0
    if state.knob[Knob.IS_GUEST]:
        for frame in range(pfn, pfn + (1 << order)):
            ept_wrote(state, frame)
    return pfn


@hot_kernel
def free_pages(state: "State", pfn: int, order: int) -> None:
    """Give back 2**order frames that nobody refers to any more."""
    page = state.page[pfn]
    page.refcount = 0
    page.page_flags = 0
    page.mapping = 0
    state.vm_event[VmEvent.PGFREE] += 1 << order
    if order == 0 and pageblock_type(state, pfn) != MigrateType.ISOLATE:
        pcp_free(state, pfn)
    else:
        free_block(state, pfn, order)


@kernel
def compound_head(state: "State", pfn: int) -> int:
    """Return the frame that has the references to ``pfn``: of a transparent huge page's frames, the first."""
    page = state.page[pfn]
    return page.head if page.page_flags & PageFlag.HUGE else pfn


@kernel
def get_page(state: "State", pfn: int) -> None:
    """Take a reference to a frame."""
    state.page[compound_head(state, pfn)].refcount += 1


@kernel
def page_is_free(state: "State", pfn: int) -> int:
    """Return whether the frame is on a free list, of a CPU or of the buddy system, at its head."""
    return 1 if state.page[pfn].page_flags & (PageFlag.BUDDY | PageFlag.PCP) else 0
