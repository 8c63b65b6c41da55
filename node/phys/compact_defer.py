"""What compaction remembers of a zone, so as not to do again what was in vain.

    deferral    a failure for an order lets 1, 2, 4, ... 64 attempts of it and of larger ones be passed over; a
                success ends that
    hints       a pageblock in which a scanner found nothing is skipped
    positions   the scanners go on where they stopped, until they meet; one that does not wait for anything
                has a place of its own, since it leaves pages behind

The hints are forgotten when kswapd goes to sleep after the scanners met on behalf of a task, and by an attempt that
comes after the longest deferral. Then the scanners start at the outermost pageblocks with anything for them.

Linux: mm/compaction.c (defer_compaction, compaction_deferred, compaction_restarting, __reset_isolation_suitable,
update_cached_migrate, update_pageblock_skip).
"""

from typing import TYPE_CHECKING, Final

from node.phys.compact_control import MigrateMode
from node.phys.migrate_type import MigrateType
from node.phys.page import PageFlag
from node.phys.pcp import COSTLY_ORDER
from node.phys.zone import PAGEBLOCK_ORDER, PAGEBLOCK_PAGES
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

COMPACT_MAX_DEFER_SHIFT: Final = 6  # 64 attempts
SAMPLE_PAGES: Final = 1 << COSTLY_ORDER  # a pageblock is judged by one frame of so many


@kernel
def pageblock_start(pfn: int) -> int:
    """Return the first frame of a pageblock."""
    return pfn & ~(PAGEBLOCK_PAGES - 1)


@kernel
def pageblock_end(pfn: int) -> int:
    """Return the first frame behind a pageblock."""
    return (pfn | (PAGEBLOCK_PAGES - 1)) + 1


# --- deferral -------------------------------------------------------------------------------------------


@kernel
def defer_compaction(state: "State", zone_index: int, order: int) -> None:
    """Note a failure: pass over twice as many attempts as after the last."""
    zone = state.zone[zone_index]
    zone.compact_considered = 0
    zone.compact_defer_shift = min(zone.compact_defer_shift + 1, COMPACT_MAX_DEFER_SHIFT)
    zone.compact_order_failed = min(zone.compact_order_failed, order)


@kernel
def compaction_deferred(state: "State", zone_index: int, order: int) -> int:
    """Return whether this attempt is passed over, and count it."""
    zone = state.zone[zone_index]
    if order < zone.compact_order_failed:
        return 0
    limit = 1 << zone.compact_defer_shift
    zone.compact_considered = min(zone.compact_considered + 1, limit)
    return 1 if zone.compact_considered < limit else 0


@kernel
def compaction_defer_reset(state: "State", zone_index: int, order: int, allocated: int) -> None:
    """Note a success: the order should work now, or, if a block was ``allocated``, does."""
    zone = state.zone[zone_index]
    if allocated:
        zone.compact_considered = 0
        zone.compact_defer_shift = 0
    zone.compact_order_failed = max(zone.compact_order_failed, order + 1)


@kernel
def compaction_restarting(state: "State", zone_index: int, order: int) -> int:
    """Return whether this attempt comes after the longest deferral."""
    zone = state.zone[zone_index]
    if order < zone.compact_order_failed:
        return 0
    longest = zone.compact_defer_shift == COMPACT_MAX_DEFER_SHIFT
    return 1 if longest and zone.compact_considered >= 1 << zone.compact_defer_shift else 0


# --- positions and hints --------------------------------------------------------------------------------


@kernel
def reset_cached_positions(state: "State", zone_index: int) -> None:
    """Let the next compaction of a zone start at its ends."""
    zone = state.zone[zone_index]
    zone.compact_migrate_pfn = zone.start_pfn
    zone.compact_migrate_pfn_sync = zone.start_pfn
    zone.compact_free_pfn = pageblock_start(zone.end_pfn - 1)


@kernel
def has_hint(state: "State", pfn: int) -> int:
    """Return whether a scanner found nothing in a frame's pageblock of late."""
    return state.pageblock[pfn >> PAGEBLOCK_ORDER].skip


@kernel
def set_hint(state: "State", pfn: int) -> None:
    """Note that a frame's pageblock need not be looked at for a while."""
    state.pageblock[pfn >> PAGEBLOCK_ORDER].skip = 1


@kernel
def update_cached_migrate(state: "State", zone_index: int, pfn: int, mode: int) -> None:
    """Let the next migration scanner start behind a pageblock."""
    zone = state.zone[zone_index]
    pfn = pageblock_end(pfn)
    zone.compact_migrate_pfn = max(zone.compact_migrate_pfn, pfn)
    if mode != MigrateMode.ASYNC:
        zone.compact_migrate_pfn_sync = max(zone.compact_migrate_pfn_sync, pfn)


@kernel
def update_cached_free(state: "State", zone_index: int, pfn: int) -> None:
    """Let the next free scanner start before a pageblock that was scanned in full, and skip that."""
    set_hint(state, pfn)
    zone = state.zone[zone_index]
    zone.compact_free_pfn = min(zone.compact_free_pfn, pfn)


@kernel
def is_in_zone(state: "State", zone_index: int, pfn: int) -> int:
    """Return whether a pageblock is of a zone, not another's or a hole."""
    return 1 if state.pageblock[pfn >> PAGEBLOCK_ORDER].zone == zone_index else 0


@kernel
def is_one_huge_page(state: "State", pfn: int) -> int:
    """Return whether a pageblock is, or begins with, one that is handed out whole (pageblock_skip_persistent)."""
    page = state.page[pfn]
    if page.page_flags & PageFlag.HUGETLB:
        return 1
    return 1 if page.page_flags & PageFlag.COMPOUND and page.order >= PAGEBLOCK_ORDER else 0


@kernel
def _forget_hint(state: "State", zone_index: int, pfn: int, sought: int) -> int:
    """Forget the hint of a pageblock if a sample of it has a frame with a flag of ``sought``; return whether so."""
    if not is_in_zone(state, zone_index, pfn) or is_one_huge_page(state, pfn):
        return 0
    both = PageFlag.LRU | PageFlag.BUDDY
    if sought == both and not has_hint(state, pfn):
        return 1
    block = state.pageblock[pfn >> PAGEBLOCK_ORDER]
    if sought == PageFlag.BUDDY and block.migrate_type != MigrateType.MOVABLE:
        return 0
    end = min(pageblock_end(pfn), state.zone[zone_index].end_pfn)
    for sample in range(pageblock_start(pfn), end, SAMPLE_PAGES):
        if state.page[sample].page_flags & sought:
            block.skip = 0
            return 1
    return 0


@kernel
def reset_isolation_of_zone(state: "State", zone_index: int) -> None:
    """Forget the hints of a zone's useful pageblocks, if that is due, and start the scanners at the outermost."""
    zone = state.zone[zone_index]
    if not zone.compact_blockskip_flush:
        return
    zone.compact_blockskip_flush = 0
    low = zone.start_pfn
    high = pageblock_start(zone.end_pfn - 1)
    first_source = high
    last_target = low
    sought_low: int = PageFlag.LRU
    sought_high: int = PageFlag.BUDDY
    while low < high:
        if _forget_hint(state, zone_index, low, sought_low) and low < first_source:
            first_source = low
            sought_low = PageFlag.LRU | PageFlag.BUDDY
            zone.compact_init_migrate_pfn = low
            zone.compact_migrate_pfn = low
            zone.compact_migrate_pfn_sync = low
        if _forget_hint(state, zone_index, high, sought_high) and high > last_target:
            last_target = high
            sought_high = PageFlag.LRU | PageFlag.BUDDY
            zone.compact_init_free_pfn = high
            zone.compact_free_pfn = high
        low += PAGEBLOCK_PAGES
        high -= PAGEBLOCK_PAGES
    if first_source >= last_target:
        # No source, or no target behind it: they have met.
        zone.compact_migrate_pfn = low
        zone.compact_migrate_pfn_sync = low
        zone.compact_free_pfn = high


@entry
def reset_isolation_suitable(state: "State") -> int:
    """Forget the hints of all zones in which the scanners met on behalf of a task; return 0."""
    for zone_index in range(len(state.zone)):
        if state.zone[zone_index].present:
            reset_isolation_of_zone(state, zone_index)
    return 0
