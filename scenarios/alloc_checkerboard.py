"""Checkerboard: every other frame stays for good, the worst that external fragmentation can be.

    2 x live frames are taken one by one    |K|K|K|K|K|K|K|K|
    every second of them is given back      |K|.|K|.|K|.|K|.|      half is free, and no two frames of it are neighbours
    then single frames come and go          |K|m|K|.|K|.|K|.|

All are the kernel's, and none can be moved. They are taken from the reserves too (__GFP_MEMALLOC), so that no block
is left over. After three events for each frame that stays the board is complete.

Source: J. M. Robson, An Estimate of the Store Size Necessary for Dynamic Storage Allocation, JACM 18 (1971): what
stays is placed so that what goes leaves holes that are as small as possible.
"""

import numpy as np

from scenarios.alloc_events import Demand, Draws, Lives
from shared.alloc_kind import AllocKind
from shared.gfp_flags import GFP_KERNEL, Gfp


def lives(draws: Draws, demand: Demand) -> Lives:
    """Return as many frames as the trace has events."""
    count = demand.operations
    number = np.arange(count, dtype=np.int64)
    board = 2 * demand.live
    life = np.where(number % 2 == 0, count + board, board)
    life[number >= board] = 0
    born = np.where(number < board, number, number + board)
    cpu = draws.cpus(demand.cpus, board, count)
    return Lives(
        born,
        life,
        cpu,
        cpu,
        kind=np.full(count, AllocKind.FRAMES, np.int64),
        size=np.zeros(count, np.int64),
        gfp=np.full(count, GFP_KERNEL | Gfp.MEMALLOC | Gfp.NORETRY, np.int64),
    )
