"""Allocation of frames: the long way, when the CPU's list is empty, the zone short of memory, or the block large.

    1. every zone of the list above low         its per-CPU lists, its buddy system; first without mixing migrate types
    2. wake kswapd; every zone above min        less for those with rights to the reserves
    3. compaction (node/phys/compaction.py), for large blocks and for such as cannot be moved later
    4. reclaim (node/reclaim/vmscan.py), compaction, and again, harder; at last the OOM killer
    5. NIL, counted

Who cannot wait gets no further than 2. Gfp.NOFAIL takes from the reserves, and then all of them, instead of 5.

Linux: mm/page_alloc.c (get_page_from_freelist, rmqueue, __alloc_pages_slowpath, free_the_page).
# Differs from Linux: no cpusets, memory policies or zone_reclaim_mode; no dirty limits of nodes. The OOM killer's
victim gets nothing from the reserves, since it ends at once. After reclaim without progress the lists are looked at
again all the same. Gfp.NOFAIL does not try for ever: where even the reserves are empty, the answer is NIL.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, Knob, Request, VmEvent
from node.joints import direct_reclaim, drain_all_pages, try_to_compact_pages, wake_kswapd
from node.phys.buddy import MAX_ORDER, buddy_free, count_free, rmqueue_smallest
from node.phys.compact_control import Compactor, CompactPriority, CompactResult
from node.phys.compact_defer import compaction_defer_reset
from node.phys.compact_retry import begin_compact_retries, should_compact_retry
from node.phys.fallback import (
    FLAGS_SHIFT,
    TYPE_MASK,
    AllocFlag,
    reserve_highatomic_pageblock,
    rmqueue,
    unreserve_highatomic_pageblock,
)
from node.phys.gfp import gfp_migrate_type
from node.phys.migrate_type import MigrateType, pageblock_type, zone_of
from node.phys.page_alloc import alloc_pages, free_pages
from node.phys.pcp import COSTLY_ORDER, is_pcp_order, list_of, pcp_index, pop_frame
from node.phys.pcp_batch import free_block_to_lists, refill
from node.phys.watermarks import may_allocate
from node.phys.zone import ZoneId
from node.phys.zonelist import zonelist_of
from shared.constants import NIL
from shared.gfp_flags import Gfp
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

MAX_RECLAIM_RETRIES: Final = 16


# --- one zone -------------------------------------------------------------------------------------------


@kernel
def _rmqueue_lists(state: "State", zone: int, order: int, type_and_flags: int) -> int:
    """Return a block off the CPU's lists for a zone, refilled if they are empty, or NIL."""
    index = pcp_index(state, zone)
    which = list_of(order, type_and_flags & TYPE_MASK)
    pfn = pop_frame(state, index, which, 1 << order)
    if pfn == NIL:
        if not refill(state, zone, order, type_and_flags):
            state.pcp[index].free_factor >>= 1  # the attempt counts, as pop_frame would have counted it
            return NIL
        pfn = pop_frame(state, index, which, 1 << order)
    return pfn


@kernel
def _rmqueue_zone(state: "State", zone: int, order: int, type_and_flags: int) -> int:
    """Return a block straight from the buddy system of a zone, or NIL (rmqueue_buddy)."""
    alloc_flags = type_and_flags >> FLAGS_SHIFT
    pfn = NIL
    if alloc_flags & AllocFlag.HIGHATOMIC:
        pfn = rmqueue_smallest(state, zone, order, MigrateType.HIGHATOMIC)
    if pfn == NIL:
        pfn = rmqueue(state, zone, order, type_and_flags)
    if pfn == NIL and alloc_flags & (AllocFlag.OOM | AllocFlag.NON_BLOCK):
        # Failing now is worse than failing a large request that cannot wait some time later.
        pfn = rmqueue_smallest(state, zone, order, MigrateType.HIGHATOMIC)
    if pfn != NIL:
        count_free(state, zone, -(1 << order))
        state.vm_event[VmEvent.MM_PAGE_ALLOC_ZONE_LOCKED] += 1
    return pfn


@kernel
def _rmqueue(state: "State", zone_index: int, order: int, type_and_flags: int) -> int:
    """Return a block of a zone, or NIL; count it, and wake kswapd if migrate types had to be mixed."""
    pfn = NIL
    if is_pcp_order(order):
        pfn = _rmqueue_lists(state, zone_index, order, type_and_flags)
    if pfn == NIL:
        pfn = _rmqueue_zone(state, zone_index, order, type_and_flags)
    zone = state.zone[zone_index]
    if zone.boosted:
        zone.boosted = 0
        wake_kswapd(state, 0, 0)
    if pfn != NIL:
        state.vm_event[VmEvent.PGALLOC_DMA + zone.kind] += 1 << order
    return pfn


# --- all zones ------------------------------------------------------------------------------------------


@kernel
def _count_numa(state: "State", preferred: int, zone_index: int) -> None:
    """Count whether a request got memory of the node it wanted (zone_statistics)."""
    zone = state.zone[zone_index]
    wanted = state.zone[preferred]
    if zone.nid == wanted.nid:
        zone.numa_hit += 1
    else:
        zone.numa_miss += 1
        wanted.numa_foreign += 1
    if zone.nid != state.cpu[state.current[Current.CPU]].nid:
        zone.numa_other += 1


@kernel
def _try_zones(state: "State", order: int, gfp: int, alloc_flags: int) -> int:
    """Return a block of the first zone of the list that may give one, or NIL.

    With NOFRAGMENT, NIL too where the list goes on to another node: locality matters more than fragmentation.
    """
    at = zonelist_of(state, gfp)
    preferred = state.zonelist[at]
    nid = state.cpu[state.current[Current.CPU]].nid
    type_and_flags = gfp_migrate_type(gfp) | alloc_flags << FLAGS_SHIFT
    while state.zonelist[at] != NIL:
        zone = state.zonelist[at]
        at += 1
        if gfp & Gfp.THISNODE and state.zone[zone].nid != nid:
            return NIL
        if alloc_flags & AllocFlag.NOFRAGMENT and state.zone[zone].nid != state.zone[preferred].nid:
            return NIL
        if not alloc_flags & AllocFlag.NO_WATERMARKS and not may_allocate(
            state, zone, order, gfp, alloc_flags
        ):
            continue
        pfn = _rmqueue(state, zone, order, type_and_flags)
        if pfn != NIL:
            _count_numa(state, preferred, zone)
            if alloc_flags & AllocFlag.HIGHATOMIC:
                reserve_highatomic_pageblock(state, pfn)
            return pfn
    return NIL


@kernel
def _get_page_from_freelist(state: "State", order: int, gfp: int, alloc_flags: int) -> int:
    pfn = _try_zones(state, order, gfp, alloc_flags)
    if pfn == NIL and alloc_flags & AllocFlag.NOFRAGMENT:
        pfn = _try_zones(state, order, gfp, alloc_flags & ~AllocFlag.NOFRAGMENT)
    return pfn


@kernel
def _nofragment(state: "State", gfp: int) -> int:
    """Return NOFRAGMENT if there is a lower zone to spread to rather than to mix types, and KSWAPD if allowed."""
    flags = AllocFlag.KSWAPD if gfp & Gfp.KSWAPD_RECLAIM else 0
    preferred = state.zonelist[zonelist_of(state, gfp)]
    if state.zone[preferred].kind != ZoneId.NORMAL or not state.knob[Knob.HAS_DMA32]:
        return flags
    if state.knob[Knob.NR_NODES] > 1 and state.zone[preferred - 1].managed == 0:
        return flags
    return flags | AllocFlag.NOFRAGMENT


# --- the slow path --------------------------------------------------------------------------------------


@kernel
def _alloc_flags(order: int, gfp: int) -> int:
    """Return the rights that a request has below low (gfp_to_alloc_flags)."""
    flags = int(AllocFlag.WMARK_MIN)
    if gfp & Gfp.HIGH:
        flags |= AllocFlag.MIN_RESERVE
    if gfp & Gfp.KSWAPD_RECLAIM:
        flags |= AllocFlag.KSWAPD
    if not gfp & (Gfp.DIRECT_RECLAIM | Gfp.NOMEMALLOC):
        flags |= AllocFlag.NON_BLOCK
        if order > 0 and gfp & Gfp.HIGH:
            flags |= AllocFlag.HIGHATOMIC
    return flags


@kernel
def _reserve_flags(state: "State", gfp: int) -> int:
    """Return the rights of whoever frees more than it takes: reclaim itself."""
    if gfp & Gfp.NOMEMALLOC:
        return 0
    if gfp & Gfp.MEMALLOC or state.current[Current.MEMALLOC]:
        return AllocFlag.NO_WATERMARKS
    return 0


@kernel
def _unreserve_highatomic(state: "State", gfp: int, force: int) -> int:
    """Give up a pageblock of the reserve for large requests; return whether there was one."""
    at = zonelist_of(state, gfp)
    while state.zonelist[at] != NIL:
        if unreserve_highatomic_pageblock(state, state.zonelist[at], gfp_migrate_type(gfp), force):
            return 1
        at += 1
    return 0


@kernel
def _compact_and_try(state: "State", order: int, gfp: int, alloc_flags: int) -> int:
    """Compact at the task's priority; return a block, or NIL. Request.R0 is the CompactResult.

    All of its time counts as stall (__alloc_pages_direct_compact).
    """
    begin_ps = state.current[Current.CLOCK_PS]
    stall_ps = state.current[Current.STALL_PS]
    state.current[Current.MEMALLOC] = 1
    priority = state.compact_control[Compactor.TASK].priority
    result = try_to_compact_pages(state, order, gfp, alloc_flags, priority)
    state.current[Current.MEMALLOC] = 0
    state.current[Current.STALL_PS] = stall_ps + state.current[Current.CLOCK_PS] - begin_ps
    state.request[Request.R0] = result
    if result == CompactResult.SKIPPED:
        return NIL
    state.vm_event[VmEvent.COMPACT_STALL] += 1
    pfn = _get_page_from_freelist(state, order, gfp, alloc_flags)
    if pfn == NIL:
        state.vm_event[VmEvent.COMPACT_FAIL] += 1
        return NIL
    zone = zone_of(state, pfn)
    state.zone[zone].compact_blockskip_flush = 0
    compaction_defer_reset(state, zone, order, 1)
    state.vm_event[VmEvent.COMPACT_SUCCESS] += 1
    return pfn


@kernel
def _compact_first(state: "State", order: int, gfp: int, alloc_flags: int) -> int:
    """Compact before anything is reclaimed where that is likely to do: for large blocks, and for immovable ones.

    Returns a block, or NIL. Request.R0 is 1 if there is no point in going on.
    """
    begin_compact_retries(state, CompactPriority.SYNC_LIGHT)
    is_costly = order > COSTLY_ORDER
    pfn = NIL
    result = int(CompactResult.CONTINUE)
    if is_costly or (order > 0 and gfp_migrate_type(gfp) != MigrateType.MOVABLE):
        begin_compact_retries(state, CompactPriority.ASYNC)
        pfn = _compact_and_try(state, order, gfp, alloc_flags)
        result = state.request[Request.R0]
        if not is_costly or not gfp & Gfp.NORETRY:
            begin_compact_retries(state, CompactPriority.SYNC_LIGHT)
    state.request[Request.R0] = 0
    if is_costly and gfp & Gfp.NORETRY and (result <= CompactResult.DEFERRED or gfp & Gfp.THISNODE):
        state.request[Request.R0] = 1
    return pfn


@kernel
def _reclaim_and_try(state: "State", order: int, gfp: int, alloc_flags: int) -> int:
    """Reclaim, and compact, until a block can be had or there is no more point in trying; return it, or NIL."""
    drained = 0
    compacts = order > 0 and gfp & Gfp.IO
    # Nobody is killed while compaction may still do.
    may_kill = 0 if compacts else 1
    for _ in range(MAX_RECLAIM_RETRIES):
        progress = direct_reclaim(state, order, gfp if may_kill else gfp | Gfp.RETRY_MAYFAIL)
        pfn = _get_page_from_freelist(state, order, gfp, alloc_flags)
        if pfn == NIL and not drained:
            # What was freed may sit on other CPUs' lists, or in the reserve for large requests.
            drained = 1
            _unreserve_highatomic(state, gfp, 0)
            drain_all_pages(state)
            pfn = _get_page_from_freelist(state, order, gfp, alloc_flags)
        if pfn == NIL and compacts:
            pfn = _compact_and_try(state, order, gfp, alloc_flags)
        if pfn != NIL:
            return pfn
        if gfp & Gfp.NORETRY or (order > COSTLY_ORDER and not gfp & Gfp.RETRY_MAYFAIL):
            return NIL
        if may_kill:
            if not progress and not _unreserve_highatomic(state, gfp, 1):
                return NIL
        elif not progress or not should_compact_retry(
            state, order, gfp, alloc_flags, state.request[Request.R0]
        ):
            if gfp & Gfp.RETRY_MAYFAIL:
                return NIL
            may_kill = 1
    return NIL


@kernel
def _alloc_slowpath(state: "State", order: int, gfp: int) -> int:
    alloc_flags = _alloc_flags(order, gfp)
    if alloc_flags & AllocFlag.KSWAPD:
        wake_kswapd(state, order, gfp)
    pfn = _get_page_from_freelist(state, order, gfp, alloc_flags)
    if pfn != NIL:
        return pfn
    reserve_flags = _reserve_flags(state, gfp)
    if reserve_flags:
        alloc_flags = reserve_flags | (alloc_flags & AllocFlag.KSWAPD)
        pfn = _get_page_from_freelist(state, order, gfp, alloc_flags)
    if pfn != NIL or not gfp & Gfp.DIRECT_RECLAIM or state.current[Current.MEMALLOC]:
        return pfn
    if order > 0 and not reserve_flags:
        pfn = _compact_first(state, order, gfp, alloc_flags)
        if pfn != NIL or state.request[Request.R0]:
            return pfn
    pfn = _reclaim_and_try(state, order, gfp, alloc_flags)
    if pfn == NIL and gfp & Gfp.NOFAIL:
        # Better half of the reserves than a failure that its caller is not ready for.
        pfn = _get_page_from_freelist(state, order, gfp, AllocFlag.MIN_RESERVE)
        if pfn == NIL:
            pfn = _get_page_from_freelist(state, order, gfp, AllocFlag.NO_WATERMARKS)
    return pfn


# --- entries --------------------------------------------------------------------------------------------


@entry
def alloc_beyond_lists(state: "State", order: int, gfp: int) -> int:
    """Return the first of 2**order frames where the CPU's list has none to give, or NIL, counted."""
    pfn = NIL
    if 0 <= order <= MAX_ORDER and state.zonelist[zonelist_of(state, gfp)] != NIL:
        pfn = _get_page_from_freelist(state, order, gfp, AllocFlag.WMARK_LOW | _nofragment(state, gfp))
        if pfn == NIL:
            pfn = _alloc_slowpath(state, order, gfp)
    if pfn == NIL:
        state.vm_event[VmEvent.ALLOC_FAILED] += 1
    else:
        state.page[pfn].order = order
    return pfn


@entry
def alloc_frames(state: "State", order: int, gfp: int) -> int:
    """Do what ``alloc_pages`` does, for callers that are not worth a copy of it in their machine code."""
    return alloc_pages(state, order, gfp)


@entry
def free_block(state: "State", pfn: int, order: int) -> int:
    """Put back a block of frames that are counted and cleared already; return 0."""
    if is_pcp_order(order) and pageblock_type(state, pfn) != MigrateType.ISOLATE:
        free_block_to_lists(state, pfn, order)
    else:
        buddy_free(state, pfn, order, 0)
    return 0


@entry
def free_frames(state: "State", pfn: int, order: int) -> int:
    """Do what ``free_pages`` does, for callers that are not worth a copy of it in their machine code; return 0."""
    free_pages(state, pfn, order)
    return 0
