"""LRU lists: the order in which reclaim looks at pages.

    lru_add --> head [ ........ inactive ........ ] tail --> reclaim looks here
                  ^                                  |
                  |  not used since                  |  used twice since it was last looked at
                  |                                  v
                tail [ ......... active ........ ] head

A new anonymous page starts on the inactive list and has to be seen in use to move up. The lists are linked
through the frames; a page taken off to be examined has no LRU flag meanwhile, as in Linux.

Linux: include/linux/mm_inline.h (lruvec_add_folio, lruvec_del_folio), mm/swap.c (lru_add_fn,
folio_rotate_reclaimable, folio_mark_accessed, lru_note_cost).
# Differs from Linux: pages reach their list at once, not in batches of 15 gathered by each CPU.
"""

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from node.counters import VmEvent, VmStat
from node.phys.page import PageFlag
from shared.constants import ENTRIES_PER_TABLE, NIL
from shared.jit import hot_kernel, kernel

if TYPE_CHECKING:
    from node.state import State

LRU = np.dtype(
    [
        ("first", np.int32),  # the head: added last; meaningless in an empty list
        ("last", np.int32),
        ("nr_pages", np.int32),
        ("cost", np.int32),  # of INACTIVE_ANON: pages written of late (lruvec.anon_cost)
    ],
    align=True,
)


class LruList(IntEnum):
    """The LRU lists of a machine; ACTIVE is INACTIVE + 1."""

    INACTIVE_ANON = 0
    ACTIVE_ANON = 1
    INACTIVE_FILE = 2
    ACTIVE_FILE = 3
    UNEVICTABLE = 4


NR_LRU_LISTS = len(LruList)
COST_DECAY_SHARE = 4  # costs are halved when they pass this share of all pages


@kernel
def lru_size(state: "State", pfn: int) -> int:
    """Return how many pages a frame on a list stands for: a huge page is there once, with its first frame."""
    return ENTRIES_PER_TABLE if state.page[pfn].page_flags & PageFlag.HUGE else 1


@kernel
def _enter(state: "State", which: int, pfn: int) -> None:
    page = state.page[pfn]
    page.page_flags = (page.page_flags & ~(PageFlag.ACTIVE | PageFlag.UNEVICTABLE)) | PageFlag.LRU
    if which == LruList.UNEVICTABLE:
        page.page_flags |= PageFlag.UNEVICTABLE
    else:
        if which & 1:
            page.page_flags |= PageFlag.ACTIVE
        if which <= LruList.ACTIVE_ANON:
            page.page_flags |= PageFlag.SWAPBACKED
        else:
            page.page_flags &= ~PageFlag.SWAPBACKED
    nr_pages = lru_size(state, pfn)
    state.lru[which].nr_pages += nr_pages
    state.vm_stat[VmStat.NR_INACTIVE_ANON + which] += nr_pages


@kernel
def lru_add(state: "State", which: int, pfn: int) -> None:
    """Put a frame that is on no list at the head of LruList ``which``."""
    lru = state.lru[which]
    page = state.page[pfn]
    page.prev = NIL
    if lru.nr_pages == 0:
        page.next = NIL
        lru.last = pfn
    else:
        page.next = lru.first
        state.page[lru.first].prev = pfn
    lru.first = pfn
    _enter(state, which, pfn)


@kernel
def lru_add_tail(state: "State", which: int, pfn: int) -> None:
    """Put a frame that is on no list at the tail of LruList ``which``, where reclaim looks first."""
    lru = state.lru[which]
    page = state.page[pfn]
    page.next = NIL
    if lru.nr_pages == 0:
        page.prev = NIL
        lru.first = pfn
    else:
        page.prev = lru.last
        state.page[lru.last].next = pfn
    lru.last = pfn
    _enter(state, which, pfn)


@kernel
def lru_of(state: "State", pfn: int) -> int:
    """Return the LruList that a frame with the LRU flag is on."""
    page_flags = state.page[pfn].page_flags
    if page_flags & PageFlag.UNEVICTABLE:
        return LruList.UNEVICTABLE
    active = 1 if page_flags & PageFlag.ACTIVE else 0
    return (LruList.INACTIVE_ANON if page_flags & PageFlag.SWAPBACKED else LruList.INACTIVE_FILE) + active


@kernel
def lru_for(state: "State", pfn: int) -> int:
    """Return the LruList for a frame that is on none: by its kind, whether it is ACTIVE, and whether it can go."""
    page_flags = state.page[pfn].page_flags
    if page_flags & PageFlag.MLOCKED:
        return LruList.UNEVICTABLE
    active = 1 if page_flags & PageFlag.ACTIVE else 0
    return (LruList.INACTIVE_ANON if page_flags & PageFlag.SWAPBACKED else LruList.INACTIVE_FILE) + active


@hot_kernel
def lru_del(state: "State", pfn: int) -> None:
    """Take a frame off its list; it keeps the ACTIVE flag."""
    which = lru_of(state, pfn)
    nr_pages = lru_size(
        state, pfn
    )  # looked up before the flags are written, for which the host would have to wait
    lru = state.lru[which]
    page = state.page[pfn]
    if page.prev == NIL:
        lru.first = page.next
    else:
        state.page[page.prev].next = page.next
    if page.next == NIL:
        lru.last = page.prev
    else:
        state.page[page.next].prev = page.prev
    page.page_flags &= ~PageFlag.LRU
    lru.nr_pages -= nr_pages
    state.vm_stat[VmStat.NR_INACTIVE_ANON + which] -= nr_pages


@kernel
def lru_rotate(state: "State", pfn: int) -> None:
    """Move a frame that can be freed at once to the inactive tail (folio_rotate_reclaimable)."""
    if state.page[pfn].page_flags & PageFlag.UNEVICTABLE:
        return
    lru_del(state, pfn)
    state.page[pfn].page_flags &= ~PageFlag.ACTIVE
    lru_add_tail(state, lru_for(state, pfn), pfn)


@kernel
def mark_page_accessed(state: "State", pfn: int) -> None:
    """Note that a page was used: the second time, it goes to the active list (folio_mark_accessed)."""
    page = state.page[pfn]
    if not page.page_flags & PageFlag.REFERENCED:
        page.page_flags |= PageFlag.REFERENCED
    elif not page.page_flags & (PageFlag.UNEVICTABLE | PageFlag.ACTIVE):
        if page.page_flags & PageFlag.LRU:
            lru_del(state, pfn)
            lru_add(state, lru_for(state, pfn) + 1, pfn)
            state.vm_event[VmEvent.PGACTIVATE] += lru_size(state, pfn)
        page.page_flags &= ~PageFlag.REFERENCED


@kernel
def lru_note_cost(state: "State", nr_pages: int) -> None:
    """Add what reclaiming anonymous pages cost: ``nr_pages`` written."""
    inactive = state.lru[LruList.INACTIVE_ANON]
    inactive.cost += nr_pages
    if inactive.cost > (inactive.nr_pages + state.lru[LruList.ACTIVE_ANON].nr_pages) // COST_DECAY_SHARE:
        inactive.cost //= 2
