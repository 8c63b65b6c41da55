"""Pages locked in memory: the flag, the count of who locks a page, and the list that reclaim does not look at.

    mlock_vma_page      an entry of a locked area maps the page:  MLOCKED, onto the unevictable list, count + 1
    munlock_vma_page    it does so no more:                       count - 1; at 0 no longer MLOCKED, back to its list

    evictable lists  -- culled -->  unevictable list  -- rescued -->  inactive or active list

``mlock_count`` counts locked areas only while the page is on the unevictable list, and may fall short of them: where a
page was off its list meanwhile, reclaim finds the area that still locks it, and culls it again. In Linux the count
shares a word with the list's links; here it has a field of its own, since the links are in use.

Pages of a file system that lives in memory are unevictable too, locked or not.

A huge page is locked as a whole, through its head, by the entries that map it whole. Entries of a part lock nothing.

Linux: mm/mlock.c (__mlock_page, __mlock_new_page, __munlock_page, mlock_folio, mlock_new_page, munlock_page),
mm/internal.h (folio_evictable, mlock_vma_page), mm/page_alloc.c (free_pages_prepare).
# Differs from Linux: pages change lists at once, not in batches of 15 gathered by each CPU, so none is stranded on the
way.
"""

from typing import TYPE_CHECKING, Final

from node.counters import VmEvent, VmStat
from node.inode_kind import InodeKind
from node.phys.page import PageFlag
from node.reclaim.lru import LruList, lru_add, lru_del, lru_for, lru_size
from node.vm.vma import VmFlag
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

MOST_LOCKERS: Final = (1 << 15) - 1  # that the field counts
NOT_LOCKED: Final = PageFlag.ZERO_PAGE | PageFlag.HUGETLB


@kernel
def is_evictable(state: "State", pfn: int) -> int:
    """Return whether reclaim may ever take a page (folio_evictable)."""
    page = state.page[pfn]
    if page.page_flags & PageFlag.MLOCKED:
        return 0
    if page.page_flags & PageFlag.CACHED and state.inode[page.mapping].kind == InodeKind.RAMFS:
        return 0
    return 1


@kernel
def _cull(state: "State", pfn: int, mlock_count: int) -> None:
    """Put a page that is on no list on the unevictable one."""
    page = state.page[pfn]
    page.page_flags &= ~PageFlag.ACTIVE
    page.mlock_count = mlock_count
    lru_add(state, LruList.UNEVICTABLE, pfn)
    state.vm_event[VmEvent.UNEVICTABLE_PGS_CULLED] += lru_size(state, pfn)


@kernel
def lru_add_evictable_or_not(state: "State", which: int, pfn: int) -> None:
    """Put a page that is on no list on ``which``, or on the unevictable list if that is its place (lru_add_fn)."""
    if is_evictable(state, pfn):
        lru_add(state, which, pfn)
    else:
        _cull(state, pfn, 0)


@kernel
def _set_mlocked(state: "State", pfn: int) -> None:
    page = state.page[pfn]
    if not page.page_flags & PageFlag.MLOCKED:
        page.page_flags |= PageFlag.MLOCKED
        state.vm_stat[VmStat.NR_MLOCK] += lru_size(state, pfn)
        state.vm_event[VmEvent.UNEVICTABLE_PGS_MLOCKED] += lru_size(state, pfn)


@kernel
def mlock_page(state: "State", pfn: int) -> None:
    """Lock a page, or a huge page by its head, once more (mlock_folio)."""
    page = state.page[pfn]
    if page.page_flags & NOT_LOCKED:
        return
    _set_mlocked(state, pfn)
    if not page.page_flags & PageFlag.LRU:
        return
    if page.page_flags & PageFlag.UNEVICTABLE:
        page.mlock_count = min(page.mlock_count + 1, MOST_LOCKERS)
        return
    lru_del(state, pfn)
    _cull(state, pfn, 1)


@kernel
def munlock_page(state: "State", pfn: int) -> None:
    """Lock a page once less; with the last lock gone it can be reclaimed again."""
    page = state.page[pfn]
    if page.page_flags & NOT_LOCKED:
        return
    on_list = page.page_flags & PageFlag.LRU
    if on_list and page.page_flags & PageFlag.UNEVICTABLE:
        page.mlock_count = max(page.mlock_count - 1, 0)
        if page.mlock_count:
            return
    if page.page_flags & PageFlag.MLOCKED:
        page.page_flags &= ~PageFlag.MLOCKED
        state.vm_stat[VmStat.NR_MLOCK] -= lru_size(state, pfn)
        state.vm_event[VmEvent.UNEVICTABLE_PGS_MUNLOCKED] += lru_size(state, pfn)
    if on_list and page.page_flags & PageFlag.UNEVICTABLE and is_evictable(state, pfn):
        lru_del(state, pfn)
        page.page_flags &= ~PageFlag.UNEVICTABLE
        lru_add(state, lru_for(state, pfn), pfn)
        state.vm_event[VmEvent.UNEVICTABLE_PGS_RESCUED] += lru_size(state, pfn)


@kernel
def mlock_vma_page(state: "State", pfn: int, vma_index: int) -> None:
    """Lock a page that an area has come to map by an entry of the last level, if the area is locked."""
    if state.vma[vma_index].vm_flags & VmFlag.LOCKED and not state.page[pfn].page_flags & PageFlag.HUGE:
        mlock_page(state, pfn)


@kernel
def munlock_vma_page(state: "State", pfn: int, vma_index: int) -> None:
    """Unlock a page that an area maps no more by an entry of the last level, if the area is locked."""
    if state.vma[vma_index].vm_flags & VmFlag.LOCKED and not state.page[pfn].page_flags & PageFlag.HUGE:
        munlock_page(state, pfn)


@kernel
def lru_add_new_page(state: "State", pfn: int, vma_index: int) -> None:
    """Put an area's new anonymous page, small or huge, on a list (lru_cache_add_inactive_or_unevictable)."""
    if state.vma[vma_index].vm_flags & VmFlag.LOCKED:
        _set_mlocked(state, pfn)
        state.page[pfn].page_flags |= PageFlag.SWAPBACKED
        _cull(state, pfn, 1)
    else:
        lru_add(state, LruList.INACTIVE_ANON, pfn)


@kernel
def clear_mlocked(state: "State", pfn: int) -> None:
    """Forget the lock of a page that is freed with it (free_pages_prepare)."""
    page = state.page[pfn]
    if page.page_flags & PageFlag.MLOCKED:
        page.page_flags &= ~PageFlag.MLOCKED
        state.vm_stat[VmStat.NR_MLOCK] -= lru_size(state, pfn)
        state.vm_event[VmEvent.UNEVICTABLE_PGS_CLEARED] += lru_size(state, pfn)
