"""Anonymous memory: a frame of zeroes at the first write, the shared page of zeroes at a first read.

Linux: mm/memory.c (do_anonymous_page).
"""

from typing import TYPE_CHECKING

from node.counters import Current, Knob
from node.fault.entries import mapped_bits, set_user_pte, write_bits
from node.fault.kinds import Access, VmFault
from node.fault.outcome import FaultOutcome
from node.hw.cost import Cost
from node.hw.pte import make_pte
from node.phys.page import PageFlag
from node.phys.page_alloc import alloc_pages
from node.vm.anon_vma import anon_vma_prepare
from node.vm.mlock_page import lru_add_new_page
from node.vm.page_tables import pte_alloc
from node.vm.rmap import page_add_rmap, page_set_anon_rmap
from node.vm.rss import note_late_page
from shared.constants import NIL
from shared.gfp_flags import GFP_HIGHUSER_MOVABLE
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def new_anon_page(state: "State", vma_index: int, vaddr: int) -> int:
    """Return a frame of zeroes that is an exclusive anonymous page of the VMA, on the LRU; or NIL."""
    if anon_vma_prepare(state, vma_index) == NIL:
        return NIL
    pfn = alloc_pages(state, 0, GFP_HIGHUSER_MOVABLE)
    if pfn == NIL:
        return NIL
    page_set_anon_rmap(state, pfn, vma_index, vaddr)
    state.page[pfn].page_flags |= PageFlag.ANON_EXCLUSIVE
    page_add_rmap(state, pfn)
    lru_add_new_page(state, pfn, vma_index)
    return pfn


@kernel
def do_anonymous_page(state: "State", vma_index: int, position: int, vaddr: int, access: int) -> int:
    """Serve a fault on an empty entry, at ``position`` or, if that is NIL, in a table that is still to be made."""
    mm_index = state.vma[vma_index].mm
    mm = state.mm[mm_index]
    if position == NIL:
        position = pte_alloc(state, mm_index, vaddr)
        if position == NIL:
            return VmFault.OOM
    if not access & Access.WRITE:
        mm.nr_zero += 1
        state.fault_outcome[FaultOutcome.ANON_ZERO_PAGE] += 1
        set_user_pte(
            state,
            mm_index,
            position,
            vaddr,
            make_pte(state.knob[Knob.ZERO_PFN], mapped_bits(state, vma_index)),
        )
        return VmFault.DONE
    pfn = new_anon_page(state, vma_index, vaddr)
    if pfn == NIL:
        return VmFault.OOM
    state.current[Current.CLOCK_PS] += state.cost[Cost.PAGE_ZERO]
    mm.nr_anon += 1
    note_late_page(state, mm_index)
    state.fault_outcome[FaultOutcome.ANON_NEW_PAGE] += 1
    bits = mapped_bits(state, vma_index) | write_bits(state, vma_index)
    set_user_pte(state, mm_index, position, vaddr, make_pte(pfn, bits))
    return VmFault.DONE
