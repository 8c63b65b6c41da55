"""What hardware and kernel paths cost: one table in cycles, each default with its source.

A scenario overrides a cost by its name in lower case and says the clock; both become picoseconds once, when
a machine is built, in exact arithmetic. So a kernel adds an integer to a clock, and a table is the same on
every computer.

Where a source gives time, it is converted at REFERENCE_GHZ, the clock of the computers that were measured.
"Fitted" costs are shares of one measured total; the comment shows the sum.

Sources:
    [Opt]    Intel, 64 and IA-32 Architectures Optimization Reference Manual: cache parameters of the Skylake
             client microarchitecture; performance monitoring, cost of a second-level TLB hit
    [pti]    Linux 6.1, Documentation/x86/pti.rst: moves to CR3 are on the order of a hundred cycles
    [tlb]    Linux 6.1, arch/x86/mm/tlb.c, at tlb_single_page_flush_ceiling: about 100 ns a single flush
    [Amit]   Amit, Tai, Wei: Don't shoot down TLB shootdowns!, EuroSys 2020 (a shootdown: thousands of cycles)
    [golden] the computer of the kernel goldens: 0.75 M first-touch faults a second, one thread
    [ksm]    a real host's ksmd over four paused guests: 3.45 us of CPU a page scanned, 2.33 M in 13 scans
    [pcid]   A. Lutomirski, x86/mm: Try to preserve old TLB entries using PCID, linux-kernel, July 2017: two
             processes that wake one another on a CPU take 1.22 us each with PCID, 1.33 us without, Skylake
    [kaiser] D. Hansen, KAISER: unmap most of the kernel from userspace page tables, linux-kernel, October
             2017: 5.2 M lseeks a second without isolation, whose CR3 writes add a few hundred cycles to each
    [vmexit] kvm-unit-tests, x86/vmexit.c on Skylake-class servers: about 1300 cycles for an exit and entry
    [i7]     Levinthal, Performance Analysis Guide for Intel Core i7 and Xeon 5500: data source latencies, page 22
    [Kane]   G. Kane, MIPS RISC Architecture, chapter 6: the UTLB miss exception and its handler
    [Brouer] J. D. Brouer, slub bulk alloc: extract objects from the per cpu slab (994eb764ec5a), and slub: initial
             bulk free implementation (fbd02630c6e3), 2015: slab_bulk_test01 on a Core i7-4790K at 4 GHz
    [Brouer2] J. D. Brouer, slab: implement bulk free in SLAB allocator (e6cdb58d1c83), 2016: as [Brouer]
    [guess]  no source found; of the size that similar paths above have
"""

from collections.abc import Mapping
from enum import IntEnum
from fractions import Fraction
from typing import Any, Final

import numpy as np

from shared.constants import INT64_MAX

REFERENCE_GHZ: Final = Fraction("2.6")
PS_PER_CYCLE_AT_1_GHZ: Final = 1000
CLOCK_RANGE_GHZ: Final = (Fraction("0.1"), Fraction(10))


class Cost(IntEnum):
    """Places in ``state.cost``, in picoseconds once built."""

    TLB_L1_HIT = 0
    TLB_L2_HIT = 1
    WALK_REFERENCE = 2
    PAGE_FAULT = 3
    PAGE_ZERO = 4
    PAGE_COPY = 5
    TLB_FLUSH_ONE = 6
    CR3_WRITE = 7
    IPI = 8
    EPT_VIOLATION = 9
    KSM_SCAN_PAGE = 10
    KSM_CHECKSUM = 11
    KSM_COMPARE = 12
    KSM_MERGE = 13
    RECLAIM_SCAN = 14
    SWAP_PATH = 15
    MEMORY_ACCESS = 16
    CONTEXT_SWITCH = 17
    IPI_HANDLER = 18
    SYSCALL = 19
    REFILL_TRAP = 20
    UNCACHED_ACCESS = 24
    CACHE_HIT = 25
    CACHE_MISS = 26
    CACHE_TRANSFER = 27
    TRANSLATION_STAGE = 28
    SLOB_CALL = 44
    SLOB_BLOCK = 45
    VMAP_AREA = 46
    VMAP_PAGE = 47
    SLUB_ALLOC_FAST = 48
    SLUB_FREE_FAST = 49
    SLUB_ALLOC_SLOW = 50
    SLUB_FREE_SLOW = 51
    SLUB_NODE_LIST = 52
    SLUB_NEW_OBJECT = 53
    SLAB_DEBUG = 54
    COMPACT_SCAN = 55
    MIGRATE_PAGE = 56
    SLAB_ARRAY = 58
    SLAB_BATCH = 59
    SLAB_OBJECT_MOVE = 60
    SLAB_GROW = 61
    SLAB_REAP = 62
    NR = 64


DEFAULT_CYCLES: Final[Mapping[Cost, int]] = {
    # A load that hits the TLB and the first-level data cache takes 5 cycles, look-up included [Opt].
    Cost.TLB_L1_HIT: 1,
    Cost.MEMORY_ACCESS: 4,
    Cost.TLB_L2_HIT: 7,  # besides the miss in the first level [Opt]
    Cost.WALK_REFERENCE: 12,  # latency of the second-level cache, where hot tables are [Opt]
    # 2.6 GHz / 0.75 M faults = 3467 cycles = exception, handler and the page's zeroing [golden].
    Cost.PAGE_FAULT: 3211,
    Cost.PAGE_ZERO: 256,  # 4096 bytes at 16 a cycle, between what stores to L1 and to L2 reach [Opt]
    Cost.PAGE_COPY: 512,  # as many bytes read as written [Opt]
    Cost.TLB_FLUSH_ONE: 260,  # 100 ns [tlb]
    # Of the order of a hundred cycles [pti], the two of a system call a few hundred [kaiser]; refills are extra.
    Cost.CR3_WRITE: 200,
    Cost.IPI: 4000,  # of the CPU that sends and waits, however many receive [Amit]
    Cost.IPI_HANDLER: 1000,  # of each CPU that is interrupted [Amit]
    Cost.CONTEXT_SWITCH: 3050,  # 1.25 us [pcid], less its write of CR3, which is charged by itself
    Cost.SYSCALL: 499,  # 192 ns: a cheap system call without page-table isolation [kaiser]
    # Taking the exception, and the nine instructions of the R3000's handler, one of them a load that waits.
    Cost.REFILL_TRAP: 15,  # [Kane]
    # Exit and entry, and in between a minor fault of the host: 1300 + 3467 [vmexit], [golden].
    Cost.EPT_VIOLATION: 4767,
    # Fitted to [ksm], in us: 2.33 M pages looked at (0.5 each), 1.07 M of them, calm and unmerged, with a
    # checksum (0.4) and 32 comparisons in two trees (0.175 each), 0.18 M on the first pass with a checksum
    # only, 0.09 M merged (4 each): 1.17 + 0.43 + 5.99 + 0.07 + 0.36 = 8.0 s of CPU, as measured.
    Cost.KSM_SCAN_PAGE: 1300,
    Cost.KSM_CHECKSUM: 1040,
    Cost.KSM_COMPARE: 455,
    Cost.KSM_MERGE: 10400,
    Cost.RECLAIM_SCAN: 800,  # a page isolated, its reverse map walked, put back or on: 0.3 us [guess]
    # Local DRAM: 60 ns [i7]. A cache miss pays it after the look-up, an access to uncached memory instead.
    Cost.UNCACHED_ACCESS: 156,
    Cost.CACHE_MISS: 156,
    # A hit in the first-level data cache [Opt], [i7]; also each further copy that a write finds there, since a
    # cache writes one line at a time.
    Cost.CACHE_HIT: 4,
    Cost.CACHE_TRANSFER: 75,  # a line that another core has modified [i7]; so much, too, to drop its copies
    Cost.TRANSLATION_STAGE: 1,  # a stage of a pipeline is one cycle long
    # SLOB: lock, list and header, and each free block that it looks at, a load that hits the second-level cache [Opt].
    Cost.SLOB_CALL: 60,  # [guess]
    Cost.SLOB_BLOCK: 12,
    Cost.COMPACT_SCAN: 12,  # a frame's descriptor, which was fetched ahead into the second-level cache [Opt]
    Cost.MIGRATE_PAGE: 1600,  # a page isolated, its reverse map walked twice, put back, besides the copy [guess]
    Cost.VMAP_AREA: 500,  # an area found in the tree, cut out of it and put into another: 0.2 us [guess]
    Cost.VMAP_PAGE: 30,  # an entry of the master page table written or cleared [guess]
    # A pair through the fast paths: 42 cycles [Brouer], shared evenly.
    Cost.SLUB_ALLOC_FAST: 21,
    Cost.SLUB_FREE_FAST: 21,
    # 158 objects of 256 bytes allocated, then freed: 100 cycles a pair [Brouer], of which the loop takes 3. Slabs
    # have 32 objects, so 5 allocations and 128 frees are slow: 45 + 5/158 * (80 - 21) + 128/158 * (87 - 21) = 100.
    Cost.SLUB_FREE_SLOW: 87,
    Cost.SLUB_ALLOC_SLOW: 80,  # the fast path, interrupts off and on (37 [Brouer]), a locked cmpxchg16b [guess]
    Cost.SLUB_NODE_LIST: 57,  # interrupts off and on, and a lock that nobody else holds [guess]
    Cost.SLUB_NEW_OBJECT: 4,  # one link written into a slab that is new to the cache [guess]
    Cost.SLAB_DEBUG: 500,  # an object's bytes looked at and written, its user noted [guess]
    # SLAB: an object into or out of a CPU's array, half of the 87 cycles of both [Brouer2]; where that is full or
    # empty also the node's lock and lists, two lines that another CPU had [i7], and for each object that leaves or
    # enters its slab its descriptor and number, four loads that hit the second-level cache [Opt]; a slab made,
    # besides its frames and its objects; a cache that cache_reap looks at, two lines from memory [i7].
    Cost.SLAB_ARRAY: 43,
    Cost.SLAB_BATCH: 150,
    Cost.SLAB_OBJECT_MOVE: 48,
    Cost.SLAB_GROW: 1000,  # [guess]
    Cost.SLAB_REAP: 312,
    Cost.SWAP_PATH: 7800,  # CPU of one page's swap-out or swap-in without the device: 3 us [guess]
}


def cost_table_ps(clock_ghz: Fraction, overrides: Mapping[str, int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return ``state.cost``: [Cost.NR] picoseconds, rounded down; ``overrides`` are cycles by name.

    Raises ValueError for a clock outside 0.1 to 10 GHz, a name that is no cost, a cost that is negative or
    does not fit, or a memory access that takes no time (an epoch with endless workloads would never end).
    """
    low, high = CLOCK_RANGE_GHZ
    if not low <= clock_ghz <= high:
        raise ValueError(f"clock: {clock_ghz} GHz is outside {low}..{high} GHz")
    cycles = dict(DEFAULT_CYCLES)
    for name, value in overrides.items():
        cost = _cost_named(name)
        if value < 0:
            raise ValueError(f"cost.{name}: {value} cycles is negative")
        cycles[cost] = value
    table = np.zeros(Cost.NR, np.int64)
    for cost, value in cycles.items():
        ps = int(value * PS_PER_CYCLE_AT_1_GHZ / clock_ghz)
        if ps > INT64_MAX:
            raise ValueError(
                f"cost.{cost.name.lower()}: {value} cycles is more than a clock of picoseconds holds"
            )
        table[cost] = ps
    if table[Cost.MEMORY_ACCESS] == 0:
        raise ValueError("cost.memory_access: 0 ps; time would stand still")
    return table


def _cost_named(name: str) -> Cost:
    for cost in DEFAULT_CYCLES:
        if cost.name.lower() == name:
            return cost
    known = ", ".join(sorted(cost.name.lower() for cost in DEFAULT_CYCLES))
    raise ValueError(f"cost.{name}: no such cost; there are {known}")
