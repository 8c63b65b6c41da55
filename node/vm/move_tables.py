"""Moving entries of page tables to another address, as much at once as both addresses allow.

    1 GiB that begins at such a border at both addresses      the entry that leads to its table of the PMD level moves
    2 MiB likewise                                            the entry that leads to its last table moves; or
                                                              the one that maps a huge page, with its table in reserve
    less                                                      a huge entry is split; entries of the last level move,
                                                              from one table to another

A table that moves whole is neither allocated nor freed: the process has as many as before.

Linux: mm/mremap.c (move_page_tables, move_normal_pud, move_normal_pmd, move_ptes), mm/huge_memory.c (move_huge_pmd).
"""

from typing import TYPE_CHECKING

from node.counters import Knob
from node.hw.page_table import leaf_position, pte_position
from node.hw.pte import PROT_NONE, Pte, is_swap_pte
from node.joints import flush_tlb_range, note_view_change, split_huge_at, swap_in_table
from node.vm.huge_pmd import deposit_table, huge_position, is_thp_entry, note_huge_view, withdraw_table
from node.vm.page_tables import alloc_upto, pte_alloc, set_table
from node.vm.table_swap import hold_table, release_table
from node.vm.thp import huge_pages_exist
from shared.constants import HUGE_PAGE_SIZE, NIL, PAGE_SHIFT, PAGE_SIZE
from shared.jit import kernel
from shared.views import View

if TYPE_CHECKING:
    from node.state import State


@kernel
def _note_moved(state: "State", mm_index: int, vaddr: int, to: int, pte: int) -> None:
    """Tell a guest whose memory this is."""
    note_view_change(state, mm_index, vaddr, View.UNTOUCHED)
    if is_swap_pte(pte):
        note_view_change(state, mm_index, to, View.SWAPPED)
    else:
        note_view_change(state, mm_index, to, View.WRITABLE if pte & Pte.WRITE else View.READ_ONLY)


# --- entries of the last level --------------------------------------------------------------------------


@kernel
def _move_entries(state: "State", mm_index: int, vaddr: int, to: int, length: int) -> int:
    """Move the entries of ``length`` bytes, of one table, to another; return 0, or NIL without memory for that."""
    table = hold_table(state, mm_index, vaddr)
    if table == NIL:
        return 0
    place = pte_alloc(state, mm_index, to)
    release_table(state, table)
    if place == NIL:
        return NIL
    # Only now: reclaim, called for the table, may have changed entries.
    position = pte_position(state, state.mm[mm_index].pgd_pfn, vaddr)
    force_flush = 0
    for at in range(length >> PAGE_SHIFT):
        pte = state.pt_word[position + at]
        if pte == 0:
            continue
        state.pt_word[position + at] = 0
        state.pt_word[place + at] = pte
        force_flush |= pte & (Pte.PRESENT | PROT_NONE)
        if state.knob[Knob.IS_HOST]:
            _note_moved(state, mm_index, vaddr + (at << PAGE_SHIFT), to + (at << PAGE_SHIFT), pte)
    if force_flush:
        flush_tlb_range(state, mm_index, vaddr, vaddr + length, 0)
    return 0


# --- whole tables, and huge pages -----------------------------------------------------------------------


@kernel
def _extent(state: "State", level: int, vaddr: int, to: int) -> int:
    """Return how many bytes lie below one entry of a level at both addresses (get_extent)."""
    span = 1 << state.paging_level[level].shift
    return min(span - (vaddr & (span - 1)), span - (to & (span - 1)))


@kernel
def _note_views_moved(state: "State", mm_index: int, vaddr: int, to: int, length: int) -> None:
    """Tell guests what moved: their pages lie below ``to`` now."""
    for offset in range(0, length, PAGE_SIZE):
        position = pte_position(state, state.mm[mm_index].pgd_pfn, to + offset)
        if position != NIL and state.pt_word[position] != 0:
            _note_moved(state, mm_index, vaddr + offset, to + offset, state.pt_word[position])
        elif position == NIL:
            huge = huge_position(state, mm_index, to + offset)
            if huge != NIL:
                _note_moved(state, mm_index, vaddr + offset, to + offset, state.pt_word[huge])


@kernel
def _move_huge_entry(state: "State", mm_index: int, position: int, vaddr: int, to: int) -> int:
    """Move the entry at ``position``, which maps a huge page at ``vaddr``; return whether its new place was empty."""
    place = leaf_position(state, state.mm[mm_index].pgd_pfn, to, state.knob[Knob.NR_LEVELS] - 2)
    if place == NIL or state.pt_word[place] != 0:
        return 0
    word = state.pt_word[position]
    deposit_table(state, place, withdraw_table(state, position))
    state.pt_word[position] = 0
    state.pt_word[place] = word
    flush_tlb_range(state, mm_index, vaddr, vaddr + HUGE_PAGE_SIZE, 0)
    note_huge_view(state, mm_index, vaddr, View.UNTOUCHED)
    note_huge_view(state, mm_index, to, View.WRITABLE if word & Pte.WRITE else View.READ_ONLY)
    return 1


@kernel
def _move_table(state: "State", mm_index: int, level: int, vaddr: int, to: int) -> int:
    """Move the entry of a level that leads to the table below ``vaddr``; return whether its new place was empty."""
    pgd = state.mm[mm_index].pgd_pfn
    position = leaf_position(state, pgd, vaddr, level)
    place = leaf_position(state, pgd, to, level)
    if place == NIL or state.pt_word[place] != 0 or not state.pt_word[position] & Pte.PRESENT:
        return 0
    word = state.pt_word[position]
    set_table(state, level, position, 0)
    set_table(state, level, place, word)
    span = 1 << state.paging_level[level].shift
    flush_tlb_range(state, mm_index, vaddr, vaddr + span, 0)
    if state.knob[Knob.IS_HOST]:
        _note_views_moved(state, mm_index, vaddr, to, span)
    return 1


@kernel
def _move_whole(state: "State", mm_index: int, level: int, vaddr: int, to: int) -> int:
    """Move all that one entry of a level leads to, or the huge page that it maps; return whether that could be."""
    position = leaf_position(state, state.mm[mm_index].pgd_pfn, vaddr, level)
    if level == state.knob[Knob.NR_LEVELS] - 2 and is_thp_entry(state, state.pt_word[position]):
        return _move_huge_entry(state, mm_index, position, vaddr, to)
    return _move_table(state, mm_index, level, vaddr, to)


# --- all ------------------------------------------------------------------------------------------------


@kernel
def _move_part(state: "State", mm_index: int, vaddr: int, to: int, length: int) -> int:
    """Move entries from ``vaddr`` on, of ``length`` bytes at most; return of how many, or NIL without memory."""
    if state.knob[Knob.PAGEABLE_TABLES] and swap_in_table(state, mm_index, vaddr) == NIL:
        return NIL
    lowest = state.knob[Knob.NR_LEVELS] - 1
    extent = length
    for level in range(max(lowest - 2, 0), lowest):
        extent = min(length, _extent(state, level, vaddr, to))
        position = leaf_position(state, state.mm[mm_index].pgd_pfn, vaddr, level)
        if position == NIL or state.pt_word[position] == 0:
            return extent
        if alloc_upto(state, mm_index, to, level) == NIL:
            return NIL
        if extent == 1 << state.paging_level[level].shift and _move_whole(state, mm_index, level, vaddr, to):
            return extent
    if huge_pages_exist(state):
        split_huge_at(state, mm_index, vaddr)
    return NIL if _move_entries(state, mm_index, vaddr, to, extent) == NIL else extent


@kernel
def move_page_tables(state: "State", mm_index: int, vaddr: int, to: int, length: int) -> int:
    """Move the entries of ``length`` bytes to another address; return how many bytes' were moved."""
    moved = 0
    while moved < length:
        part = _move_part(state, mm_index, vaddr + moved, to + moved, length - moved)
        if part == NIL:
            break
        moved += part
    return moved
