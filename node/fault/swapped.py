"""Swap entries: the page comes from the swap cache or the device, and is then as exclusive as it was.

Linux: mm/memory.c (do_swap_page, should_try_to_free_swap), mm/ksm.c (ksm_might_need_to_copy).
"""

from typing import TYPE_CHECKING

from node.content import copy_content
from node.counters import Current, Knob, KsmRun, Request, VmEvent
from node.fault.anon import new_anon_page
from node.fault.cow import do_wp_page
from node.fault.entries import count_fault, mapped_bits, set_user_pte, write_bits
from node.fault.kinds import Access, VmFault
from node.fault.outcome import FaultOutcome
from node.hw.cost import Cost
from node.hw.pte import SWAP_ENTRY_EXCLUSIVE, make_pte, swap_pte_slot
from node.joints import free_swap_entry, free_swap_if_full, swap_in, try_to_free_swap
from node.phys.page import PageFlag
from node.vm.anon_vma import anon_vma_prepare
from node.vm.mlock_page import mlock_vma_page
from node.vm.put_page import put_page
from node.vm.rmap import linear_page_index, page_add_rmap, page_set_anon_rmap, page_share_anon_rmap
from node.vm.vma import VmFlag
from shared.constants import NIL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def _needs_copy_of_swapped_page(state: "State", pfn: int, vma_index: int, vaddr: int) -> int:
    """Return whether a swap-cache page belongs to another place than this (ksm_might_need_to_copy)."""
    page = state.page[pfn]
    if page.page_flags & PageFlag.KSM:
        return 1 if state.knob[Knob.KSM_RUN] == KsmRun.UNMERGE else 0
    if not page.page_flags & PageFlag.ANON:
        return 0
    if page.index != linear_page_index(state, vma_index, vaddr):
        return 1
    own_root = state.anon_vma[state.vma[vma_index].anon_vma].root
    return 0 if state.anon_vma[page.mapping].root == own_root else 1


@kernel
def _copy_swapped_page(state: "State", pfn: int, vma_index: int, vaddr: int) -> int:
    """Return a new exclusive page with the content of swap-cache page ``pfn``, whose reference is dropped; or NIL."""
    new = new_anon_page(state, vma_index, vaddr)
    if new != NIL:
        copy_content(state, new, pfn)
        state.vm_event[VmEvent.KSM_SWPIN_COPY] += 1
        state.current[Current.CLOCK_PS] += state.cost[Cost.PAGE_COPY]
    put_page(state, pfn)
    return new


@kernel
def _drop_swap_if_useless(state: "State", pfn: int, vma_index: int, access: int) -> None:
    """Free the slot when swap is filling up, when this write would soon leave it stale, or when the page is to stay."""
    page = state.page[pfn]
    if not page.page_flags & PageFlag.SWAPCACHE:
        return
    writing_alone = access & Access.WRITE and not page.page_flags & PageFlag.KSM and page.refcount == 2  # noqa: PLR2004
    if writing_alone or state.vma[vma_index].vm_flags & VmFlag.LOCKED:
        try_to_free_swap(state, pfn)
    else:
        free_swap_if_full(state, pfn)


@kernel
def _take_swapped_page(state: "State", pfn: int, vma_index: int, vaddr: int, access: int) -> None:
    """Make a page of the swap cache one that the VMA maps; its swap entry here is gone already."""
    _drop_swap_if_useless(state, pfn, vma_index, access)
    page = state.page[pfn]
    if not page.page_flags & PageFlag.KSM and page.refcount == 1:
        page.page_flags |= PageFlag.ANON_EXCLUSIVE
    if not page.page_flags & PageFlag.ANON:
        if page.page_flags & PageFlag.ANON_EXCLUSIVE:
            page_set_anon_rmap(state, pfn, vma_index, vaddr)
        else:
            page_share_anon_rmap(state, pfn, vma_index, vaddr)
    page_add_rmap(state, pfn)
    mlock_vma_page(state, pfn, vma_index)


@kernel
def do_swap_page(state: "State", vma_index: int, position: int, vaddr: int, access: int) -> int:
    """Serve a fault on a swap entry; return a VmFault."""
    mm_index = state.vma[vma_index].mm
    swap_pte = state.pt_word[position]
    if anon_vma_prepare(state, vma_index) == NIL:
        return VmFault.OOM
    pfn = swap_in(state, mm_index, vaddr, swap_pte)
    if pfn == NIL:
        return VmFault.OOM
    if state.request[Request.R0]:
        state.vm_event[VmEvent.PGMAJFAULT] += 1
        state.fault_outcome[FaultOutcome.SWAP_MAJOR] += 1
        count_fault(state, 1)
    else:
        state.fault_outcome[FaultOutcome.SWAP_MINOR] += 1
    if state.pt_word[position] != swap_pte:
        put_page(state, pfn)
        return VmFault.DONE
    if _needs_copy_of_swapped_page(state, pfn, vma_index, vaddr):
        pfn = _copy_swapped_page(state, pfn, vma_index, vaddr)
        if pfn == NIL:
            return VmFault.OOM
        free_swap_entry(state, swap_pte_slot(swap_pte))
    else:
        free_swap_entry(state, swap_pte_slot(swap_pte))
        if swap_pte & SWAP_ENTRY_EXCLUSIVE and not state.page[pfn].page_flags & PageFlag.KSM:
            state.page[pfn].page_flags |= PageFlag.ANON_EXCLUSIVE
        _take_swapped_page(state, pfn, vma_index, vaddr, access)
    mm = state.mm[mm_index]
    mm.nr_anon += 1
    mm.nr_swap -= 1
    writable = access & Access.WRITE and state.page[pfn].page_flags & PageFlag.ANON_EXCLUSIVE
    bits = mapped_bits(state, vma_index) | (write_bits(state, vma_index) if writable else 0)
    set_user_pte(state, mm_index, position, vaddr, make_pte(pfn, bits))
    if access & Access.WRITE and not writable:
        return do_wp_page(state, vma_index, position, vaddr)
    return VmFault.DONE
