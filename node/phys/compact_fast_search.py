"""A short look at the free lists for frames to move pages to, before the free scanner goes through the zone.

    distance   migrate_pfn |----------------|--------|--------| free_pfn
                                          min      low           the search prefers blocks above low,
                                                                 and is content with one above min

Each list of movable blocks below the wanted order is looked at from its tail, a few blocks of it; the search begins
with the order that had one the last time. Each vain search is followed by a shorter one. What was looked at goes to
the head of its list, so that the next search sees others. The rest of a found block's pageblock is taken too, but for
tasks that do not want to wait.

Linux: mm/compaction.c (fast_isolate_freepages, fast_isolate_around, move_freelist_head, next_search_order).
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, VmEvent
from node.hw.cost import Cost
from node.phys.buddy import NR_ORDERS, free_list_index
from node.phys.compact_control import COMPACT_CLUSTER_MAX, MigrateMode
from node.phys.compact_defer import is_in_zone, pageblock_end, pageblock_start, set_hint
from node.phys.compact_scanners import add_free_frames, isolate_free_block, isolate_freepages_block
from node.phys.migrate_type import MigrateType
from node.phys.zone import PAGEBLOCK_PAGES
from shared.constants import NIL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

MAX_SHIFT: Final = 63  # BITS_PER_LONG - 1


@kernel
def _rotate(state: "State", index: int, pfn: int) -> None:
    """Let a free list begin with one of its blocks; those before it go to the tail."""
    free_list = state.free_list[index]
    before = state.page[pfn].prev
    if before == NIL:
        return
    state.page[free_list.last].next = free_list.first
    state.page[free_list.first].prev = free_list.last
    free_list.first = pfn
    free_list.last = before
    state.page[pfn].prev = NIL
    state.page[before].next = NIL


@kernel
def _search_list(state: "State", which: int, order: int) -> int:
    """Return a block of one order that is high enough, or NIL."""
    control = state.compact_control[which]
    index = free_list_index(control.zone, order, MigrateType.MOVABLE)
    pfn = state.free_list[index].last if state.free_area[control.zone * NR_ORDERS + order].nr_free else NIL
    nr_scanned = 0
    best = NIL
    while pfn != NIL:
        nr_scanned += 1
        if pfn >= control.search_highest:
            control.search_highest = pageblock_start(pfn)
        if pfn >= control.search_low:
            control.search_failures = 0
            control.search_order = order
            best = pfn
            break
        if pfn >= control.search_min and pfn > best:
            best = pfn
            control.search_limit >>= 1
        if nr_scanned >= control.search_limit:
            break
        pfn = state.page[pfn].prev
    control.nr_free_scanned += nr_scanned
    state.current[Current.CLOCK_PS] += nr_scanned * state.cost[Cost.COMPACT_SCAN]
    if best != NIL:
        _rotate(state, index, best)
    elif pfn != NIL:
        _rotate(state, index, pfn)
    if nr_scanned >= control.search_limit:
        control.search_limit = max(1, control.search_limit >> 1)
    return best


@kernel
def _next_search_order(state: "State", which: int, order: int) -> int:
    """Return the next lower order, or the highest after 0; NIL when all were looked at."""
    control = state.compact_control[which]
    order -= 1
    if order < 0:
        order = control.order - 1
    if order != control.search_order:
        return order
    control.search_order -= 1
    if control.search_order < 0:
        control.search_order = control.order - 1
    return NIL


@kernel
def _begin_search(state: "State", which: int) -> int:
    """Set what a search looks for, and how long; return whether the free scanner is at its start."""
    control = state.compact_control[which]
    limit = (COMPACT_CLUSTER_MAX >> min(MAX_SHIFT, control.search_failures)) + 1
    at_start = control.free_pfn >= state.zone[control.zone].compact_init_free_pfn
    control.search_limit = PAGEBLOCK_PAGES >> 1 if at_start else max(1, limit >> 1)
    distance = control.free_pfn - control.migrate_pfn
    control.search_low = pageblock_start(control.free_pfn - (distance >> 2))
    control.search_min = pageblock_start(control.free_pfn - (distance >> 1))
    control.search_highest = 0
    control.search_order = min(control.order - 1, control.search_order)
    return 1 if at_start else 0


@kernel
def _search_orders(state: "State", which: int) -> int:
    """Isolate a block of the first list that has one; return it, or NIL."""
    control = state.compact_control[which]
    order = control.search_order
    while order != NIL:
        pfn = _search_list(state, which, order)
        if pfn != NIL:
            nr_frames = isolate_free_block(state, which, pfn)
            if nr_frames == 0:
                return NIL  # the watermark
            add_free_frames(state, which, pfn, nr_frames)
            control.nr_free_scanned += nr_frames - 1
            state.vm_event[VmEvent.COMPACT_ISOLATED] += nr_frames
            return pfn
        order = _next_search_order(state, which, order)
    return NIL


@kernel
def _isolate_around(state: "State", which: int, pfn: int) -> None:
    """Isolate what else is free in a pageblock, if that is needed and the request may take the time."""
    control = state.compact_control[which]
    if control.nr_freepages >= control.nr_migratepages or not is_in_zone(state, control.zone, pfn):
        return
    if control.is_direct and control.mode == MigrateMode.ASYNC:
        return
    scanner = control.free_pfn
    control.free_pfn = pageblock_start(pfn)
    isolate_freepages_block(state, which, min(pageblock_end(pfn), state.zone[control.zone].end_pfn), 1)
    control.free_pfn = scanner
    if control.nr_freepages < control.nr_migratepages:
        set_hint(state, pfn)


@kernel
def fast_isolate_freepages(state: "State", which: int) -> None:
    """Isolate free frames that the free lists show; none if the search is in vain, or for no block in particular."""
    control = state.compact_control[which]
    if control.order <= 0:
        return
    at_start = _begin_search(state, which)
    pfn = _search_orders(state, which)
    if pfn == NIL:
        control.search_failures += 1
        if at_start and control.search_highest >= control.search_min:
            pfn = control.search_highest
            control.free_pfn = pfn
        elif at_start and control.is_direct:
            pfn = control.search_min
            control.free_pfn = pfn
    zone = state.zone[control.zone]
    if control.search_highest and control.search_highest >= zone.compact_free_pfn:
        zone.compact_free_pfn = control.search_highest - PAGEBLOCK_PAGES
    if pfn != NIL:
        _isolate_around(state, which, pfn)
