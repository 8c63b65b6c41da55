"""Unmapping: what munmap and exit take away of an address space, and madvise.

    munmap, exit      an area: every entry, then tables that hold nothing any more, then the area
    zap_page_range    entries alone

Linux: mm/memory.c (zap_pte_range, free_pgtables), mm/mmap.c (unmap_region, exit_mmap).
"""

from typing import TYPE_CHECKING

from node.counters import Knob, Request
from node.hw.page_table import is_large_leaf, leaf_position, pte_position
from node.hw.paging import PagingMode
from node.hw.pte import Pte, is_swap_pte, pte_pfn, swap_pte_slot
from node.joints import (
    flush_tlb_range,
    free_swap_entry,
    ksm_exit,
    note_view_change,
    retire_mm,
    split_huge_at,
    zap_huge_pmd,
    zap_swapped_table,
)
from node.phys.page import PageFlag
from node.phys.page_alloc import compound_head
from node.reclaim.lru import mark_page_accessed
from node.vm.commit import uncommit, vm_stat_account
from node.vm.hugetlb import unmap_huge
from node.vm.mlock_walk import lock_pages
from node.vm.mm import drop_mm
from node.vm.mmu_gather import gather_begin, gather_finish, gather_flush, gather_page
from node.vm.nommu import nommu_unmap
from node.vm.page_tables import fetch_ahead, free_page_tables, free_unused_tables
from node.vm.rmap import count_mapped, leave_zero_page, page_remove_rmap
from node.vm.rss import sync_before_unmapping
from node.vm.vma import VmFlag, flags_at
from node.vm.vma_adjust import drop_vma
from shared.constants import ENTRIES_PER_TABLE, HUGE_PAGE_SIZE, NIL, PAGE_SHIFT, PAGE_SIZE
from shared.jit import cold_kernel, entry, hot_kernel, kernel
from shared.views import View

if TYPE_CHECKING:
    from node.state import State


@cold_kernel
def _leave_file_page(state: "State", mm_index: int, vaddr: int, pte: int) -> int:
    """Note what an entry knows of a file's page; return whether that may be written back, so TLBs must forget it."""
    if pte & Pte.DIRTY:
        state.page[pte_pfn(pte)].page_flags |= PageFlag.DIRTY
    if pte & Pte.ACCESSED and not flags_at(state, mm_index, vaddr) & VmFlag.SEQ_READ:
        mark_page_accessed(state, pte_pfn(pte))
    return 1 if pte & Pte.DIRTY else 0


@hot_kernel
def _zap_pte(state: "State", mm_index: int, position: int, vaddr: int) -> int:
    """Empty an entry; return whether TLBs must be flushed before the next table's."""
    force_flush = 0
    pte = state.pt_word[position]
    state.pt_word[position] = 0
    if is_swap_pte(pte):
        state.mm[mm_index].nr_swap -= 1
        free_swap_entry(state, swap_pte_slot(pte))
    else:
        pfn = pte_pfn(pte)
        page = state.page[pfn]
        if page.page_flags & PageFlag.ZERO_PAGE:
            leave_zero_page(state, mm_index, pte)
        else:
            count_mapped(state, mm_index, pfn, -1)
            if page.page_flags & PageFlag.CACHED:
                force_flush = _leave_file_page(state, mm_index, vaddr, pte)
            page_remove_rmap(state, pfn)
            gather_page(state, compound_head(state, pfn))
    if state.knob[Knob.IS_HOST]:
        note_view_change(state, mm_index, vaddr, View.UNTOUCHED)
    return force_flush


@kernel
def _zap_huge(state: "State", mm_index: int, vaddr: int, end: int) -> int:
    """Unmap the huge page that an entry above the last level maps at ``vaddr``, if any; return its pages.

    NIL: it was split, since not all of it goes.
    """
    level = state.knob[Knob.NR_LEVELS] - 2
    position = leaf_position(state, state.mm[mm_index].pgd_pfn, vaddr, level)
    if position == NIL:
        return 0
    word = state.pt_word[position]
    if not word & Pte.PRESENT or not is_large_leaf(state, level, word):
        return 0
    if state.page[pte_pfn(word)].page_flags & PageFlag.HUGETLB:
        unmap_huge(state, position)
        return ENTRIES_PER_TABLE
    if end - vaddr < HUGE_PAGE_SIZE:
        split_huge_at(state, mm_index, vaddr)
        return NIL
    zap_huge_pmd(state, mm_index, position, vaddr)
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
            sync_before_unmapping(state, mm_index)
            force_flush = 0
            first = vaddr
            last = position + ((border - vaddr) >> PAGE_SHIFT) - 1
            while position <= last:
                fetch_ahead(state, position, last)
                if state.pt_word[position] != 0:
                    force_flush |= _zap_pte(state, mm_index, position, vaddr)
                    nr_pages += 1
                position += 1
                vaddr += PAGE_SIZE
            if force_flush:
                gather_flush(state, first, border)
        else:
            nr_huge = _zap_huge(state, mm_index, vaddr, border)
            if nr_huge == NIL:
                continue
            nr_pages += nr_huge
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
def _uncount_area(state: "State", vma_index: int) -> None:
    """Take an area that goes out of its address space's sizes, and its promise back."""
    vma = state.vma[vma_index]
    nr_pages = (vma.end - vma.start) >> PAGE_SHIFT
    vm_stat_account(state, vma.mm, vma.vm_flags, -nr_pages)
    if vma.vm_flags & VmFlag.ACCOUNT:
        uncommit(state, nr_pages)
    if vma.vm_flags & VmFlag.LOCKED:
        state.mm[vma.mm].locked_vm -= nr_pages


@kernel
def unmap_area(state: "State", vma_index: int) -> int:
    """Unmap a whole VMA and remove it, with the tables that only it needed; return the pages unmapped."""
    vma = state.vma[vma_index]
    mm_index = vma.mm
    if vma.vm_flags & VmFlag.LOCKED:
        lock_pages(state, vma_index, 0)
    gather_begin(state, mm_index, vma.start, vma.end)
    nr_pages = _zap_range(state, mm_index, vma.start, vma.end)
    state.request[Request.A0] = 0 if vma.prev == NIL else state.vma[vma.prev].end
    state.request[Request.A1] = -1 if vma.next == NIL else state.vma[vma.next].start
    start = vma.start
    end = vma.end
    freed_tables = free_unused_tables(state, mm_index, start, end)
    _uncount_area(state, vma_index)
    drop_vma(state, vma_index)
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
        if state.vma[index].vm_flags & VmFlag.LOCKED:
            lock_pages(state, index, 0)
        nr_pages += _zap_range(state, mm_index, state.vma[index].start, state.vma[index].end)
        _uncount_area(state, index)
        drop_vma(state, index)
    retire_mm(state, mm_index)
    free_page_tables(state, mm_index)
    gather_finish(state)
    drop_mm(state, mm_index)
    return nr_pages
