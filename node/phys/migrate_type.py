"""Migrate types, and pageblocks: runs of 512 frames that are given to one type each, against fragmentation.

    pageblock   | movable | movable | unmovable | movable | reclaimable | ...       2 MiB each

One frame that can never move spoils the block of 2**order frames around it for ever. So requests that cannot
move are kept together, in pageblocks of their type, and a free block is on the list of its pageblock's type.
The record of a pageblock also says in which zone it lies: a frame's zone is looked up here.

Linux: include/linux/mmzone.h (enum migratetype), include/linux/pageblock-flags.h.
# Differs from Linux: a pageblock is 2 MiB on 32-bit machines without PAE too, where Linux takes 4 MiB, and zones
begin and end at pageblocks.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.phys.zone import PAGEBLOCK_ORDER
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

PAGEBLOCK = np.dtype(
    [
        ("zone", np.int32),  # index in state.zone, or NIL: nothing but a hole in the RAM
        ("migrate_type", np.int8),
        ("skip", np.int8),  # 1: a scanner of compaction found nothing here
        ("spare", np.int16),
    ],
    align=True,
)


class MigrateType(IntEnum):
    """What the frames of a pageblock are for."""

    UNMOVABLE = 0
    MOVABLE = 1
    RECLAIMABLE = 2
    HIGHATOMIC = 3  # kept for high-order requests that cannot wait
    ISOLATE = 4  # nothing is allocated from here


NR_PCP_TYPES: Final = 3  # those below have lists at each CPU, and fall back to one another
NR_MIGRATE_TYPES: Final = len(MigrateType)


@kernel
def zone_of(state: "State", pfn: int) -> int:
    """Return the index of the zone in which a frame of RAM lies."""
    return state.pageblock[pfn >> PAGEBLOCK_ORDER].zone


@kernel
def pageblock_type(state: "State", pfn: int) -> int:
    """Return the ``MigrateType`` of a frame's pageblock."""
    return state.pageblock[pfn >> PAGEBLOCK_ORDER].migrate_type
