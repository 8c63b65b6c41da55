"""Faulting pages in ahead of use: MAP_POPULATE, MAP_LOCKED, mlock, MADV_POPULATE.

The kernel walks the areas as if the process used each page: for writing where that makes a page its own, else for
reading. Such faults count like any other, and each page, whether it was there before or not, is marked as used: one
that is populated twice goes to the active list. A huge entry's page is not marked. A page that cannot be had ends it;
what is there stays.

Linux: mm/gup.c (populate_vma_page_range, __mm_populate, faultin_vma_page_range, follow_page_pte with FOLL_TOUCH).
"""

from typing import TYPE_CHECKING, Final

from node.errno import Errno
from node.fault.kinds import Access, VmFault
from node.hw.page_table import pte_position
from node.hw.pte import Pte, pte_pfn
from node.joints import handle_mm_fault
from node.phys.page import PageFlag
from node.reclaim.lru import mark_page_accessed
from node.vm.leaf_word import leaf_word
from node.vm.vma import VmFlag, find_vma
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

ATTEMPTS: Final = 16  # as an access has (node/fault/user_fault.py)


@kernel
def _mark_used(state: "State", mm_index: int, vaddr: int, pte: int, access: int) -> None:
    """Mark a page that has an entry of the last level; of a huge page's part, the whole.

    One that is to be written is dirty from then on, whether or not its entry says so: it is not discardable any more.
    """
    pfn = pte_pfn(pte)
    if state.page[pfn].page_flags & PageFlag.HUGE:
        if pte_position(state, state.mm[mm_index].pgd_pfn, vaddr) == NIL:
            return
        pfn = state.page[pfn].head
    if access & Access.WRITE and not pte & Pte.DIRTY:
        state.page[pte_pfn(pte)].page_flags |= PageFlag.DIRTY
    mark_page_accessed(state, pfn)


@kernel
def fault_in_page(state: "State", mm_index: int, vaddr: int, access: int) -> int:
    """Fault until the page is there, and mark it as used; return 0, or the VmFault that says why it cannot be."""
    wanted = Pte.PRESENT | Pte.WRITE if access & Access.WRITE else Pte.PRESENT
    for _ in range(ATTEMPTS):
        pte = leaf_word(state, mm_index, vaddr)
        if pte & wanted == wanted:
            _mark_used(state, mm_index, vaddr, pte, access)
            return 0
        outcome = handle_mm_fault(state, mm_index, vaddr, access)
        if outcome != VmFault.DONE:
            return outcome
    return VmFault.OOM


@kernel
def _access_of(vm_flags: int) -> int:
    """Return how an area is populated: written if it is private and writable, so that copy-on-write is done with."""
    return Access.WRITE if vm_flags & (VmFlag.WRITE | VmFlag.SHARED) == VmFlag.WRITE else Access.READ


@entry
def populate_range(state: "State", mm_index: int, start: int, end: int) -> int:
    """Fault in every page of [start, end) that its area allows, as if it were used; return how many could not be."""
    index = find_vma(state, mm_index, start)
    while index != NIL and state.vma[index].start < end:
        vma = state.vma[index]
        access = _access_of(vma.vm_flags)
        if vma.vm_flags & (VmFlag.READ | VmFlag.WRITE) and not vma.vm_flags & VmFlag.LOCKONFAULT:
            for vaddr in range(max(start, vma.start), min(end, vma.end), PAGE_SIZE):
                if fault_in_page(state, mm_index, vaddr, access):
                    return (end - vaddr) >> PAGE_SHIFT
        index = vma.next
    return 0


@entry
def populate_area(state: "State", vma: int, start: int, end: int, write: int) -> int:
    """Fault in every page of [start, end) of one area, for reading or writing; return 0, or a negative Errno."""
    record = state.vma[vma]
    if not record.vm_flags & (VmFlag.WRITE if write else VmFlag.READ):
        return Errno.EINVAL
    mm_index = record.mm
    for vaddr in range(start, end, PAGE_SIZE):
        outcome = fault_in_page(state, mm_index, vaddr, Access.WRITE if write else Access.READ)
        if outcome:
            return Errno.ENOMEM if outcome == VmFault.OOM else Errno.EFAULT
    return 0
