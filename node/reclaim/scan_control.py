"""What one reclaimer is about: how hard it looks, how far it is, what it found (struct scan_control).

Priority 12 looks at 1/4096 of each list, and each step towards 0 at twice as many pages. kswapd gives the
processor back between two batches of 32 pages, so its place in the work is kept here; a task that reclaims
directly uses a record of its own.

Linux: mm/vmscan.c (struct scan_control, prepare_scan_count, get_scan_count, inactive_is_low).
# Differs from Linux: there are no file pages yet, so ``vm.swappiness`` only slows the scan of anonymous ones
while free memory is above the high watermarks; one node, no memory cgroups.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from node.counters import Knob, VmStat
from node.phys.watermarks import high_mark
from node.reclaim.lru import LruList
from shared.constants import GIB, PAGE_SIZE
from shared.jit import kernel

if TYPE_CHECKING:
    from node.state import State

SCAN_CONTROL = np.dtype(
    [
        ("nr_to_reclaim", np.int64),
        ("nr_reclaimed", np.int64),
        ("nr_scanned", np.int64),  # in this pass
        ("pass_reclaimed", np.int64),
        ("left_inactive", np.int64),  # of this pass: pages still to look at
        ("left_active", np.int64),
        ("nr_taken", np.int64),  # of this pass: pages looked at on the inactive list
        ("nr_writeback", np.int64),  # of these: found under writeback
        ("nr_immediate", np.int64),  # ... again, though kswapd knows that all were: it must wait
        ("nap_end_ps", np.int64),  # kswapd: end of its nap
        ("priority", np.int32),
        ("order", np.int32),
        (
            "alloc_order",
            np.int32,
        ),  # kswapd: of the request it was woken for, though ``order`` was given up since
        ("may_deactivate", np.int32),  # the active list may be shrunk
        ("force_deactivate", np.int32),
        ("skipped_deactivate", np.int32),
        ("node_writeback", np.int32),  # kswapd: a whole pass met pages under writeback only (PGDAT_WRITEBACK)
        ("phase", np.int32),  # kswapd: KswapdPhase
        ("highest_zone", np.int32),  # that whoever needs memory can use: ZoneId
        ("nr_pageout", np.int32),  # of this batch: writes started
    ],
    align=True,
)

DEF_PRIORITY: Final = 12
SWAP_CLUSTER_MAX: Final = 32  # pages of a batch
MAX_SWAPPINESS: Final = 200
PAGES_PER_GIB_SHIFT: Final = (GIB // PAGE_SIZE).bit_length() - 1
RATIO_FACTOR: Final = 10
HIGHEST_RATIO_BIT: Final = 1 << 11  # 4095 is the ratio of 1.6 PiB of memory


class Reclaimer(IntEnum):
    """Who reclaims: records of ``state.scan_control``."""

    KSWAPD = 0
    DIRECT = 1


NR_RECLAIMERS: Final = len(Reclaimer)


class KswapdPhase(IntEnum):
    """What kswapd does when it runs next."""

    SLEEPING = 0
    NAPPING = 1  # balanced, but asleep for 100 ms only
    STARTING = 2  # about to start a pass
    SHRINKING = 3  # in a pass


@kernel
def nr_free_swap(state: "State") -> int:
    """Return how many more pages fit into swap."""
    area = state.swap_area[0]
    return max(area.nr_slots - 1, 0) - area.nr_used


@kernel
def _int_sqrt(square: int) -> int:
    root = 0
    bit = HIGHEST_RATIO_BIT
    while bit != 0:
        if (root + bit) * (root + bit) <= square:
            root += bit
        bit >>= 1
    return root


@kernel
def inactive_is_low(state: "State") -> int:
    """Return whether the inactive list is shorter than it should be beside the active one.

    The active list may be sqrt(10 x GiB of both) times as long, and as long below 1 GiB.
    """
    inactive = state.lru[LruList.INACTIVE_ANON].nr_pages
    active = state.lru[LruList.ACTIVE_ANON].nr_pages
    gib = (inactive + active) >> PAGES_PER_GIB_SHIFT
    ratio = _int_sqrt(RATIO_FACTOR * gib) if gib else 1
    return 1 if inactive * ratio < active else 0


@kernel
def high_watermarks(state: "State", at_least: int) -> int:
    """Return the sum of all zones' high watermarks, each counted as ``at_least`` if it is less."""
    total = 0
    for zone in range(len(state.zone)):
        if state.zone[zone].managed != 0:
            total += max(high_mark(state, zone), at_least)
    return total


@kernel
def _file_is_tiny(state: "State", which: int) -> int:
    control = state.scan_control[which]
    if state.vm_stat[VmStat.NR_FREE_PAGES] > high_watermarks(state, 0) or control.may_deactivate:
        return 0
    return 1 if state.lru[LruList.INACTIVE_ANON].nr_pages >> control.priority else 0


@kernel
def _anon_share(state: "State", nr_pages: int) -> int:
    """Return the part of ``nr_pages`` to look at, by swappiness and what anonymous pages cost of late."""
    swappiness = state.knob[Knob.SWAPPINESS]
    cost = state.lru[LruList.INACTIVE_ANON].cost
    # The cost of anonymous pages counts twice in their own share, once in that of (absent) file pages.
    total = 3 * cost + 1
    anon = swappiness * total // (2 * cost + 1)
    file = (MAX_SWAPPINESS - swappiness) * total // (cost + 1)
    return nr_pages * anon // (anon + file)


@kernel
def start_pass(state: "State", which: int) -> None:
    """Set how many pages of each list the next pass looks at, and its counts to zero."""
    control = state.scan_control[which]
    control.pass_reclaimed = 0
    control.nr_scanned = 0
    control.nr_taken = 0
    control.nr_writeback = 0
    control.nr_immediate = 0
    control.may_deactivate = 1 if control.force_deactivate else inactive_is_low(state)
    inactive = 0
    active = 0
    if nr_free_swap(state) > 0:
        inactive = state.lru[LruList.INACTIVE_ANON].nr_pages >> control.priority
        active = state.lru[LruList.ACTIVE_ANON].nr_pages >> control.priority
        last_resort = control.priority == 0 and state.knob[Knob.SWAPPINESS] != 0
        if not last_resort and not _file_is_tiny(state, which):
            inactive = _anon_share(state, inactive)
            active = _anon_share(state, active)
    control.left_inactive = inactive
    control.left_active = active
