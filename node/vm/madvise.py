"""madvise: what a process says of the use that it will make of an area, and what is done with the pages it names.

    MERGEABLE, UNMERGEABLE            ksmd may merge its pages, or must undo its merges
    NORMAL, RANDOM, SEQUENTIAL        how a file is read ahead
    HUGEPAGE, NOHUGEPAGE              whether huge pages may serve it
    DONTNEED                          the pages go at once: zeroes, or the file's contents, at the next use
    FREE                              the pages may go, unless they are written first: they become discardable
    COLD                              the pages are as if not used for long
    WILLNEED, POPULATE_READ / _WRITE  the pages come now

Advice that changes an area's flags splits and merges areas. Pages that are not mapped are no error, addresses without
an area are: the rest is done, and ENOMEM returned.

Linux: mm/madvise.c (madvise_behavior, madvise_vma_behavior, madvise_free_pte_range), mm/ksm.c (ksm_madvise).
"""

from enum import IntEnum
from typing import TYPE_CHECKING

from node.counters import Knob, VmEvent
from node.errno import Errno
from node.hw.page_table import pte_position
from node.hw.pte import Pte, is_swap_pte, pte_pfn, swap_pte_slot
from node.joints import break_range, free_swap_entry, ksm_enter, populate_area, try_to_free_swap
from node.kmap.flush_calls import flush_tlb_page
from node.phys.page import PageFlag
from node.reclaim.lru import LruList, lru_add, lru_del
from node.vm.thp import ThpMode, khugepaged_enter
from node.vm.unmap import zap_page_range
from node.vm.vma import VmFlag, find_vma
from node.vm.vma_adjust import change_flags, isolate_part
from shared.constants import HUGE_PAGE_SIZE, NIL, PAGE_SIZE
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State


class Advice(IntEnum):
    """Values of madvise's third argument, as Linux has them (MADV_...)."""

    NORMAL = 0
    RANDOM = 1
    SEQUENTIAL = 2
    WILLNEED = 3
    DONTNEED = 4
    FREE = 8
    MERGEABLE = 12
    UNMERGEABLE = 13
    HUGEPAGE = 14
    NOHUGEPAGE = 15
    COLD = 20
    PAGEOUT = 21
    POPULATE_READ = 22
    POPULATE_WRITE = 23


# --- advice that changes flags --------------------------------------------------------------------------


@kernel
def _changes_flags(advice: int) -> int:
    """Return whether advice is kept in an area's flags."""
    if advice <= Advice.SEQUENTIAL:
        return 1
    return 1 if Advice.MERGEABLE <= advice <= Advice.NOHUGEPAGE else 0


@kernel
def _advised_flags(vm_flags: int, advice: int) -> int:
    """Return an area's flags after advice."""
    if advice == Advice.NORMAL:
        return vm_flags & ~(VmFlag.RAND_READ | VmFlag.SEQ_READ)
    if advice == Advice.RANDOM:
        return (vm_flags & ~VmFlag.SEQ_READ) | VmFlag.RAND_READ
    if advice == Advice.SEQUENTIAL:
        return (vm_flags & ~VmFlag.RAND_READ) | VmFlag.SEQ_READ
    if advice == Advice.HUGEPAGE:
        return (vm_flags & ~VmFlag.NOHUGEPAGE) | VmFlag.HUGEPAGE
    if advice == Advice.NOHUGEPAGE:
        return (vm_flags & ~VmFlag.HUGEPAGE) | VmFlag.NOHUGEPAGE
    if advice == Advice.MERGEABLE:
        return vm_flags | VmFlag.MERGEABLE
    if advice == Advice.UNMERGEABLE:
        return vm_flags & ~VmFlag.MERGEABLE
    return vm_flags


@kernel
def _may_merge_pages(vm_flags: int) -> int:
    """Return whether ksmd may ever look at an area: anonymous and private (ksm_madvise)."""
    return 1 if not vm_flags & (VmFlag.SHARED | VmFlag.HUGETLB | VmFlag.MERGEABLE) else 0


@kernel
def _advise_flags(state: "State", index: int, start: int, end: int, advice: int) -> int:
    """Do what advice asks of [start, end) of an area; return 0, or Errno.ENOMEM."""
    vma = state.vma[index]
    vm_flags = vma.vm_flags
    if advice == Advice.MERGEABLE:
        if not _may_merge_pages(vm_flags):
            return 0
        if not state.mm[vma.mm].mergeable:
            ksm_enter(state, vma.mm)
    if advice == Advice.HUGEPAGE and state.knob[Knob.THP_ENABLED] != ThpMode.NEVER:
        khugepaged_enter(state, index)
    if advice == Advice.UNMERGEABLE:
        if not vm_flags & VmFlag.MERGEABLE:
            return 0
        if vma.anon_vma and break_range(state, vma.mm, start, end) == NIL:
            return Errno.ENOMEM
    advised = _advised_flags(vm_flags, advice)
    if advised == vm_flags:
        return 0
    index = isolate_part(state, index, start, end)
    if index == NIL:
        return Errno.ENOMEM
    change_flags(state, index, advised)
    return 0


# --- advice about pages ---------------------------------------------------------------------------------


@kernel
def _free_lazily(state: "State", mm_index: int, position: int, vaddr: int) -> None:
    """Make a page discardable, if it is one process's own (madvise_free_pte_range, lru_lazyfree_fn)."""
    pte = state.pt_word[position]
    if is_swap_pte(pte):
        state.pt_word[position] = 0
        state.mm[mm_index].nr_swap -= 1
        free_swap_entry(state, swap_pte_slot(pte))
        return
    pfn = pte_pfn(pte)
    page = state.page[pfn]
    if not page.page_flags & PageFlag.ANON or page.page_flags & (PageFlag.HUGE | PageFlag.KSM):
        return
    if page.page_flags & (PageFlag.SWAPCACHE | PageFlag.DIRTY):
        if page.mapcount != 1:
            return
        if page.page_flags & PageFlag.SWAPCACHE and not try_to_free_swap(state, pfn):
            return
        page.page_flags &= ~PageFlag.DIRTY
    if pte & (Pte.ACCESSED | Pte.DIRTY):
        state.pt_word[position] = pte & ~(Pte.ACCESSED | Pte.DIRTY)
        flush_tlb_page(state, mm_index, vaddr)
    if page.page_flags & PageFlag.LRU and page.page_flags & PageFlag.SWAPBACKED:
        if page.page_flags & PageFlag.UNEVICTABLE:
            return
        lru_del(state, pfn)
        page.page_flags &= ~(PageFlag.ACTIVE | PageFlag.REFERENCED)
        lru_add(state, LruList.INACTIVE_FILE, pfn)
        state.vm_event[VmEvent.PGLAZYFREE] += 1


@kernel
def _deactivate(state: "State", mm_index: int, position: int, vaddr: int) -> None:
    """Let a page look as if it had not been used for long (madvise_cold_or_pageout_pte_range)."""
    pte = state.pt_word[position]
    if not pte & Pte.PRESENT:
        return
    pfn = pte_pfn(pte)
    page = state.page[pfn]
    if page.mapcount != 1 or page.page_flags & (PageFlag.HUGE | PageFlag.ZERO_PAGE):
        return
    if pte & Pte.ACCESSED:
        state.pt_word[position] = pte & ~Pte.ACCESSED
        flush_tlb_page(state, mm_index, vaddr)
    page.page_flags &= ~PageFlag.REFERENCED
    if page.page_flags & PageFlag.LRU and page.page_flags & PageFlag.ACTIVE:
        anon = page.page_flags & PageFlag.SWAPBACKED
        lru_del(state, pfn)
        lru_add(state, LruList.INACTIVE_ANON if anon else LruList.INACTIVE_FILE, pfn)
        state.vm_event[VmEvent.PGDEACTIVATE] += 1


@kernel
def _advise_pages(state: "State", mm_index: int, start: int, end: int, advice: int) -> None:
    """Do what advice asks of every page of [start, end) that has an entry."""
    vaddr = start
    while vaddr < end:
        position = pte_position(state, state.mm[mm_index].pgd_pfn, vaddr)
        border = min(end, (vaddr // HUGE_PAGE_SIZE + 1) * HUGE_PAGE_SIZE)
        if position != NIL:
            for at in range(vaddr, border, PAGE_SIZE):
                if state.pt_word[position] != 0:
                    if advice == Advice.FREE:
                        _free_lazily(state, mm_index, position, at)
                    else:
                        _deactivate(state, mm_index, position, at)
                position += 1
        vaddr = border


@kernel
def _advise_part(state: "State", index: int, start: int, end: int, advice: int) -> int:
    """Do what advice asks of the pages of a part of an area; return 0, or a negative Errno."""
    vma = state.vma[index]
    if _changes_flags(advice):
        return _advise_flags(state, index, start, end, advice)
    if Advice.POPULATE_READ <= advice <= Advice.POPULATE_WRITE:
        return populate_area(state, index, start, end, advice == Advice.POPULATE_WRITE)
    if vma.vm_flags & (VmFlag.LOCKED | VmFlag.HUGETLB) and advice != Advice.WILLNEED:
        return Errno.EINVAL
    if advice == Advice.DONTNEED:
        zap_page_range(state, vma.mm, start, end)
    elif advice == Advice.FREE:
        if vma.inode:
            return Errno.EINVAL
        _advise_pages(state, vma.mm, start, end, advice)
    elif advice == Advice.COLD:
        _advise_pages(state, vma.mm, start, end, advice)
    return 0


@kernel
def _madvise(state: "State", mm_index: int, start: int, end: int, advice: int) -> int:
    if start & (PAGE_SIZE - 1) or end < start:
        return Errno.EINVAL
    unmapped = 0
    vaddr = start
    while vaddr < end:
        index = find_vma(state, mm_index, vaddr)
        if index == NIL or state.vma[index].start >= end:
            return Errno.ENOMEM
        vma = state.vma[index]
        if vma.start > vaddr:
            unmapped = Errno.ENOMEM
            vaddr = vma.start
        border = min(vma.end, end)
        error = _advise_part(state, index, vaddr, border, advice)
        if error:
            return error
        vaddr = border
    return unmapped


@entry
def madvise(state: "State", mm_index: int, start: int, end: int, advice: int) -> int:
    """Take advice about [start, end), of whole pages; return 0, or a negative Errno."""
    return _madvise(state, mm_index, start, end, advice)


@entry
def madvise_mergeable(state: "State", mm_index: int, start: int, end: int) -> int:
    """Let ksmd scan [start, end) (MADV_MERGEABLE); return 0, or a negative Errno."""
    return _madvise(state, mm_index, start, end, Advice.MERGEABLE)


@entry
def madvise_unmergeable(state: "State", mm_index: int, start: int, end: int) -> int:
    """Undo all merges in [start, end) and let ksmd scan it no more; return 0, or a negative Errno."""
    return _madvise(state, mm_index, start, end, Advice.UNMERGEABLE)
