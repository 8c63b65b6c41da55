"""The buddy system: free frames in blocks of 2**order, split to serve and merged when freed.

    order 2   |   0   |            a request for one frame splits block 0 into 0..1, 2 and 3;
    order 1   | 0 | 2 |            freeing it merges 0 with its buddy 1, then 0 with 2:
    order 0   |0|1|2|3|            the buddy of a block differs from it in bit ``order``

One list for each zone and order. A block that the next merge is likely to need again goes to the tail.
No block crosses a zone: zones begin and end at multiples of the largest block, but for the end of memory.

Linux: mm/page_alloc.c (__rmqueue_smallest, expand, __free_one_page, buddy_merge_likely).
# Differs from Linux: one list an order; migrate types come with the full allocator work.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import VmStat
from node.phys.page import PageFlag
from node.phys.zone import DMA32_END_PFN, DMA_END_PFN, ZoneId
from shared.constants import NIL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

FREE_AREA = np.dtype(
    [("first", np.int32), ("last", np.int32), ("nr_free", np.int64)], align=True
)  # nr_free counts blocks

NR_ORDERS: Final = 11
MAX_ORDER: Final = NR_ORDERS - 1


@kernel
def zone_of(pfn: int) -> int:
    """Return the zone in which a frame lies."""
    if pfn < DMA_END_PFN:
        return ZoneId.DMA
    if pfn < DMA32_END_PFN:
        return ZoneId.DMA32
    return ZoneId.NORMAL


@kernel
def _add_block(state: "State", zone: int, pfn: int, order: int, to_tail: int) -> None:
    area = state.free_area[zone * NR_ORDERS + order]
    page = state.page[pfn]
    page.page_flags |= PageFlag.BUDDY
    page.order = order
    if area.nr_free == 0:
        page.next = NIL
        page.prev = NIL
        area.first = pfn
        area.last = pfn
    elif to_tail:
        page.next = NIL
        page.prev = area.last
        state.page[area.last].next = pfn
        area.last = pfn
    else:
        page.prev = NIL
        page.next = area.first
        state.page[area.first].prev = pfn
        area.first = pfn
    area.nr_free += 1


@kernel
def _take_block(state: "State", zone: int, pfn: int, order: int) -> None:
    area = state.free_area[zone * NR_ORDERS + order]
    page = state.page[pfn]
    if page.prev == NIL:
        area.first = page.next
    else:
        state.page[page.prev].next = page.next
    if page.next == NIL:
        area.last = page.prev
    else:
        state.page[page.next].prev = page.prev
    page.page_flags &= ~PageFlag.BUDDY
    area.nr_free -= 1


@kernel
def buddy_alloc(state: "State", zone: int, order: int) -> int:
    """Return the first frame of a block of 2**order frames of ``zone``, or NIL if it has none."""
    for found in range(order, NR_ORDERS):
        area = state.free_area[zone * NR_ORDERS + found]
        if area.nr_free == 0:
            continue
        pfn = area.first
        _take_block(state, zone, pfn, found)
        for half in range(found - 1, order - 1, -1):
            _add_block(state, zone, pfn + (1 << half), half, 0)
        state.zone[zone].nr_free -= 1 << order
        state.vm_stat[VmStat.NR_FREE_PAGES] -= 1 << order
        return pfn
    return NIL


@kernel
def _is_free_block(state: "State", zone: int, pfn: int, order: int) -> int:
    area = state.zone[zone]
    if pfn < area.start_pfn or pfn >= area.end_pfn:
        return 0
    page = state.page[pfn]
    return 1 if page.page_flags & PageFlag.BUDDY and page.order == order else 0


@kernel
def buddy_free(state: "State", pfn: int, order: int, to_tail: int) -> None:
    """Give back a block of 2**order frames, merging it with its buddies as far as they are free."""
    zone = zone_of(pfn)
    state.zone[zone].nr_free += 1 << order
    state.vm_stat[VmStat.NR_FREE_PAGES] += 1 << order
    while order < MAX_ORDER:
        buddy = pfn ^ (1 << order)
        if not _is_free_block(state, zone, buddy, order):
            break
        _take_block(state, zone, buddy, order)
        pfn &= buddy
        order += 1
    if not to_tail and order < MAX_ORDER - 1:
        # If the buddy of the block that this one would merge into is free, keep this one for that merge.
        parent = pfn & ~(1 << order)
        to_tail = _is_free_block(state, zone, parent ^ (1 << (order + 1)), order + 1)
    _add_block(state, zone, pfn, order, to_tail)
