"""Producers and consumers: allocated on one CPU, freed on another, first in, first out.

    CPU 0   +a +b +c +d          +e +f +g +h                 the first half of the CPUs produces,
    CPU 1                -a -b -c -d           -e -f ...     the second half consumes

Nothing that an allocator keeps for a CPU helps here by itself: what the consumer frees is of no use to it,
and the producer's lists run dry. SLAB has arrays of aliens for it, SLUB frees into a slab that is the other
CPU's.

Sources: P. Larson, M. Krishnan, Memory Allocation for Long-Running Server Applications, ISMM 1998 (objects
that one thread allocates and another frees); E. Berger, K. McKinley, R. Blumofe, P. Wilson, Hoard: A Scalable
Memory Allocator for Multithreaded Applications, ASPLOS 2000 (producer and consumer, blowup; its Larson
benchmark takes sizes of 10 to 100 bytes); J. Bonwick, J. Adams, Magazines and Vmem, USENIX 2001.
"""

from typing import Final

import numpy as np

from scenarios.alloc_events import Demand, Draws, Lives
from shared.alloc_kind import AllocKind
from shared.gfp_flags import GFP_KERNEL

SMALLEST: Final = 10  # bytes
LARGEST: Final = 100
BATCH: Final = 16  # objects handed over at a time
MIN_CPUS: Final = 2


def lives(draws: Draws, demand: Demand) -> Lives:
    """Return as many objects as the trace has events. Raises ``ValueError``, one line, for a single CPU."""
    if len(demand.cpus) < MIN_CPUS:
        raise ValueError(f"cpus: {list(demand.cpus)}: producers and consumers need two")
    count = demand.operations
    half = len(demand.cpus) // 2
    producers, consumers = np.array(demand.cpus[:half]), np.array(demand.cpus[half:])
    time = np.arange(count, dtype=np.int64)
    batch = time // BATCH
    # All of a batch dies when the batch that is ``live`` later has been born.
    death = (batch + max(demand.live // BATCH, 1)) * BATCH + BATCH - 1
    size = SMALLEST + draws.below(LARGEST - SMALLEST + 1, count)
    return Lives(
        time,
        death - time,
        producers[batch % len(producers)],
        consumers[batch % len(consumers)],
        np.full(count, AllocKind.KMALLOC, np.int64),
        size,
        np.full(count, GFP_KERNEL, np.int64),
    )
