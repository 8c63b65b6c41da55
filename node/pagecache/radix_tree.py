"""The tree in which a file keeps its pages, by page number: 64 slots a node, as high as the largest number needs.

    height 0   the root is the page of number 0 itself
    height 1   one node: pages 0..63
    height 2   [ . . . ] -> [ . . . ]      pages 0..4095

A slot is 0 where nothing is: nodes and frames have numbers above 0. A leaf's slots hold frame numbers, the others'
nodes.

Linux: lib/radix-tree.c, lib/xarray.c (XA_CHUNK_SHIFT 6), include/linux/xarray.h.
# Differs from Linux: the tree does not become lower again before it is empty; no entries for several pages, no shadow
entries, no tags.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from node.pool import Pool, pool_alloc, pool_free
from shared.constants import NIL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

RADIX_SHIFT: Final = 6
RADIX_SLOTS: Final = 1 << RADIX_SHIFT
RADIX_MASK: Final = RADIX_SLOTS - 1

RADIX_NODE = np.dtype(
    [
        ("parent", np.int32),  # or 0
        ("nr_used", np.int32),  # slots that are not 0
        ("place", np.int32),  # its slot in the parent
    ],
    align=True,
)


@kernel
def _new_node(state: "State", parent: int, place: int) -> int:
    node = pool_alloc(state, Pool.RADIX_NODE)
    if node == NIL:
        return NIL
    record = state.radix_node[node]
    record.parent = parent
    record.place = place
    record.nr_used = 0
    for slot in range(node << RADIX_SHIFT, (node + 1) << RADIX_SHIFT):
        state.radix_slot[slot] = 0
    return node


@kernel
def _raise_tree(state: "State", inode: int) -> int:
    """Put one more level on top; return 0, or NIL if there is no node left."""
    root = state.inode[inode]
    if root.radix_root:
        node = _new_node(state, 0, 0)
        if node == NIL:
            return NIL
        state.radix_slot[node << RADIX_SHIFT] = root.radix_root
        state.radix_node[node].nr_used = 1
        if root.radix_height > 0:
            state.radix_node[root.radix_root].parent = node
        root.radix_root = node
    root.radix_height += 1
    return 0


@kernel
def _free_empty(state: "State", inode: int, node: int) -> None:
    """Take away a node and those above it, as long as they hold nothing."""
    while state.radix_node[node].nr_used == 0:
        parent = state.radix_node[node].parent
        place = state.radix_node[node].place
        pool_free(state, Pool.RADIX_NODE, node)
        if parent == 0:
            state.inode[inode].radix_root = 0
            state.inode[inode].radix_height = 0
            return
        state.radix_slot[parent << RADIX_SHIFT | place] = 0
        state.radix_node[parent].nr_used -= 1
        node = parent


@kernel
def _is_in_reach(height: int, index: int) -> int:
    """Return whether a tree of this height has a place for page ``index``."""
    return 1 if index >> (height * RADIX_SHIFT) == 0 else 0


@kernel
def radix_find(state: "State", inode: int, index: int) -> int:
    """Return the frame of page ``index`` of a file, or 0."""
    root = state.inode[inode]
    height = root.radix_height
    if not _is_in_reach(height, index):
        return 0
    at = root.radix_root
    while height > 0 and at != 0:
        height -= 1
        at = state.radix_slot[at << RADIX_SHIFT | index >> (height * RADIX_SHIFT) & RADIX_MASK]
    return at


@kernel
def radix_insert(state: "State", inode: int, index: int, pfn: int) -> int:
    """Note the frame of page ``index``, of which there is none; return 0, or NIL if there is no node left."""
    root = state.inode[inode]
    while not _is_in_reach(root.radix_height, index):
        if _raise_tree(state, inode) == NIL:
            return NIL
    height = root.radix_height
    if height == 0:
        root.radix_root = pfn
        return 0
    if root.radix_root == 0:
        root.radix_root = _new_node(state, 0, 0)
        if root.radix_root == NIL:
            root.radix_root = 0
            return NIL
    node = root.radix_root
    while height > 1:
        height -= 1
        place = index >> (height * RADIX_SHIFT) & RADIX_MASK
        below = state.radix_slot[node << RADIX_SHIFT | place]
        if below == 0:
            below = _new_node(state, node, place)
            if below == NIL:
                _free_empty(state, inode, node)
                return NIL
            state.radix_slot[node << RADIX_SHIFT | place] = below
            state.radix_node[node].nr_used += 1
        node = below
    state.radix_slot[node << RADIX_SHIFT | index & RADIX_MASK] = pfn
    state.radix_node[node].nr_used += 1
    return 0


@kernel
def radix_erase(state: "State", inode: int, index: int) -> None:
    """Forget the frame of page ``index``; nodes that are empty then go."""
    root = state.inode[inode]
    height = root.radix_height
    if height == 0:
        root.radix_root = 0
        return
    node = root.radix_root
    while height > 1:
        height -= 1
        node = state.radix_slot[node << RADIX_SHIFT | index >> (height * RADIX_SHIFT) & RADIX_MASK]
    state.radix_slot[node << RADIX_SHIFT | index & RADIX_MASK] = 0
    state.radix_node[node].nr_used -= 1
    _free_empty(state, inode, node)


@kernel
def radix_next(state: "State", inode: int, index: int) -> int:
    """Return the lowest page number from ``index`` on that has a frame, or NIL."""
    root = state.inode[inode]
    height = root.radix_height
    while root.radix_root != 0 and _is_in_reach(height, index):
        at = root.radix_root
        level = height
        while level > 0:
            level -= 1
            at = state.radix_slot[at << RADIX_SHIFT | index >> (level * RADIX_SHIFT) & RADIX_MASK]
            if at == 0:
                break
        if at != 0:
            return index
        span = level * RADIX_SHIFT
        index = ((index >> span) + 1) << span
        if height == 0:
            break
    return NIL
