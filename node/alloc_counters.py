"""What a machine that replays allocation traces reports of them: metrics by name, for results and charts.

    alloc_...          what was asked for, taken, refused, and the cycles that it took
    alloc_path_...     which way allocations and frees of objects went (node/alloc_paths.py): fast, own, shared, grow
    slub. slab. slob.  the allocator's own counters, of all its caches together, by Linux's names where it has them
    buddy_order_N      free blocks of an order;  unusable_order_N, extfrag_order_N: node/phys/fragmentation.py

Machines without allocation traces report none of these.
"""

from fractions import Fraction
from typing import TYPE_CHECKING, Final

from node.alloc_paths import path_counters
from node.alloc_trace import NR_FAILED_ORDERS, AllocStat
from node.counters import VmStat
from node.phys.fragmentation import fragmentation_index, free_blocks, unusable_index
from shared.constants import PAGE_SIZE, PS_PER_NS

if TYPE_CHECKING:
    from node.state import State

_PS_TIMES_GHZ: Final = PS_PER_NS  # picoseconds times GHz are thousandths of cycles
_SLAB_STATS: Final = (VmStat.NR_SLAB_RECLAIMABLE, VmStat.NR_SLAB_UNRECLAIMABLE)


def alloc_counters(state: "State", clock_ghz: Fraction) -> dict[str, int]:
    """Return the counters of a machine's allocation traces; none if it has no such trace."""
    if not len(state.alloc_event):
        return {}
    stat = {one: int(state.alloc_stat[one]) for one in AllocStat if one is not AllocStat.NR}
    held = stat[AllocStat.FRAMES] + stat[AllocStat.VMALLOC_FRAMES]
    held += sum(int(state.vm_stat[one]) for one in _SLAB_STATS)
    values = {
        "alloc_count": stat[AllocStat.ALLOCATED],
        "alloc_free_count": stat[AllocStat.FREED],
        "alloc_failures": stat[AllocStat.FAILED],
        "alloc_free_skipped": stat[AllocStat.FREE_SKIPPED],
        "alloc_free_refused": stat[AllocStat.FREE_REFUSED],
        "alloc_asked_bytes": stat[AllocStat.ASKED_BYTES],
        "alloc_taken_bytes": stat[AllocStat.TAKEN_BYTES],
        "alloc_held_bytes": held * PAGE_SIZE,
        "alloc_cycles": cycles(stat[AllocStat.ALLOC_PS], clock_ghz),
        "alloc_free_cycles": cycles(stat[AllocStat.FREE_PS], clock_ghz),
        "alloc_wait_ns": stat[AllocStat.WAIT_PS] // PS_PER_NS,
    }
    for order in range(NR_FAILED_ORDERS):
        failed = int(state.alloc_stat[AllocStat.FAILED_ORDER + order])
        if failed:
            values[f"alloc_failed_order_{order}"] = failed
    return values | path_counters(state) | _fragmentation(state)


def cycles(ps: int, clock_ghz: Fraction) -> int:
    """Return how many whole cycles of the clock a time in picoseconds is."""
    return int(ps * clock_ghz / _PS_TIMES_GHZ)


def _fragmentation(state: "State") -> dict[str, int]:
    blocks = free_blocks(state)
    values = {f"buddy_order_{order}": count for order, count in enumerate(blocks)}
    for order in range(1, len(blocks)):  # of order 0 all free memory is usable
        values[f"unusable_order_{order}"] = unusable_index(blocks, order)
        values[f"extfrag_order_{order}"] = fragmentation_index(blocks, order)
    return values
