"""The huge page of zeroes: 2 MiB that every first read of huge memory maps, read-only.

It is made at the first such read and shared by the whole machine. When nothing maps it any more, reclaim may free it.

Linux: mm/huge_memory.c (get_huge_zero_page, shrink_huge_zero_page_scan).
# Differs from Linux: its users are the entries that map it, not the address spaces that ever did.
"""

from typing import TYPE_CHECKING

from node.content import set_content
from node.counters import Current, VmEvent
from node.joints import alloc_frames
from node.phys.page import PageFlag
from node.phys.page_alloc import free_pages
from node.phys.zone import PAGEBLOCK_ORDER
from shared.constants import ENTRIES_PER_TABLE, NIL
from shared.gfp_flags import GFP_TRANSHUGE_LIGHT, Gfp
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def get_huge_zero_page(state: "State") -> int:
    """Return the first frame of the huge page of zeroes, made now if need be; or NIL without memory."""
    pfn = state.current[Current.HUGE_ZERO_PFN]
    if pfn == 0:
        gfp = (GFP_TRANSHUGE_LIGHT | Gfp.DIRECT_RECLAIM | Gfp.ZERO) & ~Gfp.MOVABLE
        pfn = alloc_frames(state, PAGEBLOCK_ORDER, gfp)
        if pfn == NIL:
            state.vm_event[VmEvent.THP_ZERO_PAGE_ALLOC_FAILED] += 1
            return NIL
        for frame in range(pfn, pfn + ENTRIES_PER_TABLE):
            set_content(state, frame, 0)
            state.page[frame].page_flags = PageFlag.ZERO_PAGE
        state.page[pfn].page_flags = PageFlag.ZERO_PAGE | PageFlag.KERNEL | PageFlag.COMPOUND
        state.page[pfn].order = PAGEBLOCK_ORDER
        state.current[Current.HUGE_ZERO_PFN] = pfn
        state.vm_event[VmEvent.THP_ZERO_PAGE_ALLOC] += 1
    return pfn


@kernel
def free_unused_huge_zero(state: "State") -> int:
    """Free the huge page of zeroes if nothing maps it; return the frames that gives."""
    pfn = state.current[Current.HUGE_ZERO_PFN]
    if pfn == 0 or state.current[Current.HUGE_ZERO_USERS]:
        return 0
    for frame in range(pfn, pfn + ENTRIES_PER_TABLE):
        state.page[frame].page_flags = 0
    free_pages(state, pfn, PAGEBLOCK_ORDER)
    state.current[Current.HUGE_ZERO_PFN] = 0
    return ENTRIES_PER_TABLE
