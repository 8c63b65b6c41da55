"""fork: a second address space over the same frames, to be parted by copy-on-write.

Anonymous pages lose their exclusiveness and both sides their right to write; swapped pages share their slot;
an area that never had an anonymous page is not copied, its faults do it again.

Linux: kernel/fork.c (dup_mmap), mm/memory.c (vma_needs_copy, copy_pte_range, copy_present_pte,
copy_nonpresent_pte).
"""

from typing import TYPE_CHECKING, Final

from node.counters import Knob, KsmStat
from node.hw.page_table import pte_position
from node.hw.paging import PagingMode
from node.hw.pte import PROT_NONE, SWAP_ENTRY_EXCLUSIVE, Pte, pte_pfn, swap_pte_slot
from node.joints import (
    copy_huge_pmd,
    dup_swap_entry,
    exit_mmap,
    get_inode,
    ksm_enter,
    note_view_change,
    swap_in_table,
)
from node.kmap.flush_calls import flush_tlb_mm
from node.phys.page import PageFlag
from node.phys.page_alloc import compound_head
from node.vm.anon_vma import anon_vma_fork
from node.vm.commit import vm_enough_memory, vm_stat_account
from node.vm.mm_init import new_mm_record
from node.vm.page_tables import fetch_ahead, pte_alloc
from node.vm.rmap import count_mapped
from node.vm.table_swap import hold_table, release_table
from node.vm.thp import huge_pages_exist
from node.vm.vma import VmFlag, link_vma, new_vma
from shared.constants import HUGE_PAGE_SIZE, NIL, PAGE_SHIFT, PAGE_SIZE
from shared.jit import entry, kernel
from shared.views import View

if TYPE_CHECKING:
    from node.state import State

MAPS_FRAME: Final = Pte.PRESENT | PROT_NONE  # either bit: the entry has a frame number, not a swap slot


@kernel
def _copy_swap_entry(state: "State", child: int, position: int, to: int) -> None:
    pte = state.pt_word[position] & ~SWAP_ENTRY_EXCLUSIVE
    state.pt_word[position] = pte
    dup_swap_entry(state, swap_pte_slot(pte))
    state.mm[child].nr_swap += 1
    state.pt_word[to] = pte


@kernel
def _share_zero_page(state: "State", child: int, pte: int) -> None:
    state.mm[child].nr_zero += 1
    if pte & Pte.DIRTY:  # made by KSM: see leave_zero_page
        state.mm[child].ksm_zero_pages += 1
        state.ksm_stat[KsmStat.KSM_ZERO_PAGES] += 1


@kernel
def _copy_present(state: "State", child: int, position: int, to: int) -> int:
    """Let the child map the frame of a present entry, and take the right to write from both; return 1 if anonymous.

    Returns 0 for the zero page and a file's. It is the caller who counts anonymous pages.
    """
    pte = state.pt_word[position]
    page = state.page[pte_pfn(pte)]
    flags = page.page_flags
    state.pt_word[position] = pte & ~Pte.WRITE
    state.pt_word[to] = pte & ~(Pte.WRITE | Pte.ACCESSED)
    if flags & PageFlag.ZERO_PAGE:
        _share_zero_page(state, child, pte)
        return 0
    page.page_flags = flags & ~PageFlag.ANON_EXCLUSIVE
    state.page[compound_head(state, pte_pfn(pte))].refcount += 1
    page.mapcount += 1  # it is mapped already, so nr_anon_pages stays
    if flags & PageFlag.ANON:
        return 1
    count_mapped(state, child, pte_pfn(pte), 1)
    return 0


@kernel
def _note_lost_rights(state: "State", parent: int, position: int, vaddr: int, end: int) -> None:
    """Tell a guest whose memory the parent is which of its pages are about to become read-only."""
    for at in range(vaddr, end, PAGE_SIZE):
        pte = state.pt_word[position]
        if pte & MAPS_FRAME and pte & Pte.WRITE:
            note_view_change(state, parent, at, View.READ_ONLY)
        position += 1


@kernel
def _copy_entries(state: "State", child: int, parent: int, vaddr: int, end: int) -> int:
    """Copy what one table of the parent has for [vaddr, end); return 0, or NIL without memory."""
    position = pte_position(state, state.mm[parent].pgd_pfn, vaddr)
    to = pte_alloc(state, child, vaddr)
    if to == NIL:
        return NIL
    # Only now are entries read: reclaim, for the child's table, may have swapped pages out.
    if state.knob[Knob.IS_HOST]:
        _note_lost_rights(state, parent, position, vaddr, end)
    distance = to - position
    nr_anon = 0
    last = position + ((end - vaddr) >> PAGE_SHIFT) - 1
    for at in range(position, last + 1):
        fetch_ahead(state, at, last)
        pte = state.pt_word[at]
        if pte & MAPS_FRAME:
            nr_anon += _copy_present(state, child, at, at + distance)
        elif pte != 0:
            _copy_swap_entry(state, child, at, at + distance)
    state.mm[child].nr_anon += nr_anon
    return 0


@kernel
def _copy_area(state: "State", child: int, parent_vma: int) -> int:
    parent = state.vma[parent_vma].mm
    vaddr = state.vma[parent_vma].start
    end = state.vma[parent_vma].end
    while vaddr < end:
        border = min(end, (vaddr // HUGE_PAGE_SIZE + 1) * HUGE_PAGE_SIZE)
        if state.knob[Knob.PAGEABLE_TABLES] and swap_in_table(state, parent, vaddr) == NIL:
            return NIL
        table = hold_table(state, parent, vaddr)
        if table == NIL and huge_pages_exist(state):
            if copy_huge_pmd(state, child, parent, vaddr) == NIL:
                return NIL
            table = hold_table(state, parent, vaddr)  # if the huge page was split for want of memory
        if table != NIL:
            failed = _copy_entries(state, child, parent, vaddr, border)
            release_table(state, table)
            if failed == NIL:
                return NIL
        vaddr = border
    return 0


@kernel
def _copy_record(state: "State", child: int, parent_vma: int) -> int:
    """Give the child an area like the parent's; return it, or NIL. What is locked is not locked there."""
    vma = state.vma[parent_vma]
    nr_pages = (vma.end - vma.start) >> PAGE_SHIFT
    if vma.vm_flags & VmFlag.ACCOUNT and vm_enough_memory(state, child, nr_pages) == NIL:
        return NIL
    vm_flags = vma.vm_flags & ~(VmFlag.LOCKED | VmFlag.LOCKONFAULT)
    index = new_vma(state, child, vma.start, vma.end, vm_flags)
    if index == NIL:
        return NIL
    copy = state.vma[index]
    copy.pgoff = vma.pgoff
    copy.inode = vma.inode
    if vma.inode:
        get_inode(state, vma.inode)
    link_vma(state, index)
    vm_stat_account(state, child, vm_flags, nr_pages)
    return index


@kernel
def _copy_areas(state: "State", child: int, parent: int) -> int:
    index = state.mm[parent].first_vma
    while index != NIL:
        vma = state.vma[index]
        if vma.vm_flags & VmFlag.DONTCOPY:
            index = vma.next
            continue
        copy = _copy_record(state, child, index)
        if copy == NIL or anon_vma_fork(state, copy, index) == NIL:
            return NIL
        # An area that never had an anonymous page is not copied: its faults do it again (vma_needs_copy).
        if vma.anon_vma and _copy_area(state, child, index) == NIL:
            return NIL
        index = vma.next
    return 0


@entry
def fork_mm(state: "State", parent: int) -> int:
    """Return a copy of the address space, sharing its frames, or NIL if memory runs out half-way."""
    if state.knob[Knob.PAGING_MODE] == PagingMode.NONE:
        return NIL  # the copy would have to be at the same addresses
    child = new_mm_record(state)
    if child == NIL:
        return NIL
    child_mm = state.mm[child]
    parent_mm = state.mm[parent]
    child_mm.alive = 0  # not yet: the OOM killer must not pick a process that is half made
    child_mm.brk_start = parent_mm.brk_start
    child_mm.brk = parent_mm.brk
    child_mm.mmap_top = parent_mm.mmap_top
    child_mm.oom_score_adj = parent_mm.oom_score_adj
    child_mm.start_stack = parent_mm.start_stack
    child_mm.start_code = parent_mm.start_code
    child_mm.end_code = parent_mm.end_code
    child_mm.start_data = parent_mm.start_data
    child_mm.end_data = parent_mm.end_data
    child_mm.stack_limit = parent_mm.stack_limit
    child_mm.as_limit = parent_mm.as_limit
    child_mm.data_limit = parent_mm.data_limit
    child_mm.memlock_limit = parent_mm.memlock_limit
    if parent_mm.mergeable:
        ksm_enter(state, child)
    failed = _copy_areas(state, child, parent)
    child_mm.alive = 1
    flush_tlb_mm(state, parent)
    if failed == NIL:
        exit_mmap(state, child)
        return NIL
    return child
