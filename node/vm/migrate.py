"""Migration: another frame takes a page's place, and nobody who uses the page notices.

    before   PTE of A --+                  after   PTE of A --+
             PTE of B --+--> src                   PTE of B --+--> dst        src is freed
             swap slot -+                          swap slot -+

All that leads to the page is changed: the page-table entries that map it, found by reverse mapping, with their
rights and their accessed and dirty bits; its slot's place in the swap cache; its stable node, if KSM merged it. All
that its frame says of it goes along. The translations of the old frame are flushed.

A page is held by its mappings, by the swap cache, and by whoever isolated it. Somebody else's reference (a pin) means
that its frame must stay; so does a write to the device that is under way, or a read.

Linux: mm/migrate.c (folio_migrate_mapping, folio_migrate_flags, remove_migration_pte), mm/rmap.c (try_to_migrate),
mm/ksm.c (folio_migrate_ksm), mm/vmscan.c (isolate_lru_page).
# Differs from Linux: entries change from one frame to the other at once, without migration entries in between that
a fault would wait for; nobody waits for a page that is being read. A guest whose memory is moved does not fault on it.
"""

from typing import TYPE_CHECKING, Final

from node.content import copy_content
from node.counters import Current, Knob, VmEvent, VmStat
from node.hw.cost import Cost
from node.hw.ept_view import ept_access
from node.joints import end_page_writebacks, move_mappings, page_is_locked, sleep_until_written
from node.phys.compact_control import MigrateMode
from node.phys.page import PageFlag
from node.phys.page_alloc import free_pages
from node.reclaim.lru import LruList, lru_add, lru_del
from node.vm.mlock_page import is_evictable, lru_add_evictable_or_not
from shared.constants import PS_PER_MS
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

WRITEBACK_TIMEOUT_PS: Final = 100 * PS_PER_MS
IMMOVABLE: Final = (
    PageFlag.RESERVED
    | PageFlag.PAGE_TABLE
    | PageFlag.KERNEL
    | PageFlag.DMA
    | PageFlag.HUGETLB
    | PageFlag.SLAB
)


@entry
def isolate_lru_page(state: "State", pfn: int) -> int:
    """Take a page off its LRU list and hold it; return 0."""
    lru_del(state, pfn)
    page = state.page[pfn]
    page.page_flags |= PageFlag.ISOLATED
    page.refcount += 1
    state.vm_stat[VmStat.NR_ISOLATED] += 1
    return 0


@kernel
def _putback(state: "State", pfn: int) -> None:
    page = state.page[pfn]
    page.page_flags &= ~PageFlag.ISOLATED
    page.refcount -= 1
    state.vm_stat[VmStat.NR_ISOLATED] -= 1
    if page.page_flags & PageFlag.UNEVICTABLE and not is_evictable(state, pfn):
        lru_add(state, LruList.UNEVICTABLE, pfn)
        return
    active = page.page_flags & PageFlag.ACTIVE
    lru_add_evictable_or_not(state, LruList.ACTIVE_ANON if active else LruList.INACTIVE_ANON, pfn)


@entry
def putback_lru_page(state: "State", pfn: int) -> int:
    """Let go of an isolated page, which goes to the head of its LRU list; return 0."""
    _putback(state, pfn)
    return 0


@kernel
def _wait_until_movable(state: "State", pfn: int, mode: int) -> int:
    """Return whether a page may move now; waits for its write to the device if ``mode`` says so."""
    page = state.page[pfn]
    if page.page_flags & IMMOVABLE:
        return 0
    is_cached = 1 if page.page_flags & PageFlag.SWAPCACHE else 0
    if is_cached and page_is_locked(state, pfn):
        return 0
    if page.page_flags & PageFlag.WRITEBACK:
        end_page_writebacks(state)
    while page.page_flags & PageFlag.WRITEBACK:
        if mode != MigrateMode.SYNC:
            return 0
        sleep_until_written(state, 1, WRITEBACK_TIMEOUT_PS)
    return 1 if page.refcount == page.mapcount + is_cached + 1 else 0


@kernel
def _move_identity(state: "State", to: int, pfn: int) -> None:
    """Let frame ``to`` say what ``pfn`` says of its page, and hold the same content."""
    if state.knob[Knob.IS_GUEST]:
        ept_access(state, pfn, 0)
    copy_content(state, to, pfn)
    page = state.page[to]
    source = state.page[pfn]
    page.page_flags = source.page_flags
    page.mapping = source.mapping
    page.index = source.index
    page.private = source.private
    page.mlock_count = source.mlock_count
    page.mapcount = source.mapcount
    page.refcount = source.refcount


@kernel
def _leave(state: "State", pfn: int) -> None:
    """Make a frame one that only its isolation holds, and that says nothing of any page."""
    page = state.page[pfn]
    page.page_flags = PageFlag.ISOLATED
    page.mapping = 0
    page.index = 0
    page.private = 0
    page.mapcount = 0
    page.refcount = 1


@kernel
def _move_holders(state: "State", to: int, pfn: int) -> None:
    """Let the swap slot and the stable node that know the page's frame know the new one."""
    page = state.page[pfn]
    if page.page_flags & PageFlag.SWAPCACHE:
        state.swap_slot[page.private].cached_pfn = to
    if page.page_flags & PageFlag.KSM and page.mapping != 0 and state.stable_node[page.mapping].pfn == pfn:
        state.stable_node[page.mapping].pfn = to


@entry
def migrate_page(state: "State", pfn: int, to: int, mode: int) -> int:
    """Move an isolated page to an isolated free frame; return whether it moved. ``mode`` is a MigrateMode.

    If so, the page is on the LRU again, in its new frame, and the old frame is free. If not, both are as they were.
    """
    if not _wait_until_movable(state, pfn, mode):
        state.vm_event[VmEvent.PGMIGRATE_FAIL] += 1
        return 0
    state.current[Current.CLOCK_PS] += state.cost[Cost.MIGRATE_PAGE]
    _move_identity(state, to, pfn)
    if state.page[pfn].mapcount and move_mappings(state, pfn, to) != state.page[pfn].mapcount:
        # Reverse mapping of a merged page does not find a fork's that has moved on since.
        move_mappings(state, to, pfn)
        _leave(state, to)
        state.vm_event[VmEvent.PGMIGRATE_FAIL] += 1
        return 0
    state.current[Current.CLOCK_PS] += state.cost[Cost.PAGE_COPY]
    _move_holders(state, to, pfn)
    _leave(state, pfn)
    free_pages(state, pfn, 0)
    _putback(state, to)
    state.vm_event[VmEvent.PGMIGRATE_SUCCESS] += 1
    return 1
