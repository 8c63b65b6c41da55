"""Page faults: from an address that the walk refused to an entry that serves it.

    no area, or it forbids the access ------------------------------> SEGV
    entry empty       read  -> the shared zero page, read-only
                      write -> a frame of zeroes
    swap entry        the page from the swap cache or the device, then as below if it must be written
    table swapped     the table, and no more: the access is tried again (node/vm/table_swap.py)
    read-only entry   write -> reuse an exclusive page, copy a shared, merged or zero page (copy-on-write)

``Access.BREAK`` is what KSM and ``madvise(MADV_UNMERGEABLE)`` use to undo a merge: a write that the area need
not allow.

The fault counts for the process of the current task, which need not be the one whose memory it is: ksmd and
whoever writes to /sys/kernel/mm/ksm/run break other processes' merges.

Linux: mm/memory.c (handle_mm_fault, do_anonymous_page, do_wp_page, do_swap_page, wp_page_copy),
mm/ksm.c (ksm_might_need_to_copy).
# Differs from Linux: files, shared mappings and huge pages come with later work.
"""

from typing import TYPE_CHECKING

from node.content import copy_content
from node.counters import Current, Knob, KsmRun, Request, VmEvent
from node.hw.cost import Cost
from node.hw.page_table import pte_position
from node.hw.pte import SWAP_ENTRY_EXCLUSIVE, Pte, is_swap_pte, make_pte, pte_pfn, swap_pte_slot
from node.joints import (
    free_swap_entry,
    free_swap_if_full,
    note_view_change,
    swap_in,
    swap_in_table,
    try_to_free_swap,
)
from node.kmap.flush_calls import flush_tlb_page
from node.phys.page import PageFlag
from node.phys.page_alloc import alloc_pages
from node.reclaim.lru import LruList, lru_add
from node.vm.fault_kinds import Access, VmFault
from node.vm.page_tables import pte_alloc
from node.vm.put_page import put_page
from node.vm.rmap import (
    anon_vma_prepare,
    leave_zero_page,
    page_add_rmap,
    page_remove_rmap,
    page_set_anon_rmap,
    page_share_anon_rmap,
)
from node.vm.table_swap import hold_table, release_table
from node.vm.vma import VmFlag, vma_at
from shared.constants import NIL, PAGE_SHIFT
from shared.gfp_flags import GFP_HIGHUSER_MOVABLE
from shared.jit import entry, kernel
from shared.views import View

if TYPE_CHECKING:
    from node.state import State


MAPPED_BITS = Pte.PRESENT | Pte.USER | Pte.ACCESSED


@kernel
def _mapped_bits(state: "State", vma_index: int) -> int:
    """Return the bits of a read-only entry of an area (vm_page_prot)."""
    if state.vma[vma_index].vm_flags & VmFlag.EXEC:
        return MAPPED_BITS
    return MAPPED_BITS | state.knob[Knob.NX_BIT]


@kernel
def set_user_pte(state: "State", mm_index: int, position: int, vaddr: int, pte: int) -> None:
    """Write a present entry, and tell a guest whose memory this is."""
    state.pt_word[position] = pte
    if state.knob[Knob.IS_HOST]:
        note_view_change(state, mm_index, vaddr, View.WRITABLE if pte & Pte.WRITE else View.READ_ONLY)


@kernel
def _write_bits(state: "State", vma_index: int) -> int:
    return Pte.DIRTY | Pte.WRITE if state.vma[vma_index].vm_flags & VmFlag.WRITE else Pte.DIRTY


@kernel
def _new_anon_page(state: "State", vma_index: int, vaddr: int) -> int:
    """Return a frame of zeroes that is an exclusive anonymous page of the VMA, on the LRU; or NIL."""
    if anon_vma_prepare(state, vma_index) == NIL:
        return NIL
    pfn = alloc_pages(state, 0, GFP_HIGHUSER_MOVABLE)
    if pfn == NIL:
        return NIL
    page_set_anon_rmap(state, pfn, vma_index, vaddr)
    state.page[pfn].page_flags |= PageFlag.ANON_EXCLUSIVE
    page_add_rmap(state, pfn)
    lru_add(state, LruList.INACTIVE_ANON, pfn)
    return pfn


@kernel
def _do_anonymous_page(state: "State", vma_index: int, position: int, vaddr: int, access: int) -> int:
    """Serve a fault on an empty entry, at ``position`` or, if that is NIL, in a table that is still to be made."""
    mm_index = state.vma[vma_index].mm
    mm = state.mm[mm_index]
    if position == NIL:
        position = pte_alloc(state, mm_index, vaddr)
        if position == NIL:
            return VmFault.OOM
    if not access & Access.WRITE:
        mm.nr_zero += 1
        set_user_pte(
            state,
            mm_index,
            position,
            vaddr,
            make_pte(state.knob[Knob.ZERO_PFN], _mapped_bits(state, vma_index)),
        )
        return VmFault.DONE
    pfn = _new_anon_page(state, vma_index, vaddr)
    if pfn == NIL:
        return VmFault.OOM
    state.current[Current.CLOCK_PS] += state.cost[Cost.PAGE_ZERO]
    mm.nr_anon += 1
    bits = _mapped_bits(state, vma_index) | _write_bits(state, vma_index)
    set_user_pte(state, mm_index, position, vaddr, make_pte(pfn, bits))
    return VmFault.DONE


@kernel
def _copy_page(state: "State", vma_index: int, position: int, vaddr: int) -> int:
    """Give the VMA a copy of its own of the page that the entry maps (wp_page_copy)."""
    mm_index = state.vma[vma_index].mm
    mm = state.mm[mm_index]
    old = pte_pfn(state.pt_word[position])
    is_zero = state.page[old].page_flags & PageFlag.ZERO_PAGE
    if not is_zero:
        # Reclaim, called by the allocation, may take the page away from under the entry.
        state.page[old].refcount += 1
    new = _new_anon_page(state, vma_index, vaddr)
    if new == NIL or (not is_zero and pte_pfn(state.pt_word[position]) != old):
        return _copy_failed(state, NIL if is_zero else old, new)
    copy_content(state, new, old)
    state.current[Current.CLOCK_PS] += state.cost[Cost.PAGE_ZERO if is_zero else Cost.PAGE_COPY]
    if is_zero:
        leave_zero_page(state, mm_index, state.pt_word[position])
        mm.nr_anon += 1
    else:
        page_remove_rmap(state, old)
        if state.page[old].mapcount == 0 and state.page[old].page_flags & PageFlag.SWAPCACHE:
            try_to_free_swap(state, old)
        put_page(state, old)
        put_page(state, old)
    bits = _mapped_bits(state, vma_index) | _write_bits(state, vma_index)
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
    if page.refcount > (2 if page.page_flags & PageFlag.SWAPCACHE else 1):
        return 0
    if page.page_flags & PageFlag.SWAPCACHE:
        try_to_free_swap(state, pfn)
    return 1 if page.refcount == 1 else 0


@kernel
def _do_wp_page(state: "State", vma_index: int, position: int, vaddr: int) -> int:
    pte = state.pt_word[position]
    pfn = pte_pfn(pte)
    page = state.page[pfn]
    if _may_reuse(state, pfn):
        page.page_flags |= PageFlag.ANON_EXCLUSIVE
        state.vm_event[VmEvent.PGREUSE] += 1
        mm_index = state.vma[vma_index].mm
        set_user_pte(state, mm_index, position, vaddr, pte | Pte.ACCESSED | _write_bits(state, vma_index))
        flush_tlb_page(state, mm_index, vaddr)
        return VmFault.DONE
    if page.page_flags & PageFlag.KSM:
        state.vm_event[VmEvent.COW_KSM] += 1
    return _copy_page(state, vma_index, position, vaddr)


@kernel
def _needs_copy_of_swapped_page(state: "State", pfn: int, vma_index: int, vaddr: int) -> int:
    """Return whether a swap-cache page belongs to another place than this (ksm_might_need_to_copy)."""
    page = state.page[pfn]
    if page.page_flags & PageFlag.KSM:
        return 1 if state.knob[Knob.KSM_RUN] == KsmRun.UNMERGE else 0
    if not page.page_flags & PageFlag.ANON:
        return 0
    if page.index != vaddr >> PAGE_SHIFT:
        return 1
    own_root = state.anon_vma[state.vma[vma_index].anon_vma].root
    return 0 if state.anon_vma[page.mapping].root == own_root else 1


@kernel
def _copy_swapped_page(state: "State", pfn: int, vma_index: int, vaddr: int) -> int:
    """Return a new exclusive page with the content of swap-cache page ``pfn``, whose reference is dropped; or NIL."""
    new = _new_anon_page(state, vma_index, vaddr)
    if new != NIL:
        copy_content(state, new, pfn)
        state.vm_event[VmEvent.KSM_SWPIN_COPY] += 1
        state.current[Current.CLOCK_PS] += state.cost[Cost.PAGE_COPY]
    put_page(state, pfn)
    return new


@kernel
def _drop_swap_if_useless(state: "State", pfn: int, access: int) -> None:
    """Free the slot when swap is filling up, or when this write would soon leave it stale."""
    page = state.page[pfn]
    if not page.page_flags & PageFlag.SWAPCACHE:
        return
    writing_alone = access & Access.WRITE and not page.page_flags & PageFlag.KSM and page.refcount == 2  # noqa: PLR2004
    if writing_alone:
        try_to_free_swap(state, pfn)
    else:
        free_swap_if_full(state, pfn)


@kernel
def _take_swapped_page(state: "State", pfn: int, vma_index: int, vaddr: int, access: int) -> None:
    """Make a page of the swap cache one that the VMA maps; its swap entry here is gone already."""
    _drop_swap_if_useless(state, pfn, access)
    page = state.page[pfn]
    if not page.page_flags & PageFlag.KSM and page.refcount == 1:
        page.page_flags |= PageFlag.ANON_EXCLUSIVE
    if not page.page_flags & PageFlag.ANON:
        if page.page_flags & PageFlag.ANON_EXCLUSIVE:
            page_set_anon_rmap(state, pfn, vma_index, vaddr)
        else:
            page_share_anon_rmap(state, pfn, vma_index, vaddr)
    page_add_rmap(state, pfn)


@kernel
def _do_swap_page(state: "State", vma_index: int, position: int, vaddr: int, access: int) -> int:
    mm_index = state.vma[vma_index].mm
    swap_pte = state.pt_word[position]
    if anon_vma_prepare(state, vma_index) == NIL:
        return VmFault.OOM
    pfn = swap_in(state, mm_index, vaddr, swap_pte)
    if pfn == NIL:
        return VmFault.OOM
    if state.request[Request.R0]:
        state.vm_event[VmEvent.PGMAJFAULT] += 1
        _count_fault(state, 1)
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
    bits = _mapped_bits(state, vma_index) | (_write_bits(state, vma_index) if writable else 0)
    set_user_pte(state, mm_index, position, vaddr, make_pte(pfn, bits))
    if access & Access.WRITE and not writable:
        return _do_wp_page(state, vma_index, position, vaddr)
    return VmFault.DONE


@kernel
def _count_fault(state: "State", major: int) -> None:
    """Count for the current task: one fault, or that the fault just counted was a major one."""
    current = state.current[Current.MM]
    if current == 0:
        return
    mm = state.mm[current]
    if major:
        mm.majflt += 1
        mm.minflt -= 1
    else:
        mm.minflt += 1


@kernel
def _access_allowed(state: "State", vma_index: int, access: int) -> int:
    vm_flags = state.vma[vma_index].vm_flags
    if access == Access.WRITE:
        return vm_flags & VmFlag.WRITE
    if access == Access.BREAK:
        return 1
    if access == Access.EXECUTE:
        return vm_flags & VmFlag.EXEC
    return vm_flags & (VmFlag.READ | VmFlag.WRITE | VmFlag.EXEC)


@kernel
def _serve(state: "State", vma_index: int, vaddr: int, access: int) -> int:
    """Serve a fault that the area allows, as the page's entry asks for; return a VmFault."""
    position = pte_position(state, state.mm[state.vma[vma_index].mm].pgd_pfn, vaddr)
    pte = 0 if position == NIL else state.pt_word[position]
    if pte == 0:
        return _do_anonymous_page(state, vma_index, position, vaddr, access)
    if is_swap_pte(pte):
        return _do_swap_page(state, vma_index, position, vaddr, access)
    if access & Access.WRITE and not pte & Pte.WRITE:
        return _do_wp_page(state, vma_index, position, vaddr)
    state.pt_word[position] = pte | Pte.ACCESSED
    return VmFault.DONE


@kernel
def _bring_table(state: "State", mm_index: int, vaddr: int) -> int:
    """Bring back the table for ``vaddr`` if it is swapped out; return the fault's VmFault then, else NIL."""
    came = swap_in_table(state, mm_index, vaddr)
    if came == NIL:
        return VmFault.OOM
    if not came:
        return NIL
    if state.request[Request.R0]:
        state.vm_event[VmEvent.PGMAJFAULT] += 1
        _count_fault(state, 1)
    return VmFault.DONE


@entry
def handle_mm_fault(state: "State", mm_index: int, vaddr: int, access: int) -> int:
    """Serve a page fault of the current task in address space ``mm_index``; return a VmFault.

    ``access`` is an Access. After DONE the access is tried again: the page may have been taken away while
    its neighbour was being allocated, or only its table have come back, and then it faults once more.
    """
    vma_index = vma_at(state, mm_index, vaddr)
    if vma_index == NIL or not _access_allowed(state, vma_index, access):
        return VmFault.SEGV
    state.vm_event[VmEvent.PGFAULT] += 1
    _count_fault(state, 0)
    state.current[Current.CLOCK_PS] += state.cost[Cost.PAGE_FAULT]
    table = NIL
    if state.knob[Knob.PAGEABLE_TABLES]:
        outcome = _bring_table(state, mm_index, vaddr)
        if outcome != NIL:
            return outcome
        table = hold_table(state, mm_index, vaddr)
    outcome = _serve(state, vma_index, vaddr, access)
    release_table(state, table)
    return outcome
