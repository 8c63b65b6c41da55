"""Faults on 2 MiB: a huge page of zeroes at a write, the shared huge page of zeroes at a read, copy-on-write.

    no entry, the 2 MiB lie in the area, huge pages are on:
        read      the huge page of zeroes, made at the first such fault
        write     512 frames of zeroes; none to be had: counted, and a small page serves
    huge entry, written and read-only:
        the huge page of zeroes        split: the small page of zeroes is then copied
        exclusive, or of one user      reuse
        shared                         split: the one small page is then copied

With each huge entry a page table is deposited, for the day it is split.

Linux: mm/memory.c (__handle_mm_fault, create_huge_pmd, wp_huge_pmd), mm/huge_memory.c (do_huge_pmd_anonymous_page,
do_huge_pmd_wp_page).
"""

from typing import TYPE_CHECKING

from node.content import set_content
from node.counters import Current, Knob, VmEvent
from node.fault.entries import mapped_bits, write_bits
from node.fault.kinds import Access, VmFault
from node.fault.outcome import FaultOutcome
from node.hw.cost import Cost
from node.hw.pte import Pte, make_pte, pte_pfn
from node.joints import alloc_frames
from node.kmap.flush_calls import flush_tlb_page
from node.phys.page import PageFlag
from node.phys.page_alloc import free_pages
from node.phys.zone import PAGEBLOCK_ORDER
from node.vm.anon_vma import anon_vma_prepare
from node.vm.huge_pmd import (
    alloc_deposit,
    deposit_table,
    free_deposit,
    huge_position,
    is_huge_zero,
    note_huge_view,
)
from node.vm.huge_rmap import make_huge_anon
from node.vm.huge_split import split_huge_pmd
from node.vm.huge_zero import get_huge_zero_page
from node.vm.mlock_page import lru_add_new_page
from node.vm.page_tables import pmd_alloc
from node.vm.thp import area_may_have_huge, huge_fits, khugepaged_enter, thp_gfp_mask
from shared.constants import ENTRIES_PER_TABLE, HUGE_PAGE_SIZE, NIL
from shared.jit import entry, kernel
from shared.views import View

if TYPE_CHECKING:
    from node.state import State


@kernel
def _map_huge_zero(state: "State", vma_index: int, position: int, vaddr: int) -> int:
    mm_index = state.vma[vma_index].mm
    table = alloc_deposit(state, mm_index)
    if table == NIL:
        return VmFault.OOM
    pfn = get_huge_zero_page(state)
    if pfn == NIL:
        free_deposit(state, mm_index, table)
        state.vm_event[VmEvent.THP_FAULT_FALLBACK] += 1
        return NIL
    deposit_table(state, position, table)
    state.pt_word[position] = make_pte(pfn, mapped_bits(state, vma_index) | Pte.HUGE)
    state.current[Current.HUGE_ZERO_USERS] += 1
    state.fault_outcome[FaultOutcome.HUGE_ZERO_PAGE] += 1
    note_huge_view(state, mm_index, vaddr, View.READ_ONLY)
    return VmFault.DONE


@kernel
def clear_huge_page(state: "State", pfn: int) -> None:
    """Fill 512 frames with zeroes."""
    for frame in range(pfn, pfn + ENTRIES_PER_TABLE):
        set_content(state, frame, 0)
    state.current[Current.CLOCK_PS] += ENTRIES_PER_TABLE * state.cost[Cost.PAGE_ZERO]


@kernel
def _map_huge_page(state: "State", vma_index: int, position: int, vaddr: int) -> int:
    mm_index = state.vma[vma_index].mm
    pfn = alloc_frames(state, PAGEBLOCK_ORDER, thp_gfp_mask(state, vma_index))
    if pfn == NIL:
        state.vm_event[VmEvent.THP_FAULT_FALLBACK] += 1
        return NIL
    table = alloc_deposit(state, mm_index)
    if table == NIL:
        free_pages(state, pfn, PAGEBLOCK_ORDER)
        return VmFault.OOM
    clear_huge_page(state, pfn)
    make_huge_anon(state, pfn, vma_index, vaddr & ~(HUGE_PAGE_SIZE - 1))
    lru_add_new_page(state, pfn, vma_index)
    deposit_table(state, position, table)
    bits = mapped_bits(state, vma_index) | write_bits(state, vma_index) | Pte.HUGE
    state.pt_word[position] = make_pte(pfn, bits)
    state.mm[mm_index].nr_anon += ENTRIES_PER_TABLE
    state.vm_event[VmEvent.THP_FAULT_ALLOC] += 1
    state.fault_outcome[FaultOutcome.HUGE_NEW_PAGE] += 1
    note_huge_view(state, mm_index, vaddr, View.WRITABLE if bits & Pte.WRITE else View.READ_ONLY)
    return VmFault.DONE


@kernel
def _create_huge(state: "State", vma_index: int, vaddr: int, access: int) -> int:
    """Serve a fault where nothing is mapped by a huge page; return a VmFault, or NIL: small pages are to serve it."""
    if not area_may_have_huge(state, vma_index):
        return NIL
    if not huge_fits(state, vma_index, vaddr):
        return NIL
    position = pmd_alloc(state, state.vma[vma_index].mm, vaddr)
    if position == NIL or anon_vma_prepare(state, vma_index) == NIL:
        return VmFault.OOM
    if state.pt_word[position] != 0:
        return NIL
    khugepaged_enter(state, vma_index)
    if not access & Access.WRITE and state.knob[Knob.THP_USE_ZERO_PAGE]:
        return _map_huge_zero(state, vma_index, position, vaddr)
    return _map_huge_page(state, vma_index, position, vaddr)


@kernel
def _reuse_huge(state: "State", vma_index: int, position: int, vaddr: int) -> int:
    """Let a huge entry be written as it is."""
    mm_index = state.vma[vma_index].mm
    state.pt_word[position] |= Pte.ACCESSED | write_bits(state, vma_index)
    flush_tlb_page(state, mm_index, vaddr & ~(HUGE_PAGE_SIZE - 1))
    state.fault_outcome[FaultOutcome.HUGE_REUSED] += 1
    note_huge_view(
        state, mm_index, vaddr, View.WRITABLE if state.pt_word[position] & Pte.WRITE else View.READ_ONLY
    )
    return VmFault.DONE


@kernel
def _write_huge(state: "State", vma_index: int, position: int, vaddr: int) -> int:
    """Serve a write to a read-only huge entry; return a VmFault, or NIL: it is split, and small pages serve it."""
    word = state.pt_word[position]
    if is_huge_zero(state, word):
        state.fault_outcome[FaultOutcome.HUGE_ZERO_WRITTEN] += 1
    else:
        page = state.page[pte_pfn(word)]
        if page.page_flags & PageFlag.ANON_EXCLUSIVE or page.refcount == 1:
            page.page_flags |= PageFlag.ANON_EXCLUSIVE
            return _reuse_huge(state, vma_index, position, vaddr)
        state.fault_outcome[FaultOutcome.HUGE_SPLIT] += 1
    split_huge_pmd(state, state.vma[vma_index].mm, position, vaddr)
    return NIL


@entry
def do_huge_fault(state: "State", vma_index: int, vaddr: int, access: int) -> int:
    """Serve a fault where no table of the last level leads; return a VmFault, or NIL: small pages are to serve it."""
    position = huge_position(state, state.vma[vma_index].mm, vaddr)
    if position == NIL:
        return _create_huge(state, vma_index, vaddr, access)
    if access & Access.WRITE and not state.pt_word[position] & Pte.WRITE:
        return _write_huge(state, vma_index, position, vaddr)
    state.fault_outcome[FaultOutcome.SPURIOUS] += 1
    state.pt_word[position] |= Pte.ACCESSED
    return VmFault.DONE
