"""How much of the free memory is of use to a request for a block: the two indices of external fragmentation.

    free      [4]  [8]  [4]  [16]              frames in blocks; 32 frames are free
    order 3   blocks of 8 or more have 24 of them     unusable index (32 - 24) / 32 = 0.250
    order 5   none has 32                             unusable index 1.000; fragmentation index, see below

The *unusable free space index* of an order is the share of the free frames that stand in smaller blocks: 0 is
no fragmentation, 1 means that no request of the order can be served. Without free memory it is 1.

The *fragmentation index* says why a request of the order would fail: towards 0 because too little is free,
towards 1 because it lies in pieces. Where the request would not fail it is -1. Compaction is worth its
while above ``vm.extfrag_threshold``.

Both are thousandths, rounded as Linux does. For reports they are of all zones of a machine together; frames on
per-CPU lists are no free blocks, as in Linux.

Linux: mm/vmstat.c (fill_contig_page_info, unusable_free_index, __fragmentation_index), as
/sys/kernel/debug/extfrag shows them for each zone; M. Gorman, P. Healy, Supporting Superpage Allocation without
Additional Hardware Support, ISMM 2008.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from node.phys.buddy import NR_ORDERS
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

THOUSAND: Final = 1000
WOULD_NOT_FAIL: Final = -THOUSAND


def free_blocks(state: "State") -> list[int]:
    """Return the number of free blocks of each order, of all zones."""
    counts: list[int] = np.asarray(state.free_area)["nr_free"].reshape(-1, NR_ORDERS).sum(axis=0).tolist()
    return counts


def unusable_index(blocks: Sequence[int], order: int) -> int:
    """Return the thousandths of the free frames that a request of ``order`` has no use for."""
    free = _frames(blocks, 0)
    if free == 0:
        return THOUSAND
    return (free - _frames(blocks, order)) * THOUSAND // free


def fragmentation_index(blocks: Sequence[int], order: int) -> int:
    """Return the thousandths to which pieces, and not lack, would make a request of ``order`` fail; or -1000."""
    nr_blocks = sum(blocks)
    if nr_blocks == 0:
        return 0
    if any(blocks[order:]):
        return WOULD_NOT_FAIL
    return THOUSAND - (THOUSAND + _frames(blocks, 0) * THOUSAND // (1 << order)) // nr_blocks


@kernel
def zone_fragmentation_index(state: "State", zone: int, order: int) -> int:
    """Return the fragmentation index of one zone, for compaction to decide by."""
    nr_blocks = 0
    nr_frames = 0
    for at in range(NR_ORDERS):
        nr_free = state.free_area[zone * NR_ORDERS + at].nr_free
        if nr_free and at >= order:
            return WOULD_NOT_FAIL
        nr_blocks += nr_free
        nr_frames += nr_free << at
    if nr_blocks == 0:
        return 0
    return THOUSAND - (THOUSAND + nr_frames * THOUSAND // (1 << order)) // nr_blocks


def _frames(blocks: Sequence[int], first_order: int) -> int:
    return sum(count << order for order, count in enumerate(blocks) if order >= first_order)
