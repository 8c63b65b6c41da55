"""Writes to read-only entries: copy-on-write, and reuse where nobody else has the page.

    the page of zeroes                     -> a frame of zeroes
    page of a shared area                  -> it may be written from now on; a file hears of it (page_mkwrite)
    anonymous, exclusive or of one user    -> reuse
    anonymous and shared, merged, a file's -> a copy

Linux: mm/memory.c (do_wp_page, wp_page_copy, wp_page_reuse, wp_page_shared).
"""

from typing import TYPE_CHECKING

from node.content import copy_content
from node.counters import Current, VmEvent
from node.fault.anon import new_anon_page
from node.fault.entries import mapped_bits, set_user_pte, write_bits
from node.fault.kinds import VmFault
from node.fault.outcome import FaultOutcome
from node.hw.cost import Cost
from node.hw.pte import Pte, make_pte, pte_pfn
from node.joints import try_to_free_swap
from node.kmap.flush_calls import flush_tlb_page
from node.pagecache.dirty import set_page_dirty
from node.phys.page import PageFlag
from node.phys.page_alloc import compound_head, get_page
from node.vm.mlock_page import munlock_vma_page
from node.vm.put_page import put_page
from node.vm.rmap import count_mapped, leave_zero_page, page_remove_rmap
from node.vm.rss import note_late_page
from node.vm.vma import VmFlag
from shared.constants import NIL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def _copy_page(state: "State", vma_index: int, position: int, vaddr: int) -> int:
    """Give the VMA a copy of its own of the page that the entry maps (wp_page_copy)."""
    mm_index = state.vma[vma_index].mm
    old = pte_pfn(state.pt_word[position])
    is_zero = state.page[old].page_flags & PageFlag.ZERO_PAGE
    if not is_zero:
        # Reclaim, called by the allocation, may take the page away from under the entry.
        get_page(state, old)
    new = new_anon_page(state, vma_index, vaddr)
    if new == NIL or (not is_zero and pte_pfn(state.pt_word[position]) != old):
        return _copy_failed(state, NIL if is_zero else old, new)
    copy_content(state, new, old)
    state.current[Current.CLOCK_PS] += state.cost[Cost.PAGE_ZERO if is_zero else Cost.PAGE_COPY]
    if is_zero:
        leave_zero_page(state, mm_index, state.pt_word[position])
        note_late_page(state, mm_index)
    else:
        count_mapped(state, mm_index, old, -1)
        page_remove_rmap(state, old)
        munlock_vma_page(state, old, vma_index)
        if state.page[old].mapcount == 0 and state.page[old].page_flags & PageFlag.SWAPCACHE:
            try_to_free_swap(state, old)
        put_page(state, old)
        put_page(state, old)
    state.mm[mm_index].nr_anon += 1
    bits = mapped_bits(state, vma_index) | write_bits(state, vma_index)
    set_user_pte(state, mm_index, position, vaddr, make_pte(new, bits))
    flush_tlb_page(state, mm_index, vaddr)
    return VmFault.DONE


@kernel
def _copy_failed(state: "State", old: int, new: int) -> int:
    """Undo a copy: there was no memory, or the old page was swapped out meanwhile and the access is tried again."""
    if old != NIL:
        put_page(state, old)
    if new == NIL:
        return VmFault.OOM
    page_remove_rmap(state, new)
    put_page(state, new)
    return VmFault.DONE


@kernel
def _may_reuse(state: "State", pfn: int) -> int:
    """Return whether a write may take over the page: nobody else maps it or holds it."""
    page = state.page[pfn]
    if page.page_flags & PageFlag.ANON_EXCLUSIVE:
        return 1
    if page.page_flags & PageFlag.KSM or not page.page_flags & PageFlag.ANON:
        return 0
    holder = state.page[compound_head(state, pfn)]
    if holder.refcount > (2 if page.page_flags & PageFlag.SWAPCACHE else 1):
        return 0
    if page.page_flags & PageFlag.SWAPCACHE:
        try_to_free_swap(state, pfn)
    return 1 if holder.refcount == 1 else 0


@kernel
def _reuse(state: "State", vma_index: int, position: int, vaddr: int) -> int:
    """Let the entry be written as it is (wp_page_reuse)."""
    state.vm_event[VmEvent.PGREUSE] += 1
    mm_index = state.vma[vma_index].mm
    pte = state.pt_word[position] | Pte.ACCESSED | write_bits(state, vma_index)
    set_user_pte(state, mm_index, position, vaddr, pte)
    flush_tlb_page(state, mm_index, vaddr)
    return VmFault.DONE


@kernel
def _copy_outcome(page_flags: int) -> int:
    """Return the FaultOutcome of a copy, by whose page it was."""
    if page_flags & PageFlag.ZERO_PAGE:
        return FaultOutcome.WP_COPIED_ZERO
    if page_flags & PageFlag.KSM:
        return FaultOutcome.WP_COPIED_MERGED
    return FaultOutcome.WP_COPIED if page_flags & PageFlag.ANON else FaultOutcome.WP_COPIED_FILE


@kernel
def do_wp_page(state: "State", vma_index: int, position: int, vaddr: int) -> int:
    """Serve a write to an entry that is present and read-only; return a VmFault."""
    pfn = pte_pfn(state.pt_word[position])
    page = state.page[pfn]
    if state.vma[vma_index].vm_flags & VmFlag.SHARED:
        set_page_dirty(state, pfn)
        state.fault_outcome[FaultOutcome.WP_SHARED] += 1
        return _reuse(state, vma_index, position, vaddr)
    if _may_reuse(state, pfn):
        page.page_flags |= PageFlag.ANON_EXCLUSIVE
        state.fault_outcome[FaultOutcome.WP_REUSED] += 1
        return _reuse(state, vma_index, position, vaddr)
    if page.page_flags & PageFlag.KSM:
        state.vm_event[VmEvent.COW_KSM] += 1
    state.fault_outcome[_copy_outcome(page.page_flags)] += 1
    return _copy_page(state, vma_index, position, vaddr)
