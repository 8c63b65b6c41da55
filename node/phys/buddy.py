"""The buddy system: free frames in blocks of 2**order, split to serve and merged when freed.

    order 2   |   0   |            a request for one frame splits block 0 into 0..1, 2 and 3;
    order 1   | 0 | 2 |            freeing it merges 0 with its buddy 1, then 0 with 2:
    order 0   |0|1|2|3|            the buddy of a block differs from it in bit ``order``

One list for each zone, order and migrate type (node/phys/migrate_type.py). A free block's descriptor says on which
it is: its order, and its type, which is usually its pageblock's. A block that the next merge is likely to need
again goes to the tail. No block crosses a zone.

Counting free frames is up to who calls: a batch is counted once (``count_free``).

Linux: mm/page_alloc.c (__rmqueue_smallest, expand, __free_one_page, buddy_merge_likely).
# Differs from Linux: no guard pages, no free-page reporting, and compaction does not capture what is freed.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import VmStat
from node.phys.migrate_type import NR_MIGRATE_TYPES, NR_PCP_TYPES, MigrateType, pageblock_type, zone_of
from node.phys.page import PageFlag
from node.phys.zone import PAGEBLOCK_ORDER
from shared.constants import NIL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

FREE_AREA = np.dtype([("nr_free", np.int64)], align=True)  # blocks on all lists of a zone's order
FREE_LIST = np.dtype([("first", np.int32), ("last", np.int32)], align=True)

NR_ORDERS: Final = 11
MAX_ORDER: Final = NR_ORDERS - 1


@kernel
def free_list_index(zone: int, order: int, migrate_type: int) -> int:
    """Return where in ``state.free_list`` a list stands."""
    return (zone * NR_ORDERS + order) * NR_MIGRATE_TYPES + migrate_type


@kernel
def first_free(state: "State", zone: int, order: int, migrate_type: int) -> int:
    """Return the first frame of the first block of a free list, or NIL."""
    return state.free_list[free_list_index(zone, order, migrate_type)].first


@kernel
def add_block(state: "State", zone: int, pfn: int, to_tail: int) -> None:
    """Put a block, whose descriptor has its order and type, on the list that these say."""
    page = state.page[pfn]
    page.page_flags |= PageFlag.BUDDY
    free_list = state.free_list[free_list_index(zone, page.order, page.migrate_type)]
    if to_tail:
        page.next = NIL
        page.prev = free_list.last
        if free_list.last == NIL:
            free_list.first = pfn
        else:
            state.page[free_list.last].next = pfn
        free_list.last = pfn
    else:
        page.prev = NIL
        page.next = free_list.first
        if free_list.first == NIL:
            free_list.last = pfn
        else:
            state.page[free_list.first].prev = pfn
        free_list.first = pfn
    state.free_area[zone * NR_ORDERS + page.order].nr_free += 1


@kernel
def take_block(state: "State", zone: int, pfn: int) -> None:
    """Take a block off its list."""
    page = state.page[pfn]
    free_list = state.free_list[free_list_index(zone, page.order, page.migrate_type)]
    if page.prev == NIL:
        free_list.first = page.next
    else:
        state.page[page.prev].next = page.next
    if page.next == NIL:
        free_list.last = page.prev
    else:
        state.page[page.next].prev = page.prev
    page.page_flags &= ~PageFlag.BUDDY
    state.free_area[zone * NR_ORDERS + page.order].nr_free -= 1


@kernel
def count_free(state: "State", zone: int, change: int) -> None:
    """Note that a zone has ``change`` more free frames."""
    state.zone[zone].nr_free += change
    state.vm_stat[VmStat.NR_FREE_PAGES] += change


@kernel
def rmqueue_smallest(state: "State", zone: int, order: int, migrate_type: int) -> int:
    """Return the first frame of a block of 2**order frames off the lists of one type, or NIL if they have none.

    Splits the smallest that will do. Its descriptor says its order and type. Free frames are not counted here.
    """
    for found in range(order, NR_ORDERS):
        pfn = first_free(state, zone, found, migrate_type)
        if pfn == NIL:
            continue
        take_block(state, zone, pfn)
        for half in range(found - 1, order - 1, -1):
            other = state.page[pfn + (1 << half)]
            other.order = half
            other.migrate_type = migrate_type
            add_block(state, zone, pfn + (1 << half), 0)
        page = state.page[pfn]
        page.order = order
        page.migrate_type = migrate_type
        return pfn
    return NIL


@kernel
def _is_free_block(state: "State", zone: int, pfn: int, order: int) -> int:
    """Return whether the block at ``pfn`` is free, of this order and of this zone."""
    if pfn >= state.zone[zone].end_pfn:
        return 0
    page = state.page[pfn]
    if not page.page_flags & PageFlag.BUDDY or page.order != order:
        return 0
    # Smaller buddies share a pageblock, which lies in one zone.
    return 1 if order < PAGEBLOCK_ORDER or zone_of(state, pfn) == zone else 0


@kernel
def _keeps_apart(state: "State", pfn: int, migrate_type: int) -> int:
    """Return whether a pageblock and a free one must not merge: one of them is reserved or isolated."""
    other = pageblock_type(state, pfn)
    return 1 if other != migrate_type and max(other, migrate_type) >= NR_PCP_TYPES else 0


@kernel
def free_one_page(state: "State", pfn: int, order: int, migrate_type: int, to_tail: int) -> None:
    """Give back a block of 2**order frames of a type, merging it with its buddies as far as they are free.

    Free frames are not counted here.
    """
    zone = zone_of(state, pfn)
    while order < MAX_ORDER:
        buddy = pfn ^ (1 << order)
        if not _is_free_block(state, zone, buddy, order):
            break
        if order >= PAGEBLOCK_ORDER and _keeps_apart(state, buddy, migrate_type):
            break
        take_block(state, zone, buddy)
        pfn &= buddy
        order += 1
    if not to_tail and order < MAX_ORDER - 1:
        # If the buddy of the block that this one would merge into is free, keep this one for that merge.
        parent = pfn & ~(1 << order)
        to_tail = _is_free_block(state, zone, parent ^ (1 << (order + 1)), order + 1)
    page = state.page[pfn]
    page.order = order
    page.migrate_type = migrate_type
    add_block(state, zone, pfn, to_tail)


@kernel
def buddy_free(state: "State", pfn: int, order: int, to_tail: int) -> None:
    """Give back a block of 2**order frames as its pageblock's type, and count them.

    Isolated frames are not free: nobody may allocate them.
    """
    migrate_type = pageblock_type(state, pfn)
    if migrate_type != MigrateType.ISOLATE:
        count_free(state, zone_of(state, pfn), 1 << order)
    free_one_page(state, pfn, order, migrate_type, to_tail)
