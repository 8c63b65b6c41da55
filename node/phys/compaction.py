"""Compaction: making blocks of free frames by moving pages together.

    before   [ a . b . . c . . | . d . . e . . . | . . f . . . g . ]      no block of 8, though 17 frames are free
    after    [ . . . . . . . . | . d . . e . . . | . . f a b c g . ]

A migration scanner goes up from the zone's start and takes pages off the LRU, 32 at a time; a free scanner goes down
from its end and takes free frames for them. A page moves to another frame with all that maps it
(node/vm/migrate.py). That goes on until a block of the wanted order is free, or the scanners meet
(node/phys/compact_suitable.py).

Who compacts:

    a task   whose request for a block found none: the zones it may use, at rising priority
             ASYNC waits for nothing, and looks at pageblocks of its type only; SYNC_LIGHT looks at all;
             SYNC_FULL looks at the whole zone, whatever is remembered, and takes free frames from anywhere
    kcompactd   in the background (node/phys/kcompactd.py)
    compact_memory   an administrator: all zones, for no block in particular

Freed frames stand on the CPU's lists, where they merge with nothing; so these are drained when the scanner leaves
an aligned block of the wanted order.

Linux: mm/compaction.c (compact_zone, compact_zone_order, try_to_compact_pages, compact_node).
# Differs from Linux: nothing is contended and no task has to go on, so compaction never gives up half-way for that.
"""

from typing import TYPE_CHECKING

from node.counters import Current, Knob, VmEvent
from node.joints import drain_all_pages, end_page_writebacks, free_frames, migrate_page
from node.phys.compact_control import (
    WHOLE_ZONES,
    Compactor,
    CompactPriority,
    CompactResult,
    MigrateMode,
)
from node.phys.compact_defer import (
    compaction_defer_reset,
    compaction_deferred,
    compaction_restarting,
    defer_compaction,
    pageblock_start,
    reset_isolation_of_zone,
)
from node.phys.compact_fast_search import fast_isolate_freepages
from node.phys.compact_scanners import (
    give_free_frame_back,
    isolate_freepages,
    isolate_migratepages,
    putback_movable_pages,
    take_free_frame,
)
from node.phys.compact_suitable import compact_finished, compaction_suitable, scanners_met
from node.phys.gfp import gfp_migrate_type, gfp_zone
from node.phys.pcp import pcp_index
from node.phys.pcp_batch import drain_lists
from node.phys.zone import ZoneId
from node.phys.zonelist import zonelist_of
from shared.constants import INT64_MAX, NIL
from shared.gfp_flags import GFP_KERNEL, Gfp
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State


# --- one batch ------------------------------------------------------------------------------------------


@kernel
def _next_target(state: "State", which: int) -> int:
    """Return an isolated free frame, or NIL if none can be had any more."""
    control = state.compact_control[which]
    if control.nr_freepages == 0:
        fast_isolate_freepages(state, which)
    if control.nr_freepages == 0:
        isolate_freepages(state, which)
    return take_free_frame(state, which)


@kernel
def _migrate_pages(state: "State", which: int) -> int:
    """Move the isolated pages; return how many stayed, or NIL: there were too few free frames.

    Pages that stay are on the LRU again.
    """
    control = state.compact_control[which]
    nr_stayed = 0
    while control.nr_migratepages:
        to = _next_target(state, which)
        if to == NIL:
            state.vm_event[VmEvent.PGMIGRATE_FAIL] += 1
            putback_movable_pages(state, which)
            return NIL
        pfn = control.first_migratepage
        following = state.page[pfn].next
        if migrate_page(state, pfn, to, control.mode):
            control.first_migratepage = following
            control.nr_migratepages -= 1
        else:
            give_free_frame_back(state, which, to)
            nr_stayed += 1
            _put_first_back(state, which)
    return nr_stayed


@kernel
def _put_first_back(state: "State", which: int) -> None:
    """Put the page whose turn it is back on the LRU."""
    control = state.compact_control[which]
    others = control.nr_migratepages - 1
    control.nr_migratepages = 1
    following = state.page[control.first_migratepage].next
    putback_movable_pages(state, which)
    control.first_migratepage = following
    control.nr_migratepages = others


@kernel
def _drain_if_left_block(state: "State", which: int) -> None:
    """Let the frames that were freed merge, once the migration scanner has left the aligned block they were in."""
    control = state.compact_control[which]
    if control.order <= 0 or control.last_migrated_pfn == 0:
        return
    if control.last_migrated_pfn < control.migrate_pfn & ~((1 << control.order) - 1):
        drain_lists(state, pcp_index(state, control.zone))
        control.last_migrated_pfn = 0


@kernel
def _compact_batch(state: "State", which: int) -> int:
    """Isolate up to 32 pages and move them; return CONTINUE, or CONTENDED: no frames, though the scanners are apart."""
    control = state.compact_control[which]
    begin = control.migrate_pfn
    control.rescan = 1 if pageblock_start(control.last_migrated_pfn) == pageblock_start(begin) else 0
    end_page_writebacks(state)
    if isolate_migratepages(state, which) == 0:
        if control.update_cached:
            zone = state.zone[control.zone]
            zone.compact_migrate_pfn_sync = zone.compact_migrate_pfn
    else:
        control.update_cached = 0
        control.last_migrated_pfn = begin
        nr_stayed = _migrate_pages(state, which)
        if nr_stayed == NIL and not scanners_met(state, which):
            return CompactResult.CONTENDED
        if nr_stayed and control.is_direct and control.mode == MigrateMode.ASYNC:
            # One page has stayed in the block of the wanted order: the rest of it is of no use.
            block_pages = 1 << control.order
            control.migrate_pfn = ((control.migrate_pfn - 1) | (block_pages - 1)) + 1
            control.last_migrated_pfn = 0
    _drain_if_left_block(state, which)
    return CompactResult.CONTINUE


# --- one zone -------------------------------------------------------------------------------------------


@kernel
def _place_scanners(state: "State", which: int) -> None:
    """Let the scanners start at the zone's ends, or where they stopped the last time."""
    control = state.compact_control[which]
    zone = state.zone[control.zone]
    last_block = pageblock_start(zone.end_pfn - 1)
    if control.whole_zone:
        control.migrate_pfn = zone.start_pfn
        control.free_pfn = last_block
        return
    if not max(zone.start_pfn, 1) <= zone.compact_free_pfn < zone.end_pfn:
        zone.compact_free_pfn = last_block
    waits = control.mode != MigrateMode.ASYNC
    at = zone.compact_migrate_pfn_sync if waits else zone.compact_migrate_pfn
    if not zone.start_pfn <= at < zone.end_pfn:
        at = zone.start_pfn
        zone.compact_migrate_pfn = at
        zone.compact_migrate_pfn_sync = at
    control.migrate_pfn = at
    control.free_pfn = zone.compact_free_pfn
    if at <= zone.compact_init_migrate_pfn:
        control.whole_zone = 1


@kernel
def _begin_zone(state: "State", which: int, zone_index: int) -> int:
    """Make a compactor ready for a zone; return CONTINUE, or SUCCESS or SKIPPED: it need not, or should not."""
    control = state.compact_control[which]
    control.zone = zone_index
    control.nr_migrate_scanned = 0
    control.nr_free_scanned = 0
    control.last_migrated_pfn = 0
    result = compaction_suitable(state, zone_index, control.order, control.alloc_flags, control.highest_zone)
    if result != CompactResult.CONTINUE:
        return result
    if compaction_restarting(state, zone_index, control.order):
        reset_isolation_of_zone(state, zone_index)
    _place_scanners(state, which)
    zone = state.zone[zone_index]
    same = zone.compact_migrate_pfn == zone.compact_migrate_pfn_sync
    control.update_cached = 1 if control.mode == MigrateMode.ASYNC and same else 0
    return CompactResult.CONTINUE


@kernel
def _release_free_frames(state: "State", which: int) -> None:
    """Free what was isolated and not used, and let the next free scanner begin there."""
    control = state.compact_control[which]
    zone = state.zone[control.zone]
    while control.nr_freepages:
        pfn = take_free_frame(state, which)
        zone.compact_free_pfn = max(zone.compact_free_pfn, pageblock_start(pfn))
        free_frames(state, pfn, 0)


@kernel
def _go_on(state: "State", which: int, limit_ps: int) -> int:
    """Compact batch by batch until the clock passes ``limit_ps``; return CONTINUE, or how it ended."""
    result = compact_finished(state, which)
    while result == CompactResult.CONTINUE:
        if state.current[Current.CLOCK_PS] >= limit_ps:
            return CompactResult.CONTINUE
        result = _compact_batch(state, which)
        if result == CompactResult.CONTINUE:
            result = compact_finished(state, which)
    _release_free_frames(state, which)
    control = state.compact_control[which]
    state.vm_event[VmEvent.COMPACT_MIGRATE_SCANNED] += control.nr_migrate_scanned
    state.vm_event[VmEvent.COMPACT_FREE_SCANNED] += control.nr_free_scanned
    return result


@kernel
def _compact_zone(state: "State", which: int, zone_index: int) -> int:
    """Compact a zone as the compactor's record says; return a CompactResult."""
    result = _begin_zone(state, which, zone_index)
    if result == CompactResult.CONTINUE:
        result = _go_on(state, which, INT64_MAX)
    return result


# --- a task ---------------------------------------------------------------------------------------------


@kernel
def _set_up_task(state: "State", order: int, gfp: int, alloc_flags: int, priority: int) -> None:
    control = state.compact_control[Compactor.TASK]
    control.search_order = order
    control.search_failures = 0
    hardest = 1 if priority == CompactPriority.SYNC_FULL else 0
    control.order = order
    control.mode = MigrateMode.ASYNC if priority == CompactPriority.ASYNC else MigrateMode.SYNC_LIGHT
    control.migrate_type = gfp_migrate_type(gfp)
    control.may_enter_fs = 1 if gfp & Gfp.FS else 0
    control.alloc_flags = alloc_flags
    control.highest_zone = gfp_zone(gfp)
    control.is_direct = 1
    control.ignore_hints = hardest
    control.any_target = hardest


@entry
def try_to_compact_pages(state: "State", order: int, gfp: int, alloc_flags: int, priority: int) -> int:
    """Compact the zones of a request one by one until one has a block for it; return the CompactResult.

    Without Gfp.IO, which pages in the swap cache may need, it is SKIPPED at once.
    """
    result = int(CompactResult.SKIPPED)
    if not gfp & Gfp.IO:
        return result
    at = zonelist_of(state, gfp)
    while state.zonelist[at] != NIL:
        zone = state.zonelist[at]
        at += 1
        hardest = priority == CompactPriority.SYNC_FULL
        if not hardest and compaction_deferred(state, zone, order):
            result = max(result, CompactResult.DEFERRED)
            continue
        _set_up_task(state, order, gfp, alloc_flags, priority)
        state.compact_control[Compactor.TASK].whole_zone = hardest
        status = _compact_zone(state, Compactor.TASK, zone)
        result = max(result, status)
        if status == CompactResult.SUCCESS:
            compaction_defer_reset(state, zone, order, 0)
            break
        met = status == CompactResult.COMPLETE or status == CompactResult.PARTIAL_SKIPPED  # noqa: PLR1714
        if met and priority != CompactPriority.ASYNC:
            defer_compaction(state, zone, order)
    return result


# --- an administrator -----------------------------------------------------------------------------------


@kernel
def _compact_node(state: "State", nid: int) -> None:
    control = state.compact_control[Compactor.TASK]
    for zone_index in range(len(state.zone)):
        if state.zone[zone_index].nid != nid or state.zone[zone_index].present == 0:
            continue
        control.order = WHOLE_ZONES
        control.mode = MigrateMode.SYNC
        control.migrate_type = gfp_migrate_type(GFP_KERNEL)
        control.may_enter_fs = 1
        control.alloc_flags = 0
        control.highest_zone = ZoneId.DMA
        control.is_direct = 0
        control.ignore_hints = 1
        control.any_target = 0
        control.whole_zone = 1
        _compact_zone(state, Compactor.TASK, zone_index)


@entry
def compact_node(state: "State", nid: int) -> int:
    """Compact all zones of a node (a write to /sys/devices/system/node/nodeN/compact); return 0."""
    _compact_node(state, nid)
    return 0


@entry
def compact_memory(state: "State") -> int:
    """Compact all zones of the machine (a write to /proc/sys/vm/compact_memory); return 0."""
    for nid in range(state.knob[Knob.NR_NODES]):
        _compact_node(state, nid)
    return 0


# --- kcompactd ------------------------------------------------------------------------------------------


@kernel
def _set_up_kcompactd(state: "State", order: int) -> None:
    control = state.compact_control[Compactor.KCOMPACTD]
    control.order = order
    control.search_order = order
    control.search_failures = 0
    control.mode = MigrateMode.SYNC_LIGHT
    control.migrate_type = gfp_migrate_type(GFP_KERNEL)
    control.may_enter_fs = 1
    control.alloc_flags = 0
    control.highest_zone = ZoneId.MOVABLE
    control.is_direct = 0
    control.ignore_hints = 0
    control.any_target = 0
    control.whole_zone = 0


@kernel
def _end_zone_of_kcompactd(state: "State", result: int) -> None:
    control = state.compact_control[Compactor.KCOMPACTD]
    control.is_at_work = 0
    if result == CompactResult.SUCCESS:
        compaction_defer_reset(state, control.zone, control.order, 0)
    elif result == CompactResult.COMPLETE or result == CompactResult.PARTIAL_SKIPPED:  # noqa: PLR1714
        # What could merge may stand on the CPUs' lists.
        drain_all_pages(state)
        defer_compaction(state, control.zone, control.order)
    state.vm_event[VmEvent.COMPACT_DAEMON_MIGRATE_SCANNED] += control.nr_migrate_scanned
    state.vm_event[VmEvent.COMPACT_DAEMON_FREE_SCANNED] += control.nr_free_scanned


@entry
def begin_background_zone(state: "State", zone: int, order: int) -> int:
    """Let kcompactd begin with a zone, if it is deferred for no failure and suitable; return 0."""
    if state.zone[zone].present == 0 or compaction_deferred(state, zone, order):
        return 0
    kind = state.zone[zone].kind
    if compaction_suitable(state, zone, order, 0, kind) != CompactResult.CONTINUE:
        return 0
    _set_up_kcompactd(state, order)
    control = state.compact_control[Compactor.KCOMPACTD]
    result = _begin_zone(state, Compactor.KCOMPACTD, zone)
    control.is_at_work = 1
    if result != CompactResult.CONTINUE:
        _end_zone_of_kcompactd(state, result)
    return 0


@entry
def compact_slice(state: "State", limit_ps: int) -> int:
    """Go on with kcompactd's zone until the clock passes ``limit_ps``; return CONTINUE, or how it ended."""
    result = _go_on(state, Compactor.KCOMPACTD, limit_ps)
    if result != CompactResult.CONTINUE:
        _end_zone_of_kcompactd(state, result)
    return result
