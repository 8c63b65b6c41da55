"""Per-CPU frame lists: frames that a CPU allocates and frees without touching the zone.

    alloc <- head [ hot ... cold ] tail -> given back above ``limit``, ever more while nothing is allocated
    free  -> head                  tail <- refilled in batches when empty

Every CPU has, for each zone, one list for each migrate type and order up to 3, and two for huge pages. They share
one count of frames and its limit. A frame is on the list of its pageblock's type; a reserved pageblock's frames
count as movable, so that the reserve can be used up again.

What a list does while it has frames and room is short, and part of every fault; it is here. Batches, which go to the
zone and come from it, are in node/phys/pcp_batch.py.

Linux: mm/page_alloc.c (rmqueue_pcplist, free_unref_page_commit), include/linux/mmzone.h (per_cpu_pages).
# Differs from Linux: the lists of a remote CPU are never locked, so nothing bypasses them for that.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Current
from node.joints import pcp_free_bulk
from node.phys.migrate_type import NR_PCP_TYPES, MigrateType, pageblock_type, zone_of
from node.phys.page import PageFlag
from node.phys.zone import PAGEBLOCK_ORDER
from shared.constants import NIL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

PCP = np.dtype(
    [
        ("count", np.int32),  # frames on all lists
        ("limit", np.int32),  # above it some go back: ``high``, or four batches while kswapd works
        ("high", np.int32),
        ("batch", np.int32),
        (
            "free_factor",
            np.int32,
        ),  # batches freed at a time, as a power of two: rises with each without allocation
        ("spare", np.int32),
    ],
    align=True,
)
PCP_LIST = np.dtype([("first", np.int32), ("last", np.int32)], align=True)

COSTLY_ORDER: Final = 3  # PAGE_ALLOC_COSTLY_ORDER: larger blocks are hard to get
NR_LOW_ORDER_LISTS: Final = NR_PCP_TYPES * (COSTLY_ORDER + 1)
NR_PCP_LISTS: Final = NR_LOW_ORDER_LISTS + 2  # huge pages: movable, and all others


@kernel
def pcp_index(state: "State", zone: int) -> int:
    """Return where in ``state.pcp`` the current CPU's lists for a zone stand."""
    return state.current[Current.CPU] * len(state.zone) + zone


@kernel
def pcp_zone(state: "State", index: int) -> int:
    """Return the zone whose frames ``state.pcp[index]`` has."""
    return index % len(state.zone)


@kernel
def is_pcp_order(order: int) -> int:
    """Return whether blocks of an order are kept on the lists."""
    return 1 if order <= COSTLY_ORDER or order == PAGEBLOCK_ORDER else 0


@kernel
def list_of(order: int, migrate_type: int) -> int:
    """Return the number of the list of an order and type among a CPU's lists for one zone."""
    if order > COSTLY_ORDER:
        return NR_LOW_ORDER_LISTS + (1 if migrate_type == MigrateType.MOVABLE else 0)
    return NR_PCP_TYPES * order + migrate_type


@kernel
def order_of_list(which: int) -> int:
    """Return the order of the blocks of a list."""
    return PAGEBLOCK_ORDER if which >= NR_LOW_ORDER_LISTS else which // NR_PCP_TYPES


# --- the short way --------------------------------------------------------------------------------------


@kernel
def pop_frame(state: "State", index: int, which: int, nr_pages: int) -> int:
    """Return the hottest block of list ``which`` of ``state.pcp[index]``, or NIL if it is empty."""
    pcp_list = state.pcp_list[index * NR_PCP_LISTS + which]
    pfn = pcp_list.first
    if pfn == NIL:
        return NIL
    lists = state.pcp[index]
    lists.free_factor >>= 1
    lists.count -= nr_pages
    following = state.page[pfn].next
    pcp_list.first = following
    if following == NIL:
        pcp_list.last = NIL
    else:
        state.page[following].prev = NIL
    return pfn


@kernel
def push_frame(state: "State", index: int, which: int, pfn: int) -> None:
    """Put a block at the hot end of list ``which`` of ``state.pcp[index]``. Its frames are not counted here."""
    pcp_list = state.pcp_list[index * NR_PCP_LISTS + which]
    page = state.page[pfn]
    page.page_flags = PageFlag.PCP
    page.prev = NIL
    following = pcp_list.first
    page.next = following
    if following == NIL:
        pcp_list.last = pfn
    else:
        state.page[following].prev = pfn
    pcp_list.first = pfn


@kernel
def pcp_free(state: "State", pfn: int) -> None:
    """Put a frame that is not isolated back on this CPU's lists; some go to the zone if that makes too many."""
    migrate_type = pageblock_type(state, pfn)
    page = state.page[pfn]
    page.migrate_type = migrate_type
    page.order = 0
    if migrate_type >= NR_PCP_TYPES:
        migrate_type = MigrateType.MOVABLE
    index = pcp_index(state, zone_of(state, pfn))
    push_frame(state, index, migrate_type, pfn)
    lists = state.pcp[index]
    lists.count += 1
    if lists.count >= lists.limit:
        pcp_free_bulk(state, index, migrate_type)
