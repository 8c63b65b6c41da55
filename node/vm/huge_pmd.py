"""Entries of the PMD that map a transparent huge page, and the page table that each of them has in reserve.

    PMD table --> [ .. | HUGE -> 512 frames | .. | HUGE -> 512 frames | .. ]
        |
        +-------> table <-> table          deposited: one for each such entry, in a ring

A huge page must be able to become 512 small ones at any time, when there may be no memory. So a page table is
allocated with each huge entry, counted like any other, and kept with the PMD's own table. Splitting the entry
withdraws one and fills it in; unmapping it whole gives one back.

Linux: mm/pgtable-generic.c (pgtable_trans_huge_deposit, pgtable_trans_huge_withdraw), mm/huge_memory.c (zap_huge_pmd,
zap_deposited_table).
"""

from typing import TYPE_CHECKING

from node.counters import Current, Knob, Panic
from node.hw.page_table import is_large_leaf, leaf_position
from node.hw.pte import Pte, pte_pfn
from node.joints import note_view_change
from node.phys.page import PageFlag
from node.phys.page_alloc import free_pages
from node.vm.huge_rmap import page_remove_huge_rmap
from node.vm.mmu_gather import gather_page
from node.vm.page_tables import alloc_table, count_tables
from shared.constants import ENTRIES_PER_TABLE, HUGE_PAGE_SIZE, NIL, PAGE_SIZE
from shared.jit import bug_on, entry, kernel
from shared.views import View

if TYPE_CHECKING:
    from node.state import State


@kernel
def pmd_level(state: "State") -> int:
    """Return the level, from the top, of the tables whose entries map huge pages."""
    return state.knob[Knob.NR_LEVELS] - 2


@kernel
def is_thp_entry(state: "State", word: int) -> int:
    """Return whether a word of the PMD level maps a transparent huge page, the one of zeroes included."""
    if not word & Pte.PRESENT or not is_large_leaf(state, pmd_level(state), word):
        return 0
    return 1 if state.page[pte_pfn(word)].page_flags & (PageFlag.HUGE | PageFlag.ZERO_PAGE) else 0


@kernel
def huge_position(state: "State", mm_index: int, vaddr: int) -> int:
    """Return where in ``pt_word`` the entry that maps ``vaddr`` by a transparent huge page stands, or NIL."""
    level = pmd_level(state)
    if level < 0 or 1 << state.knob[Knob.TABLE_SHIFT] != ENTRIES_PER_TABLE:
        return NIL
    position = leaf_position(state, state.mm[mm_index].pgd_pfn, vaddr, level)
    if position == NIL or not is_thp_entry(state, state.pt_word[position]):
        return NIL
    return position


@kernel
def is_huge_zero(state: "State", word: int) -> int:
    """Return whether an entry that maps a transparent huge page maps the one of zeroes."""
    return 1 if pte_pfn(word) == state.current[Current.HUGE_ZERO_PFN] else 0


# --- deposited tables -----------------------------------------------------------------------------------


@kernel
def alloc_deposit(state: "State", mm_index: int) -> int:
    """Return a new table of the last level, counted, for ``deposit_table``; or NIL without memory."""
    return alloc_table(state, mm_index, pmd_level(state) + 1)


@kernel
def deposit_table(state: "State", position: int, table: int) -> None:
    """Keep a table in reserve for the huge entry at ``position``."""
    keeper = state.page[position >> state.knob[Knob.TABLE_SHIFT]]
    page = state.page[table]
    first = keeper.private
    if first == 0:
        page.next = table
        page.prev = table
    else:
        page.prev = first
        page.next = state.page[first].next
        state.page[page.next].prev = table
        state.page[first].next = table
    keeper.private = table


@kernel
def withdraw_table(state: "State", position: int) -> int:
    """Take back a table that was kept for a huge entry of the same PMD table."""
    keeper = state.page[position >> state.knob[Knob.TABLE_SHIFT]]
    table = keeper.private
    bug_on(state, table == 0, Panic.HUGE_PAGE, position)
    page = state.page[table]
    if page.next == table:
        keeper.private = 0
    else:
        keeper.private = page.next
        state.page[page.next].prev = page.prev
        state.page[page.prev].next = page.next
    page.next = NIL
    page.prev = NIL
    return table


@kernel
def free_deposit(state: "State", mm_index: int, table: int) -> None:
    """Free a table of the last level that nothing leads to."""
    free_pages(state, table, 0)
    count_tables(state, mm_index, pmd_level(state) + 1, -1)


# --- unmapping ------------------------------------------------------------------------------------------


@kernel
def note_huge_view(state: "State", mm_index: int, vaddr: int, view: int) -> None:
    """Tell a guest whose memory this is that its View of all 512 pages is another, on a host."""
    if state.knob[Knob.IS_HOST]:
        start = vaddr & ~(HUGE_PAGE_SIZE - 1)
        for at in range(start, start + HUGE_PAGE_SIZE, PAGE_SIZE):
            note_view_change(state, mm_index, at, view)


@entry
def zap_huge_pmd(state: "State", mm_index: int, position: int, vaddr: int) -> int:
    """Empty the entry at ``position``, which maps a transparent huge page whole; return 0. For an unmapping."""
    word = state.pt_word[position]
    state.pt_word[position] = 0
    if is_huge_zero(state, word):
        state.current[Current.HUGE_ZERO_USERS] -= 1
        free_deposit(state, mm_index, withdraw_table(state, position))
    else:
        pfn = pte_pfn(word)
        page_remove_huge_rmap(state, pfn)
        free_deposit(state, mm_index, withdraw_table(state, position))
        state.mm[mm_index].nr_anon -= ENTRIES_PER_TABLE
        gather_page(state, pfn)
    note_huge_view(state, mm_index, vaddr, View.UNTOUCHED)
    return 0
