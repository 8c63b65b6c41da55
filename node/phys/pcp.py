"""Per-CPU frame lists: single frames that a CPU allocates and frees without touching the buddy system.

    alloc <- head [ hot ... cold ] tail -> freed in batches to the buddy system above ``high``
    free  -> head                  tail <- refilled in batches from the buddy system when empty

Linux: mm/page_alloc.c (__rmqueue_pcplist, free_unref_page_commit, zone_batchsize, zone_highsize).
# Differs from Linux: order 0 only, and a batch freed is never scaled up (pcp->free_factor).
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Current
from node.phys.buddy import buddy_alloc, buddy_free, zone_of
from node.phys.page import PageFlag
from node.phys.zone import NR_ZONES
from shared.constants import NIL
from shared.jit import hot_kernel, kernel

if TYPE_CHECKING:
    from node.state import State

PCP = np.dtype(
    [
        ("first", np.int32),
        ("last", np.int32),
        ("count", np.int32),
        ("high", np.int32),  # above it a batch goes back
        ("batch", np.int32),
        ("spare", np.int32),
    ],
    align=True,
)

RECLAIM_BATCHES: Final = 4  # what a list keeps while kswapd works (nr_pcp_high)


@kernel
def _refill(state: "State", zone: int) -> None:
    lists = state.pcp[state.current[Current.CPU] * NR_ZONES + zone]
    for _ in range(lists.batch):
        pfn = buddy_alloc(state, zone, 0)
        if pfn == NIL:
            break
        page = state.page[pfn]
        page.page_flags |= PageFlag.PCP
        page.next = NIL
        page.prev = lists.last
        if lists.count == 0:
            lists.first = pfn
        else:
            state.page[lists.last].next = pfn
        lists.last = pfn
        lists.count += 1


@kernel
def pcp_alloc(state: "State", zone: int) -> int:
    """Return a frame of ``zone`` from this CPU's list, refilled if it is empty, or NIL."""
    lists = state.pcp[state.current[Current.CPU] * NR_ZONES + zone]
    if lists.count == 0:
        _refill(state, zone)
        if lists.count == 0:
            return NIL
    pfn = lists.first
    page = state.page[pfn]
    lists.first = page.next
    lists.count -= 1
    if lists.count == 0:
        lists.last = NIL
    else:
        state.page[page.next].prev = NIL
    page.page_flags &= ~PageFlag.PCP
    return pfn


@kernel
def _free_from_tail(state: "State", list_index: int, nr_pages: int) -> None:
    lists = state.pcp[list_index]
    for _ in range(min(nr_pages, lists.count)):
        pfn = lists.last
        page = state.page[pfn]
        lists.last = page.prev
        lists.count -= 1
        if lists.count == 0:
            lists.first = NIL
        else:
            state.page[lists.last].next = NIL
        page.page_flags &= ~PageFlag.PCP
        buddy_free(state, pfn, 0, 0)


@hot_kernel
def pcp_free(state: "State", pfn: int) -> None:
    """Put a frame back at the hot end of this CPU's list."""
    index = state.current[Current.CPU] * NR_ZONES + zone_of(pfn)
    lists = state.pcp[index]
    page = state.page[pfn]
    page.page_flags |= PageFlag.PCP
    page.prev = NIL
    if lists.count == 0:
        page.next = NIL
        lists.last = pfn
    else:
        page.next = lists.first
        state.page[lists.first].prev = pfn
    lists.first = pfn
    lists.count += 1
    high = lists.high
    if state.zone[zone_of(pfn)].reclaim_active:
        high = min(high, lists.batch * RECLAIM_BATCHES)
    if lists.count >= high:
        _free_from_tail(state, index, lists.batch)


@kernel
def drain_all_pages(state: "State") -> None:
    """Give the frames of every CPU's lists back to the buddy system."""
    for index in range(len(state.pcp)):
        _free_from_tail(state, index, state.pcp[index].count)
