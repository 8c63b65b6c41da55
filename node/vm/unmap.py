"""Unmapping: what munmap and exit take away, and what reclaim takes away from all who map a frame.

    munmap, exit    an area of one address space: every entry, then tables that hold nothing any more
    try_to_unmap    one frame, found through reverse mapping in every address space that maps it
    move_mappings   the same, but its entries map another frame instead

Linux: mm/memory.c (zap_pte_range, free_pgtables), mm/rmap.c (try_to_unmap_one, folio_referenced_one),
mm/ksm.c (rmap_walk_ksm), mm/mmap.c (exit_mmap).
"""

from typing import TYPE_CHECKING, Final

from node.counters import Knob, Request
from node.hw.page_table import is_large_leaf, leaf_position, pte_position
from node.hw.paging import PagingMode
from node.hw.pte import (
    SWAP_ENTRY_EXCLUSIVE,
    Pte,
    is_swap_pte,
    make_pte,
    make_swap_pte,
    pte_pfn,
    swap_pte_slot,
)
from node.joints import (
    dup_swap_entry,
    flush_tlb_range,
    free_swap_entry,
    ksm_exit,
    note_view_change,
    retire_mm,
    swap_out_table,
    zap_swapped_table,
)
from node.kmap.flush_calls import flush_tlb_page
from node.phys.page import PageFlag
from node.vm.hugetlb import unmap_huge
from node.vm.mm import drop_mm
from node.vm.mmu_gather import gather_begin, gather_finish, gather_page
from node.vm.nommu import nommu_unmap
from node.vm.page_tables import free_page_tables, free_unused_tables
from node.vm.put_page import put_page
from node.vm.rmap import leave_zero_page, page_remove_rmap, unlink_anon_vmas
from node.vm.vma import remove_vma
from shared.constants import ENTRIES_PER_TABLE, HUGE_PAGE_SIZE, NIL, PAGE_SHIFT, PAGE_SIZE
from shared.jit import entry, hot_kernel, kernel
from shared.views import View

if TYPE_CHECKING:
    from node.state import State

LOOK: Final = NIL  # at the accessed bit: work of a walk over a frame's mappings


# --- an area of one address space -----------------------------------------------------------------------


@hot_kernel
def _zap_pte(state: "State", mm_index: int, position: int, vaddr: int) -> None:
    mm = state.mm[mm_index]
    pte = state.pt_word[position]
    state.pt_word[position] = 0
    if is_swap_pte(pte):
        mm.nr_swap -= 1
        free_swap_entry(state, swap_pte_slot(pte))
    else:
        pfn = pte_pfn(pte)
        page = state.page[pfn]
        if page.page_flags & PageFlag.ZERO_PAGE:
            leave_zero_page(state, mm_index, pte)
        else:
            mm.nr_anon -= 1
            if pte & Pte.DIRTY:
                page.page_flags |= PageFlag.DIRTY
            page_remove_rmap(state, pfn)
            gather_page(state, pfn)
    if state.knob[Knob.IS_HOST]:
        note_view_change(state, mm_index, vaddr, View.UNTOUCHED)


@kernel
def _zap_huge(state: "State", pgd: int, vaddr: int) -> int:
    """Unmap the huge page that an entry above the last level maps at ``vaddr``, if any; return its pages."""
    level = state.knob[Knob.NR_LEVELS] - 2
    position = leaf_position(state, pgd, vaddr, level)
    if position == NIL:
        return 0
    word = state.pt_word[position]
    if not word & Pte.PRESENT or not is_large_leaf(state, level, word):
        return 0
    unmap_huge(state, position)
    return ENTRIES_PER_TABLE


@kernel
def _zap_range(state: "State", mm_index: int, start: int, end: int) -> int:
    """Empty every entry for [start, end); return how many pages were mapped or swapped."""
    if state.knob[Knob.PAGING_MODE] == PagingMode.NONE:
        return nommu_unmap(state, start, end)
    nr_pages = 0
    pgd = state.mm[mm_index].pgd_pfn
    vaddr = start
    while vaddr < end:
        border = min(end, (vaddr // HUGE_PAGE_SIZE + 1) * HUGE_PAGE_SIZE)
        position = pte_position(state, pgd, vaddr)
        if position != NIL:
            for _ in range((border - vaddr) >> PAGE_SHIFT):
                if state.pt_word[position] != 0:
                    _zap_pte(state, mm_index, position, vaddr)
                    nr_pages += 1
                position += 1
                vaddr += PAGE_SIZE
        else:
            nr_pages += _zap_huge(state, pgd, vaddr)
            if state.knob[Knob.PAGEABLE_TABLES]:
                span = 1 << state.paging_level[0].shift
                border = min(end, (vaddr // span + 1) * span)
                nr_pages += zap_swapped_table(state, mm_index, vaddr, border)
        vaddr = border
    return nr_pages


@kernel
def zap_page_range(state: "State", mm_index: int, start: int, end: int) -> int:
    """Take away the pages of [start, end) and keep its areas and tables; return how many pages there were."""
    gather_begin(state, mm_index, start, end)
    nr_pages = _zap_range(state, mm_index, start, end)
    if nr_pages:
        flush_tlb_range(state, mm_index, start, end, 0)
    gather_finish(state)
    return nr_pages


@kernel
def unmap_area(state: "State", vma_index: int) -> int:
    """Unmap a whole VMA and remove it, with the tables that only it needed; return the pages unmapped."""
    vma = state.vma[vma_index]
    mm_index = vma.mm
    gather_begin(state, mm_index, vma.start, vma.end)
    nr_pages = _zap_range(state, mm_index, vma.start, vma.end)
    state.request[Request.A0] = 0 if vma.prev == NIL else state.vma[vma.prev].end
    state.request[Request.A1] = -1 if vma.next == NIL else state.vma[vma.next].start
    start = vma.start
    end = vma.end
    freed_tables = free_unused_tables(state, mm_index, start, end)
    unlink_anon_vmas(state, vma_index)
    remove_vma(state, vma_index)
    if nr_pages or freed_tables:
        flush_tlb_range(state, mm_index, start, end, 1 if freed_tables else 0)
    gather_finish(state)
    return nr_pages


@entry
def exit_mmap(state: "State", mm_index: int) -> int:
    """End a process: unmap all of it, free its page tables; return the number of pages unmapped.

    The mm record stays in use while ksmd has it on its list.
    """
    mm = state.mm[mm_index]
    mm.alive = 0
    ksm_exit(state, mm_index)
    nr_pages = 0
    gather_begin(state, 0, 0, 0)
    while mm.first_vma != NIL:
        index = mm.first_vma
        nr_pages += _zap_range(state, mm_index, state.vma[index].start, state.vma[index].end)
        unlink_anon_vmas(state, index)
        remove_vma(state, index)
    retire_mm(state, mm_index)
    free_page_tables(state, mm_index)
    gather_finish(state)
    drop_mm(state, mm_index)
    return nr_pages


# --- one frame, wherever it is mapped -------------------------------------------------------------------


@kernel
def _unmap_one(state: "State", mm_index: int, position: int, vaddr: int, swap_slot: int) -> None:
    pte = state.pt_word[position]
    pfn = pte_pfn(pte)
    page = state.page[pfn]
    if pte & Pte.DIRTY:
        page.page_flags |= PageFlag.DIRTY
    exclusive = SWAP_ENTRY_EXCLUSIVE if page.page_flags & PageFlag.ANON_EXCLUSIVE else 0
    page.page_flags &= ~PageFlag.ANON_EXCLUSIVE
    state.pt_word[position] = make_swap_pte(swap_slot, exclusive)
    dup_swap_entry(state, swap_slot)
    mm = state.mm[mm_index]
    mm.nr_anon -= 1
    mm.nr_swap += 1
    flush_tlb_page(state, mm_index, vaddr)
    if state.knob[Knob.IS_HOST]:
        note_view_change(state, mm_index, vaddr, View.SWAPPED)
    page_remove_rmap(state, pfn)
    put_page(state, pfn)


@kernel
def _move_one(state: "State", mm_index: int, position: int, vaddr: int, to: int) -> None:
    """Let an entry map another frame with the same rights and marks (remove_migration_pte)."""
    pte = state.pt_word[position]
    state.pt_word[position] = pte ^ make_pte(pte_pfn(pte) ^ to, 0)
    flush_tlb_page(state, mm_index, vaddr)


@kernel
def _visit(state: "State", pfn: int, vma_index: int, vaddr: int, work: int) -> int:
    """Do the walk's work at ``vaddr`` of one VMA, if it maps the frame there; return whether it counted.

    ``work`` is LOOK for the accessed bit, a swap slot to unmap for, or the complement of a frame to map instead.
    """
    vma = state.vma[vma_index]
    if not vma.start <= vaddr < vma.end:
        return 0
    mm_index = vma.mm
    position = pte_position(state, state.mm[mm_index].pgd_pfn, vaddr)
    if position == NIL:
        return 0
    pte = state.pt_word[position]
    if not pte & Pte.PRESENT or pte_pfn(pte) != pfn:
        return 0
    if work >= 0:
        _unmap_one(state, mm_index, position, vaddr, work)
        if state.knob[Knob.PAGEABLE_TABLES]:
            swap_out_table(state, mm_index, vaddr)
        return 1
    if work != LOOK:
        _move_one(state, mm_index, position, vaddr, ~work)
        return 1
    if not pte & Pte.ACCESSED:
        return 0
    # As on x86, the TLB keeps its copy: the bit is set again by the next walk.
    state.pt_word[position] = pte & ~Pte.ACCESSED
    return 1


@kernel
def _walk_anon_vma(state: "State", pfn: int, anon_vma: int, vaddr: int, work: int) -> int:
    nr_visited = 0
    chain = state.anon_vma[anon_vma].first_chain
    while chain != NIL:
        following = state.anon_vma_chain[chain].next
        nr_visited += _visit(state, pfn, state.anon_vma_chain[chain].vma, vaddr, work)
        chain = following
    return nr_visited


@kernel
def _walk_frame(state: "State", pfn: int, work: int) -> int:
    """Visit every entry that maps the frame: a merged page's through its sharers, forks of theirs included."""
    page = state.page[pfn]
    if not page.page_flags & PageFlag.KSM:
        return _walk_anon_vma(state, pfn, page.mapping, page.index << PAGE_SHIFT, work)
    nr_visited = 0
    if page.mapping == 0:
        return 0
    item_index = state.stable_node[page.mapping].first_sharer
    while item_index != NIL:
        links = state.rb_node[item_index]
        nr_visited += _walk_anon_vma(state, pfn, links.owner, state.rmap_item[item_index].vaddr, work)
        item_index = links.left
    return nr_visited


@entry
def try_to_unmap(state: "State", pfn: int, swap_slot: int) -> int:
    """Replace every page-table entry that maps the frame by a swap entry of ``swap_slot``; return how many.

    Dirty bits go to the frame; each entry's reference to the frame is dropped, so the caller holds its own.
    """
    return _walk_frame(state, pfn, swap_slot)


@entry
def page_referenced(state: "State", pfn: int) -> int:
    """Count, and clear, the accessed bits of all page-table entries that map the frame."""
    return _walk_frame(state, pfn, LOOK)


@entry
def move_mappings(state: "State", pfn: int, to: int) -> int:
    """Let every page-table entry that maps frame ``pfn`` map ``to``, with its rights and marks; return how many.

    What the frames themselves count of it is the caller's.
    """
    return _walk_frame(state, pfn, ~to)
