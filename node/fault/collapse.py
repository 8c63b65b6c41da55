"""Collapse: 512 entries of small pages become one entry of a huge page, copied from them.

    may it be?    enough entries are there (max_ptes_none), few are swapped out (max_ptes_swap) or shared
                  (max_ptes_shared), one at least may be written, one was used, and nobody else holds a page
    then          a huge page is allocated, swapped pages are read in, all is looked at again, copied, and mapped;
                  the page table that led to the small pages is the deposited one from then on

Linux: mm/khugepaged.c (hpage_collapse_scan_pmd, collapse_huge_page, __collapse_huge_page_isolate,
__collapse_huge_page_copy).
# Differs from Linux: a huge page is taken from the CPU's own node, not from the one that most small pages are of.
"""

from enum import IntEnum
from typing import TYPE_CHECKING

from node.content import copy_content, set_content
from node.counters import Current, Knob, VmEvent
from node.fault.entries import mapped_bits, write_bits
from node.fault.kinds import Access, VmFault
from node.hw.cost import Cost
from node.hw.page_table import leaf_position, pte_position
from node.hw.pte import Pte, is_swap_pte, make_pte, pte_pfn
from node.joints import alloc_frames, flush_tlb_range, handle_mm_fault, try_to_free_swap
from node.phys.page import PageFlag
from node.phys.page_alloc import compound_head, free_pages
from node.phys.zone import PAGEBLOCK_ORDER
from node.vm.huge_pmd import deposit_table, note_huge_view, pmd_level
from node.vm.huge_rmap import make_huge_anon, total_mapcount
from node.vm.mlock_page import lru_add_new_page, munlock_vma_page
from node.vm.put_page import put_page
from node.vm.rmap import leave_zero_page, page_mapcount, page_remove_rmap
from node.vm.vma import find_vma
from shared.constants import ENTRIES_PER_TABLE, HUGE_PAGE_SIZE, NIL, PAGE_SIZE
from shared.gfp_flags import GFP_TRANSHUGE_LIGHT, Gfp
from shared.jit import entry, kernel
from shared.views import View

if TYPE_CHECKING:
    from node.state import State


class Scan(IntEnum):
    """How a look at 2 MiB ended (enum scan_result, in part)."""

    FAIL = 0
    SUCCEED = 1
    ALLOC_HUGE_PAGE_FAIL = 2


# --- may it be? -----------------------------------------------------------------------------------------


@kernel
def _is_free_to_move(state: "State", pfn: int) -> int:
    """Return whether an anonymous page is on the LRU and nobody but its entries and the swap cache holds it."""
    holder = compound_head(state, pfn)
    page = state.page[holder]
    if not page.page_flags & PageFlag.ANON or not page.page_flags & PageFlag.LRU:
        return 0
    if page.page_flags & PageFlag.HUGE:
        return 1 if page.refcount == total_mapcount(state, holder) else 0
    cached = 1 if page.page_flags & PageFlag.SWAPCACHE else 0
    return 1 if page.refcount == page.mapcount + cached else 0


@kernel
def _too_many_shared(state: "State", pfn: int, nr_shared: int) -> int:
    if page_mapcount(state, pfn) <= 1 or nr_shared < state.knob[Knob.KHUGEPAGED_MAX_PTES_SHARED]:
        return 0
    state.vm_event[VmEvent.THP_SCAN_EXCEED_SHARE_PTE] += 1
    return 1


@kernel
def _was_used(state: "State", pte: int) -> int:
    holder = state.page[compound_head(state, pte_pfn(pte))]
    return 1 if pte & Pte.ACCESSED or holder.page_flags & PageFlag.REFERENCED else 0


@kernel
def _look(state: "State", position: int, max_swap: int) -> int:
    """Return whether the 512 entries from ``position`` on may be collapsed; -1 if some have to be read in first."""
    nr_none = 0
    nr_swap = 0
    nr_shared = 0
    nr_used = 0
    writable = 0
    for at in range(position, position + ENTRIES_PER_TABLE):
        pte = state.pt_word[at]
        if pte != 0 and is_swap_pte(pte):
            nr_swap += 1
            if nr_swap > max_swap:
                if max_swap:
                    state.vm_event[VmEvent.THP_SCAN_EXCEED_SWAP_PTE] += 1
                return 0
            continue
        if pte == 0 or pte_pfn(pte) == state.knob[Knob.ZERO_PFN]:
            nr_none += 1
            if nr_none > state.knob[Knob.KHUGEPAGED_MAX_PTES_NONE]:
                state.vm_event[VmEvent.THP_SCAN_EXCEED_NONE_PTE] += 1
                return 0
            continue
        pfn = pte_pfn(pte)
        if _too_many_shared(state, pfn, nr_shared) or not _is_free_to_move(state, pfn):
            return 0
        nr_shared += 1 if page_mapcount(state, pfn) > 1 else 0
        writable |= pte & Pte.WRITE
        nr_used += _was_used(state, pte)
    if not writable or nr_used == 0 or (nr_swap and nr_used < ENTRIES_PER_TABLE // 2):
        return 0
    return -1 if nr_swap else 1


# --- then -----------------------------------------------------------------------------------------------


@kernel
def _read_in(state: "State", mm_index: int, vaddr: int) -> int:
    """Fault in what is swapped out of the 2 MiB; return whether all is there."""
    for at in range(vaddr, vaddr + HUGE_PAGE_SIZE, PAGE_SIZE):
        position = pte_position(state, state.mm[mm_index].pgd_pfn, at)
        if position == NIL:
            return 0
        pte = state.pt_word[position]
        if (
            pte != 0
            and is_swap_pte(pte)
            and handle_mm_fault(state, mm_index, at, Access.READ) != VmFault.DONE
        ):
            return 0
    return 1


@kernel
def _copy_small_pages(state: "State", vma_index: int, position: int, pfn: int) -> None:
    """Fill the huge page from the small ones, which lose their entries."""
    mm_index = state.vma[vma_index].mm
    mm = state.mm[mm_index]
    for number in range(ENTRIES_PER_TABLE):
        pte = state.pt_word[position + number]
        state.pt_word[position + number] = 0
        if pte == 0 or pte_pfn(pte) == state.knob[Knob.ZERO_PFN]:
            set_content(state, pfn + number, 0)
            mm.nr_anon += 1
            if pte != 0:
                leave_zero_page(state, mm_index, pte)
            continue
        small = pte_pfn(pte)
        copy_content(state, pfn + number, small)
        page_remove_rmap(state, small)
        munlock_vma_page(state, small, vma_index)
        if state.page[small].mapcount == 0 and state.page[small].page_flags & PageFlag.SWAPCACHE:
            try_to_free_swap(state, small)
        put_page(state, small)
    state.current[Current.CLOCK_PS] += ENTRIES_PER_TABLE * state.cost[Cost.PAGE_COPY]


@kernel
def _map_collapsed(state: "State", vma_index: int, vaddr: int, pfn: int) -> None:
    """Let one huge entry take the place of a page table, which is deposited."""
    mm_index = state.vma[vma_index].mm
    pgd = state.mm[mm_index].pgd_pfn
    pmd = leaf_position(state, pgd, vaddr, pmd_level(state))
    small = pte_position(state, pgd, vaddr)
    state.pt_word[pmd] = 0
    flush_tlb_range(state, mm_index, vaddr, vaddr + HUGE_PAGE_SIZE, 0)
    _copy_small_pages(state, vma_index, small, pfn)
    make_huge_anon(state, pfn, vma_index, vaddr)
    lru_add_new_page(state, pfn, vma_index)
    deposit_table(state, pmd, small >> state.knob[Knob.TABLE_SHIFT])
    bits = mapped_bits(state, vma_index) | write_bits(state, vma_index) | Pte.HUGE
    state.pt_word[pmd] = make_pte(pfn, bits)
    note_huge_view(state, mm_index, vaddr, View.WRITABLE if bits & Pte.WRITE else View.READ_ONLY)


@kernel
def _collapse(state: "State", mm_index: int, vaddr: int, has_swapped: int) -> int:
    gfp = GFP_TRANSHUGE_LIGHT | (Gfp.DIRECT_RECLAIM if state.knob[Knob.KHUGEPAGED_DEFRAG] else 0)
    pfn = alloc_frames(state, PAGEBLOCK_ORDER, gfp)
    if pfn == NIL:
        state.vm_event[VmEvent.THP_COLLAPSE_ALLOC_FAILED] += 1
        return Scan.ALLOC_HUGE_PAGE_FAIL
    state.vm_event[VmEvent.THP_COLLAPSE_ALLOC] += 1
    fits = 1
    if has_swapped:
        fits = _read_in(state, mm_index, vaddr)
    # Reclaim, for the huge page, may have changed what there was.
    position = pte_position(state, state.mm[mm_index].pgd_pfn, vaddr)
    if not fits or position == NIL or _look(state, position, 0) != 1:
        free_pages(state, pfn, PAGEBLOCK_ORDER)
        return Scan.FAIL
    _map_collapsed(state, find_vma(state, mm_index, vaddr), vaddr, pfn)
    return Scan.SUCCEED


@kernel
def collapse(state: "State", mm_index: int, vaddr: int) -> int:
    """Collapse the aligned 2 MiB at ``vaddr``, wholly in one area, if they may be; return a Scan."""
    position = pte_position(state, state.mm[mm_index].pgd_pfn, vaddr)
    if position == NIL:
        return Scan.FAIL
    verdict = _look(state, position, state.knob[Knob.KHUGEPAGED_MAX_PTES_SWAP])
    if verdict == 0:
        return Scan.FAIL
    return _collapse(state, mm_index, vaddr, 1 if verdict < 0 else 0)


@entry
def collapse_range(state: "State", mm_index: int, vaddr: int) -> int:
    """Collapse the aligned 2 MiB at ``vaddr`` as khugepaged would; return a Scan."""
    return collapse(state, mm_index, vaddr)
