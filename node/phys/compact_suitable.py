"""Whether compaction of a zone is worth its while, and when it is done.

    a block could be had already                                      SUCCESS
    less than low (min for orders up to 3) + 2 * 2**order is free     SKIPPED: reclaim first
    pieces are not what is wrong (vm.extfrag_threshold)               SKIPPED: reclaim first
    else                                                              CONTINUE

It is done when the scanners meet, or at the end of a pageblock when a block of the order, or a larger one, is on
the list of the wanted migrate type or could be taken over from another.

Linux: mm/compaction.c (__compaction_suitable, compaction_suitable, compaction_zonelist_suitable,
__compact_finished).
# Differs from Linux: the LRU is the machine's, so what is reclaimable is counted of all zones. Nothing is contended.
"""

from typing import TYPE_CHECKING

from node.counters import Knob, VmStat
from node.phys.buddy import NR_ORDERS, first_free
from node.phys.compact_control import WHOLE_ZONES, CompactResult
from node.phys.compact_defer import pageblock_start, reset_cached_positions
from node.phys.fallback import fallback_type, may_steal
from node.phys.fragmentation import zone_fragmentation_index
from node.phys.gfp import gfp_zone
from node.phys.pcp import COSTLY_ORDER
from node.phys.watermarks import ZONE_MASK, low_mark, mark_of, watermark_ok_with, watermark_request
from node.phys.zone import PAGEBLOCK_ORDER
from node.phys.zonelist import zonelist_of
from shared.constants import NIL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def compact_gap(order: int) -> int:
    """Return how many frames should be free above the watermark: what may be isolated, twice."""
    return 2 << order


@kernel
def suitable_with(state: "State", zone: int, order: int, request: int, free_pages: int) -> int:
    """Return what the watermarks say of compaction if a zone had ``free_pages`` (__compaction_suitable).

    ``request`` is what whoever wants the block may do (node/phys/watermarks.py), mark included.
    """
    if order == WHOLE_ZONES:
        return CompactResult.CONTINUE
    if watermark_ok_with(state, zone, order, request, state.zone[zone].nr_free):
        return CompactResult.SUCCESS
    mark = low_mark(state, zone) if order > COSTLY_ORDER else mark_of(state, zone, 0)
    highest = request & ZONE_MASK
    order_0 = watermark_request(mark + compact_gap(order), 0, highest)
    if not watermark_ok_with(state, zone, 0, order_0, free_pages):
        return CompactResult.SKIPPED
    return CompactResult.CONTINUE


@kernel
def compaction_suitable(state: "State", zone: int, order: int, alloc_flags: int, highest_zone: int) -> int:
    """Return SUCCESS, SKIPPED or CONTINUE: whether to compact a zone for a block of 2**order frames now."""
    request = watermark_request(mark_of(state, zone, alloc_flags), alloc_flags, highest_zone)
    result = suitable_with(state, zone, order, request, state.zone[zone].nr_free)
    if result == CompactResult.CONTINUE and order > COSTLY_ORDER:
        # Whoever wants a small block would call the OOM killer next, so for them it is tried anyway.
        index = zone_fragmentation_index(state, zone, order)
        if 0 <= index <= state.knob[Knob.EXTFRAG_THRESHOLD]:
            return CompactResult.SKIPPED
    return result


@kernel
def compaction_zonelist_suitable(state: "State", order: int, gfp: int, alloc_flags: int) -> int:
    """Return whether compaction could begin in some zone if one part in ``order`` of the LRU pages were freed."""
    area = state.swap_area[0]
    reclaimable = 0
    if area.nr_used < area.nr_slots - 1:  # the first holds the header
        reclaimable = state.vm_stat[VmStat.NR_INACTIVE_ANON] + state.vm_stat[VmStat.NR_ACTIVE_ANON]
    at = zonelist_of(state, gfp)
    while state.zonelist[at] != NIL:
        zone = state.zonelist[at]
        request = watermark_request(mark_of(state, zone, alloc_flags), alloc_flags, gfp_zone(gfp))
        free = state.zone[zone].nr_free + reclaimable // order
        if suitable_with(state, zone, order, request, free) == CompactResult.CONTINUE:
            return 1
        at += 1
    return 0


# --- the end --------------------------------------------------------------------------------------------


@kernel
def scanners_met(state: "State", which: int) -> int:
    """Return whether the free scanner is at the migration scanner's pageblock, or below."""
    control = state.compact_control[which]
    return 1 if control.free_pfn >> PAGEBLOCK_ORDER <= control.migrate_pfn >> PAGEBLOCK_ORDER else 0


@kernel
def _has_wanted_block(state: "State", which: int) -> int:
    control = state.compact_control[which]
    for order in range(control.order, NR_ORDERS):
        if first_free(state, control.zone, order, control.migrate_type) != NIL:
            return 1
        if (
            may_steal(order, control.migrate_type)
            and fallback_type(state, control.zone, order, control.migrate_type) != NIL
        ):
            return 1
    return 0


@kernel
def compact_finished(state: "State", which: int) -> int:
    """Return CONTINUE, or how a compactor's work on its zone ended."""
    control = state.compact_control[which]
    if scanners_met(state, which):
        reset_cached_positions(state, control.zone)
        if control.is_direct:
            state.zone[control.zone].compact_blockskip_flush = 1
        return CompactResult.COMPLETE if control.whole_zone else CompactResult.PARTIAL_SKIPPED
    # A pageblock that was begun is finished, so that it is as free as it can be.
    if control.order == WHOLE_ZONES or control.migrate_pfn != pageblock_start(control.migrate_pfn):
        return CompactResult.CONTINUE
    return CompactResult.SUCCESS if _has_wanted_block(state, which) else CompactResult.CONTINUE
