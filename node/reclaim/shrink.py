"""Shrinking the LRU lists: which pages go, which stay, which move.

    active tail    -> the inactive head, its accessed bits cleared: used again before it gets to the tail,
                      it comes back
    inactive tail  -> used since it was last looked at: once, another round; twice, or by two: active
                   -> unused: a slot, its page-table entries replaced, written, and when that is done freed

A dirty page is not freed on the pass that writes it: it goes back to the inactive list as WRITEBACK, comes
to the tail when the device is done, and is freed, clean, when a pass meets it there.

Linux: mm/vmscan.c (shrink_lruvec, shrink_active_list, shrink_inactive_list, shrink_folio_list,
folio_check_references).
# Differs from Linux: a page is taken off its list when its turn comes, not with its batch of 32; no page is
locked by anybody but its read from the device.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from node.counters import Current, VmEvent
from node.hw.cost import Cost
from node.joints import (
    add_to_swap,
    end_page_writebacks,
    free_swap_if_full,
    huge_page_referenced,
    page_is_locked,
    page_referenced,
    remove_mapping,
    shrink_huge,
    split_huge_page,
    swap_writepage,
    try_to_free_swap,
    try_to_unmap,
)
from node.phys.page import PageFlag
from node.reclaim.lru import LruList, lru_add, lru_del, lru_note_cost
from node.reclaim.scan_control import DEF_PRIORITY, SWAP_CLUSTER_MAX, Reclaimer, inactive_is_low
from node.vm.mlock_page import lru_add_evictable_or_not
from node.vm.put_page import put_page
from shared.constants import NIL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

CACHE_AND_RECLAIM: Final = 2  # references to an unmapped page that nobody else holds


class Verdict(IntEnum):
    """What becomes of a page of the inactive list."""

    RECLAIM = 0
    KEEP = 1
    ACTIVATE = 2


@kernel
def _check_references(state: "State", pfn: int) -> int:
    """Return the Verdict that the page's use since the last look asks for (folio_check_references)."""
    page = state.page[pfn]
    if page.page_flags & PageFlag.HUGE:
        nr_referenced = huge_page_referenced(state, pfn)
    else:
        nr_referenced = page_referenced(state, pfn) if page.mapcount != 0 else 0
    seen_before = page.page_flags & PageFlag.REFERENCED
    page.page_flags &= ~PageFlag.REFERENCED
    if page.page_flags & PageFlag.MLOCKED:
        return Verdict.ACTIVATE  # found in a locked area: to the unevictable list
    if nr_referenced == 0:
        return Verdict.RECLAIM
    page.page_flags |= PageFlag.REFERENCED
    return Verdict.ACTIVATE if seen_before or nr_referenced > 1 else Verdict.KEEP


@kernel
def _note_writeback(state: "State", which: int) -> None:
    control = state.scan_control[which]
    if which == Reclaimer.KSWAPD and control.node_writeback:
        control.nr_immediate += 1
    else:
        control.nr_writeback += 1


@kernel
def _swap_out(state: "State", which: int, pfn: int) -> int:
    """Bring an unused page one step further on its way out; return RECLAIM if it can be freed now."""
    page = state.page[pfn]
    # Differs from Linux: shared memory stays (node/pagecache/shmem.py), as if its slots were all taken.
    if page.page_flags & PageFlag.CACHED:
        return Verdict.ACTIVATE
    # Differs from Linux: a huge page is never written as one (THP_SWPOUT); its small pages are, each in its turn.
    if page.page_flags & PageFlag.HUGE:
        if not split_huge_page(state, pfn):
            return Verdict.ACTIVATE
        state.vm_event[VmEvent.THP_SWPOUT_FALLBACK] += 1
    if not page.page_flags & PageFlag.SWAPCACHE and add_to_swap(state, pfn) == NIL:
        return Verdict.ACTIVATE
    if page.mapcount != 0:
        try_to_unmap(state, pfn, page.private)
        if page.mapcount != 0:
            return Verdict.ACTIVATE
    if page.page_flags & PageFlag.DIRTY:
        if page.refcount == CACHE_AND_RECLAIM:
            swap_writepage(state, pfn)
            state.scan_control[which].nr_pageout += 1
        return Verdict.KEEP
    return Verdict.RECLAIM if remove_mapping(state, pfn) else Verdict.KEEP


@kernel
def _shrink_page(state: "State", which: int, pfn: int) -> int:
    """Judge a page that was taken off the inactive list and act on it; return its Verdict."""
    page = state.page[pfn]
    if page.page_flags & PageFlag.SWAPCACHE and page_is_locked(state, pfn):
        return Verdict.KEEP
    if page.page_flags & PageFlag.WRITEBACK:
        _note_writeback(state, which)
        return Verdict.ACTIVATE
    verdict = _check_references(state, pfn)
    return _swap_out(state, which, pfn) if verdict == Verdict.RECLAIM else verdict


@kernel
def _put_back(state: "State", pfn: int, verdict: int) -> None:
    page = state.page[pfn]
    if page.page_flags & PageFlag.MLOCKED:
        if page.page_flags & PageFlag.SWAPCACHE:
            try_to_free_swap(state, pfn)
        lru_add_evictable_or_not(state, LruList.INACTIVE_ANON, pfn)
    elif verdict == Verdict.ACTIVATE:
        if page.page_flags & PageFlag.SWAPCACHE:
            free_swap_if_full(state, pfn)
        state.vm_event[VmEvent.PGACTIVATE] += 1
        lru_add(state, LruList.ACTIVE_ANON, pfn)
    else:
        lru_add(state, LruList.INACTIVE_ANON, pfn)


@kernel
def _count_scan(state: "State", which: int, nr_scanned: int, nr_reclaimed: int) -> None:
    control = state.scan_control[which]
    control.nr_scanned += nr_scanned
    control.nr_taken += nr_scanned
    control.pass_reclaimed += nr_reclaimed
    state.vm_event[VmEvent.PGSCAN_KSWAPD + which] += nr_scanned
    state.vm_event[VmEvent.PGSCAN_ANON] += nr_scanned
    state.vm_event[VmEvent.PGSTEAL_KSWAPD + which] += nr_reclaimed
    state.vm_event[VmEvent.PGSTEAL_ANON] += nr_reclaimed


@kernel
def shrink_inactive_list(state: "State", which: int, nr_to_scan: int) -> None:
    """Look at up to ``nr_to_scan`` pages from the inactive tail and free those that can be."""
    end_page_writebacks(state)
    lru = state.lru[LruList.INACTIVE_ANON]
    nr_scanned = 0
    nr_reclaimed = 0
    state.scan_control[which].nr_pageout = 0
    for _ in range(min(nr_to_scan, lru.nr_pages)):
        if lru.nr_pages == 0:
            break
        pfn = lru.last
        lru_del(state, pfn)
        state.page[pfn].refcount += 1
        state.current[Current.CLOCK_PS] += state.cost[Cost.RECLAIM_SCAN]
        nr_scanned += 1
        verdict = _shrink_page(state, which, pfn)
        if verdict == Verdict.RECLAIM:
            nr_reclaimed += 1
        else:
            _put_back(state, pfn, verdict)
        put_page(state, pfn)
    _count_scan(state, which, nr_scanned, nr_reclaimed)
    lru_note_cost(state, state.scan_control[which].nr_pageout)


@kernel
def shrink_active_list(state: "State", nr_to_scan: int) -> None:
    """Move up to ``nr_to_scan`` pages from the active tail to the inactive head, used or not.

    Only the next look, at the inactive tail, asks whether they were used since.
    """
    lru = state.lru[LruList.ACTIVE_ANON]
    nr_pages = min(nr_to_scan, lru.nr_pages)
    for _ in range(nr_pages):
        if lru.nr_pages == 0:
            break
        pfn = lru.last
        lru_del(state, pfn)
        if state.page[pfn].page_flags & PageFlag.HUGE:
            huge_page_referenced(state, pfn)
        elif state.page[pfn].mapcount != 0:
            page_referenced(state, pfn)
        lru_add_evictable_or_not(state, LruList.INACTIVE_ANON, pfn)
    state.current[Current.CLOCK_PS] += nr_pages * state.cost[Cost.RECLAIM_SCAN]
    state.vm_event[VmEvent.PGREFILL] += nr_pages
    state.vm_event[VmEvent.PGDEACTIVATE] += nr_pages


@kernel
def age_active_list(state: "State") -> None:
    """Refill the inactive list by one batch if it is low and there is swap."""
    if state.swap_area[0].nr_slots != 0 and inactive_is_low(state):
        shrink_active_list(state, SWAP_CLUSTER_MAX)


@kernel
def shrink_batch(state: "State", which: int) -> int:
    """Shrink each list by one batch of 32 of what the pass has left; return 1 if the pass goes on.

    A pass ends when the inactive list's share is done, or enough is reclaimed; but a task's first pass goes
    through all of its share.
    """
    control = state.scan_control[which]
    if control.left_inactive != 0:
        nr_to_scan = min(control.left_inactive, SWAP_CLUSTER_MAX)
        control.left_inactive -= nr_to_scan
        shrink_inactive_list(state, which, nr_to_scan)
    if control.left_active != 0:
        nr_to_scan = min(control.left_active, SWAP_CLUSTER_MAX)
        control.left_active -= nr_to_scan
        if control.may_deactivate:
            shrink_active_list(state, nr_to_scan)
        else:
            control.skipped_deactivate = 1
    if control.left_inactive == 0:
        return 0
    if control.pass_reclaimed < control.nr_to_reclaim:
        return 1
    return 1 if which == Reclaimer.DIRECT and control.priority == DEF_PRIORITY else 0


@kernel
def end_pass(state: "State", which: int) -> None:
    """Add up a pass, and keep the balance of the lists."""
    control = state.scan_control[which]
    control.nr_reclaimed += control.pass_reclaimed
    if state.current[Current.NR_DEFERRED] or state.current[Current.HUGE_ZERO_PFN]:
        shrink_huge(state, control.priority)
    age_active_list(state)
