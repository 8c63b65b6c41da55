"""Allocation of frames: zones from the highest down, through the per-CPU lists, above the watermarks.

    alloc_page --> a zone above low? --> its per-CPU list --> the buddy system
                      | none
                      v
                   wake kswapd; a zone above min?
                      | none
                      v
                   reclaim directly (another unit), try again; at last the OOM killer, or NIL

Linux: mm/page_alloc.c (get_page_from_freelist, __alloc_pages_slowpath, free_unref_page).
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, Knob, VmEvent
from node.hw.ept_view import ept_wrote
from node.joints import direct_reclaim, wake_kswapd
from node.phys.buddy import buddy_alloc, buddy_free, zone_of
from node.phys.gfp import Gfp
from node.phys.page import PageFlag
from node.phys.pcp import drain_all_pages, pcp_alloc, pcp_free
from node.phys.watermarks import GFP_HIGH_DIVISOR, watermark_ok
from node.phys.zone import NR_ZONES
from shared.constants import NIL
from shared.jit import entry, hot_kernel, kernel

if TYPE_CHECKING:
    from node.state import State

MAX_RECLAIM_RETRIES: Final = 16


@kernel
def _zone_mark(state: "State", zone_index: int, below_low: int, gfp: int) -> int:
    zone = state.zone[zone_index]
    if not below_low:
        return zone.low
    if gfp & Gfp.HIGH:
        return zone.min_wmark - zone.min_wmark // GFP_HIGH_DIVISOR
    return zone.min_wmark


@kernel
def _get_page_from_freelist(state: "State", order: int, below_low: int, gfp: int) -> int:
    memalloc = state.current[Current.MEMALLOC]
    for step in range(NR_ZONES):
        zone = NR_ZONES - 1 - step
        if state.zone[zone].managed == 0:
            continue
        # Reclaim itself ignores the watermarks: what it allocates frees more.
        if not memalloc and not watermark_ok(state, zone, order, _zone_mark(state, zone, below_low, gfp)):
            continue
        pfn = pcp_alloc(state, zone) if order == 0 else buddy_alloc(state, zone, order)
        if pfn != NIL:
            return pfn
    return NIL


@kernel
def _alloc_slowpath(state: "State", order: int, gfp: int) -> int:
    wake_kswapd(state, order)
    pfn = _get_page_from_freelist(state, order, 1, gfp)
    if pfn != NIL or not gfp & Gfp.DIRECT_RECLAIM or state.current[Current.MEMALLOC]:
        return pfn
    for retry in range(MAX_RECLAIM_RETRIES):
        progress = direct_reclaim(state, order, gfp)
        pfn = _get_page_from_freelist(state, order, 1, gfp)
        if pfn != NIL:
            return pfn
        if retry == 0:
            drain_all_pages(state)
        if gfp & Gfp.NORETRY or not progress:
            break
    return _get_page_from_freelist(state, order, 1, gfp)


@kernel
def alloc_pages(state: "State", order: int, gfp: int) -> int:
    """Return the first of 2**order frames with one reference to it, or NIL if there is no memory."""
    pfn = _get_page_from_freelist(state, order, 0, gfp)
    if pfn == NIL:
        pfn = _alloc_slowpath(state, order, gfp)
        if pfn == NIL:
            return NIL
    page = state.page[pfn]
    page.refcount = 1
    page.content = 0
    page.word = 0
    page.page_flags = 0
    state.vm_event[VmEvent.PGALLOC_DMA + zone_of(pfn)] += 1 << order
    if state.knob[Knob.IS_GUEST]:
        for frame in range(pfn, pfn + (1 << order)):
            ept_wrote(state, frame)
    return pfn


@entry
def alloc_frames(state: "State", order: int, gfp: int) -> int:
    """Do what ``alloc_pages`` does, for callers that are not worth a copy of it in their machine code."""
    return alloc_pages(state, order, gfp)


@entry
def free_frames(state: "State", pfn: int, order: int) -> int:
    """Do what ``free_pages`` does, for callers that are not worth a copy of it in their machine code; return 0."""
    free_pages(state, pfn, order)
    return 0


@hot_kernel
def free_pages(state: "State", pfn: int, order: int) -> None:
    """Give back 2**order frames that nobody refers to any more."""
    page = state.page[pfn]
    page.refcount = 0
    page.page_flags = 0
    page.mapping = 0
    state.vm_event[VmEvent.PGFREE] += 1 << order
    if order == 0:
        pcp_free(state, pfn)
    else:
        buddy_free(state, pfn, order, 0)


@kernel
def get_page(state: "State", pfn: int) -> None:
    """Take a reference to a frame."""
    state.page[pfn].refcount += 1


@kernel
def page_is_free(state: "State", pfn: int) -> int:
    """Return whether the frame is on a free list, of a CPU or of the buddy system, at its head."""
    return 1 if state.page[pfn].page_flags & (PageFlag.BUDDY | PageFlag.PCP) else 0
