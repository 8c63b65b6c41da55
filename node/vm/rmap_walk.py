"""Walks over all that map a frame: reclaim takes it away from them, asks whether they used it, or moves it.

    try_to_unmap      every entry becomes a swap entry, or empty if the page is a file's
    page_referenced   accessed bits are counted and cleared
    move_mappings     every entry maps another frame instead

    anonymous page -> the areas of its anon_vma that hold its page number
    merged page    -> for each sharer, the areas of its anon_vma that hold its address
    file's page    -> the areas of its inode's tree that hold its page number

A walk ends with the last entry that maps the frame, so what it costs (``rmap_area`` counts the areas looked at) depends
on where that one lies: a page that only the oldest process still maps is found at once, one that only the youngest
has, last. An area that turns out to be locked ends it too.

Linux: mm/rmap.c (rmap_walk, try_to_unmap_one, folio_referenced_one, page_not_mapped), mm/ksm.c (rmap_walk_ksm).
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, Knob, VmEvent
from node.hw.page_table import pte_position
from node.hw.pte import SWAP_ENTRY_EXCLUSIVE, Pte, is_swap_pte, make_pte, make_swap_pte, pte_pfn
from node.joints import dup_swap_entry, note_view_change, swap_out_table
from node.kmap.flush_calls import flush_tlb_page
from node.phys.page import PageFlag
from node.rb_max import interval_first, interval_next
from node.tree_nodes import file_vma_base, inode_root
from node.vm.anon_vma import first_chain_at, next_chain_at
from node.vm.mlock_page import mlock_page
from node.vm.put_page import put_page
from node.vm.rmap import count_mapped, page_address_in_vma, page_remove_rmap
from node.vm.vma import VmFlag
from shared.constants import INT64_MAX, NIL
from shared.jit import entry, kernel
from shared.views import View

if TYPE_CHECKING:
    from node.state import State

# Work of a walk over a frame's mappings, beside a swap slot and the complement of a frame.
LOOK: Final = NIL  # at the accessed bit
CLEAN: Final = NIL + 1


@kernel
def _unmap_one(state: "State", mm_index: int, position: int, vaddr: int, swap_slot: int) -> None:
    pte = state.pt_word[position]
    pfn = pte_pfn(pte)
    page = state.page[pfn]
    if pte & Pte.DIRTY:
        page.page_flags |= PageFlag.DIRTY
    count_mapped(state, mm_index, pfn, -1)
    if page.page_flags & PageFlag.ANON:
        exclusive = SWAP_ENTRY_EXCLUSIVE if page.page_flags & PageFlag.ANON_EXCLUSIVE else 0
        page.page_flags &= ~PageFlag.ANON_EXCLUSIVE
        state.pt_word[position] = make_swap_pte(swap_slot, exclusive)
        dup_swap_entry(state, swap_slot)
        state.mm[mm_index].nr_swap += 1
    else:
        state.pt_word[position] = 0
    flush_tlb_page(state, mm_index, vaddr)
    if state.knob[Knob.IS_HOST]:
        note_view_change(state, mm_index, vaddr, View.SWAPPED)
    page_remove_rmap(state, pfn)
    put_page(state, pfn)


@kernel
def _move_one(state: "State", mm_index: int, position: int, vaddr: int, to: int) -> None:
    """Let an entry map another frame with the same rights and marks (remove_migration_pte)."""
    pte = state.pt_word[position]
    state.pt_word[position] = pte ^ make_pte(pte_pfn(pte) ^ to, 0)
    flush_tlb_page(state, mm_index, vaddr)


@kernel
def _clean_one(state: "State", mm_index: int, position: int, vaddr: int) -> int:
    """Write-protect an entry of a page that becomes clean; return whether it was dirty or writable."""
    pte = state.pt_word[position]
    if not pte & (Pte.DIRTY | Pte.WRITE):
        return 0
    state.pt_word[position] = pte & ~(Pte.DIRTY | Pte.WRITE)
    flush_tlb_page(state, mm_index, vaddr)
    return 1


@kernel
def _visit(state: "State", pfn: int, vma_index: int, vaddr: int, work: int) -> int:
    """Do the walk's work at ``vaddr`` of one VMA, if it maps the frame there; return whether it counted.

    ``work`` is LOOK, CLEAN, a swap slot to unmap for, or the complement of a frame to map instead.
    """
    state.vm_event[VmEvent.RMAP_AREA] += 1
    vma = state.vma[vma_index]
    if not vma.start <= vaddr < vma.end:
        return 0
    mm_index = vma.mm
    position = pte_position(state, state.mm[mm_index].pgd_pfn, vaddr)
    if position == NIL:
        return 0
    pte = state.pt_word[position]
    if pte == 0 or is_swap_pte(pte) or pte_pfn(pte) != pfn:
        return 0
    if (work >= 0 or work == LOOK) and vma.vm_flags & VmFlag.LOCKED:
        mlock_page(state, pfn)  # restores a lock that was missed
        state.current[Current.RMAP_LEFT] = 0
        return 0
    state.current[Current.RMAP_LEFT] -= 1
    if work >= 0:
        _unmap_one(state, mm_index, position, vaddr, work)
        if state.knob[Knob.PAGEABLE_TABLES]:
            swap_out_table(state, mm_index, vaddr)
        return 1
    if work == CLEAN:
        return _clean_one(state, mm_index, position, vaddr)
    if work != LOOK:
        _move_one(state, mm_index, position, vaddr, ~work)
        return 1
    # As on x86, the TLB keeps its copy: the bit is set again by the next walk.
    state.pt_word[position] = pte & ~Pte.ACCESSED
    return 1 if pte & Pte.ACCESSED else 0


@kernel
def _walk_anon_vma(state: "State", pfn: int, anon_vma: int, index: int, work: int) -> int:
    """Visit the areas of an anon_vma that may map page number ``index``."""
    nr_visited = 0
    chain = first_chain_at(state, anon_vma, index, index)
    while chain != NIL and state.current[Current.RMAP_LEFT] > 0:
        following = next_chain_at(state, chain, index, index)
        vma_index = state.anon_vma_chain[chain].vma
        nr_visited += _visit(state, pfn, vma_index, page_address_in_vma(state, vma_index, index), work)
        chain = following
    return nr_visited


@kernel
def _walk_sharers(state: "State", pfn: int, work: int) -> int:
    """Visit what maps a merged page: its sharers, and forks of theirs, wherever their areas have been moved from."""
    page = state.page[pfn]
    nr_visited = 0
    if page.mapping == 0:
        return 0
    item_index = state.stable_node[page.mapping].first_sharer
    while item_index != NIL and state.current[Current.RMAP_LEFT] > 0:
        links = state.rb_node[item_index]
        vaddr = state.rmap_item[item_index].vaddr
        chain = first_chain_at(state, links.owner, 0, INT64_MAX)
        while chain != NIL and state.current[Current.RMAP_LEFT] > 0:
            following = next_chain_at(state, chain, 0, INT64_MAX)
            nr_visited += _visit(state, pfn, state.anon_vma_chain[chain].vma, vaddr, work)
            chain = following
        item_index = links.left
    return nr_visited


@kernel
def _walk_file(state: "State", pfn: int, work: int) -> int:
    """Visit the areas that map a page of a file."""
    page = state.page[pfn]
    index = page.index
    base = file_vma_base(state)
    nr_visited = 0
    node = interval_first(state, inode_root(state, page.mapping), index, index)
    while node != NIL and state.current[Current.RMAP_LEFT] > 0:
        following = interval_next(state, node, index, index)
        vma_index = node - base
        nr_visited += _visit(state, pfn, vma_index, page_address_in_vma(state, vma_index, index), work)
        node = following
    return nr_visited


@kernel
def _walk_frame(state: "State", pfn: int, work: int) -> int:
    """Visit every entry that maps the frame."""
    page = state.page[pfn]
    state.vm_event[VmEvent.RMAP_WALK] += 1
    # What write-protects a file's page looks at all areas.
    # Differs from Linux: so does each walk over the sharers of a merged page, which may come by an entry twice.
    ends_early = work != CLEAN and not page.page_flags & PageFlag.KSM
    state.current[Current.RMAP_LEFT] = page.mapcount if ends_early else INT64_MAX
    if page.page_flags & PageFlag.KSM:
        return _walk_sharers(state, pfn, work)
    if page.page_flags & PageFlag.CACHED:
        return _walk_file(state, pfn, work)
    return _walk_anon_vma(state, pfn, page.mapping, page.index, work)


@entry
def try_to_unmap(state: "State", pfn: int, swap_slot: int) -> int:
    """Replace every page-table entry that maps the frame by a swap entry of ``swap_slot``; return how many.

    Dirty bits go to the frame; each entry's reference to the frame is dropped, so the caller holds its own.
    """
    return _walk_frame(state, pfn, swap_slot)


@entry
def page_referenced(state: "State", pfn: int) -> int:
    """Count, and clear, the accessed bits of all page-table entries that map the frame."""
    return _walk_frame(state, pfn, LOOK)


@entry
def page_mkclean(state: "State", pfn: int) -> int:
    """Clear dirty and write bits of all page-table entries that map a file's page; return how many had one."""
    return _walk_frame(state, pfn, CLEAN)


@entry
def move_mappings(state: "State", pfn: int, to: int) -> int:
    """Let every page-table entry that maps frame ``pfn`` map ``to``, with its rights and marks; return how many.

    What the frames themselves count of it is the caller's.
    """
    return _walk_frame(state, pfn, ~to)
