"""Falling back: what a request does when no block of its own migrate type is left.

    lists of a zone    movable    [ ]
                       unmovable  [ . . 8 . 10 ]   the largest block of the next type in line is taken over,
                       reclaimable[ . ]            if possible with all its pageblock: one spoilt, not many

An unmovable or reclaimable request, or a large one, takes over what is free in the whole pageblock, and the pageblock
itself if half of it is free or of its own kind. A small movable request takes the smallest block instead, since
it can be moved away later. Each such mixing is a sign of fragmentation: it raises the zone's watermarks for a
while (``boost``), and kswapd is woken.

High-order requests that cannot wait have up to 1 % of a zone for themselves, pageblock by pageblock (HIGHATOMIC).

Linux: mm/page_alloc.c (__rmqueue_fallback, find_suitable_fallback, steal_suitable_fallback, boost_watermark,
move_freepages_block, reserve_highatomic_pageblock, unreserve_highatomic_pageblock).
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from node.counters import Knob, VmEvent
from node.phys.buddy import (
    MAX_ORDER,
    NR_ORDERS,
    add_block,
    first_free,
    rmqueue_smallest,
    take_block,
)
from node.phys.migrate_type import NR_PCP_TYPES, MigrateType, pageblock_type, zone_of
from node.phys.page import PageFlag
from node.phys.zone import PAGEBLOCK_ORDER, PAGEBLOCK_PAGES
from shared.constants import NIL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

BOOST_UNIT: Final = 10_000  # of watermark_boost_factor
BOOST_MIN_PAGEBLOCKS: Final = 4  # a zone with fewer is never boosted
HIGHATOMIC_SHARE: Final = 100  # a hundredth of a zone, and one pageblock
# A migrate type and AllocFlag bits in one number, for kernels that would need a fifth argument.
TYPE_MASK: Final = 0xFF
FLAGS_SHIFT: Final = 8


class AllocFlag(IntEnum):
    """How an attempt may allocate (ALLOC_...), by Linux's bits. The watermark is the two lowest."""

    WMARK_MIN = 0
    WMARK_LOW = 1
    WMARK_HIGH = 2
    NO_WATERMARKS = 0x4
    OOM = 0x8  # for the victim of the OOM killer
    NON_BLOCK = 0x10
    MIN_RESERVE = 0x20  # Gfp.HIGH: half of what lies below min
    NOFRAGMENT = 0x100  # rather another zone than another type
    HIGHATOMIC = 0x200
    KSWAPD = 0x800


@kernel
def fallback_type(state: "State", zone: int, order: int, migrate_type: int) -> int:
    """Return the type, next in line for ``migrate_type``, that has a free block of this order, or NIL.

    The line is: unmovable and reclaimable try one another first, and movable tries reclaimable first.
    """
    if migrate_type >= NR_PCP_TYPES:
        return NIL
    nearest = MigrateType.UNMOVABLE if migrate_type == MigrateType.RECLAIMABLE else MigrateType.RECLAIMABLE
    if first_free(state, zone, order, nearest) != NIL:
        return nearest
    last = MigrateType.UNMOVABLE if migrate_type == MigrateType.MOVABLE else MigrateType.MOVABLE
    return last if first_free(state, zone, order, last) != NIL else NIL


@kernel
def may_steal(order: int, migrate_type: int) -> int:
    """Return whether more than the one block may be taken over (can_steal_fallback)."""
    return 1 if order >= PAGEBLOCK_ORDER // 2 or migrate_type != MigrateType.MOVABLE else 0


@kernel
def move_block(state: "State", zone: int, pfn: int, migrate_type: int) -> None:
    """Move a free block to the list of another type, at its tail."""
    take_block(state, zone, pfn)
    state.page[pfn].migrate_type = migrate_type
    add_block(state, zone, pfn, 1)


@kernel
def move_freepages_block(state: "State", pfn: int, migrate_type: int) -> int:
    """Move the free blocks of a frame's pageblock to another type's lists; return how many frames that was.

    None are moved of a pageblock that its zone's end cuts short, and in the first of a zone only those from the
    frame on.
    """
    zone = zone_of(state, pfn)
    end = (pfn | (PAGEBLOCK_PAGES - 1)) + 1
    at = pfn & ~(PAGEBLOCK_PAGES - 1)
    if at < state.zone[zone].start_pfn:
        at = pfn
    if end > state.zone[zone].end_pfn:
        return 0
    moved = 0
    while at < end:
        page = state.page[at]
        if page.page_flags & PageFlag.BUDDY:
            move_block(state, zone, at, migrate_type)
            moved += 1 << page.order
            at += 1 << page.order
        else:
            at += 1
    return moved


@kernel
def _count_movable(state: "State", pfn: int) -> int:
    """Return how many frames of a pageblock hold movable pages: those on the LRU."""
    zone = zone_of(state, pfn)
    end = min((pfn | (PAGEBLOCK_PAGES - 1)) + 1, state.zone[zone].end_pfn)
    at = pfn & ~(PAGEBLOCK_PAGES - 1)
    if at < state.zone[zone].start_pfn:
        at = pfn
    found = 0
    while at < end:
        page = state.page[at]
        if page.page_flags & PageFlag.BUDDY:
            at += 1 << page.order
            continue
        if page.page_flags & PageFlag.LRU:
            found += 1
        at += 1
    return found


@kernel
def boost_watermark(state: "State", zone_index: int) -> int:
    """Raise a zone's watermarks because types were mixed; return whether that was possible."""
    zone = state.zone[zone_index]
    limit = zone.high * state.knob[Knob.WATERMARK_BOOST_FACTOR] // BOOST_UNIT
    if limit == 0 or zone.managed < BOOST_MIN_PAGEBLOCKS * PAGEBLOCK_PAGES:
        return 0
    zone.boost = min(zone.boost + PAGEBLOCK_PAGES, max(limit, PAGEBLOCK_PAGES))
    return 1


@kernel
def set_pageblock_types(state: "State", pfn: int, order: int, migrate_type: int) -> None:
    """Give all pageblocks of a block of at least one to a type."""
    for block in range(pfn >> PAGEBLOCK_ORDER, (pfn + (1 << order)) >> PAGEBLOCK_ORDER):
        state.pageblock[block].migrate_type = migrate_type


@kernel
def _steal(state: "State", pfn: int, migrate_type: int, alloc_flags: int) -> None:
    """Take over a free block of another type, and its pageblock if that is worth while (steal_suitable_fallback)."""
    zone = zone_of(state, pfn)
    order = state.page[pfn].order
    old_type = pageblock_type(state, pfn)
    if order >= PAGEBLOCK_ORDER:
        if old_type != MigrateType.HIGHATOMIC:
            set_pageblock_types(state, pfn, order, migrate_type)
    elif old_type != MigrateType.HIGHATOMIC:
        if boost_watermark(state, zone) and alloc_flags & AllocFlag.KSWAPD:
            state.zone[zone].boosted = 1
        if may_steal(order, migrate_type):
            movable = _count_movable(state, pfn)
            free = move_freepages_block(state, pfn, migrate_type)
            alike = movable
            if migrate_type != MigrateType.MOVABLE:
                alike = PAGEBLOCK_PAGES - free - movable if old_type == MigrateType.MOVABLE else 0
            if free and free + alike >= PAGEBLOCK_PAGES // 2:
                state.pageblock[pfn >> PAGEBLOCK_ORDER].migrate_type = migrate_type
            if free:
                return
    move_block(state, zone, pfn, migrate_type)


@kernel
def _rmqueue_fallback(state: "State", zone: int, order: int, type_and_flags: int) -> int:
    """Bring a block of another type to the lists of the wanted one; return whether there was one.

    ``type_and_flags`` is migrate type | AllocFlag bits << FLAGS_SHIFT.
    """
    migrate_type = type_and_flags & TYPE_MASK
    alloc_flags = type_and_flags >> FLAGS_SHIFT
    lowest = order
    if order < PAGEBLOCK_ORDER and alloc_flags & AllocFlag.NOFRAGMENT:
        lowest = PAGEBLOCK_ORDER
    found = NIL
    at = MAX_ORDER
    while at >= lowest:
        found = fallback_type(state, zone, at, migrate_type)
        if found != NIL:
            break
        at -= 1
    if found == NIL:
        return 0
    if at > order and not may_steal(at, migrate_type):
        # What is left of a small block does less harm than what is left of a large one.
        at = order
        while fallback_type(state, zone, at, migrate_type) == NIL:
            at += 1
        found = fallback_type(state, zone, at, migrate_type)
    _steal(state, first_free(state, zone, at, found), migrate_type, alloc_flags)
    state.vm_event[VmEvent.MM_PAGE_ALLOC_EXTFRAG] += 1
    return 1


@kernel
def rmqueue(state: "State", zone: int, order: int, type_and_flags: int) -> int:
    """Return the first frame of a block of a migrate type, falling back to others, or NIL.

    ``type_and_flags`` is as above. Free frames are not counted here (__rmqueue).
    """
    pfn = rmqueue_smallest(state, zone, order, type_and_flags & TYPE_MASK)
    if pfn == NIL and _rmqueue_fallback(state, zone, order, type_and_flags):
        pfn = rmqueue_smallest(state, zone, order, type_and_flags & TYPE_MASK)
    return pfn


# --- the reserve for high-order requests that cannot wait -----------------------------------------------


@kernel
def reserve_highatomic_pageblock(state: "State", pfn: int) -> None:
    """Keep the pageblock of a block that such a request was given for more of them, up to 1 % of the zone."""
    zone_index = zone_of(state, pfn)
    zone = state.zone[zone_index]
    limit = zone.managed // HIGHATOMIC_SHARE + PAGEBLOCK_PAGES
    if zone.nr_reserved_highatomic >= limit or pageblock_type(state, pfn) >= NR_PCP_TYPES:
        return
    zone.nr_reserved_highatomic += PAGEBLOCK_PAGES
    state.pageblock[pfn >> PAGEBLOCK_ORDER].migrate_type = MigrateType.HIGHATOMIC
    move_freepages_block(state, pfn, MigrateType.HIGHATOMIC)


@kernel
def unreserve_highatomic_pageblock(state: "State", zone_index: int, migrate_type: int, force: int) -> int:
    """Give one reserved pageblock of a zone to a type; return whether free frames came of it.

    Unless forced, one pageblock stays reserved.
    """
    zone = state.zone[zone_index]
    if not force and zone.nr_reserved_highatomic <= PAGEBLOCK_PAGES:
        return 0
    for order in range(NR_ORDERS):
        pfn = first_free(state, zone_index, order, MigrateType.HIGHATOMIC)
        if pfn == NIL:
            continue
        if pageblock_type(state, pfn) == MigrateType.HIGHATOMIC:
            zone.nr_reserved_highatomic -= min(PAGEBLOCK_PAGES, zone.nr_reserved_highatomic)
        state.pageblock[pfn >> PAGEBLOCK_ORDER].migrate_type = migrate_type
        if move_freepages_block(state, pfn, migrate_type):
            return 1
    return 0
