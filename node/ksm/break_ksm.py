"""Undoing merges: a copy of its own for everyone who shares (Linux: mm/ksm.c, break_ksm, unmerge_ksm_pages)."""

from typing import TYPE_CHECKING

from node.fault.kinds import Access, VmFault
from node.hw.page_table import pte_position
from node.hw.pte import Pte, pte_pfn
from node.joints import handle_mm_fault
from node.phys.page import PageFlag
from node.vm.leaf_word import leaf_word
from node.vm.vma import VmFlag, vma_at
from shared.constants import HUGE_PAGE_SIZE, NIL, PAGE_SIZE
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def mapped_anon_page(state: "State", mm_index: int, vaddr: int) -> int:
    """Return the anonymous frame that is mapped at ``vaddr``, or NIL (follow_page)."""
    pte = leaf_word(state, mm_index, vaddr)
    if not pte & Pte.PRESENT:
        return NIL
    pfn = pte_pfn(pte)
    return pfn if state.page[pfn].page_flags & PageFlag.ANON else NIL


@kernel
def find_mergeable_vma(state: "State", mm_index: int, vaddr: int) -> int:
    """Return the mergeable area that holds ``vaddr`` and has had an anonymous page, or NIL."""
    if not state.mm[mm_index].alive:
        return NIL
    index = vma_at(state, mm_index, vaddr)
    if index == NIL:
        return NIL
    vma = state.vma[index]
    return index if vma.vm_flags & VmFlag.MERGEABLE and vma.anon_vma != 0 else NIL


@kernel
def break_ksm(state: "State", mm_index: int, vaddr: int) -> int:
    """Undo the merge of the page at ``vaddr``, if it is merged; return 0, or NIL without memory."""
    while True:
        pfn = mapped_anon_page(state, mm_index, vaddr)
        if pfn == NIL or not state.page[pfn].page_flags & PageFlag.KSM:
            return 0
        if handle_mm_fault(state, mm_index, vaddr, Access.BREAK) != VmFault.DONE:
            return NIL


@entry
def break_range(state: "State", mm_index: int, start: int, end: int) -> int:
    """Undo every merge in [start, end); return 0, or NIL if there is no memory for the copies."""
    vaddr = start
    while vaddr < end:
        if pte_position(state, state.mm[mm_index].pgd_pfn, vaddr) == NIL:
            vaddr = (vaddr // HUGE_PAGE_SIZE + 1) * HUGE_PAGE_SIZE
            continue
        if break_ksm(state, mm_index, vaddr) == NIL:
            return NIL
        vaddr += PAGE_SIZE
    return 0
