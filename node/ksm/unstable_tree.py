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
from node.phys.page import PageFlag
from node.rbtree import Side, Tree, rb_link
from node.vm.anon_vma import only_chain
from node.vm.vma import VmFlag
from shared.constants import NIL, PAGE_SHIFT
from shared.jit import hot_kernel, kernel
from shared.kernel_state import prefetch

if TYPE_CHECKING:
    from node.state import State


@kernel
def _mergeable_page(state: "State", item_index: int) -> int:
    """Return the frame that an item of the tree stands for now, or NIL if it is gone."""
    item = state.rmap_item[item_index]
    if find_mergeable_vma(state, item.mm, item.vaddr) == NIL:
        return NIL
    return mapped_anon_page(state, item.mm, item.vaddr)


@hot_kernel
def _is_still_there(state: "State", item_index: int) -> int:
    """Return 1 if the frame that the item had when it was inserted is surely its page still.

    That takes no walk: a frame mapped once, for that page number of that anon_vma, which one area uses. Without
    it each comparison would load the item, its address space and four levels of tables (measured: a fifth
    of the speed at 100,000 distinct pages).
    """
    node = state.rb_node[item_index]
    page = state.page[node.pfn]
    if page.mapcount != 1 or page.index != node.key or page.mapping != node.owner:
        return 0
    if not page.page_flags & PageFlag.ANON or page.page_flags & PageFlag.KSM:
        return 0
    chain = only_chain(state, node.owner)
    if chain == NIL:
        return 0
    vma = state.vma[state.anon_vma_chain[chain].vma]
    if not vma.vm_flags & VmFlag.MERGEABLE or vma.pgoff != vma.start >> PAGE_SHIFT:
        return 0
    return 1 if vma.start <= node.key << PAGE_SHIFT < vma.end else 0


@hot_kernel
def unstable_tree_search_insert(state: "State", item_index: int, pfn: int) -> int:
    """Return the item of an equal page in the tree; if there is none, insert this one and return NIL.

    NIL without insertion if the search meets a page that is gone, or this very page (a fork's).
    """
    key = page_key(state, pfn)
    parent = NIL
    side = Side.LEFT
    nr_compared = 0
    at = state.rb_root[Tree.UNSTABLE]
    while at != NIL:
        node = state.rb_node[at]
        # One of the two is next, and comes while the frame is waited for: a fifth faster at 100,000 pages.
        prefetch(state.rb_node, node.left)
        prefetch(state.rb_node, node.right)
        tree_pfn = node.pfn if _is_still_there(state, at) else _mergeable_page(state, at)
        if tree_pfn == NIL or tree_pfn == pfn:  # noqa: PLR1714, SIM109 (a kernel has no tuples)
            return NIL
        nr_compared += 1
        tree_key = page_key(state, tree_pfn)
        if key == tree_key:
            break
        parent = at
        side = Side.LEFT if key < tree_key else Side.RIGHT
        at = node.left if key < tree_key else node.right
    state.current[Current.CLOCK_PS] += nr_compared * state.cost[Cost.KSM_COMPARE]
    if at == NIL:
        _insert(state, item_index, pfn, parent, side)
    return at


@hot_kernel
def _insert(state: "State", item_index: int, pfn: int, parent: int, side: int) -> None:
    item = state.rmap_item[item_index]
    item.where = ItemPlace.UNSTABLE_TREE
    item.seqnr = state.ksm_scan[0].seqnr
    node = state.rb_node[item_index]
    node.key = item.vaddr >> PAGE_SHIFT
    node.pfn = pfn
    node.owner = state.page[pfn].mapping
    rb_link(state, Tree.UNSTABLE, item_index, parent, side)
    state.ksm_stat[KsmStat.PAGES_UNSHARED] += 1
