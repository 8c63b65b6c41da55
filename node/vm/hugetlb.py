"""Huge pages that a process has from the start: one entry of the PMD maps 2 MiB, in a block of order 9.

    PMD --> [ PTE table ] --> 512 frames of 4 KiB          what faults make
    PMD --PS--------------> block of 512 frames            what this file makes

This is memory of hugetlbfs mapped with MAP_POPULATE: it never faults, is on no LRU list, is never swapped or
merged, and counts neither as anonymous memory nor in a process's rss. The block is one allocation: its first
frame holds the one reference and is mapped once, the others have neither. All 512 carry HUGETLB.

``unmap_huge`` is its counterpart, for whoever empties page tables.

Linux: mm/hugetlb.c (hugetlb_no_page, make_huge_pte, alloc_fresh_huge_page, clear_huge_page).
# Differs from Linux: there is no pool of huge pages (vm.nr_hugepages); a block comes from the buddy system when
# it is mapped, and goes back when it is unmapped.
"""

from typing import TYPE_CHECKING, Final

from node.content import set_content
from node.counters import Current, Knob, Panic
from node.hw.cost import Cost
from node.hw.pte import Pte, make_pte, pte_pfn
from node.joints import alloc_frames
from node.phys.page import PageFlag
from node.phys.page_alloc import free_pages
from node.vm.page_tables import pmd_alloc
from node.vm.vma import VmFlag, vma_at
from shared.constants import (
    ENTRIES_PER_TABLE,
    HUGE_PAGE_SHIFT,
    HUGE_PAGE_SIZE,
    NIL,
    PAGE_SHIFT,
)
from shared.gfp_flags import GFP_HIGHUSER_MOVABLE, Gfp
from shared.jit import bug_on, entry, kernel

if TYPE_CHECKING:
    from node.state import State

HUGE_PAGE_ORDER: Final = HUGE_PAGE_SHIFT - PAGE_SHIFT
HUGE_BITS: Final = Pte.PRESENT | Pte.USER | Pte.ACCESSED | Pte.HUGE


@kernel
def _leaf_bits(state: "State", vma_index: int) -> int:
    """Return the bits of an entry of the area's rights: writable and dirty at once, as hugetlb makes them."""
    vm_flags = state.vma[vma_index].vm_flags
    bits = HUGE_BITS
    if vm_flags & VmFlag.WRITE:
        bits |= Pte.WRITE | Pte.DIRTY
    if not vm_flags & VmFlag.EXEC:
        bits |= state.knob[Knob.NX_BIT]
    return bits


@kernel
def _huge_block(state: "State") -> int:
    """Return the first of 512 frames of zeroes, or NIL if there is no such block."""
    pfn = alloc_frames(state, HUGE_PAGE_ORDER, GFP_HIGHUSER_MOVABLE | Gfp.COMP | Gfp.NORETRY)
    if pfn == NIL:
        return NIL
    for frame in range(pfn, pfn + ENTRIES_PER_TABLE):
        state.page[frame].page_flags = PageFlag.HUGETLB
        set_content(state, frame, 0)
    state.current[Current.CLOCK_PS] += ENTRIES_PER_TABLE * state.cost[Cost.PAGE_ZERO]
    state.page[pfn].mapcount = 1
    return pfn


@entry
def map_huge(state: "State", mm_index: int, vaddr: int) -> int:
    """Map the 2 MiB at ``vaddr``, aligned, wholly in one area and empty, by one entry; return the first frame.

    NIL if there is no block of memory for it: no process is killed for one. A PMD entry that is in use already,
    even by an empty table, or an address outside an area, is a broken invariant.
    """
    vma_index = vma_at(state, mm_index, vaddr)
    misplaced = vma_index == NIL or vaddr & (HUGE_PAGE_SIZE - 1) != 0
    bug_on(state, misplaced, Panic.VMA, vaddr)
    bug_on(state, state.vma[vma_index].end < vaddr + HUGE_PAGE_SIZE, Panic.VMA, vaddr)
    position = pmd_alloc(state, mm_index, vaddr)
    if position == NIL:
        return NIL
    bug_on(state, state.pt_word[position] != 0, Panic.PAGE_TABLE, vaddr)
    pfn = _huge_block(state)
    if pfn != NIL:
        state.pt_word[position] = make_pte(pfn, _leaf_bits(state, vma_index))
    return pfn


@kernel
def unmap_huge(state: "State", position: int) -> None:
    """Empty the PMD entry at ``position`` of ``pt_word``, which maps a huge page, and free its block.

    The caller flushes the TLBs.
    """
    pfn = pte_pfn(state.pt_word[position])
    head = state.page[pfn]
    bug_on(state, not head.page_flags & PageFlag.HUGETLB or head.mapcount != 1, Panic.MAPCOUNT, pfn)
    state.pt_word[position] = 0
    head.mapcount = 0
    for frame in range(pfn, pfn + ENTRIES_PER_TABLE):
        state.page[frame].page_flags = 0
    free_pages(state, pfn, HUGE_PAGE_ORDER)
