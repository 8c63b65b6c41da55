"""Fragmenting: a few frames that stay for long, among many that come and go.

    |m|m|m|U|m|m|.|.|m|U|.|m|m|.|m|m|U|.|      m movable, soon free again; U unmovable, there to stay; . free

One frame in 32 is the kernel's own and lives fifty times as long as a user's page. Where the allocator lets
the two kinds mix, each of them spoils a block of the large orders for as long as it lives. One request in 64
is for a block of order 4 that lives as long as a page, and may fail.

Sources: M. Gorman, A. Whitcroft, The What, the Why and the Where To of Anti-Fragmentation, OLS 2006; M.
Gorman, P. Healy, Supporting Superpage Allocation without Additional Hardware Support, ISMM 2008 (the unusable
free space index, and grouping pages by mobility); A. Panwar, N. Patel, K. Gopinath, A Case for Protecting
Huge Pages from the Kernel, APSys 2016 (unmovable pages that are scattered over the pageblocks). The shares
are a guess.

The pages of this trace are on no LRU list, so compaction cannot move them either; it is placement alone that
shows.
"""

from typing import Final

import numpy as np

from scenarios.alloc_events import Demand, Draws, Lives
from shared.alloc_kind import AllocKind
from shared.gfp_flags import GFP_HIGHUSER_MOVABLE, GFP_KERNEL, Gfp

SHARES: Final = 64
LARGE_SHARES: Final = 1
UNMOVABLE_SHARES: Final = 2
UNMOVABLE_FACTOR: Final = 50  # of their lifetimes
LARGE_ORDER: Final = 4  # above PAGE_ALLOC_COSTLY_ORDER: not worth calling the OOM killer for
ROW: Final = 32  # births in a row on one CPU
# SHARES * live = (SHARES - UNMOVABLE_SHARES) * mean + UNMOVABLE_SHARES * UNMOVABLE_FACTOR * mean
_MEANS: Final = SHARES - UNMOVABLE_SHARES + UNMOVABLE_SHARES * UNMOVABLE_FACTOR


def lives(draws: Draws, demand: Demand) -> Lives:
    """Return as many blocks as the trace has events."""
    count = demand.operations
    share = draws.below(SHARES, count)
    is_large = share < LARGE_SHARES
    is_unmovable = (share >= LARGE_SHARES) & (share < LARGE_SHARES + UNMOVABLE_SHARES)
    mean = demand.live * SHARES // _MEANS
    life = np.where(
        is_unmovable, draws.lifetimes(UNMOVABLE_FACTOR * mean, count), draws.lifetimes(mean, count)
    )
    cpu = draws.cpus(demand.cpus, ROW, count)
    gfp = np.where(is_unmovable, GFP_KERNEL, GFP_HIGHUSER_MOVABLE)
    gfp[is_large] |= Gfp.NORETRY | Gfp.NOWARN
    size = np.where(is_large, LARGE_ORDER, 0)
    kind = np.full(count, AllocKind.FRAMES, np.int64)
    return Lives(np.arange(count, dtype=np.int64), life, cpu, cpu, kind, size, gfp)
