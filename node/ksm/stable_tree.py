"""The stable tree: merged pages, write-protected, ordered by content, each with the list of its sharers.

    [node]---------[node]            a sharer list longer than max_page_sharing would make reverse
       |              |              mapping slow: then a *chain* takes the node's place in the tree
    [chain]        sharers           and carries several nodes of equal content, its *dups*
       |
    dup -> dup -> dup
     |      |      |
    sharers ...

A node holds no reference to its page: it knows the frame number and looks through a keyhole, whether the
frame still says that it belongs to the node. A node that finds another key there is stale and is removed.

Linux: mm/ksm.c (get_ksm_page, stable_node_dup, stable_tree_search, stable_tree_insert, stable_tree_append,
remove_node_from_stable_tree). merge_across_nodes is 1: there is one NUMA node.
"""

from typing import TYPE_CHECKING, Final

from node.counters import Current, Knob, KsmStat, Panic
from node.hw.cost import Cost
from node.joints import rb_erase
from node.ksm.checksum import page_key
from node.ksm.records import ItemPlace
from node.phys.page import PageFlag
from node.pool import Pool, pool_alloc, pool_free
from node.rbtree import Side, Tree, rb_link, rb_replace
from node.vm.anon_vma import put_anon_vma
from shared.constants import NIL, PS_PER_MS
from shared.jit import bug_on, kernel

if TYPE_CHECKING:
    from node.state import State

IS_CHAIN: Final = -1024  # in nr_sharers (STABLE_NODE_CHAIN)
NO_NODE: Final = 0


@kernel
def _tree_node(state: "State", node_index: int) -> int:
    """Return a stable node's place in ``rb_node``, behind those of all rmap_items."""
    return state.pool[Pool.RMAP_ITEM].capacity + node_index


@kernel
def _of_tree_node(state: "State", rb_index: int) -> int:
    return rb_index - state.pool[Pool.RMAP_ITEM].capacity


# --- chains ---------------------------------------------------------------------------------------------


@kernel
def _add_dup(state: "State", chain_index: int, node_index: int) -> None:
    chain = state.stable_node[chain_index]
    node = state.stable_node[node_index]
    node.chain = chain_index
    node.prev_dup = NIL
    node.next_dup = chain.first_sharer
    if chain.first_sharer != NIL:
        state.stable_node[chain.first_sharer].prev_dup = node_index
    chain.first_sharer = node_index


@kernel
def _unlink_dup(state: "State", node_index: int) -> None:
    node = state.stable_node[node_index]
    if node.prev_dup == NIL:
        state.stable_node[node.chain].first_sharer = node.next_dup
    else:
        state.stable_node[node.prev_dup].next_dup = node.next_dup
    if node.next_dup != NIL:
        state.stable_node[node.next_dup].prev_dup = node.prev_dup
    node.chain = NO_NODE


@kernel
def _new_node(state: "State", pfn: int, key: int) -> int:
    index = pool_alloc(state, Pool.STABLE_NODE)
    if index == NIL:
        return NIL
    node = state.stable_node[index]
    node.key = key
    node.chain_prune_ps = 0
    node.pfn = pfn
    node.first_sharer = NIL
    node.nr_sharers = 0
    node.chain = NO_NODE
    node.next_dup = NIL
    node.prev_dup = NIL
    return index


@kernel
def _make_chain(state: "State", node_index: int) -> int:
    """Put a chain into the tree in the node's place, with the node as its dup; return it, or NIL."""
    chain_index = _new_node(state, NIL, state.stable_node[node_index].key)
    if chain_index == NIL:
        return NIL
    chain = state.stable_node[chain_index]
    chain.nr_sharers = IS_CHAIN
    chain.chain_prune_ps = state.current[Current.CLOCK_PS]
    state.ksm_stat[KsmStat.STABLE_NODE_CHAINS] += 1
    rb_replace(state, Tree.STABLE, _tree_node(state, node_index), _tree_node(state, chain_index))
    _add_dup(state, chain_index, node_index)
    state.ksm_stat[KsmStat.STABLE_NODE_DUPS] += 1
    return chain_index


@kernel
def free_chain(state: "State", chain_index: int) -> None:
    """Take a chain without dups out of the tree."""
    rb_erase(state, Tree.STABLE, _tree_node(state, chain_index))
    pool_free(state, Pool.STABLE_NODE, chain_index)
    state.ksm_stat[KsmStat.STABLE_NODE_CHAINS] -= 1


# --- nodes and their pages ------------------------------------------------------------------------------


@kernel
def remove_node(state: "State", node_index: int) -> None:
    """Forget a merged page whose frame is gone: its sharers are nowhere, and the node is freed."""
    node = state.stable_node[node_index]
    bug_on(state, node.nr_sharers < 0, Panic.KSM_TREE, node_index)
    item_index = node.first_sharer
    while item_index != NIL:
        item = state.rmap_item[item_index]
        following = state.rb_node[item_index].left
        state.ksm_stat[KsmStat.PAGES_SHARING if following != NIL else KsmStat.PAGES_SHARED] -= 1
        state.mm[item.mm].ksm_merging_pages -= 1
        put_anon_vma(state, state.rb_node[item_index].owner)
        item.where = ItemPlace.NOWHERE
        item.stable_node = NO_NODE
        item_index = following
    if node.chain != NO_NODE:
        _unlink_dup(state, node_index)
        state.ksm_stat[KsmStat.STABLE_NODE_DUPS] -= 1
    else:
        rb_erase(state, Tree.STABLE, _tree_node(state, node_index))
    pool_free(state, Pool.STABLE_NODE, node_index)


@kernel
def get_ksm_page(state: "State", node_index: int) -> int:
    """Return the node's frame if it still is its merged page; else remove the stale node and return NIL."""
    pfn = state.stable_node[node_index].pfn
    page = state.page[pfn]
    if page.page_flags & PageFlag.KSM and page.mapping == node_index and page.refcount > 0:
        return pfn
    remove_node(state, node_index)
    return NIL


@kernel
def _may_share(state: "State", node_index: int, more: int) -> int:
    """Return whether the node has sharers, and room for one and ``more``."""
    nr_sharers = state.stable_node[node_index].nr_sharers
    return 1 if nr_sharers > 0 and nr_sharers + more < state.knob[Knob.KSM_MAX_PAGE_SHARING] else 0


@kernel
def is_sharing_candidate(state: "State", node_index: int) -> int:
    """Return whether one more page may be merged into the node."""
    return _may_share(state, node_index, 0)


@kernel
def _prune_is_due(state: "State", chain_index: int) -> int:
    chain = state.stable_node[chain_index]
    now = state.current[Current.CLOCK_PS]
    if now < chain.chain_prune_ps + state.knob[Knob.KSM_PRUNE_MILLISECS] * PS_PER_MS:
        return 0
    chain.chain_prune_ps = now
    return 1


@kernel
def _best_dup(state: "State", chain_index: int, prune: int) -> int:
    """Return the chain's dup that takes the next sharer, or NIL if all are full; drop stale ones on the way.

    A chain that is left with one dup below the limit collapses: the dup takes its place (its ``chain`` is 0).
    """
    prune = prune and _prune_is_due(state, chain_index)
    found = NIL
    nr_dups = 0
    dup = state.stable_node[chain_index].first_sharer
    while dup != NIL:
        following = state.stable_node[dup].next_dup
        if get_ksm_page(state, dup) != NIL:
            nr_dups += 1
            fuller = found == NIL or state.stable_node[dup].nr_sharers > state.stable_node[found].nr_sharers
            if fuller and is_sharing_candidate(state, dup):
                found = dup
                if not prune:
                    break
        dup = following
    if found == NIL:
        return NIL
    if prune and nr_dups == 1:
        _collapse(state, chain_index, found)
    elif state.stable_node[chain_index].first_sharer != found and _may_share(state, found, 1):
        _unlink_dup(state, found)
        _add_dup(state, chain_index, found)
    return found


@kernel
def _collapse(state: "State", chain_index: int, dup: int) -> None:
    _unlink_dup(state, dup)
    rb_replace(state, Tree.STABLE, _tree_node(state, chain_index), _tree_node(state, dup))
    pool_free(state, Pool.STABLE_NODE, chain_index)
    state.ksm_stat[KsmStat.STABLE_NODE_CHAINS] -= 1
    state.ksm_stat[KsmStat.STABLE_NODE_DUPS] -= 1


# --- search and insertion -------------------------------------------------------------------------------


@kernel
def _candidate(state: "State", node_index: int, prune: int) -> int:
    """Return the node, or the chain's dup, that takes the next sharer, or NIL: full."""
    if state.stable_node[node_index].nr_sharers == IS_CHAIN:
        return _best_dup(state, node_index, prune)
    return node_index if is_sharing_candidate(state, node_index) else NIL


@kernel
def _is_live(state: "State", node_index: int, candidate: int) -> int:
    """Return whether the place in the tree stands; 0 if it was stale, is gone, and the search starts again."""
    if candidate != NIL:
        return 1 if get_ksm_page(state, candidate) != NIL else 0
    any_node = node_index
    if state.stable_node[node_index].nr_sharers == IS_CHAIN:
        any_node = state.stable_node[node_index].first_sharer
        if any_node == NIL:
            free_chain(state, node_index)
            return 0
    return 1 if get_ksm_page(state, any_node) != NIL else 0


@kernel
def stable_tree_search(state: "State", pfn: int) -> int:
    """Return the node of the tree with the page's content that takes one more sharer, or NIL."""
    key = page_key(state, pfn)
    rb_index = state.rb_root[Tree.STABLE]
    while rb_index != NIL:
        node_index = _of_tree_node(state, rb_index)
        node = state.stable_node[node_index]
        state.current[Current.CLOCK_PS] += state.cost[Cost.KSM_COMPARE]
        # Linux asks of every node that it passes whether it is full or stale, and so do we, since a chain
        # is pruned, and a stale node removed, when somebody passes.
        node_key = node.key
        candidate = _candidate(state, node_index, 1)
        if not _is_live(state, node_index, candidate):
            rb_index = state.rb_root[Tree.STABLE]
            continue
        if key == node_key:
            return candidate
        if candidate != NIL and state.stable_node[candidate].chain == NO_NODE:
            rb_index = _tree_node(state, candidate)  # the same place, also if the chain collapsed
        rb_index = state.rb_node[rb_index].left if key < node_key else state.rb_node[rb_index].right
    return NIL


@kernel
def stable_tree_insert(state: "State", pfn: int) -> int:
    """Make a node for a newly merged page and put it into the tree; return it, or NIL if there is no record."""
    key = page_key(state, pfn)
    parent = NIL
    side = Side.LEFT
    equal = NIL
    rb_index = state.rb_root[Tree.STABLE]
    while rb_index != NIL:
        node_index = _of_tree_node(state, rb_index)
        node_key = state.stable_node[node_index].key
        candidate = _candidate(state, node_index, 0)
        if not _is_live(state, node_index, candidate):
            parent = NIL
            rb_index = state.rb_root[Tree.STABLE]
            continue
        if key == node_key:
            equal = node_index
            break
        parent = rb_index
        side = Side.LEFT if key < node_key else Side.RIGHT
        rb_index = state.rb_node[rb_index].left if key < node_key else state.rb_node[rb_index].right
    new = _new_node(state, pfn, key)
    if new == NIL:
        return NIL
    if equal == NIL:
        rb_link(state, Tree.STABLE, _tree_node(state, new), parent, side)
    else:
        chain = equal
        if state.stable_node[equal].nr_sharers != IS_CHAIN:
            chain = _make_chain(state, equal)
            if chain == NIL:
                pool_free(state, Pool.STABLE_NODE, new)
                return NIL
        _add_dup(state, chain, new)
        state.ksm_stat[KsmStat.STABLE_NODE_DUPS] += 1
    state.page[pfn].mapping = new
    return new


@kernel
def stable_tree_append(state: "State", item_index: int, node_index: int) -> None:
    """Add an item to the node's sharers; its anon_vma is held already."""
    item = state.rmap_item[item_index]
    node = state.stable_node[node_index]
    bug_on(state, node.nr_sharers < 0, Panic.KSM_TREE, node_index)
    item.where = ItemPlace.STABLE_NODE
    item.stable_node = node_index
    links = state.rb_node[item_index]
    links.right = NIL
    links.left = node.first_sharer
    if node.first_sharer != NIL:
        state.rb_node[node.first_sharer].right = item_index
    state.ksm_stat[KsmStat.PAGES_SHARING if node.first_sharer != NIL else KsmStat.PAGES_SHARED] += 1
    node.first_sharer = item_index
    node.nr_sharers += 1
    state.mm[item.mm].ksm_merging_pages += 1


@kernel
def unlink_sharer(state: "State", item_index: int) -> None:
    """Take an item off its node's sharers, and let go of its anon_vma."""
    item = state.rmap_item[item_index]
    node = state.stable_node[item.stable_node]
    links = state.rb_node[item_index]
    if links.right == NIL:
        node.first_sharer = links.left
    else:
        state.rb_node[links.right].left = links.left
    if links.left != NIL:
        state.rb_node[links.left].right = links.right
    state.ksm_stat[KsmStat.PAGES_SHARING if node.first_sharer != NIL else KsmStat.PAGES_SHARED] -= 1
    node.nr_sharers -= 1
    state.mm[item.mm].ksm_merging_pages -= 1
    put_anon_vma(state, links.owner)
    item.where = ItemPlace.NOWHERE
    item.stable_node = NO_NODE


@kernel
def remove_all_stable_nodes(state: "State") -> None:
    """Drop every node whose page nobody maps any more (after ``run`` became 2)."""
    while state.rb_root[Tree.STABLE] != NIL:
        node_index = _of_tree_node(state, state.rb_root[Tree.STABLE])
        if state.stable_node[node_index].nr_sharers != IS_CHAIN:
            if not _remove_unmapped(state, node_index):
                return
            continue
        while state.stable_node[node_index].first_sharer != NIL:
            if not _remove_unmapped(state, state.stable_node[node_index].first_sharer):
                return
        free_chain(state, node_index)


@kernel
def _remove_unmapped(state: "State", node_index: int) -> int:
    pfn = get_ksm_page(state, node_index)
    if pfn == NIL:
        return 1
    if state.page[pfn].mapcount != 0:
        return 0
    state.page[pfn].mapping = NO_NODE
    remove_node(state, node_index)
    return 1
