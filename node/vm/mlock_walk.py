"""Locking and unlocking all pages that an area maps.

Linux: mm/mlock.c (mlock_vma_pages_range, mlock_pte_range); for areas that go, zap_pte_range's munlock_vma_page.
"""

from typing import TYPE_CHECKING

from node.hw.page_table import pte_position
from node.hw.pte import PROT_NONE, Pte, pte_pfn
from node.phys.page import PageFlag
from node.vm.huge_pmd import huge_position
from node.vm.mlock_page import mlock_page, munlock_page
from node.vm.thp import huge_pages_exist
from shared.constants import HUGE_PAGE_SIZE, NIL, PAGE_SHIFT
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def _lock_page(state: "State", pfn: int, lock: int) -> None:
    if lock:
        mlock_page(state, pfn)
    else:
        munlock_page(state, pfn)


@kernel
def _lock_entries(state: "State", position: int, nr_pages: int, lock: int) -> None:
    """Lock, or unlock, what the entries of one table map: no parts of huge pages."""
    for at in range(position, position + nr_pages):
        pte = state.pt_word[at]
        if pte & (Pte.PRESENT | PROT_NONE) and not state.page[pte_pfn(pte)].page_flags & PageFlag.HUGE:
            _lock_page(state, pte_pfn(pte), lock)


@kernel
def _lock_huge(state: "State", mm_index: int, vaddr: int, lock: int) -> None:
    """Lock, or unlock, the huge page that one entry maps at ``vaddr``, if one does."""
    position = huge_position(state, mm_index, vaddr)
    if position != NIL:
        _lock_page(state, pte_pfn(state.pt_word[position]), lock)


@kernel
def lock_pages(state: "State", vma_index: int, lock: int) -> None:
    """Lock all pages that an area maps, or unlock them (mlock_vma_pages_range)."""
    vma = state.vma[vma_index]
    pgd = state.mm[vma.mm].pgd_pfn
    vaddr = vma.start
    while vaddr < vma.end:
        border = min(vma.end, (vaddr // HUGE_PAGE_SIZE + 1) * HUGE_PAGE_SIZE)
        position = pte_position(state, pgd, vaddr)
        if position != NIL:
            _lock_entries(state, position, (border - vaddr) >> PAGE_SHIFT, lock)
        elif huge_pages_exist(state):
            _lock_huge(state, vma.mm, vaddr, lock)
        vaddr = border
