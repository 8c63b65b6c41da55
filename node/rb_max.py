r"""Red-black trees whose nodes know the largest value below them: for gaps of an address, and for intervals.

            (key 40, own 3, largest 9)          own      what the record itself has: a gap, a last page, a size
               /               \                largest  of its own and of all below it
    (20, 9, 9)              (60, 1, 4)
                             /
                        (50, 4, 4)

A search enters a subtree only if its largest says that something is to be found there. After a change, the nodes on
the way up are computed anew, and their children, since a rotation may have passed there.

*Intervals*: with the first page of an interval as key and its last as own value, all intervals that meet [first,
last] are found in O(log n) each: ``interval_first``, then ``interval_next``.

Linux: include/linux/rbtree_augmented.h, include/linux/interval_tree_generic.h.
"""

from typing import TYPE_CHECKING

import numpy as np

from node.joints import rb_erase
from node.rbtree import Side, rb_link
from shared.constants import NIL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

RB_MAX = np.dtype(
    [
        ("own", np.int64),
        ("largest", np.int64),  # in the subtree of this node
    ],
    align=True,
)


@kernel
def largest_below(state: "State", node: int) -> int:
    """Return the largest value in the subtree of ``node``; NIL for NIL."""
    return NIL if node == NIL else state.rb_max[node].largest


@kernel
def _compute(state: "State", node: int) -> None:
    if node != NIL:
        links = state.rb_node[node]
        below = max(largest_below(state, links.left), largest_below(state, links.right))
        state.rb_max[node].largest = max(state.rb_max[node].own, below)


@kernel
def compute_upwards(state: "State", node: int) -> None:
    """Make ``largest`` right after the tree, or a value, changed at ``node``."""
    while node != NIL:
        links = state.rb_node[node]
        _compute(state, links.left)
        _compute(state, links.right)
        _compute(state, node)
        node = links.parent


@kernel
def change_own(state: "State", node: int, value: int) -> None:
    """Give a node in a tree another value of its own."""
    state.rb_max[node].own = value
    compute_upwards(state, node)


@kernel
def insert_max(state: "State", tree: int, node: int, key: int, own: int) -> None:
    """Put a node into a tree by its key; behind those with an equal one."""
    state.rb_node[node].key = key
    state.rb_max[node].own = own
    state.rb_max[node].largest = own
    parent = NIL
    side = Side.LEFT
    at = state.rb_root[tree]
    while at != NIL:
        parent = at
        side = Side.LEFT if key < state.rb_node[at].key else Side.RIGHT
        at = state.rb_node[at].left if side == Side.LEFT else state.rb_node[at].right
    rb_link(state, tree, node, parent, side)
    compute_upwards(state, node)


@kernel
def erase_max(state: "State", tree: int, node: int) -> None:
    """Take a node out of a tree."""
    links = state.rb_node[node]
    lowest = links.parent  # of the nodes whose subtrees change
    if links.left != NIL and links.right != NIL:  # noqa: PLR1714 (a kernel has no tuples)
        lowest = links.right  # the smallest node on the right takes the place
        while state.rb_node[lowest].left != NIL:
            lowest = state.rb_node[lowest].left
        if state.rb_node[lowest].parent != node:
            lowest = state.rb_node[lowest].parent
    rb_erase(state, tree, node)
    compute_upwards(state, lowest)


# --- intervals ------------------------------------------------------------------------------------------


@kernel
def _first_in_subtree(state: "State", node: int, first: int, last: int) -> int:
    """Return the leftmost interval of a subtree that meets [first, last]; its largest is not below ``first``."""
    while True:
        links = state.rb_node[node]
        if links.left != NIL and state.rb_max[links.left].largest >= first:
            node = links.left
            continue
        if links.key > last:
            return NIL
        if state.rb_max[node].own >= first:
            return node
        if links.right == NIL or state.rb_max[links.right].largest < first:
            return NIL
        node = links.right


@kernel
def interval_first(state: "State", tree: int, first: int, last: int) -> int:
    """Return the node of the first interval that meets [first, last], or NIL."""
    node = state.rb_root[tree]
    if node == NIL or state.rb_max[node].largest < first:
        return NIL
    return _first_in_subtree(state, node, first, last)


@kernel
def interval_next(state: "State", node: int, first: int, last: int) -> int:
    """Return the node behind ``node`` whose interval meets [first, last], or NIL."""
    right = state.rb_node[node].right
    while True:
        if right != NIL and state.rb_max[right].largest >= first:
            return _first_in_subtree(state, right, first, last)
        # Up, to the first ancestor that this subtree lies left of.
        while True:
            below = node
            node = state.rb_node[node].parent
            if node == NIL:
                return NIL
            right = state.rb_node[node].right
            if right != below:
                break
        if state.rb_node[node].key > last:
            return NIL
        if state.rb_max[node].own >= first:
            return node
