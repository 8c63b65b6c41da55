"""Making and freeing page tables of an address space (Linux: mm/memory.c, __pte_alloc, free_pgtables)."""

from typing import TYPE_CHECKING

from node.content import PATTERN_TABLE, generated
from node.counters import Knob, Request, VmStat
from node.hw.page_table import NR_LEVELS, TOP_SHIFT, entry_position
from node.hw.pte import TABLE_BITS, Pte, make_pte, pte_pfn
from node.joints import alloc_frames
from node.phys.page import PageFlag
from node.phys.page_alloc import Gfp, free_pages
from shared.constants import ENTRIES_PER_TABLE, NIL, PAGE_SHIFT, TABLE_SHIFT
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def alloc_table(state: "State", mm_index: int) -> int:
    """Return a frame that holds an empty table, or NIL if there is no memory."""
    pfn = alloc_frames(state, 0, Gfp.RECLAIM)
    if pfn == NIL:
        return NIL
    page = state.page[pfn]
    page.page_flags |= PageFlag.PAGE_TABLE
    # No two tables hold the same bytes, so a guest's never look alike to its host's ksmd.
    page.content = generated(PATTERN_TABLE, state.knob[Knob.CONTENT_KEY], pfn)
    base = pfn << TABLE_SHIFT
    for i in range(ENTRIES_PER_TABLE):
        state.pt_word[base + i] = 0
    state.vm_stat[VmStat.NR_PAGE_TABLE_PAGES] += 1
    state.mm[mm_index].nr_page_tables += 1
    return pfn


@kernel
def free_table(state: "State", mm_index: int, pfn: int) -> None:
    """Give back the frame of a table."""
    free_pages(state, pfn, 0)
    state.vm_stat[VmStat.NR_PAGE_TABLE_PAGES] -= 1
    state.mm[mm_index].nr_page_tables -= 1


@kernel
def pte_alloc(state: "State", mm_index: int, vaddr: int) -> int:
    """Return where in ``pt_word`` the leaf entry for ``vaddr`` stands, making tables; NIL without memory."""
    table = state.mm[mm_index].pgd_pfn
    for level in range(NR_LEVELS - 1):
        position = entry_position(table, vaddr, TOP_SHIFT - TABLE_SHIFT * level)
        word = state.pt_word[position]
        if word & Pte.PRESENT:
            table = pte_pfn(word)
            continue
        table = alloc_table(state, mm_index)
        if table == NIL:
            return NIL
        state.pt_word[position] = make_pte(table, TABLE_BITS)
    return entry_position(table, vaddr, PAGE_SHIFT)


@kernel
def free_page_tables(state: "State", mm_index: int) -> None:
    """Free all tables of an address space that maps nothing any more, and its PGD."""
    pgd = state.mm[mm_index].pgd_pfn
    for i in range(ENTRIES_PER_TABLE):
        pud_word = state.pt_word[(pgd << TABLE_SHIFT) + i]
        if pud_word & Pte.PRESENT:
            _free_pud(state, mm_index, pte_pfn(pud_word))
    free_table(state, mm_index, pgd)


@kernel
def _free_pmd(state: "State", mm_index: int, table: int) -> None:
    for i in range(ENTRIES_PER_TABLE):
        word = state.pt_word[(table << TABLE_SHIFT) + i]
        if word & Pte.PRESENT:
            free_table(state, mm_index, pte_pfn(word))
    free_table(state, mm_index, table)


@kernel
def _free_pud(state: "State", mm_index: int, table: int) -> None:
    for i in range(ENTRIES_PER_TABLE):
        word = state.pt_word[(table << TABLE_SHIFT) + i]
        if word & Pte.PRESENT:
            _free_pmd(state, mm_index, pte_pfn(word))
    free_table(state, mm_index, table)


@kernel
def _free_tables_of_level(state: "State", mm_index: int, shift: int) -> None:
    """Free the tables whose entries span ``1 << shift`` bytes and that no other area needs.

    Request.A0..A3: end of the area below, start of the area above (-1: none), start and end of the area gone.
    """
    floor = state.request[Request.A0]
    ceiling = state.request[Request.A1]
    span = 1 << (shift + TABLE_SHIFT)
    vaddr = state.request[Request.A2] // span * span
    while vaddr < state.request[Request.A3]:
        if vaddr >= floor and (ceiling < 0 or vaddr + span <= ceiling):
            table = state.mm[mm_index].pgd_pfn
            position = entry_position(table, vaddr, TOP_SHIFT)
            for level in range(1, NR_LEVELS):
                word = state.pt_word[position]
                if not word & Pte.PRESENT:
                    break
                table = pte_pfn(word)
                if TOP_SHIFT - TABLE_SHIFT * level == shift:
                    state.pt_word[position] = 0
                    free_table(state, mm_index, table)
                    break
                position = entry_position(table, vaddr, TOP_SHIFT - TABLE_SHIFT * level)
        vaddr += span


@kernel
def free_unused_tables(state: "State", mm_index: int, start: int, end: int) -> None:
    """Free the tables that served only the area [start, end), which maps nothing any more.

    Request.A0 is the end of the area below it, or 0; Request.A1 the start of the area above, or -1.
    """
    state.request[Request.A2] = start
    state.request[Request.A3] = end
    for level in range(NR_LEVELS - 1):
        _free_tables_of_level(state, mm_index, PAGE_SHIFT + TABLE_SHIFT * level)
