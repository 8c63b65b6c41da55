"""fork of a huge entry: the child maps the same huge page, and neither may write it from now on.

The child's entry has a deposited table of its own. The page is nobody's alone any more.

Linux: mm/huge_memory.c (copy_huge_pmd).
"""

from typing import TYPE_CHECKING

from node.counters import Current
from node.hw.pte import Pte, pte_pfn
from node.phys.page import PageFlag
from node.vm.huge_pmd import (
    alloc_deposit,
    deposit_table,
    free_deposit,
    huge_position,
    is_huge_zero,
    note_huge_view,
)
from node.vm.page_tables import pmd_alloc
from shared.constants import ENTRIES_PER_TABLE, NIL
from shared.jit import entry
from shared.views import View

if TYPE_CHECKING:
    from node.state import State


@entry
def copy_huge_pmd(state: "State", child: int, parent: int, vaddr: int) -> int:
    """Let a child map what the parent maps at ``vaddr`` by a transparent huge page, if so.

    Returns whether there is one; NIL without memory.
    """
    if huge_position(state, parent, vaddr) == NIL:
        return 0
    to = pmd_alloc(state, child, vaddr)
    if to == NIL:
        return NIL
    table = alloc_deposit(state, child)
    if table == NIL:
        return NIL
    # Reclaim, for the child's tables, may have split the page meanwhile. Then its small entries are to be copied.
    position = huge_position(state, parent, vaddr)
    if position == NIL:
        free_deposit(state, child, table)
        return 0
    word = state.pt_word[position]
    if is_huge_zero(state, word):
        state.current[Current.HUGE_ZERO_USERS] += 1
    else:
        page = state.page[pte_pfn(word)]
        page.refcount += 1
        page.huge_mapcount += 1
        page.page_flags &= ~PageFlag.ANON_EXCLUSIVE
        state.mm[child].nr_anon += ENTRIES_PER_TABLE
    deposit_table(state, to, table)
    if word & Pte.WRITE:
        note_huge_view(state, parent, vaddr, View.READ_ONLY)
    state.pt_word[position] = word & ~Pte.WRITE
    state.pt_word[to] = word & ~(Pte.WRITE | Pte.ACCESSED)
    return 1
