"""anon_vmas: which areas may map an anonymous page.

A page names an anon_vma and its page number there. Each area that may map the page hangs on that anon_vma through
one anon_vma_chain; a fork hangs the child's areas on the parent's anon_vmas, and gives each an anon_vma of its own
for the pages that it faults in itself, unless it can take one over that no area uses any more.

    page --> anon_vma --> chain --> chain --> chain           list (lecture), or tree by the area's pages (6.1)
                            |         |         |
                          area      area      area            (parent, child, grandchild)

In a tree (node/rb_max.py) an area is the interval of page numbers [pgoff, pgoff + pages): only those that hold the page
are looked at. A list, as Linux had it from 2.6.34 to 3.6, has all areas in the order in which they came, those too that
end before the page.

Linux: mm/rmap.c (anon_vma_prepare, anon_vma_clone, anon_vma_fork, unlink_anon_vmas), mm/interval_tree.c, mm/mmap.c
(find_mergeable_anon_vma).
"""

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from node.counters import Knob
from node.pool import Pool, pool_alloc, pool_free
from node.rb_max import erase_max, insert_max, interval_first, interval_next
from node.tree_nodes import anon_vma_root, chain_base
from node.vm.vma import VmFlag
from shared.constants import NIL, PAGE_SHIFT
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

ANON_VMA = np.dtype(
    [
        ("first_chain", np.int32),  # with RmapWalk.LIST
        ("refcount", np.int32),  # chains, rmap_items of KSM, and anon_vmas whose root this is
        ("root", np.int32),  # the oldest ancestor's: a page that several processes may map belongs to it
        ("parent", np.int32),
        ("nr_children", np.int32),  # anon_vmas whose parent this is, itself included if it is a root
        ("nr_active_vmas", np.int32),  # areas whose new pages belong to it
        ("last_chain", np.int32),  # with RmapWalk.LIST
    ],
    align=True,
)
ANON_VMA_CHAIN = np.dtype(
    [
        ("vma", np.int32),
        ("anon_vma", np.int32),
        ("next_of_vma", np.int32),  # this area's chains, newest first
        ("prev_of_vma", np.int32),
        ("next", np.int32),  # this anon_vma's chains, with RmapWalk.LIST
        ("prev", np.int32),
    ],
    align=True,
)


class RmapWalk(IntEnum):
    """Values of Knob.RMAP_WALK: how the areas that may map an anonymous page are found."""

    TREE = 0
    LIST = 1


# --- the areas of an anon_vma ---------------------------------------------------------------------------


@kernel
def first_chain_at(state: "State", anon_vma: int, first: int, last: int) -> int:
    """Return the first chain of an anon_vma whose area may map page numbers ``first`` to ``last``, or NIL."""
    if state.knob[Knob.RMAP_WALK] == RmapWalk.LIST:
        return state.anon_vma[anon_vma].first_chain
    node = interval_first(state, anon_vma_root(state, anon_vma), first, last)
    return node if node == NIL else node - chain_base(state)


@kernel
def next_chain_at(state: "State", chain: int, first: int, last: int) -> int:
    """Return the chain behind ``chain``, as ``first_chain_at``."""
    if state.knob[Knob.RMAP_WALK] == RmapWalk.LIST:
        return state.anon_vma_chain[chain].next
    base = chain_base(state)
    node = interval_next(state, base + chain, first, last)
    return node if node == NIL else node - base


@kernel
def only_chain(state: "State", anon_vma: int) -> int:
    """Return the chain of an anon_vma that has exactly one, or NIL."""
    if state.knob[Knob.RMAP_WALK] == RmapWalk.LIST:
        chain = state.anon_vma[anon_vma].first_chain
        return chain if chain != NIL and state.anon_vma_chain[chain].next == NIL else NIL
    node = state.rb_root[anon_vma_root(state, anon_vma)]
    if node == NIL:
        return NIL
    links = state.rb_node[node]
    return node - chain_base(state) if links.left == NIL and links.right == NIL else NIL


@kernel
def _enter(state: "State", index: int) -> None:
    """Let the anon_vma of a chain find its area."""
    chain = state.anon_vma_chain[index]
    if state.knob[Knob.RMAP_WALK] == RmapWalk.TREE:
        vma = state.vma[chain.vma]
        last = vma.pgoff + ((vma.end - vma.start) >> PAGE_SHIFT) - 1
        insert_max(state, anon_vma_root(state, chain.anon_vma), chain_base(state) + index, vma.pgoff, last)
        return
    anon_vma = state.anon_vma[chain.anon_vma]
    chain.prev = anon_vma.last_chain
    chain.next = NIL
    if anon_vma.last_chain == NIL:
        anon_vma.first_chain = index
    else:
        state.anon_vma_chain[anon_vma.last_chain].next = index
    anon_vma.last_chain = index


@kernel
def _leave(state: "State", index: int) -> int:
    """Undo ``_enter``; return whether the anon_vma has no areas left."""
    chain = state.anon_vma_chain[index]
    if state.knob[Knob.RMAP_WALK] == RmapWalk.TREE:
        root = anon_vma_root(state, chain.anon_vma)
        erase_max(state, root, chain_base(state) + index)
        return 1 if state.rb_root[root] == NIL else 0
    anon_vma = state.anon_vma[chain.anon_vma]
    if chain.prev == NIL:
        anon_vma.first_chain = chain.next
    else:
        state.anon_vma_chain[chain.prev].next = chain.next
    if chain.next == NIL:
        anon_vma.last_chain = chain.prev
    else:
        state.anon_vma_chain[chain.next].prev = chain.prev
    return 1 if anon_vma.first_chain == NIL else 0


@kernel
def chains_leave(state: "State", vma_index: int) -> None:
    """Take an area's chains out of their trees while its borders change (anon_vma_interval_tree_pre_update_vma)."""
    if state.knob[Knob.RMAP_WALK] == RmapWalk.TREE:
        index = state.vma[vma_index].first_chain
        while index != NIL:
            _leave(state, index)
            index = state.anon_vma_chain[index].next_of_vma


@kernel
def chains_enter(state: "State", vma_index: int) -> None:
    """Undo ``chains_leave``."""
    if state.knob[Knob.RMAP_WALK] == RmapWalk.TREE:
        index = state.vma[vma_index].first_chain
        while index != NIL:
            _enter(state, index)
            index = state.anon_vma_chain[index].next_of_vma


# --- linking --------------------------------------------------------------------------------------------


@kernel
def link_anon_vma(state: "State", vma_index: int, anon_vma_index: int) -> int:
    """Hang the area on the anon_vma; return 0, or NIL if there is no chain left."""
    index = pool_alloc(state, Pool.ANON_VMA_CHAIN)
    if index == NIL:
        return NIL
    vma = state.vma[vma_index]
    chain = state.anon_vma_chain[index]
    chain.vma = vma_index
    chain.anon_vma = anon_vma_index
    chain.next_of_vma = vma.first_chain
    chain.prev_of_vma = NIL
    if vma.first_chain != NIL:
        state.anon_vma_chain[vma.first_chain].prev_of_vma = index
    vma.first_chain = index
    _enter(state, index)
    state.anon_vma[anon_vma_index].refcount += 1
    return 0


@kernel
def _alloc_anon_vma(state: "State") -> int:
    index = pool_alloc(state, Pool.ANON_VMA)
    if index == NIL:
        return NIL
    state.rb_root[anon_vma_root(state, index)] = NIL
    anon_vma = state.anon_vma[index]
    anon_vma.first_chain = NIL
    anon_vma.last_chain = NIL
    anon_vma.refcount = 0
    anon_vma.root = index
    anon_vma.parent = index
    anon_vma.nr_children = 0
    anon_vma.nr_active_vmas = 0
    return index


@kernel
def _use_anon_vma(state: "State", vma_index: int, index: int) -> int:
    """Let the area's new pages belong to an anon_vma; return 0, or NIL if there is no chain left."""
    if link_anon_vma(state, vma_index, index) == NIL:
        if state.anon_vma[index].refcount == 0:
            pool_free(state, Pool.ANON_VMA, index)
        return NIL
    state.vma[vma_index].anon_vma = index
    state.anon_vma[index].nr_active_vmas += 1
    return 0


MAY_DIFFER = VmFlag.READ | VmFlag.WRITE | VmFlag.EXEC


@kernel
def _reusable(state: "State", below: int, above: int, source: int) -> int:
    """Return the anon_vma of ``source``, one of two areas, if they could be one but for their rights; or 0."""
    if below == NIL or above == NIL:  # noqa: PLR1714 (a kernel has no tuples)
        return 0
    lower = state.vma[below]
    upper = state.vma[above]
    if lower.end != upper.start or lower.inode != upper.inode:
        return 0
    if (lower.vm_flags ^ upper.vm_flags) & ~MAY_DIFFER:
        return 0
    if upper.pgoff != lower.pgoff + ((upper.start - lower.start) >> PAGE_SHIFT):
        return 0
    chain = state.vma[source].first_chain
    if chain == NIL or state.anon_vma_chain[chain].next_of_vma != NIL:
        return 0
    return state.vma[source].anon_vma


@kernel
def anon_vma_prepare(state: "State", vma_index: int) -> int:
    """See to it that the area has an anon_vma: a neighbour's, if they may be merged one day; return 0, or NIL."""
    vma = state.vma[vma_index]
    if vma.anon_vma != 0:
        return 0
    index = _reusable(state, vma_index, vma.next, vma.next)
    if index == 0:
        index = _reusable(state, vma.prev, vma_index, vma.prev)
    if index == 0:
        index = _alloc_anon_vma(state)
        if index == NIL:
            return NIL
        state.anon_vma[index].nr_children = 1
    return _use_anon_vma(state, vma_index, index)


@kernel
def get_anon_vma(state: "State", anon_vma_index: int) -> None:
    """Hold the anon_vma beyond its areas, as an rmap_item of KSM does."""
    state.anon_vma[anon_vma_index].refcount += 1


@kernel
def put_anon_vma(state: "State", anon_vma_index: int) -> None:
    """Let go of the anon_vma; the last one frees it."""
    anon_vma = state.anon_vma[anon_vma_index]
    anon_vma.refcount -= 1
    if anon_vma.refcount > 0:
        return
    root = anon_vma.root
    pool_free(state, Pool.ANON_VMA, anon_vma_index)
    if root != anon_vma_index:
        # The root itself has no other root, so this goes one step deep.
        root_record = state.anon_vma[root]
        root_record.refcount -= 1
        if root_record.refcount == 0:
            pool_free(state, Pool.ANON_VMA, root)


# --- fork, split and the end ----------------------------------------------------------------------------


@kernel
def anon_vma_clone(state: "State", to: int, source: int) -> int:
    """Hang area ``to`` on every anon_vma of ``source``, oldest first; return 0, or NIL: then on none.

    Where ``to`` has no anon_vma yet, it takes over one that no area uses and that has no child but one.
    """
    copy = state.vma[to]
    index = state.vma[source].first_chain
    while index != NIL and state.anon_vma_chain[index].next_of_vma != NIL:
        index = state.anon_vma_chain[index].next_of_vma
    while index != NIL:
        chain = state.anon_vma_chain[index]
        anon_vma_index = chain.anon_vma
        if link_anon_vma(state, to, anon_vma_index) == NIL:
            copy.anon_vma = 0
            unlink_anon_vmas(state, to)
            return NIL
        anon_vma = state.anon_vma[anon_vma_index]
        # A root is its own child, and has one more.
        if copy.anon_vma == 0 and anon_vma.nr_children < 2 and anon_vma.nr_active_vmas == 0:  # noqa: PLR2004
            copy.anon_vma = anon_vma_index
        index = chain.prev_of_vma
    if copy.anon_vma:
        state.anon_vma[copy.anon_vma].nr_active_vmas += 1
    return 0


@kernel
def anon_vma_fork(state: "State", child_vma: int, parent_vma: int) -> int:
    """Hang the child's area on every anon_vma of the parent's, and give it one of its own; return 0, or NIL."""
    parent_anon_vma = state.vma[parent_vma].anon_vma
    if parent_anon_vma == 0:
        return 0
    if anon_vma_clone(state, child_vma, parent_vma) == NIL:
        return NIL
    if state.vma[child_vma].anon_vma:
        return 0
    index = _alloc_anon_vma(state)
    if index == NIL or _use_anon_vma(state, child_vma, index) == NIL:
        unlink_anon_vmas(state, child_vma)
        return NIL
    anon_vma = state.anon_vma[index]
    anon_vma.root = state.anon_vma[parent_anon_vma].root
    anon_vma.parent = parent_anon_vma
    get_anon_vma(state, anon_vma.root)
    state.anon_vma[parent_anon_vma].nr_children += 1
    return 0


@kernel
def unlink_anon_vmas(state: "State", vma_index: int) -> None:
    """Take the area off all of its anon_vmas."""
    vma = state.vma[vma_index]
    if vma.anon_vma:
        state.anon_vma[vma.anon_vma].nr_active_vmas -= 1
    index = vma.first_chain
    while index != NIL:
        chain = state.anon_vma_chain[index]
        following = chain.next_of_vma
        anon_vma_index = chain.anon_vma
        if _leave(state, index):
            state.anon_vma[state.anon_vma[anon_vma_index].parent].nr_children -= 1
        put_anon_vma(state, anon_vma_index)
        pool_free(state, Pool.ANON_VMA_CHAIN, index)
        index = following
    vma.first_chain = NIL
    vma.anon_vma = 0
