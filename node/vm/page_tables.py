"""Making and freeing page tables of an address space (Linux: mm/memory.c, __pte_alloc, free_pgtables)."""

from typing import TYPE_CHECKING, Final

from node.content import PATTERN_TABLE, generated
from node.counters import Knob, Request, VmStat
from node.hw.page_table import entry_position, is_large_leaf, leaf_position
from node.hw.paging import MIN_LEVELS_64, PagingMode
from node.hw.pte import TABLE_BITS, Pte, make_pte, pte_pfn
from node.joints import alloc_frames, swap_in_table
from node.kmap.pti import init_pgd, set_pgd
from node.phys.page import PageFlag
from node.phys.page_alloc import free_pages
from node.vm.mmu_gather import gather_page, is_gathering
from shared.constants import NIL
from shared.gfp_flags import GFP_KERNEL
from shared.jit import hot_kernel, kernel
from shared.kernel_state import prefetch

if TYPE_CHECKING:
    from node.state import State

PGD_ORDER: Final = 1  # PGD_ALLOCATION_ORDER, whether isolation is on or not
# Who goes through a table touches a descriptor for each entry; 32 ahead was the best of 8, 16, ... 128 (make bench).
ENTRIES_AHEAD: Final = 32


@hot_kernel
def fetch_ahead(state: "State", position: int, last: int) -> None:
    """Let the host's processor bring the descriptor that is needed some entries after ``position``, up to ``last``."""
    prefetch(state.page, pte_pfn(state.pt_word[min(position + ENTRIES_AHEAD, last)]))


@kernel
def _make_table(state: "State", pfn: int) -> None:
    """Make a frame an empty table."""
    page = state.page[pfn]
    page.page_flags |= PageFlag.PAGE_TABLE
    page.private = 0  # no table is deposited with it (node/vm/huge_pmd.py)
    # No two tables hold the same bytes, so a guest's never look alike to its host's ksmd.
    page.content = generated(PATTERN_TABLE, state.knob[Knob.CONTENT_KEY], pfn)
    shift = state.knob[Knob.TABLE_SHIFT]
    for position in range(pfn << shift, (pfn + 1) << shift):
        state.pt_word[position] = 0


@kernel
def count_tables(state: "State", mm_index: int, level: int, change: int) -> None:
    """Count a table made or freed: nr_page_table_pages are those of the two lowest levels (pgtable_pmd_page_ctor)."""
    state.mm[mm_index].nr_page_tables += change
    if level >= max(state.knob[Knob.NR_LEVELS] - 2, 1):
        state.vm_stat[VmStat.NR_PAGE_TABLE_PAGES] += change


@kernel
def alloc_table(state: "State", mm_index: int, level: int) -> int:
    """Return a frame that holds an empty table of ``level``, below the top, or NIL if there is no memory."""
    pfn = alloc_frames(state, 0, GFP_KERNEL)
    if pfn == NIL:
        return NIL
    _make_table(state, pfn)
    count_tables(state, mm_index, level, 1)
    return pfn


@kernel
def free_table(state: "State", mm_index: int, level: int, pfn: int) -> None:
    """Give back the frame of a table of ``level``, below the top: of an unmapping, with its pages."""
    if is_gathering(state):
        gather_page(state, pfn)
    else:
        free_pages(state, pfn, 0)
    count_tables(state, mm_index, level, -1)


@kernel
def alloc_upto(state: "State", mm_index: int, vaddr: int, levels: int) -> int:
    """Return where the entry for ``vaddr`` of the table ``levels`` below the top stands, making tables; or NIL."""
    table = state.mm[mm_index].pgd_pfn
    for level in range(levels):
        position = entry_position(state, table, vaddr, level)
        word = state.pt_word[position]
        if word & Pte.PRESENT:
            table = pte_pfn(word)
            continue
        if word != 0:  # swapped out (node/vm/table_swap.py)
            if swap_in_table(state, mm_index, vaddr) == NIL:
                return NIL
            table = pte_pfn(state.pt_word[position])
            continue
        table = alloc_table(state, mm_index, level + 1)
        if table == NIL:
            return NIL
        set_table(state, level, position, make_pte(table, TABLE_BITS))
    return entry_position(state, table, vaddr, levels)


@kernel
def set_table(state: "State", level: int, position: int, word: int) -> None:
    """Write an entry that leads to a table; with page-table isolation, one of the top level in both copies."""
    if level == 0:
        set_pgd(state, position, word)
    else:
        state.pt_word[position] = word


@kernel
def pte_alloc(state: "State", mm_index: int, vaddr: int) -> int:
    """Return where in ``pt_word`` the last level's entry for ``vaddr`` stands, making tables; NIL without memory."""
    return alloc_upto(state, mm_index, vaddr, state.knob[Knob.NR_LEVELS] - 1)


@kernel
def pmd_alloc(state: "State", mm_index: int, vaddr: int) -> int:
    """Return where the entry for ``vaddr`` of the level above the last stands, making tables; NIL without memory."""
    return alloc_upto(state, mm_index, vaddr, state.knob[Knob.NR_LEVELS] - 2)


# --- the top table --------------------------------------------------------------------------------------


@kernel
def alloc_pgd(state: "State", mm_index: int) -> int:
    """Give an address space its top table, with the kernel's half; return its frame, or NIL without memory.

    On 64-bit machines it is the first of a pair: with page-table isolation the second is user mode's. Top tables
    count nowhere, as in Linux.
    """
    if state.knob[Knob.PAGING_MODE] == PagingMode.NONE:
        return 0
    order = PGD_ORDER if state.knob[Knob.NR_LEVELS] >= MIN_LEVELS_64 else 0
    pfn = alloc_frames(state, order, GFP_KERNEL)
    if pfn == NIL:
        return NIL
    for table in range(pfn, pfn + (1 << order)):
        _make_table(state, table)
    init_pgd(state, pfn)
    state.mm[mm_index].pgd_pfn = pfn
    return pfn


@kernel
def _free_pgd(state: "State", mm_index: int) -> None:
    order = PGD_ORDER if state.knob[Knob.NR_LEVELS] >= MIN_LEVELS_64 else 0
    pfn = state.mm[mm_index].pgd_pfn
    for table in range(pfn, pfn + (1 << order)):
        state.page[table].page_flags &= ~PageFlag.PAGE_TABLE
    free_pages(state, pfn, order)


@kernel
def free_page_tables(state: "State", mm_index: int) -> None:
    """Free all tables of an address space that maps nothing any more, and its top table.

    Goes through the upper tables in order of address. The way down is kept in Request.A0..A4, a table a level.
    """
    levels = state.knob[Knob.NR_LEVELS] - 1
    if levels < 0:
        return
    state.request[Request.A0] = state.mm[mm_index].pgd_pfn
    level = 0
    vaddr = 0
    while level >= 0:
        if level == 0 and vaddr >= state.knob[Knob.TASK_SIZE]:
            break
        table = state.request[Request.A0 + level]
        here = state.paging_level[level]
        word = state.pt_word[entry_position(state, table, vaddr, level)]
        if word & Pte.PRESENT and not is_large_leaf(state, level, word):
            if level < levels - 1:
                level += 1
                state.request[Request.A0 + level] = pte_pfn(word)
                continue
            free_table(state, mm_index, levels, pte_pfn(word))
        vaddr += 1 << here.shift
        # Behind the last entry of a table, it goes on in the one above, behind the entry that led here.
        while (
            level > 0 and vaddr >> state.paging_level[level].shift & state.paging_level[level].index_mask == 0
        ):
            free_table(state, mm_index, level, state.request[Request.A0 + level])
            level -= 1
    _free_pgd(state, mm_index)


# --- tables that an area leaves behind ------------------------------------------------------------------


@kernel
def _free_tables_of_level(state: "State", mm_index: int, level: int) -> int:
    """Free the tables of a level that the area gone needed and no other does; return how many.

    Request.A0..A3: end of the area below, start of the area above (-1: none), start and end of the area gone.
    """
    floor = state.request[Request.A0]
    ceiling = state.request[Request.A1]
    span = 1 << state.paging_level[level - 1].shift
    vaddr = state.request[Request.A2] // span * span
    nr_freed = 0
    while vaddr < state.request[Request.A3]:
        if vaddr >= floor and (ceiling < 0 or vaddr + span <= ceiling):
            position = leaf_position(state, state.mm[mm_index].pgd_pfn, vaddr, level - 1)
            if position != NIL:
                word = state.pt_word[position]
                if word & Pte.PRESENT and not is_large_leaf(state, level - 1, word):
                    set_table(state, level - 1, position, 0)
                    free_table(state, mm_index, level, pte_pfn(word))
                    nr_freed += 1
        vaddr += span
    return nr_freed


@kernel
def free_unused_tables(state: "State", mm_index: int, start: int, end: int) -> int:
    """Free the tables that served only the area [start, end), which maps nothing any more; return how many.

    Request.A0 is the end of the area below it, or 0; Request.A1 the start of the area above, or -1.
    """
    state.request[Request.A2] = start
    state.request[Request.A3] = end
    nr_freed = 0
    for level in range(state.knob[Knob.NR_LEVELS] - 1, 0, -1):
        nr_freed += _free_tables_of_level(state, mm_index, level)
    return nr_freed
