"""Pools: records of one type handed out and taken back in constant time, from a table that never moves.

    records  [ in use | free | in use | in use | never used ........ ]
                        ^free list            ^mark                  ^capacity

A record comes from the free list, last freed first, or from the mark, which only rises: what lies behind
it was never touched and costs no memory. Index 0 of every pool is never handed out, so that a link of 0 in
a zeroed record means nothing. A full pool is a failure of the model that its caller returns.
"""

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from shared.constants import NIL
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

POOL = np.dtype(
    [
        ("first_link", np.int64),  # of this pool's links in pool_link
        ("capacity", np.int32),
        ("mark", np.int32),  # records below it have been handed out at least once
        ("first_free", np.int32),
        ("nr_used", np.int32),
    ],
    align=True,
)


class Pool(IntEnum):
    """Which table a pool hands out records of."""

    MM = 0
    VMA = 1
    ANON_VMA = 2
    ANON_VMA_CHAIN = 3
    RMAP_ITEM = 4
    STABLE_NODE = 5
    VMAP_AREA = 6
    INODE = 7
    RADIX_NODE = 8
    NR = 9


@kernel
def pool_alloc(state: "State", which: int) -> int:
    """Return the index of an unused record of pool ``which``, or NIL if it is full."""
    pool = state.pool[which]
    index = pool.first_free
    if index != NIL:
        pool.first_free = state.pool_link[pool.first_link + index]
    elif pool.mark < pool.capacity:
        index = pool.mark
        pool.mark = index + 1
    else:
        return NIL
    pool.nr_used += 1
    return index


@kernel
def pool_free(state: "State", which: int, index: int) -> None:
    """Take back a record that ``pool_alloc`` handed out."""
    pool = state.pool[which]
    state.pool_link[pool.first_link + index] = pool.first_free
    pool.first_free = index
    pool.nr_used -= 1
