"""SLOB: its lists of pages with room, and taking and giving back bytes in them.

    small    page <-> page <-> page <-+      a ring: the search begins at ``first``, and goes on there next time
               ^ first                |
               +----------------------+

    bytes    from the first page of the list with a block that will do; if there is none, a new page, listed in front
    back     a page that was full is listed in front, by the size of the object that made room in it; one without any
             object left is given back

A page's place in its ring is in its descriptor (``next``, ``prev``, ``order``: which list). Time is charged for each
call, and for each free block that it looks at.

Linux: mm/slob.c (slob_alloc, slob_free, set_slob_page_free).
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Current, Knob, VmStat
from node.hw.cost import Cost
from node.joints import alloc_frames, free_frames
from node.kalloc.slab_bytes import clear_frames
from node.kalloc.slob_page import (
    END,
    UNIT_BYTES,
    UNIT_SHIFT,
    UNITS_PER_PAGE,
    SlobPolicy,
    SlobStat,
    give_units,
    set_block,
    take_units,
)
from node.phys.page import PageFlag
from shared.constants import NIL, PAGE_OFFSET_MASK, PAGE_SHIFT
from shared.gfp_flags import Gfp
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

SLOB_LIST = np.dtype(
    [("first", np.int32), ("nr_pages", np.int32)], align=True
)  # a ring of pages; ``first`` is meaningless while there is none


class SlobList(IntEnum):
    """Places in ``state.slob_list``."""

    SMALL = 0  # the only one with FIRST_FIT_ONE_LIST
    MEDIUM = 1
    LARGE = 2
    NR = 3


SLOB_BREAK1: Final = 256  # bytes: smaller ones go to SMALL
SLOB_BREAK2: Final = 1024


# --- lists of pages -------------------------------------------------------------------------------------


@kernel
def _list_for(state: "State", size: int) -> int:
    if size < SLOB_BREAK1 or state.knob[Knob.SLOB_POLICY] == SlobPolicy.FIRST_FIT_ONE_LIST:
        return SlobList.SMALL
    return SlobList.MEDIUM if size < SLOB_BREAK2 else SlobList.LARGE


@kernel
def _list_page(state: "State", which: int, pfn: int) -> None:
    """Put a page that has free units at the front of a list (set_slob_page_free)."""
    ring = state.slob_list[which]
    page = state.page[pfn]
    if ring.nr_pages == 0:
        page.next = pfn
        page.prev = pfn
    else:
        after = state.page[ring.first]
        page.next = ring.first
        page.prev = after.prev
        state.page[after.prev].next = pfn
        after.prev = pfn
    ring.first = pfn
    ring.nr_pages += 1
    page.order = which
    page.page_flags |= PageFlag.SLOB_FREE


@kernel
def _unlist_page(state: "State", pfn: int) -> None:
    """Take a page off its list (clear_slob_page_free)."""
    page = state.page[pfn]
    ring = state.slob_list[page.order]
    state.page[page.prev].next = page.next
    state.page[page.next].prev = page.prev
    if ring.first == pfn:
        ring.first = page.next
    ring.nr_pages -= 1
    page.order = 0
    page.page_flags &= ~PageFlag.SLOB_FREE


# --- blocks ---------------------------------------------------------------------------------------------


@kernel
def _new_page(state: "State", gfp: int, which: int) -> int:
    """Return a new page that is one free block, at the front of a list; or NIL."""
    pfn = alloc_frames(state, 0, gfp & ~Gfp.ZERO)
    if pfn == NIL:
        state.slob_stat[SlobStat.NO_MEMORY] += 1
        return NIL
    page = state.page[pfn]
    page.page_flags |= PageFlag.SLAB
    page.private = UNITS_PER_PAGE
    page.index = 0
    clear_frames(state, pfn, 1)
    set_block(state, pfn, 0, UNITS_PER_PAGE, END)
    state.vm_stat[VmStat.NR_SLAB_UNRECLAIMABLE] += 1
    state.slob_stat[SlobStat.NEW_PAGES] += 1
    _list_page(state, which, pfn)
    return pfn


@kernel
def _found(state: "State", pfn: int, unit: int, size: int) -> int:
    """Count an object of ``size`` bytes that was found at ``unit``; return its address."""
    if state.page[pfn].private == 0:
        _unlist_page(state, pfn)
    state.slob_stat[SlobStat.ALLOCS] += 1
    state.slob_stat[SlobStat.BYTES_USED] += -(-size // UNIT_BYTES) * UNIT_BYTES
    return (pfn << PAGE_SHIFT) + (unit << UNIT_SHIFT)


@kernel
def _alloc_from_list(state: "State", which: int, size: int, align: int, align_offset: int) -> int:
    """Return the address of ``size`` bytes in a page of a list, or NIL if none has room."""
    units = (size + UNIT_BYTES - 1) >> UNIT_SHIFT
    ring = state.slob_list[which]
    pfn = ring.first
    for step in range(ring.nr_pages):
        unit = NIL
        if state.page[pfn].private >= units:
            state.slob_stat[SlobStat.PAGES_SCANNED] += 1
            unit = take_units(state, pfn, units, align, align_offset)
        if unit != NIL:
            state.slob_stat[SlobStat.LATER_PAGE_HITS if step else SlobStat.FIRST_PAGE_HITS] += 1
            if state.page[pfn].private:
                ring.first = pfn  # the next search begins here (Knuth, volume 1, 2.5)
            return _found(state, pfn, unit, size)
        pfn = state.page[pfn].next
    return NIL


@kernel
def slob_alloc(state: "State", size: int, gfp: int, align: int, align_offset: int) -> int:
    """Return the address of ``size`` bytes, or NIL; the byte ``align_offset`` behind it is aligned."""
    scanned = state.slob_stat[SlobStat.BLOCKS_SCANNED]
    which = _list_for(state, size)
    paddr = _alloc_from_list(state, which, size, align, align_offset)
    if paddr == NIL:
        pfn = _new_page(state, gfp, which)
        if pfn != NIL:
            units = (size + UNIT_BYTES - 1) >> UNIT_SHIFT
            paddr = _found(state, pfn, take_units(state, pfn, units, align, align_offset), size)
    _charge(state, scanned)
    return paddr


@kernel
def _charge(state: "State", scanned_before: int) -> None:
    """Charge one call, and the blocks that it looked at."""
    nr_blocks = state.slob_stat[SlobStat.BLOCKS_SCANNED] - scanned_before
    state.current[Current.CLOCK_PS] += state.cost[Cost.SLOB_CALL] + nr_blocks * state.cost[Cost.SLOB_BLOCK]


@kernel
def slob_free(state: "State", paddr: int, size: int) -> None:
    """Take back ``size`` bytes that are in use."""
    scanned = state.slob_stat[SlobStat.BLOCKS_SCANNED]
    pfn = paddr >> PAGE_SHIFT
    page = state.page[pfn]
    units = (size + UNIT_BYTES - 1) >> UNIT_SHIFT
    state.slob_stat[SlobStat.FREES] += 1
    state.slob_stat[SlobStat.BYTES_USED] -= units * UNIT_BYTES
    if page.private + units == UNITS_PER_PAGE:
        if page.private:
            _unlist_page(state, pfn)
        page.private = 0
        page.index = 0
        page.page_flags &= ~PageFlag.SLAB
        state.vm_stat[VmStat.NR_SLAB_UNRECLAIMABLE] -= 1
        state.slob_stat[SlobStat.PAGES_FREED] += 1
        free_frames(state, pfn, 0)
    else:
        was_full = page.private == 0
        give_units(state, pfn, (paddr & PAGE_OFFSET_MASK) >> UNIT_SHIFT, units)
        if was_full:
            _list_page(state, _list_for(state, size), pfn)
    _charge(state, scanned)
