"""What the 512 frames of a transparent huge page count, and the queue of those of which only a part is still mapped.

    huge_mapcount of the head    entries of the PMD level that map the whole page
    mapcount of each frame       entries of the last level that map it, after a split of somebody's PMD entry
    DOUBLE_MAP of the head       both kinds exist: each frame's mapcount has one more, for the PMD's

So a frame is unmapped when its mapcount falls to 0, whichever entries go last. The head alone has references, one
for each entry of either kind, and stands for all on an LRU list.

When a part of the page is unmapped and another is not, its memory cannot be used until the page is split. That is put
off: the page waits in the deferred queue for a reclaim that needs the memory (huge_page_split.py). The queue is linked
through the page's second frame, which is on no list.

Linux: mm/rmap.c (page_add_new_anon_rmap, page_remove_anon_compound_rmap), mm/huge_memory.c (deferred_split_huge_page,
free_transhuge_page).
# Differs from Linux: there is one deferred queue for all NUMA nodes.
"""

from typing import TYPE_CHECKING

from node.counters import Current, Panic, VmEvent, VmStat
from node.hw.page_table import pte_position
from node.hw.pte import Pte, pte_pfn
from node.phys.page import PageFlag
from node.phys.page_alloc import free_pages
from node.phys.zone import PAGEBLOCK_ORDER
from node.reclaim.lru import lru_del
from node.vm.mlock_page import clear_mlocked
from node.vm.rmap import linear_page_index, page_address_in_vma
from shared.constants import ENTRIES_PER_TABLE, NIL, PAGE_SHIFT
from shared.jit import bug_on, entry, kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def make_huge_anon(state: "State", pfn: int, vma_index: int, vaddr: int) -> None:
    """Make a block of 512 frames an exclusive anonymous huge page of the area, mapped once, at ``vaddr`` (aligned)."""
    anon_vma = state.vma[vma_index].anon_vma
    index = linear_page_index(state, vma_index, vaddr)
    for number in range(ENTRIES_PER_TABLE):
        page = state.page[pfn + number]
        page.page_flags = PageFlag.HUGE | PageFlag.ANON | PageFlag.SWAPBACKED
        page.mapping = anon_vma
        page.index = index + number
        page.mapcount = 0
        page.head = pfn
        page.private = 0
    head = state.page[pfn]
    head.page_flags |= PageFlag.ANON_EXCLUSIVE
    head.huge_mapcount = 1
    state.vm_stat[VmStat.NR_ANON_PAGES] += ENTRIES_PER_TABLE
    state.vm_stat[VmStat.NR_ANON_TRANSPARENT_HUGEPAGES] += 1


@kernel
def part_position(state: "State", vma_index: int, pfn: int, number: int) -> int:
    """Return where in ``pt_word`` an area's last-level entry for frame ``number`` of the 512 from ``pfn`` is, or NIL.

    They are one huge page, or were until now: the first one's index stands for all.
    """
    vma = state.vma[vma_index]
    vaddr = page_address_in_vma(state, vma_index, state.page[pfn].index) + (number << PAGE_SHIFT)
    if not vma.start <= vaddr < vma.end:
        return NIL
    position = pte_position(state, state.mm[vma.mm].pgd_pfn, vaddr)
    if position == NIL:
        return NIL
    pte = state.pt_word[position]
    return position if pte & Pte.PRESENT and pte_pfn(pte) == pfn + number else NIL


@kernel
def page_remove_huge_rmap(state: "State", pfn: int) -> None:
    """Count one entry of the PMD level less that maps the huge page with head ``pfn``."""
    head = state.page[pfn]
    bug_on(state, head.huge_mapcount <= 0, Panic.MAPCOUNT, pfn)
    head.huge_mapcount -= 1
    if head.huge_mapcount > 0:
        return
    state.vm_stat[VmStat.NR_ANON_TRANSPARENT_HUGEPAGES] -= 1
    nr_unmapped = ENTRIES_PER_TABLE
    if head.page_flags & PageFlag.DOUBLE_MAP:
        nr_unmapped = drop_double_map(state, pfn)
        if 0 < nr_unmapped < ENTRIES_PER_TABLE:
            defer_split(state, pfn)
    state.vm_stat[VmStat.NR_ANON_PAGES] -= nr_unmapped


@kernel
def drop_double_map(state: "State", pfn: int) -> int:
    """Take the PMD's share off every frame's mapcount; return how many frames that leaves unmapped."""
    state.page[pfn].page_flags &= ~PageFlag.DOUBLE_MAP
    nr_unmapped = 0
    for frame in range(pfn, pfn + ENTRIES_PER_TABLE):
        page = state.page[frame]
        page.mapcount -= 1
        if page.mapcount == 0:
            nr_unmapped += 1
    return nr_unmapped


@kernel
def total_mapcount(state: "State", pfn: int) -> int:
    """Return how many entries of either level map a huge page or a part of it."""
    head = state.page[pfn]
    total = head.huge_mapcount
    for frame in range(pfn, pfn + ENTRIES_PER_TABLE):
        total += state.page[frame].mapcount
    if head.page_flags & PageFlag.DOUBLE_MAP:
        total -= ENTRIES_PER_TABLE
    return total


# --- the deferred queue ---------------------------------------------------------------------------------


@kernel
def is_deferred(state: "State", pfn: int) -> int:
    """Return whether a huge page is in the deferred queue."""
    return state.page[pfn + 1].private


@kernel
def defer_split(state: "State", pfn: int) -> None:
    """Put a huge page at the end of the deferred queue, if it is not there."""
    if is_deferred(state, pfn):
        return
    state.vm_event[VmEvent.THP_DEFERRED_SPLIT_PAGE] += 1
    link = state.page[pfn + 1]
    link.private = 1
    link.next = NIL
    link.prev = state.current[Current.DEFERRED_LAST] if state.current[Current.NR_DEFERRED] else NIL
    if link.prev == NIL:
        state.current[Current.DEFERRED_FIRST] = pfn
    else:
        state.page[link.prev + 1].next = pfn
    state.current[Current.DEFERRED_LAST] = pfn
    state.current[Current.NR_DEFERRED] += 1


@kernel
def leave_deferred(state: "State", pfn: int) -> None:
    """Take a huge page out of the deferred queue, if it is there."""
    if not is_deferred(state, pfn):
        return
    link = state.page[pfn + 1]
    if link.prev == NIL:
        state.current[Current.DEFERRED_FIRST] = link.next
    else:
        state.page[link.prev + 1].next = link.next
    if link.next == NIL:
        state.current[Current.DEFERRED_LAST] = link.prev
    else:
        state.page[link.next + 1].prev = link.prev
    link.private = 0
    state.current[Current.NR_DEFERRED] -= 1


@entry
def deferred_split_huge_page(state: "State", pfn: int) -> int:
    """Do what ``defer_split`` does, for callers that rarely meet huge pages; return 0."""
    defer_split(state, pfn)
    return 0


# --- the end --------------------------------------------------------------------------------------------


@entry
def free_huge_page(state: "State", pfn: int) -> int:
    """Give back a huge page that nobody refers to any more; return 0."""
    leave_deferred(state, pfn)
    head = state.page[pfn]
    bug_on(state, head.huge_mapcount != 0, Panic.MAPCOUNT, pfn)
    if head.page_flags & PageFlag.LRU:
        lru_del(state, pfn)
    clear_mlocked(state, pfn)
    for frame in range(pfn, pfn + ENTRIES_PER_TABLE):
        page = state.page[frame]
        bug_on(state, page.mapcount != 0, Panic.MAPCOUNT, frame)
        page.page_flags = 0
        page.mapping = 0
        page.head = 0
    free_pages(state, pfn, PAGEBLOCK_ORDER)
    return 0
