"""The unstable tree: calm pages that are equal to none so far, ordered by a content that may yet change.

Nothing stops their owners from writing, so the order may be wrong by the time it is searched; the tree is
dropped as a whole after each full scan and grown anew.

Linux: mm/ksm.c (unstable_tree_search_insert, get_mergeable_page).
"""

from typing import TYPE_CHECKING

from node.counters import Current, KsmStat
from node.hw.cost import Cost
from node.ksm.break_ksm import find_mergeable_vma, mapped_anon_page
from node.ksm.checksum import page_key
from node.ksm.records import ItemPlace
from node.rbtree import Side, Tree, rb_link
from shared.constants import NIL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


@kernel
def _mergeable_page(state: "State", item_index: int) -> int:
    """Return the frame that an item of the tree stands for now, or NIL if it is gone."""
    item = state.rmap_item[item_index]
    if find_mergeable_vma(state, item.mm, item.vaddr) == NIL:
        return NIL
    return mapped_anon_page(state, item.mm, item.vaddr)


@kernel
def unstable_tree_search_insert(state: "State", item_index: int, pfn: int) -> int:
    """Return the item of an equal page in the tree; if there is none, insert this one and return NIL.

    NIL without insertion if the search meets a page that is gone, or this very page (a fork's).
    """
    key = page_key(state, pfn)
    parent = NIL
    side = Side.LEFT
    at = state.rb_root[Tree.UNSTABLE]
    while at != NIL:
        tree_pfn = _mergeable_page(state, at)
        if tree_pfn == NIL or tree_pfn == pfn:  # noqa: PLR1714 (a set would be built in the kernel)
            return NIL
        state.current[Current.CLOCK_PS] += state.cost[Cost.KSM_COMPARE]
        tree_key = page_key(state, tree_pfn)
        if key == tree_key:
            return at
        parent = at
        side = Side.LEFT if key < tree_key else Side.RIGHT
        at = state.rb_node[at].left if key < tree_key else state.rb_node[at].right
    item = state.rmap_item[item_index]
    item.where = ItemPlace.UNSTABLE_TREE
    item.seqnr = state.ksm_scan[0].seqnr
    rb_link(state, Tree.UNSTABLE, item_index, parent, side)
    state.ksm_stat[KsmStat.PAGES_UNSHARED] += 1
    return NIL
