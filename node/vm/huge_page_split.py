"""Splitting a huge page: 512 small pages take its place, each with what maps it, and what is unmapped is free again.

    every PMD entry that maps it is split (huge_split.py); then the frames part:
        head   references of all entries, and the caller's    ->   512 pages, each with those of its own entries
        LRU    .. head ..                                     ->   .. 511 510 ... 1 head ..; what nobody maps is freed

Only entries may refer to it, besides the caller: anybody else's pin makes the split fail. Reclaim splits the huge pages
that wait in the deferred queue, and those that it would swap out; ksmd splits before it merges.

The kernel unmaps the page for the time of the split, which puts it in the deferred queue, counted, if it was not there.

Linux: mm/huge_memory.c (split_huge_page_to_list, __split_huge_page, deferred_split_scan), mm/rmap.c
(folio_referenced_one), mm/vmscan.c (do_shrink_slab).
# Differs from Linux: what the shrinkers were asked for and did not do is not kept for the next time (nr_deferred).
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, Knob, VmEvent
from node.hw.pte import Pte, pte_pfn
from node.phys.page import PageFlag
from node.reclaim.lru import lru_add_tail, lru_for, lru_of
from node.vm.anon_vma import first_chain_at, next_chain_at
from node.vm.huge_pmd import huge_position
from node.vm.huge_rmap import defer_split, leave_deferred, part_position, total_mapcount
from node.vm.huge_split import split_huge_pmd
from node.vm.huge_zero import free_unused_huge_zero
from node.vm.huge_zero_parts import map_zero_parts
from node.vm.mlock_page import mlock_page
from node.vm.put_page import put_page
from node.vm.rmap import page_address_in_vma
from node.vm.vma import VmFlag
from shared.constants import ENTRIES_PER_TABLE, NIL
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

SEEKS: Final = 2  # DEFAULT_SEEKS
SHRINK_BATCH: Final = 128
# What a tail takes over of its head's flags (__split_huge_page_tail).
INHERITED: Final = (
    PageFlag.REFERENCED
    | PageFlag.MLOCKED
    | PageFlag.ACTIVE
    | PageFlag.WORKINGSET
    | PageFlag.UNEVICTABLE
    | PageFlag.DIRTY
)


# --- all that map a huge page ---------------------------------------------------------------------------


@kernel
def _split_entries(state: "State", pfn: int) -> None:
    """Split every PMD entry that maps the huge page."""
    head = state.page[pfn]
    chain = first_chain_at(state, head.mapping, head.index, head.index)
    while chain != NIL and head.huge_mapcount:
        following = next_chain_at(state, chain, head.index, head.index)
        vma_index = state.anon_vma_chain[chain].vma
        vaddr = page_address_in_vma(state, vma_index, head.index)
        vma = state.vma[vma_index]
        if vma.start <= vaddr < vma.end:
            position = huge_position(state, vma.mm, vaddr)
            if position != NIL and pte_pfn(state.pt_word[position]) == pfn:
                split_huge_pmd(state, vma.mm, position, vaddr)
        chain = following


@kernel
def _clear_accessed(state: "State", position: int) -> int:
    """Clear the accessed bit of an entry; return whether it was set."""
    pte = state.pt_word[position]
    state.pt_word[position] = pte & ~Pte.ACCESSED
    return 1 if pte & Pte.ACCESSED else 0


@kernel
def _referenced_in_area(state: "State", pfn: int, vma_index: int) -> int:
    vma = state.vma[vma_index]
    first = page_address_in_vma(state, vma_index, state.page[pfn].index)
    if vma.start <= first < vma.end:
        position = huge_position(state, vma.mm, first)
        if position != NIL:
            return _clear_accessed(state, position) if pte_pfn(state.pt_word[position]) == pfn else 0
    nr_referenced = 0
    for number in range(ENTRIES_PER_TABLE):
        position = part_position(state, vma_index, pfn, number)
        if position != NIL:
            nr_referenced += _clear_accessed(state, position)
    return nr_referenced


@entry
def huge_page_referenced(state: "State", pfn: int) -> int:
    """Count, and clear, the accessed bits of all entries that map a huge page or a part of it."""
    head = state.page[pfn]
    last = head.index + ENTRIES_PER_TABLE - 1
    nr_referenced = 0
    chain = first_chain_at(state, head.mapping, head.index, last)
    while chain != NIL:
        following = next_chain_at(state, chain, head.index, last)
        nr_referenced += _referenced_in_area(state, pfn, state.anon_vma_chain[chain].vma)
        chain = following
    return nr_referenced


# --- the split ------------------------------------------------------------------------------------------


@kernel
def _insert_before(state: "State", pfn: int, tail: int) -> None:
    """Put a frame just before another on that one's LRU list, on the side that reclaim reaches later."""
    head = state.page[pfn]
    page = state.page[tail]
    page.prev = head.prev
    page.next = pfn
    if head.prev == NIL:
        state.lru[lru_of(state, pfn)].first = tail
    else:
        state.page[head.prev].next = tail
    head.prev = tail


@kernel
def _part_frames(state: "State", pfn: int) -> None:
    """Make each frame of a huge page, which no PMD entry maps, a page of its own."""
    head = state.page[pfn]
    on_list = head.page_flags & PageFlag.LRU
    inherited = head.page_flags & INHERITED
    for number in range(ENTRIES_PER_TABLE - 1, 0, -1):
        page = state.page[pfn + number]
        page.page_flags = (page.page_flags & ~(PageFlag.HUGE | PageFlag.LRU)) | inherited
        page.head = 0
        page.private = 0
        page.order = 0
        page.mlock_count = 0
        page.refcount = page.mapcount + 1
        if on_list:
            page.page_flags |= PageFlag.LRU
            _insert_before(state, pfn, pfn + number)
    head.page_flags &= ~(PageFlag.HUGE | PageFlag.DOUBLE_MAP)
    head.head = 0
    head.order = 0
    head.refcount = head.mapcount + 1
    if not on_list:
        # Whoever took the head off its list is about to reclaim it; the others come next.
        for number in range(1, ENTRIES_PER_TABLE):
            state.page[pfn + number].page_flags &= ~PageFlag.ACTIVE
            lru_add_tail(state, lru_for(state, pfn + number), pfn + number)


@kernel
def _lock_in_area(state: "State", pfn: int, vma_index: int) -> None:
    """Lock those of 512 frames just parted that a locked area maps: as parts of a huge page they were not."""
    for number in range(ENTRIES_PER_TABLE):
        if part_position(state, vma_index, pfn, number) != NIL:
            mlock_page(state, pfn + number)


@kernel
def _remap_parts(state: "State", pfn: int) -> None:
    """Do what the areas that map parts of 512 frames, just parted, ask for: lock them, or give back what is zero."""
    head = state.page[pfn]
    last = head.index + ENTRIES_PER_TABLE - 1
    chain = first_chain_at(state, head.mapping, head.index, last)
    while chain != NIL:
        vma_index = state.anon_vma_chain[chain].vma
        chain = next_chain_at(state, chain, head.index, last)
        if state.vma[vma_index].vm_flags & VmFlag.LOCKED:
            _lock_in_area(state, pfn, vma_index)
        elif state.knob[Knob.THP_SPLIT_TO_ZERO_PAGE]:
            map_zero_parts(state, pfn, vma_index)


@kernel
def _split_page(state: "State", pfn: int) -> int:
    head = state.page[pfn]
    if total_mapcount(state, pfn) != head.refcount - 1:
        state.vm_event[VmEvent.THP_SPLIT_PAGE_FAILED] += 1
        return 0
    _split_entries(state, pfn)
    if head.huge_mapcount:
        state.vm_event[VmEvent.THP_SPLIT_PAGE_FAILED] += 1
        return 0
    if head.refcount > 1:
        defer_split(state, pfn)
    leave_deferred(state, pfn)
    _part_frames(state, pfn)
    _remap_parts(state, pfn)
    for frame in range(pfn + 1, pfn + ENTRIES_PER_TABLE):
        put_page(state, frame)
    state.vm_event[VmEvent.THP_SPLIT_PAGE] += 1
    return 1


@entry
def split_huge_page(state: "State", pfn: int) -> int:
    """Make 512 small pages of a huge page, of which the caller holds the head; return whether that was done.

    The caller's reference is the head's from then on.
    """
    return _split_page(state, pfn)


# --- reclaim --------------------------------------------------------------------------------------------


@kernel
def _scan_deferred(state: "State", nr_to_scan: int) -> int:
    """Split up to ``nr_to_scan`` of the pages in the deferred queue; return how many were."""
    nr_split = 0
    for _ in range(min(nr_to_scan, state.current[Current.NR_DEFERRED])):
        pfn = state.current[Current.DEFERRED_FIRST]
        state.page[pfn].refcount += 1
        if _split_page(state, pfn):
            nr_split += 1
        else:  # it goes to the end of the queue, without being counted again
            leave_deferred(state, pfn)
            defer_split(state, pfn)
            state.vm_event[VmEvent.THP_DEFERRED_SPLIT_PAGE] -= 1
        put_page(state, pfn)
    return nr_split


@kernel
def _share(freeable: int, priority: int) -> int:
    """Return how many objects a shrinker has to look at in a pass (do_shrink_slab)."""
    wanted = min((freeable >> priority) * 4 // SEEKS, 2 * freeable)
    if wanted < SHRINK_BATCH and wanted < freeable:
        return 0
    return wanted


@entry
def shrink_huge(state: "State", priority: int) -> int:
    """Give reclaim what huge pages hold for nothing: unmapped parts, and the huge page of zeroes; return how many."""
    nr_done = 0
    if not state.current[Current.HUGE_ZERO_USERS] and _share(ENTRIES_PER_TABLE, priority):
        nr_done += free_unused_huge_zero(state)
    nr_deferred = state.current[Current.NR_DEFERRED]
    if nr_deferred:
        nr_done += _scan_deferred(state, _share(nr_deferred, priority))
    return nr_done


__all__ = ["huge_page_referenced", "shrink_huge", "split_huge_page"]
