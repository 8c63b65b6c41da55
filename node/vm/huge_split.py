"""Splitting an entry of the PMD: 512 entries of the last level map the same huge page.

    PMD --HUGE--> 512 frames     ->     PMD --> table --> 512 frames, still one huge page

munmap, mprotect and madvise of a part, and copy-on-write, need entries of their own for single frames. The table was
deposited with the huge entry, so this cannot fail. The rights stay; what was dirty is the page's mark from now on.
Borders of areas never lie within a huge entry: whoever makes one splits there first (split_vma).

The huge page of zeroes becomes 512 entries of the small one. Where the area is locked, the page is no longer, as far as
this entry goes: parts of huge pages are not.

Linux: mm/huge_memory.c (__split_huge_pmd_locked, __split_huge_zero_page_pmd, vma_adjust_trans_huge).
"""

from typing import TYPE_CHECKING

from node.counters import Current, Knob, VmEvent, VmStat
from node.hw.pte import TABLE_BITS, Pte, make_pte, pte_pfn
from node.kmap.flush_calls import flush_tlb_page
from node.phys.page import PageFlag
from node.vm.huge_pmd import huge_position, is_huge_zero, pmd_level, withdraw_table
from node.vm.huge_rmap import drop_double_map
from node.vm.mlock_page import munlock_page
from node.vm.page_tables import set_table
from node.vm.vma import VmFlag, flags_at
from shared.constants import ENTRIES_PER_TABLE, HUGE_PAGE_SIZE, NIL
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def _count_split(state: "State", pfn: int) -> None:
    """Count 512 entries of the last level for one of the PMD level."""
    head = state.page[pfn]
    head.refcount += ENTRIES_PER_TABLE - 1
    exclusive = head.page_flags & PageFlag.ANON_EXCLUSIVE
    double = 1 if head.huge_mapcount > 1 and not head.page_flags & PageFlag.DOUBLE_MAP else 0
    for frame in range(pfn, pfn + ENTRIES_PER_TABLE):
        page = state.page[frame]
        page.mapcount += 1 + double
        page.page_flags |= exclusive
    if double:
        head.page_flags |= PageFlag.DOUBLE_MAP
    head.huge_mapcount -= 1
    if head.huge_mapcount == 0:
        state.vm_stat[VmStat.NR_ANON_TRANSPARENT_HUGEPAGES] -= 1
        if head.page_flags & PageFlag.DOUBLE_MAP:
            drop_double_map(state, pfn)


@kernel
def split_huge_pmd(state: "State", mm_index: int, position: int, vaddr: int) -> None:
    """Split the entry at ``position``, which maps a transparent huge page around ``vaddr``."""
    state.vm_event[VmEvent.THP_SPLIT_PMD] += 1
    word = state.pt_word[position]
    flush_tlb_page(state, mm_index, vaddr & ~(HUGE_PAGE_SIZE - 1))
    table = withdraw_table(state, position)
    first = table << state.knob[Knob.TABLE_SHIFT]
    pfn = pte_pfn(word)
    bits = word & ~make_pte(pfn, Pte.HUGE | Pte.DIRTY)
    if is_huge_zero(state, word):
        state.current[Current.HUGE_ZERO_USERS] -= 1
        state.mm[mm_index].nr_zero += ENTRIES_PER_TABLE
        pte = make_pte(state.knob[Knob.ZERO_PFN], bits)
        for number in range(ENTRIES_PER_TABLE):
            state.pt_word[first + number] = pte
    else:
        if word & Pte.DIRTY:
            state.page[pfn].page_flags |= PageFlag.DIRTY
        _count_split(state, pfn)
        if flags_at(state, mm_index, vaddr) & VmFlag.LOCKED:
            munlock_page(state, pfn)
        for number in range(ENTRIES_PER_TABLE):
            state.pt_word[first + number] = make_pte(pfn + number, bits)
    set_table(state, pmd_level(state), position, make_pte(table, TABLE_BITS))


@kernel
def _split_at(state: "State", mm_index: int, vaddr: int) -> int:
    position = huge_position(state, mm_index, vaddr)
    if position == NIL:
        return 0
    split_huge_pmd(state, mm_index, position, vaddr)
    return 1


@entry
def split_huge_at(state: "State", mm_index: int, vaddr: int) -> int:
    """Split the huge entry that maps ``vaddr``, if one does; return whether."""
    return _split_at(state, mm_index, vaddr)


@entry
def split_huge_range(state: "State", mm_index: int, start: int, end: int) -> int:
    """Split the huge entries that lie only in part in [start, end); return how many."""
    nr_split = 0
    if start & (HUGE_PAGE_SIZE - 1):
        nr_split += _split_at(state, mm_index, start)
    if end & (HUGE_PAGE_SIZE - 1):
        nr_split += _split_at(state, mm_index, end)
    return nr_split
