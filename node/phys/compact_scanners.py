"""The two scanners of compaction: one finds pages that can move, the other free frames for them.

    zone  [ a . b c | . d . . | U . U U |  ...  | e . f . | . . g . ]
            migration scanner -->                 <-- free scanner         pageblock by pageblock

The migration scanner takes up to 32 pages off the LRU at a time. A task that does not want to wait takes from
pageblocks of its own migrate type only, and from a block of the order it wants either all pages or none: one that
cannot move spoils it. The free scanner takes whole free blocks of movable pageblocks and splits them; the zone's min
watermark is kept as for an allocation.

Both leave a hint at pageblocks in which they found nothing (node/phys/compact_defer.py).

Linux: mm/compaction.c (isolate_migratepages, isolate_migratepages_block, isolate_freepages,
isolate_freepages_block, suitable_migration_source, suitable_migration_target), mm/page_alloc.c
(__isolate_free_page).
# Differs from Linux: the migration scanner only goes on from where it was: the free lists are not searched for a
pageblock that is nearly free (fast_find_migrateblock).
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, Knob, VmEvent
from node.hw.cost import Cost
from node.joints import isolate_lru_page, putback_lru_page
from node.phys.buddy import count_free, take_block
from node.phys.compact_control import COMPACT_CLUSTER_MAX, MigrateMode
from node.phys.compact_defer import (
    has_hint,
    is_in_zone,
    is_one_huge_page,
    pageblock_end,
    pageblock_start,
    set_hint,
    update_cached_free,
    update_cached_migrate,
)
from node.phys.migrate_type import NR_PCP_TYPES, MigrateType, pageblock_type
from node.phys.page import PageFlag
from node.phys.watermarks import watermark_ok_with, watermark_request
from node.phys.zone import PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, ZoneId
from shared.constants import NIL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

# Linux's references to an isolated free frame, of which migration makes the new page's.
FREE_FRAME_REFERENCES: Final = 1


# --- free frames ----------------------------------------------------------------------------------------


@kernel
def isolate_free_block(state: "State", which: int, pfn: int) -> int:
    """Take a free block from the buddy system if its zone keeps min; return its frames, or 0."""
    zone_index = state.compact_control[which].zone
    zone = state.zone[zone_index]
    order = state.page[pfn].order
    request = watermark_request(zone.min_wmark + (1 << order), 0, ZoneId.DMA)
    if not watermark_ok_with(state, zone_index, 0, request, zone.nr_free):
        return 0
    count_free(state, zone_index, -(1 << order))
    take_block(state, zone_index, pfn)
    if order >= PAGEBLOCK_ORDER - 1:
        for at in range(pfn, pfn + (1 << order), PAGEBLOCK_PAGES):
            if pageblock_type(state, at) < NR_PCP_TYPES:
                state.pageblock[at >> PAGEBLOCK_ORDER].migrate_type = MigrateType.MOVABLE
    return 1 << order


@kernel
def add_free_frames(state: "State", which: int, pfn: int, nr_frames: int) -> None:
    """Put the frames of an isolated block at the end of the list of targets."""
    control = state.compact_control[which]
    for at in range(pfn, pfn + nr_frames):
        page = state.page[at]
        page.page_flags = PageFlag.ISOLATED
        page.refcount = FREE_FRAME_REFERENCES
        page.order = 0
        page.prev = NIL
        page.next = NIL
        if control.nr_freepages == 0:
            control.first_freepage = at
        else:
            state.page[control.last_freepage].next = at
        control.last_freepage = at
        control.nr_freepages += 1


@kernel
def take_free_frame(state: "State", which: int) -> int:
    """Return the frame that was isolated first, off the list, or NIL if there is none (compaction_alloc)."""
    control = state.compact_control[which]
    if control.nr_freepages == 0:
        return NIL
    pfn = control.first_freepage
    control.first_freepage = state.page[pfn].next
    control.nr_freepages -= 1
    return pfn


@kernel
def give_free_frame_back(state: "State", which: int, pfn: int) -> None:
    """Put a frame that was not used at the head of the list again (compaction_free)."""
    control = state.compact_control[which]
    state.page[pfn].next = control.first_freepage
    if control.nr_freepages == 0:
        state.page[pfn].next = NIL
        control.last_freepage = pfn
    control.first_freepage = pfn
    control.nr_freepages += 1


@kernel
def isolate_freepages_block(state: "State", which: int, end: int, stride: int) -> int:
    """Isolate free blocks from ``free_pfn`` up to ``end``, of one pageblock, until there are enough.

    Looks at one frame in ``stride``. Returns how many frames came; ``free_pfn`` is where the scanner stopped.
    """
    control = state.compact_control[which]
    at = control.free_pfn
    nr_scanned = 0
    nr_isolated = 0
    while at < end:
        nr_scanned += 1
        page = state.page[at]
        if page.page_flags & PageFlag.BUDDY:
            nr_frames = isolate_free_block(state, which, at)
            if nr_frames == 0:
                break
            add_free_frames(state, which, at, nr_frames)
            nr_scanned += nr_frames - 1
            nr_isolated += nr_frames
            if control.nr_migratepages <= control.nr_freepages:
                at += nr_frames
                break
            at += nr_frames - 1
        elif page.page_flags & PageFlag.COMPOUND:
            at += (1 << page.order) - 1
        at += stride
    control.free_pfn = min(at, end)
    control.nr_free_scanned += nr_scanned
    state.current[Current.CLOCK_PS] += nr_scanned * state.cost[Cost.COMPACT_SCAN]
    state.vm_event[VmEvent.COMPACT_ISOLATED] += nr_isolated
    return nr_isolated


@kernel
def _is_target(state: "State", which: int, block: int) -> int:
    """Return whether to look into a pageblock for free frames: movable, not free as a whole, without a hint."""
    control = state.compact_control[which]
    if not is_in_zone(state, control.zone, block):
        return 0
    page = state.page[block]
    if page.page_flags & PageFlag.BUDDY and page.order >= PAGEBLOCK_ORDER:
        return 0
    migrate_type = pageblock_type(state, block)
    if migrate_type == MigrateType.ISOLATE:
        return 0
    if not control.any_target and migrate_type != MigrateType.MOVABLE:
        return 0
    return 1 if control.ignore_hints or not has_hint(state, block) else 0


@kernel
def isolate_freepages(state: "State", which: int) -> None:
    """Isolate a free frame for every page that is to move, or what can be had before the scanners meet."""
    control = state.compact_control[which]
    block = pageblock_start(control.free_pfn)
    end = min(block + PAGEBLOCK_PAGES, state.zone[control.zone].end_pfn)
    lowest = pageblock_end(control.migrate_pfn)
    stride = COMPACT_CLUSTER_MAX if control.mode == MigrateMode.ASYNC else 1
    while block >= lowest:
        if _is_target(state, which, block):
            nr_isolated = isolate_freepages_block(state, which, end, stride)
            if control.free_pfn == end:
                update_cached_free(state, control.zone, block)
            if control.nr_freepages >= control.nr_migratepages:
                if control.free_pfn == end:
                    control.free_pfn = block - PAGEBLOCK_PAGES
                return
            if control.free_pfn < end:
                return  # the watermark
            stride = 1 if nr_isolated else min(COMPACT_CLUSTER_MAX, stride * 2)
        end = block
        block -= PAGEBLOCK_PAGES
        control.free_pfn = block


# --- pages that move ------------------------------------------------------------------------------------


@kernel
def _can_move(state: "State", which: int, pfn: int) -> int:
    """Return whether a page may be taken off the LRU: nobody but its mappings holds it, and it need not wait."""
    control = state.compact_control[which]
    page = state.page[pfn]
    page_flags = page.page_flags
    # Differs from Linux: one that is mapped by small entries is skipped too, not only what is larger than asked for.
    if not page_flags & PageFlag.LRU or page_flags & PageFlag.HUGE:
        return 0
    if page_flags & PageFlag.SWAPCACHE:
        if not control.may_enter_fs:
            return 0
    elif page.refcount > page.mapcount:
        return 0  # pinned
    if page_flags & PageFlag.UNEVICTABLE and not state.knob[Knob.COMPACT_UNEVICTABLE_ALLOWED]:
        return 0
    return 0 if page_flags & PageFlag.WRITEBACK and control.mode != MigrateMode.SYNC else 1


@kernel
def _isolate_page(state: "State", which: int, pfn: int) -> None:
    control = state.compact_control[which]
    if not control.skip_updated:
        control.skip_updated = 1
        if pfn == pageblock_start(pfn) and not control.ignore_hints:
            set_hint(state, pfn)  # nobody else need look into a pageblock that is being emptied
    isolate_lru_page(state, pfn)
    state.page[pfn].prev = NIL
    state.page[pfn].next = control.first_migratepage if control.nr_migratepages else NIL
    control.first_migratepage = pfn
    control.nr_migratepages += 1


@kernel
def putback_movable_pages(state: "State", which: int) -> None:
    """Put all pages that are isolated to move back on the LRU."""
    control = state.compact_control[which]
    for _ in range(control.nr_migratepages):
        pfn = control.first_migratepage
        control.first_migratepage = state.page[pfn].next
        putback_lru_page(state, pfn)
    control.nr_migratepages = 0


@kernel
def _step_over(state: "State", pfn: int) -> int:
    """Return how many frames from ``pfn`` on hold nothing that could move, since they are one block, or 0."""
    page = state.page[pfn]
    return 1 << page.order if page.page_flags & (PageFlag.BUDDY | PageFlag.COMPOUND) else 0


@kernel
def _may_begin(state: "State", which: int, pfn: int) -> int:
    """Return whether to look into a pageblock that begins at ``pfn``, or to go on in the middle of one."""
    if pfn != pageblock_start(pfn) or state.compact_control[which].ignore_hints:
        return 1
    return 0 if has_hint(state, pfn) else 1


@kernel
def _scan_pages(state: "State", which: int, low: int, end: int) -> int:
    """Isolate pages from ``low`` up to ``end``, of one pageblock; return how many, ``migrate_pfn`` is moved on.

    All or none of each block of the wanted order, for a task that does not wait.
    """
    control = state.compact_control[which]
    all_or_none = control.is_direct and control.mode == MigrateMode.ASYNC
    block_pages = 1 << control.order if all_or_none else PAGEBLOCK_PAGES
    border = (low | (block_pages - 1)) + 1
    at = low
    nr_isolated = 0
    while at < end:
        if all_or_none and at >= border:
            if nr_isolated:
                break
            border = (at | (block_pages - 1)) + 1
        control.nr_migrate_scanned += 1
        state.current[Current.CLOCK_PS] += state.cost[Cost.COMPACT_SCAN]
        if _can_move(state, which, at):
            _isolate_page(state, which, at)
            nr_isolated += 1
            at += 1
            if control.nr_migratepages >= COMPACT_CLUSTER_MAX and not control.rescan:
                break
            continue
        is_free = state.page[at].page_flags & PageFlag.BUDDY
        at += max(_step_over(state, at), 1)
        if all_or_none and not is_free:
            putback_movable_pages(state, which)
            nr_isolated = 0
            at = max(at, border)
    control.migrate_pfn = min(at, end)
    return nr_isolated


@kernel
def _isolate_migratepages_block(state: "State", which: int, low: int, end: int) -> None:
    control = state.compact_control[which]
    control.skip_updated = 0
    nr_isolated = _scan_pages(state, which, low, end)
    state.vm_event[VmEvent.COMPACT_ISOLATED] += nr_isolated
    if control.migrate_pfn == end and (nr_isolated == 0 or control.rescan):
        if low == pageblock_start(low) and not control.skip_updated:
            set_hint(state, low)
        update_cached_migrate(state, control.zone, end, control.mode)


@kernel
def _is_source(state: "State", which: int, block: int) -> int:
    """Return whether pages of a pageblock may be moved for this request (suitable_migration_source)."""
    control = state.compact_control[which]
    if is_one_huge_page(state, block):
        return 0
    if control.mode != MigrateMode.ASYNC or not control.is_direct:
        return 1
    return 1 if pageblock_type(state, block) == control.migrate_type else 0


@kernel
def isolate_migratepages(state: "State", which: int) -> int:
    """Isolate pages of the next pageblock that will do, without crossing the free scanner; return how many."""
    control = state.compact_control[which]
    low = control.migrate_pfn
    end = pageblock_end(low)
    while end <= control.free_pfn:
        if is_in_zone(state, control.zone, low) and _may_begin(state, which, low):
            if _is_source(state, which, pageblock_start(low)):
                _isolate_migratepages_block(state, which, low, end)
                break
            update_cached_migrate(state, control.zone, end, control.mode)
        low = end
        control.migrate_pfn = low
        end += PAGEBLOCK_PAGES
    return control.nr_migratepages
