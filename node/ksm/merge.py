"""Merging: two equal pages become one, write-protected, mapped by both.

    page, tree page  --write-protect both, compare again-->  page becomes the merged page of a new stable node
    page, stable page --write-protect, compare again----->   the entry is turned to the stable page
    page of zeroes    --use_zero_pages------------------->   the entry is turned to the shared zero page

Linux: mm/ksm.c (write_protect_page, replace_page, try_to_merge_one_page, try_to_merge_with_ksm_page,
try_to_merge_two_pages, cmp_and_merge_page).
"""

from typing import TYPE_CHECKING

from node.counters import Current, Knob, KsmStat
from node.hw.cost import Cost
from node.hw.page_table import pte_position
from node.hw.pte import Pte, make_pte, pte_pfn
from node.joints import note_view_change, split_huge_page, try_to_free_swap
from node.kmap.flush_calls import flush_tlb_page
from node.ksm.break_ksm import break_ksm, find_mergeable_vma, mapped_anon_page
from node.ksm.checksum import content_checksum, page_key, zero_checksum
from node.ksm.records import ItemPlace, KsmModel
from node.ksm.rmap_items import remove_from_tree
from node.ksm.stable_tree import stable_tree_append, stable_tree_insert, stable_tree_search
from node.ksm.unstable_tree import unstable_tree_search_insert
from node.phys.page import PageFlag
from node.reclaim.lru import mark_page_accessed
from node.vm.anon_vma import get_anon_vma, put_anon_vma
from node.vm.mlock_page import mlock_page, munlock_page
from node.vm.put_page import put_page
from node.vm.rmap import page_add_rmap, page_remove_rmap
from node.vm.vma import VmFlag, vma_at
from shared.constants import NIL
from shared.jit import hot_kernel, kernel
from shared.views import View

if TYPE_CHECKING:
    from node.state import State


@kernel
def _entry_of(state: "State", mm_index: int, vaddr: int, pfn: int) -> int:
    """Return where the entry for ``vaddr`` stands if it maps the frame, or NIL."""
    position = pte_position(state, state.mm[mm_index].pgd_pfn, vaddr)
    if position == NIL:
        return NIL
    pte = state.pt_word[position]
    return position if pte & Pte.PRESENT and pte_pfn(pte) == pfn else NIL


@kernel
def _write_protect(state: "State", mm_index: int, vaddr: int, position: int) -> int:
    """Take the right to write from the entry and the exclusiveness from its page; return 1, or 0 if it is pinned."""
    pte = state.pt_word[position]
    page = state.page[pte_pfn(pte)]
    if not pte & (Pte.WRITE | Pte.DIRTY) and not page.page_flags & PageFlag.ANON_EXCLUSIVE:
        return 1
    in_swap_cache = 1 if page.page_flags & PageFlag.SWAPCACHE else 0
    if page.mapcount + in_swap_cache != page.refcount:
        return 0
    if pte & Pte.DIRTY:
        page.page_flags |= PageFlag.DIRTY
    page.page_flags &= ~PageFlag.ANON_EXCLUSIVE
    state.pt_word[position] = pte & ~(Pte.WRITE | Pte.DIRTY)
    flush_tlb_page(state, mm_index, vaddr)
    if state.knob[Knob.IS_HOST]:
        note_view_change(state, mm_index, vaddr, View.READ_ONLY)
    return 1


@kernel
def _is_locked(state: "State", mm_index: int, vaddr: int) -> int:
    """Return whether an address lies in an area that is locked in memory."""
    if state.mm[mm_index].locked_vm == 0:
        return 0
    index = vma_at(state, mm_index, vaddr)
    return 1 if index != NIL and state.vma[index].vm_flags & VmFlag.LOCKED else 0


@kernel
def _replace_page(state: "State", mm_index: int, vaddr: int, position: int, to_pfn: int) -> None:
    """Turn the write-protected entry from its page to ``to_pfn``, merged or zero, and drop the page."""
    old_pte = state.pt_word[position]
    old = pte_pfn(old_pte)
    bits = Pte.PRESENT | Pte.USER | Pte.ACCESSED | old_pte & state.knob[Knob.NX_BIT]
    mm = state.mm[mm_index]
    locked = _is_locked(state, mm_index, vaddr)
    if state.page[to_pfn].page_flags & PageFlag.ZERO_PAGE:
        mm.nr_anon -= 1
        mm.nr_zero += 1
        if state.knob[Knob.KSM_MODEL] == KsmModel.LINUX_6_18:
            bits |= Pte.DIRTY  # tells these mappings of the zero page from others
            mm.ksm_zero_pages += 1
            state.ksm_stat[KsmStat.KSM_ZERO_PAGES] += 1
    else:
        state.page[to_pfn].refcount += 1
        page_add_rmap(state, to_pfn)
        if locked:
            mlock_page(state, to_pfn)
    state.pt_word[position] = make_pte(to_pfn, bits)
    flush_tlb_page(state, mm_index, vaddr)
    page_remove_rmap(state, old)
    if locked:
        munlock_page(state, old)
    if state.page[old].mapcount == 0 and state.page[old].page_flags & PageFlag.SWAPCACHE:
        try_to_free_swap(state, old)
    put_page(state, old)


@kernel
def _split_held(state: "State", pfn: int, nr_held: int) -> int:
    """Split the huge page that a frame is part of, of which ksmd holds ``nr_held`` frames; return whether it did."""
    head = state.page[pfn].head
    state.page[head].refcount += nr_held
    done = split_huge_page(state, head)
    state.page[head].refcount -= nr_held - 1
    put_page(state, head)
    return done


@kernel
def _merge_one_page(state: "State", item_index: int, pfn: int, to_pfn: int) -> int:
    """Merge the item's page into ``to_pfn``, or make it a merged page itself if that is NIL; return success."""
    if pfn == to_pfn:
        return 1
    item = state.rmap_item[item_index]
    if not state.page[pfn].page_flags & PageFlag.ANON:
        return 0
    if state.page[pfn].page_flags & PageFlag.HUGE and not _split_held(state, pfn, 1):
        return 0
    position = _entry_of(state, item.mm, item.vaddr, pfn)
    if position == NIL or not _write_protect(state, item.mm, item.vaddr, position):
        return 0
    state.current[Current.CLOCK_PS] += state.cost[Cost.KSM_MERGE]
    if to_pfn == NIL:
        page = state.page[pfn]
        page.page_flags |= PageFlag.KSM | PageFlag.DIRTY
        page.mapping = 0
        mark_page_accessed(state, pfn)
        return 1
    if page_key(state, pfn) != page_key(state, to_pfn):
        return 0
    _replace_page(state, item.mm, item.vaddr, position, to_pfn)
    return 1


@kernel
def _merge_with_ksm_page(state: "State", item_index: int, pfn: int, to_pfn: int) -> int:
    """As ``_merge_one_page``, and make the item ready to become a sharer."""
    item = state.rmap_item[item_index]
    vma_index = find_mergeable_vma(state, item.mm, item.vaddr)
    if vma_index == NIL or not _merge_one_page(state, item_index, pfn, to_pfn):
        return 0
    remove_from_tree(state, item_index)
    anon_vma = state.vma[vma_index].anon_vma
    state.rb_node[item_index].owner = anon_vma
    get_anon_vma(state, anon_vma)
    return 1


@kernel
def _break_cow(state: "State", item_index: int) -> None:
    """Undo a merge that found no place in the stable tree."""
    item = state.rmap_item[item_index]
    put_anon_vma(state, state.rb_node[item_index].owner)
    if find_mergeable_vma(state, item.mm, item.vaddr) != NIL:
        break_ksm(state, item.mm, item.vaddr)


@kernel
def _same_huge_page(state: "State", pfn: int, other: int) -> int:
    """Return whether two frames are parts of one huge page."""
    if other == NIL or not state.page[pfn].page_flags & state.page[other].page_flags & PageFlag.HUGE:
        return 0
    return 1 if state.page[pfn].head == state.page[other].head else 0


@kernel
def _merge_two_pages(state: "State", item_index: int, pfn: int, tree_item: int) -> None:
    """Make the page a merged page, turn the tree item's entry to it, and give both a stable node."""
    other = state.rmap_item[tree_item]
    tree_pfn = mapped_anon_page(state, other.mm, other.vaddr)
    if _same_huge_page(state, pfn, tree_pfn):
        # ksmd holds both, so the first attempt fails; the pages meet again in the next scan.
        _split_held(state, pfn, 2)
        _split_held(state, pfn, 1)
        return
    if not _merge_with_ksm_page(state, item_index, pfn, NIL):
        return
    if not _merge_with_ksm_page(state, tree_item, tree_pfn, pfn):
        _break_cow(state, item_index)
        return
    node_index = stable_tree_insert(state, pfn)
    if node_index == NIL:
        _break_cow(state, tree_item)
        _break_cow(state, item_index)
        return
    stable_tree_append(state, tree_item, node_index)
    stable_tree_append(state, item_index, node_index)


@kernel
def _merge_with_zero_page(state: "State", item_index: int, pfn: int) -> int:
    """Turn the entry of a page of zeroes to the zero page; return whether ksmd is done with the page."""
    item = state.rmap_item[item_index]
    if not state.knob[Knob.KSM_USE_ZERO_PAGES] or item.checksum != zero_checksum(state):
        return 0
    if find_mergeable_vma(state, item.mm, item.vaddr) == NIL:
        return 1
    return _merge_one_page(state, item_index, pfn, state.knob[Knob.ZERO_PFN])


@hot_kernel
def _is_calm(state: "State", item_index: int, pfn: int) -> int:
    """Return whether the page's checksum is that of the last scan; remember it."""
    item = state.rmap_item[item_index]
    state.current[Current.CLOCK_PS] += state.cost[Cost.KSM_CHECKSUM]
    checksum = content_checksum(state, state.page[pfn].content)
    calm = item.checksum == checksum
    item.checksum = checksum
    return 1 if calm else 0


@kernel
def _try_stable_tree(state: "State", item_index: int, pfn: int) -> int:
    """Merge the page with an equal one of the stable tree; return whether ksmd is done with it."""
    page = state.page[pfn]
    forked = page.page_flags & PageFlag.KSM and page.mapping != 0
    node_index = page.mapping if forked else stable_tree_search(state, pfn)
    remove_from_tree(state, item_index)
    if node_index == NIL:
        return 0
    if _merge_with_ksm_page(state, item_index, pfn, state.stable_node[node_index].pfn):
        stable_tree_append(state, item_index, node_index)
    return 1


@kernel
def cmp_and_merge_page(state: "State", item_index: int, pfn: int) -> None:
    """Do all that ksmd does with one page: find its equal, or remember it."""
    page = state.page[pfn]
    item = state.rmap_item[item_index]
    merged = page.page_flags & PageFlag.KSM and page.mapping != 0
    if merged and item.where == ItemPlace.STABLE_NODE and item.stable_node == page.mapping:
        return
    if state.knob[Knob.KSM_MODEL] == KsmModel.LINUX_6_18:
        if not merged:
            # Since 6.11 a page has to be calm, and is tried as a zero page, before any tree is searched.
            remove_from_tree(state, item_index)
            if not _is_calm(state, item_index, pfn) or _merge_with_zero_page(state, item_index, pfn):
                return
        if _try_stable_tree(state, item_index, pfn):
            return
    else:
        if _try_stable_tree(state, item_index, pfn):
            return
        if not _is_calm(state, item_index, pfn) or _merge_with_zero_page(state, item_index, pfn):
            return
    tree_item = unstable_tree_search_insert(state, item_index, pfn)
    if tree_item != NIL:
        _merge_two_pages(state, item_index, pfn, tree_item)
