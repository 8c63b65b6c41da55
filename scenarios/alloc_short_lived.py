"""Short-lived small objects: what system calls allocate, use, and free again on the same CPU.

Nineteen of twenty objects die young; the rest live twenty times as long and are what the young ones' slabs are
kept alive by. A CPU serves some requests in a row before another takes over.

    one object in 20      |----------------------------------------------|
    the others            |--|  |-|   |---|  |-|  |--|    |-|

Sources: J. Bonwick, The Slab Allocator: An Object-Caching Kernel Memory Allocator, USENIX Summer 1994 (kernel
objects are few sizes, allocated and freed again and again; the sizes that kmem_alloc was asked for); D.
Barrett, B. Zorn, PLDI 1993 (more than 90 % of the bytes are short-lived). The weights are a guess: half of
the objects come from caches of their own, and a size is asked for about as often as its bytes are few.
"""

from typing import Final

import numpy as np

from scenarios.alloc_events import Demand, Draws, Lives, What
from shared.alloc_kind import AllocKind
from shared.gfp_flags import GFP_KERNEL

OBJECTS: Final = (
    # Objects with caches of their own, bytes on x86-64: dentry 192, vm_area_struct 200, file 232, inode 608.
    What(AllocKind.OBJECT, 192, GFP_KERNEL, 24),
    What(AllocKind.OBJECT, 232, GFP_KERNEL, 16),
    What(AllocKind.OBJECT, 200, GFP_KERNEL, 8),
    What(AllocKind.OBJECT, 608, GFP_KERNEL, 4),
    What(AllocKind.KMALLOC, 24, GFP_KERNEL, 16),
    What(AllocKind.KMALLOC, 40, GFP_KERNEL, 12),
    What(AllocKind.KMALLOC, 64, GFP_KERNEL, 8),
    What(AllocKind.KMALLOC, 96, GFP_KERNEL, 4),
    What(AllocKind.KMALLOC, 160, GFP_KERNEL, 4),
    What(AllocKind.KMALLOC, 400, GFP_KERNEL, 2),
    What(AllocKind.KMALLOC, 1100, GFP_KERNEL, 1),
    What(AllocKind.KMALLOC, 4096, GFP_KERNEL, 1),
)
LONG_ONE_IN: Final = 20
LONG_FACTOR: Final = 20
ROW: Final = 16  # births in a row on one CPU


def lives(draws: Draws, demand: Demand) -> Lives:
    """Return as many objects as the trace has events."""
    count = demand.operations
    is_long = draws.below(LONG_ONE_IN, count) == 0
    # (19 * short + 1 * 20 * short) / 20 = live
    short = demand.live * LONG_ONE_IN // (LONG_ONE_IN - 1 + LONG_FACTOR)
    life = np.where(is_long, draws.lifetimes(LONG_FACTOR * short, count), draws.lifetimes(short, count))
    cpu = draws.cpus(demand.cpus, ROW, count)
    kind, size, gfp = draws.choose(OBJECTS, count)
    return Lives(np.arange(count, dtype=np.int64), life, cpu, cpu, kind, size, gfp)
