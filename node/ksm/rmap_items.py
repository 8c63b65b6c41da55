"""rmap_items: what ksmd remembers of each page that it scans, one list an address space, by address.

Linux: mm/ksm.c (get_next_rmap_item, remove_rmap_item_from_tree, remove_trailing_rmap_items).
"""

from typing import TYPE_CHECKING

from node.counters import KsmStat, Panic
from node.joints import rb_erase
from node.ksm.records import ItemPlace
from node.ksm.stable_tree import NO_NODE, get_ksm_page, unlink_sharer
from node.pool import Pool, pool_alloc, pool_free
from node.rbtree import Tree
from shared.constants import NIL
from shared.jit import bug_on, kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def remove_from_tree(state: "State", item_index: int) -> None:
    """Take an item out of the tree that it is in, if any."""
    item = state.rmap_item[item_index]
    if item.where == ItemPlace.STABLE_NODE:
        # A stale node is removed by the look at it, and takes this item out with it.
        if get_ksm_page(state, item.stable_node) != NIL:
            unlink_sharer(state, item_index)
    elif item.where == ItemPlace.UNSTABLE_TREE:
        age = state.ksm_scan[0].seqnr - item.seqnr
        bug_on(state, age < 0 or age > 1, Panic.KSM_TREE, item_index)
        # The tree of the scan before this one was dropped as a whole.
        if age == 0:
            rb_erase(state, Tree.UNSTABLE, item_index)
        state.ksm_stat[KsmStat.PAGES_UNSHARED] -= 1
        item.where = ItemPlace.NOWHERE


@kernel
def _set_next(state: "State", mm_index: int, previous: int, following: int) -> None:
    if previous == NIL:
        state.mm[mm_index].ksm_rmap_list = following
    else:
        state.rmap_item[previous].next_in_mm = following


@kernel
def _next_item(state: "State", mm_index: int, previous: int) -> int:
    return state.mm[mm_index].ksm_rmap_list if previous == NIL else state.rmap_item[previous].next_in_mm


@kernel
def _free_item(state: "State", mm_index: int, item_index: int) -> None:
    remove_from_tree(state, item_index)
    state.ksm_stat[KsmStat.RMAP_ITEMS] -= 1
    state.mm[mm_index].ksm_rmap_items -= 1
    pool_free(state, Pool.RMAP_ITEM, item_index)


@kernel
def item_at(state: "State", mm_index: int, previous: int, vaddr: int) -> int:
    """Return the item of ``vaddr``, behind item ``previous`` of the list, made if there is none; or NIL.

    Items between, whose pages are gone, are freed.
    """
    item_index = _next_item(state, mm_index, previous)
    while item_index != NIL:
        item = state.rmap_item[item_index]
        if item.vaddr == vaddr:
            return item_index
        if item.vaddr > vaddr:
            break
        following = item.next_in_mm
        _set_next(state, mm_index, previous, following)
        _free_item(state, mm_index, item_index)
        item_index = following
    new_index = pool_alloc(state, Pool.RMAP_ITEM)
    if new_index == NIL:
        return NIL
    new = state.rmap_item[new_index]
    new.vaddr = vaddr
    new.checksum = 0
    new.seqnr = 0
    new.mm = mm_index
    new.next_in_mm = item_index
    new.stable_node = NO_NODE
    new.where = ItemPlace.NOWHERE
    new.age = 0
    new.remaining_skips = 0
    _set_next(state, mm_index, previous, new_index)
    state.ksm_stat[KsmStat.RMAP_ITEMS] += 1
    state.mm[mm_index].ksm_rmap_items += 1
    return new_index


@kernel
def remove_trailing_items(state: "State", mm_index: int, previous: int) -> None:
    """Free all items of the address space behind item ``previous`` (NIL: all of them)."""
    item_index = _next_item(state, mm_index, previous)
    while item_index != NIL:
        following = state.rmap_item[item_index].next_in_mm
        _free_item(state, mm_index, item_index)
        item_index = following
    _set_next(state, mm_index, previous, NIL)
