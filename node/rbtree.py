r"""Red-black trees over one table of nodes, for every ordered set that a kernel keeps.

            (8)            red nodes have black children, and every way down passes equally many
           /   \           black nodes, so no way is longer than twice another
         [4]   [12]
         / \    / \        node i of the table stands for record i of the set's own table;
       (2) (6) (10)(14)    who searches compares, links a new node where the search ended, and
                           calls ``rb_insert_color``

``state.rb_root[tree]`` is the root or NIL. Several trees share the table as long as their nodes do not:
rmap_items are nodes 0.., stable nodes follow behind all of them, and the areas of vmalloc behind those.

Source: Cormen et al., Introduction to Algorithms, chapter 13; Linux lib/rbtree.c has the same interface.
"""

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from shared.constants import NIL
from shared.jit import entry, kernel

if TYPE_CHECKING:
    from node.state import State

RB_NODE = np.dtype(
    [
        ("left", np.int32),
        ("right", np.int32),
        ("parent", np.int32),
        ("color", np.int32),
        # What the set keeps here, so that a search touches one half of a cache line a node, and no record.
        ("key", np.int64),
        ("pfn", np.int32),
        ("owner", np.int32),
    ],
    align=True,
)


class Tree(IntEnum):
    """Roots in ``state.rb_root``."""

    STABLE = 0
    UNSTABLE = 1
    FREE_VMAP = 2
    BUSY_VMAP = 3
    LAZY_VMAP = 4
    NR = 5


class Color(IntEnum):
    """Colour of a node."""

    BLACK = 0
    RED = 1


class Side(IntEnum):
    """On which side of its parent a new node is linked."""

    LEFT = -1
    RIGHT = 1


@kernel
def rb_link(state: "State", tree: int, index: int, parent: int, side: int) -> None:
    """Put a new node below ``parent`` (NIL: the tree is empty), on ``side``, and restore the balance."""
    node = state.rb_node[index]
    node.left = NIL
    node.right = NIL
    node.parent = parent
    node.color = Color.RED
    if parent == NIL:
        state.rb_root[tree] = index
    elif side < 0:
        state.rb_node[parent].left = index
    else:
        state.rb_node[parent].right = index
    _rebalance_after_insert(state, tree, index)


@kernel
def _change_child(state: "State", tree: int, old: int, new: int, parent: int) -> None:
    if parent == NIL:
        state.rb_root[tree] = new
    elif state.rb_node[parent].left == old:
        state.rb_node[parent].left = new
    else:
        state.rb_node[parent].right = new


@kernel
def _rotate_left(state: "State", tree: int, index: int) -> None:
    node = state.rb_node[index]
    up = node.right
    upper = state.rb_node[up]
    node.right = upper.left
    if upper.left != NIL:
        state.rb_node[upper.left].parent = index
    upper.parent = node.parent
    _change_child(state, tree, index, up, node.parent)
    upper.left = index
    node.parent = up


@kernel
def _rotate_right(state: "State", tree: int, index: int) -> None:
    node = state.rb_node[index]
    up = node.left
    upper = state.rb_node[up]
    node.left = upper.right
    if upper.right != NIL:
        state.rb_node[upper.right].parent = index
    upper.parent = node.parent
    _change_child(state, tree, index, up, node.parent)
    upper.right = index
    node.parent = up


@kernel
def _is_red(state: "State", index: int) -> int:
    return 1 if index != NIL and state.rb_node[index].color == Color.RED else 0


@kernel
def _rebalance_after_insert(state: "State", tree: int, index: int) -> None:
    parent = state.rb_node[index].parent
    while _is_red(state, parent):
        grand = state.rb_node[parent].parent  # a red node is never the root, so there is one
        is_left = parent == state.rb_node[grand].left
        uncle = state.rb_node[grand].right if is_left else state.rb_node[grand].left
        if _is_red(state, uncle):
            state.rb_node[parent].color = Color.BLACK
            state.rb_node[uncle].color = Color.BLACK
            state.rb_node[grand].color = Color.RED
            index = grand
            parent = state.rb_node[index].parent
            continue
        if is_left:
            if index == state.rb_node[parent].right:
                _rotate_left(state, tree, parent)
                index = parent
                parent = state.rb_node[index].parent
            _rotate_right(state, tree, grand)
        else:
            if index == state.rb_node[parent].left:
                _rotate_right(state, tree, parent)
                index = parent
                parent = state.rb_node[index].parent
            _rotate_left(state, tree, grand)
        state.rb_node[parent].color = Color.BLACK
        state.rb_node[grand].color = Color.RED
        break
    state.rb_node[state.rb_root[tree]].color = Color.BLACK


@kernel
def rb_replace(state: "State", tree: int, old: int, new: int) -> None:
    """Put node ``new`` where ``old`` is; it must compare equal."""
    node = state.rb_node[new]
    gone = state.rb_node[old]
    node.left = gone.left
    node.right = gone.right
    node.parent = gone.parent
    node.color = gone.color
    if gone.left != NIL:
        state.rb_node[gone.left].parent = new
    if gone.right != NIL:
        state.rb_node[gone.right].parent = new
    _change_child(state, tree, old, new, gone.parent)


@entry
def rb_erase(state: "State", tree: int, index: int) -> int:
    """Take a node out of the tree; return 0.

    An entry of its own: it is long, seldom run, and has many callers.
    """
    node = state.rb_node[index]
    if node.left != NIL and node.right != NIL:  # noqa: PLR1714 (a kernel has no tuples)
        # The smallest node on the right has no left child: put it here, then close the gap that it left.
        successor = node.right
        while state.rb_node[successor].left != NIL:
            successor = state.rb_node[successor].left
        moved = state.rb_node[successor]
        child = moved.right
        color = moved.color
        parent = moved.parent
        if parent == index:
            parent = successor
        else:
            state.rb_node[parent].left = child
            if child != NIL:
                state.rb_node[child].parent = parent
        _take_place(state, tree, index, successor)
    else:
        child = node.right if node.left == NIL else node.left
        color = node.color
        parent = node.parent
        if child != NIL:
            state.rb_node[child].parent = parent
        _change_child(state, tree, index, child, parent)
    if color == Color.BLACK:
        _rebalance_after_erase(state, tree, child, parent)
    return 0


@kernel
def _take_place(state: "State", tree: int, index: int, successor: int) -> None:
    """Give ``successor``, already unlinked below, the links and colour of ``index``."""
    node = state.rb_node[index]
    moved = state.rb_node[successor]
    if node.right != successor:
        moved.right = node.right
        state.rb_node[node.right].parent = successor
    moved.left = node.left
    state.rb_node[node.left].parent = successor
    moved.parent = node.parent
    moved.color = node.color
    _change_child(state, tree, index, successor, node.parent)


@kernel
def _lighter_sibling(state: "State", tree: int, parent: int, is_left: int) -> int:
    """Return the black sibling of a place that misses a black node, after turning a red one away."""
    sibling = state.rb_node[parent].right if is_left else state.rb_node[parent].left
    if _is_red(state, sibling):
        state.rb_node[sibling].color = Color.BLACK
        state.rb_node[parent].color = Color.RED
        if is_left:
            _rotate_left(state, tree, parent)
            sibling = state.rb_node[parent].right
        else:
            _rotate_right(state, tree, parent)
            sibling = state.rb_node[parent].left
    return sibling


@kernel
def _rebalance_after_erase(state: "State", tree: int, index: int, parent: int) -> None:
    """Repair a tree in which every way through ``index`` (below ``parent``; may be NIL) misses a black node."""
    while parent != NIL and not _is_red(state, index):
        is_left = 1 if state.rb_node[parent].left == index else 0
        sibling = _lighter_sibling(state, tree, parent, is_left)
        node = state.rb_node[sibling]
        near = node.left if is_left else node.right
        far = node.right if is_left else node.left
        if not _is_red(state, near) and not _is_red(state, far):
            node.color = Color.RED
            index = parent
            parent = state.rb_node[index].parent
            continue
        if not _is_red(state, far):
            state.rb_node[near].color = Color.BLACK
            node.color = Color.RED
            if is_left:
                _rotate_right(state, tree, sibling)
            else:
                _rotate_left(state, tree, sibling)
            sibling = near
        state.rb_node[sibling].color = state.rb_node[parent].color
        state.rb_node[parent].color = Color.BLACK
        if is_left:
            state.rb_node[state.rb_node[sibling].right].color = Color.BLACK
            _rotate_left(state, tree, parent)
        else:
            state.rb_node[state.rb_node[sibling].left].color = Color.BLACK
            _rotate_right(state, tree, parent)
        return
    if index != NIL:
        state.rb_node[index].color = Color.BLACK
