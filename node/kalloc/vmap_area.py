r"""Areas of the kernel's mapped address space: which are free, which are used, which wait to be flushed.

    VMALLOC_START                                                                VMALLOC_LAST
    | busy |g| lazy | free | busy |g|                     free                     |
                      \                                  /
                       free areas, a red-black tree by address; every node knows the largest area
                       of its subtree (node/rb_max.py), so a search for "the lowest that fits" never
                       goes down in vain

                   [20..24) 9              an area and the largest of its subtree: to find 3 pages, go left
                   /        \              while the left subtree has 3; here it ends at [10..13) without
            [10..13) 3    [40..49) 9       a look at [20..24)

One pool of records, and three trees of one kind: FREE_VMAP, BUSY_VMAP (vmap_area_root), and LAZY_VMAP, whose areas
are unmapped but not flushed (purge_vmap_area_root). Neighbours in a tree are merged when an area enters FREE or LAZY.

Linux: mm/vmalloc.c (augment_tree_propagate_from, merge_or_add_vmap_area, find_vmap_lowest_match).
# Differs from Linux: the records are the model's own, and take no memory of the machine (vmap_area_cachep, vm_struct).
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.pool import Pool, pool_free
from node.rb_max import change_own, erase_max, insert_max
from node.rbtree import Side, Tree
from node.tree_nodes import vmap_base
from shared.constants import NIL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

VMAP_AREA = np.dtype(
    [
        ("start", np.int64),  # signed addresses
        ("end", np.int64),  # behind the guard page
        ("paddr", np.int64),  # of an area of ioremap: what its first page maps
        ("nr_pages", np.int32),  # frames that are the area's own, and go with it
        ("vmap_flags", np.int32),  # VmapFlag bits
        ("caller", np.int32),  # VmapCaller
        ("tree", np.int32),  # Tree that the record is in
    ],
    align=True,
)
MAX_VMAP_AREAS: Final = 1 << 16  # Linux has no limit; a busy server has some thousands


class VmapFlag(IntEnum):
    """What an area is for, by Linux's bits (VM_..., include/linux/vmalloc.h)."""

    IOREMAP = 0x1
    ALLOC = 0x2
    MAP = 0x4
    FLUSH_RESET_PERMS = 0x100  # flushed at once when it goes: what it allowed, text, must not stay


class VmapCaller(IntEnum):
    """Who asked for an area, for /proc/vmallocinfo."""

    UNKNOWN = 0
    SWAPON = 1
    LOAD_MODULE = 2
    DRIVER = 3


class VmapStat(IntEnum):
    """Counters of ``state.vmap_stat``."""

    LAZY_PAGES = 0  # level: pages of areas that wait for a flush (vmap_lazy_nr)
    KERNEL_TABLES = 1  # level: page tables that were made for areas; they stay
    AREAS = 2  # areas handed out
    PURGES = 3  # times that the waiting areas were flushed together
    AREAS_PURGED = 4  # what was freed in them, areas merged in waiting counted once
    NO_SPACE = 5  # requests without a free area, or without a record for one
    NO_MEMORY = 6  # requests without a frame
    BAD_REQUEST = 7  # sizes and physical addresses that Linux refuses
    BAD_FREE = 8  # frees of what is no area
    NR = 16


@kernel
def area_of(state: "State", node: int) -> int:
    """Return the area of a tree node; NIL of NIL."""
    return NIL if node == NIL else node - vmap_base(state)


# --- trees ----------------------------------------------------------------------------------------------


@kernel
def insert_area(state: "State", tree: int, index: int) -> None:
    """Put an area into a tree, by its address."""
    area = state.vmap_area[index]
    area.tree = tree
    insert_max(state, tree, vmap_base(state) + index, area.start, area.end - area.start)


@kernel
def erase_area(state: "State", index: int) -> None:
    """Take an area out of its tree."""
    erase_max(state, state.vmap_area[index].tree, vmap_base(state) + index)


@kernel
def move_border(state: "State", index: int, start: int, end: int) -> None:
    """Let an area in a tree begin and end elsewhere, between the same neighbours."""
    area = state.vmap_area[index]
    area.start = start
    area.end = end
    node = vmap_base(state) + index
    state.rb_node[node].key = start
    change_own(state, node, end - start)


@kernel
def outermost_area(state: "State", tree: int, side: int) -> int:
    """Return a tree's first area (Side.LEFT) or its last (Side.RIGHT), or NIL."""
    node = state.rb_root[tree]
    found = NIL
    while node != NIL:
        found = node
        node = state.rb_node[node].left if side == Side.LEFT else state.rb_node[node].right
    return area_of(state, found)


@kernel
def area_at_or_below(state: "State", tree: int, vaddr: int) -> int:
    """Return the area of a tree with the greatest start that is not above ``vaddr``, or NIL."""
    node = state.rb_root[tree]
    found = NIL
    while node != NIL:
        if state.rb_node[node].key <= vaddr:
            found = node
            node = state.rb_node[node].right
        else:
            node = state.rb_node[node].left
    return area_of(state, found)


@kernel
def find_vmap_area(state: "State", vaddr: int) -> int:
    """Return the area in use that ``vaddr`` lies in, guard page included, or NIL."""
    index = area_at_or_below(state, Tree.BUSY_VMAP, vaddr)
    return index if index != NIL and vaddr < state.vmap_area[index].end else NIL


@kernel
def merge_or_add_area(state: "State", tree: int, index: int) -> None:
    """Put an area, in no tree now, into one; where it touches a neighbour, into that one's record."""
    area = state.vmap_area[index]
    before = area_at_or_below(state, tree, area.start)
    if before != NIL and state.vmap_area[before].end != area.start:
        before = NIL
    after = area_at_or_below(state, tree, area.end)
    if after != NIL and state.vmap_area[after].start != area.end:
        after = NIL
    if before == NIL and after == NIL:
        insert_area(state, tree, index)
        return
    end = area.end
    if before != NIL:
        if after != NIL:
            end = state.vmap_area[after].end
            erase_area(state, after)
            pool_free(state, Pool.VMAP_AREA, after)
        move_border(state, before, state.vmap_area[before].start, end)
    else:
        move_border(state, after, area.start, state.vmap_area[after].end)
    pool_free(state, Pool.VMAP_AREA, index)
