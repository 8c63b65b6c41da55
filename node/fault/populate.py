"""Faulting pages in ahead of use: MAP_POPULATE, MAP_LOCKED, mlock, MADV_POPULATE.

The kernel walks the areas as if the process used each page: for writing where that makes a page its own, else for
reading. Such faults count like any other. A page that cannot be had ends it; what is there stays.

Linux: mm/gup.c (populate_vma_page_range, __mm_populate, faultin_vma_page_range).
"""

from typing import TYPE_CHECKING, Final

from node.errno import Errno
from node.fault.kinds import Access, VmFault
from node.hw.pte import Pte
from node.joints import handle_mm_fault
from node.vm.leaf_word import leaf_word
from node.vm.vma import VmFlag, find_vma
from shared.constants import NIL, PAGE_SHIFT, PAGE_SIZE
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

ATTEMPTS: Final = 16  # as an access has (node/fault/user_fault.py)


@kernel
def _is_there(state: "State", mm_index: int, vaddr: int, write: int) -> int:
    """Return whether the page is mapped, and writable if it is to be."""
    pte = leaf_word(state, mm_index, vaddr)
    return 1 if pte & Pte.PRESENT and (not write or pte & Pte.WRITE) else 0


@kernel
def fault_in_page(state: "State", mm_index: int, vaddr: int, access: int) -> int:
    """Fault until the page is there; return 0, or the VmFault that says why it cannot be."""
    for _ in range(ATTEMPTS):
        if _is_there(state, mm_index, vaddr, access & Access.WRITE):
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
