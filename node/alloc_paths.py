"""Which way allocations and frees of objects went: the allocators' own counters, summed over caches and CPUs.

                fast                 own                        shared                    grow
    SLUB        the CPU's freelist   what others freed into     the node's partial list   a new slab, or frames
                                     the CPU's slab, its
                                     own partial slabs
    SLAB        the CPU's array      -                          shared array, slabs       a new slab
    SLOB        -                    -                          the lists of pages        a new page, or frames

*fast* and *own* take no lock that another CPU may hold; own is SLUB's slow path without one. *shared* and
*grow* do, and grow takes frames from the page allocator besides. Frees have the first three: to the CPU's
freelist or array; into a slab that stays where it is; onto or off a list that CPUs share.

``alloc_lockless`` and ``free_lockless`` count the operations that took no lock at all and did not turn
interrupts off either: SLUB's fast paths, and its frees into a slab that stays where it is. SLAB turns
interrupts off for every operation (slab_alloc_node, ___cache_free), SLOB takes its one lock for each, and
SLUB's slow allocation takes its CPU's local lock (Linux 6.1: mm/slub.c, mm/slab.c, mm/slob.c).

Of SLUB's frees, those that put a slab on the node's list or take it off, and those that overflow the CPU's
partial slabs, count as shared.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from node.counters import Knob
from node.kalloc.kmem_cache import Allocator
from node.kalloc.slob_page import SlobStat
from node.kalloc.slub_records import LargeStat, SlubStat

if TYPE_CHECKING:
    from node.state import State

FREE_WAYS: Final = ("fast", "own", "shared")
ALLOC_WAYS: Final = (*FREE_WAYS, "grow")
_SLAB_ARRAY: Final = ("alloc_hit", "alloc_miss", "free_hit", "free_miss")
_SLAB_CACHE: Final = (
    "grown",
    "reaped",
    "refill_shared",
    "refill_partial",
    "refill_free",
    "refill_new",
    "grow_failed",
    "node_allocs",
    "node_frees",
)


def path_counters(state: "State") -> dict[str, int]:
    """Return the counters of the machine's object allocator, and alloc_path_... and free_path_... made of them."""
    read = {Allocator.SLUB: _slub, Allocator.SLAB: _slab, Allocator.SLOB: _slob}
    return read[Allocator(int(state.knob[Knob.ALLOCATOR]))](state)


def _sums(records: np.ndarray[Any, Any], fields: tuple[str, ...]) -> dict[str, int]:
    return {field: int(records[field].sum()) for field in fields}


def _named(
    allocator: str, counters: Mapping[str, int], alloc: tuple[int, ...], free: tuple[int, ...]
) -> dict[str, int]:
    """Return the counters by name; ``alloc`` and ``free`` stand in the order of the ways."""
    values = {f"{allocator}.{name}": value for name, value in counters.items()}
    values |= {f"alloc_path_{way}": count for way, count in zip(ALLOC_WAYS, alloc, strict=True)}
    values |= {f"free_path_{way}": count for way, count in zip(FREE_WAYS, free, strict=True)}
    return values | {"alloc_lockless": 0, "free_lockless": 0}


def _slub(state: "State") -> dict[str, int]:
    sums = np.asarray(state.slub_stat).reshape(-1, SlubStat.NR).sum(axis=0)
    own = {one.name.lower(): int(sums[one]) for one in SlubStat if one is not SlubStat.NR}
    own |= _sums(np.asarray(state.kmem_cache_cpu), ("alloc_fastpath", "free_fastpath"))
    large = np.asarray(state.kmalloc_large)
    own |= {"large_alloc": int(large[LargeStat.ALLOCATED]), "large_free": int(large[LargeStat.FREED])}
    slow = own["alloc_slowpath"]
    grown = min(own["alloc_slab"], slow)
    listed = min(own["alloc_from_partial"], slow - grown)
    slow_free = own["free_slowpath"]
    relisted = min(own["free_add_partial"] + own["free_remove_partial"] + own["cpu_partial_drain"], slow_free)
    return _named(
        "slub",
        own,
        (own["alloc_fastpath"], slow - grown - listed, listed, grown + own["large_alloc"]),
        (own["free_fastpath"], slow_free - relisted, relisted + own["large_free"]),
    ) | {
        "alloc_lockless": own["alloc_fastpath"],
        "free_lockless": own["free_fastpath"] + max(slow_free - relisted - own["cpu_partial_free"], 0),
    }


def _slab(state: "State") -> dict[str, int]:
    own = _sums(np.asarray(state.slab_array), _SLAB_ARRAY) | _sums(np.asarray(state.slab_cache), _SLAB_CACHE)
    grown = min(own["grown"], own["alloc_miss"])
    return _named(
        "slab",
        own,
        (own["alloc_hit"], 0, own["alloc_miss"] - grown, grown),
        (own["free_hit"], 0, own["free_miss"]),
    )


def _slob(state: "State") -> dict[str, int]:
    own = {one.name.lower(): int(state.slob_stat[one]) for one in SlobStat if one is not SlobStat.NR}
    grown = own["new_pages"] + own["large_allocs"]
    return _named(
        "slob",
        own,
        (0, 0, own["first_page_hits"] + own["later_page_hits"], grown),
        (0, 0, own["frees"] + own["large_frees"]),
    )
