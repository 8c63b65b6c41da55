"""Which records own which nodes and roots of the red-black trees (node/rbtree.py).

    rb_node   [ rmap_items | stable nodes | vmap areas | areas, by address | areas, by place in their file | chains ]
    rb_root   [ Tree ... | address spaces | inodes | anon_vmas ]

The node of record i of a pool is the i-th of that pool's part. Trees that belong to a record, an address space's
areas for example, have their root at that record's place.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from node.pool import Pool
from node.rbtree import Tree
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State


class NodePart(IntEnum):
    """Parts of the table of nodes, in its order."""

    RMAP_ITEM = 0
    STABLE_NODE = 1
    VMAP_AREA = 2
    AREA_BY_ADDRESS = 3
    AREA_BY_PLACE = 4  # in the file that it maps
    CHAIN = 5


# The pool whose records have a part's nodes; an area has two.
NODE_POOLS: Final = (
    Pool.RMAP_ITEM,
    Pool.STABLE_NODE,
    Pool.VMAP_AREA,
    Pool.VMA,
    Pool.VMA,
    Pool.ANON_VMA_CHAIN,
)
# Pools whose records have a root, in the order of their parts behind ``Tree``.
ROOT_POOLS: Final = (Pool.MM, Pool.INODE, Pool.ANON_VMA)


@kernel
def vmap_base(state: "State") -> int:
    """Return the node of vmap area 0, behind those of rmap_items and stable nodes."""
    return state.pool[Pool.RMAP_ITEM].capacity + state.pool[Pool.STABLE_NODE].capacity


@kernel
def vma_base(state: "State") -> int:
    """Return the node, in its address space's tree, of area 0."""
    return vmap_base(state) + state.pool[Pool.VMAP_AREA].capacity


@kernel
def file_vma_base(state: "State") -> int:
    """Return the node, in its file's tree, of area 0."""
    return vma_base(state) + state.pool[Pool.VMA].capacity


@kernel
def chain_base(state: "State") -> int:
    """Return the node, in its anon_vma's tree, of chain 0."""
    return vma_base(state) + 2 * state.pool[Pool.VMA].capacity


@kernel
def mm_root(mm_index: int) -> int:
    """Return the tree of an address space's areas."""
    return Tree.NR + mm_index


@kernel
def inode_root(state: "State", inode: int) -> int:
    """Return the tree of the areas that map a file (``i_mmap``)."""
    return Tree.NR + state.pool[Pool.MM].capacity + inode


@kernel
def anon_vma_root(state: "State", anon_vma: int) -> int:
    """Return the tree of an anon_vma's chains."""
    return Tree.NR + state.pool[Pool.MM].capacity + state.pool[Pool.INODE].capacity + anon_vma


# --- for checks and texts -------------------------------------------------------------------------------


def first_node(state: "State", part: NodePart) -> int:
    """Return the first node of a part of the table of nodes."""
    return sum(int(state.pool[pool].capacity) for pool in NODE_POOLS[:part])


def root_of(state: "State", pool: Pool, index: int) -> int:
    """Return the tree that belongs to a record."""
    before = ROOT_POOLS[: ROOT_POOLS.index(pool)]
    return Tree.NR + sum(int(state.pool[other].capacity) for other in before) + index
